"""Moves onnx's own node models between opsets, and runs them before and after.

Each node model is moved to every opset at which its ops have another version; where the move is not
refused, onnxruntime must give the same on the inputs that onnx has for the model.

    python tools/check_opsets.py [--only PART_OF_A_NAME] [--skip PART_OF_A_NAME]

Exit code 1 where outputs differ. What onnxruntime does not run, before or after, is counted.
"""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.backend.test.case.node import collect_testcases

from custom_ops.onnx import target
from custom_ops.onnx._fix import opset

_TOLERANCES = {"float16": (2e-3, 2e-3), "float32": (1e-5, 1e-6), "float64": (1e-9, 1e-9)}


def _opset(model: onnx.ModelProto) -> int | None:
    return next((each.version for each in model.opset_import if not each.domain), None)


def _others(model: onnx.ModelProto, newest: int) -> Iterator[int]:
    """Yields opsets at which an op of the model has another version than at its own."""
    own = _opset(model)
    if own is None or not opset.LOWEST <= own <= newest:
        return
    seen = {_versions(model, own)}
    for number in range(opset.LOWEST, newest + 1):
        versions = _versions(model, number)
        if None not in versions and versions not in seen:
            seen.add(versions)
            yield number


def _versions(model: onnx.ModelProto, number: int) -> tuple[int | None, ...]:
    found = []
    for node in model.graph.node:
        schema = opset._schema(node.op_type, number) if not node.domain else None
        found.append(None if schema is None else schema.since_version)
    return tuple(found)


def _run(model: onnx.ModelProto, inputs: list[Any]) -> list[Any] | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        names = [each.name for each in session.get_inputs()]
        outputs: list[Any] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs
    except Exception:  # of any kind: what it does not run is not compared
        return None


def _same(before: list[Any], after: list[Any]) -> bool:
    for a, b in zip(before, after, strict=True):
        if isinstance(a, list):
            if len(a) != len(b) or not _same(a, b):
                return False
        elif a is None or b is None:
            if a is not b:
                return False
        else:
            a, b = np.asarray(a), np.asarray(b)
            if a.shape != b.shape or a.dtype != b.dtype:
                return False
            if a.dtype.kind in "fc":
                if not np.allclose(a, b, *_TOLERANCES.get(a.dtype.name, (0, 0)), equal_nan=True):
                    return False
            elif not np.array_equal(a, b):
                return False
    return True


def _moves(only: str, skip: str | None) -> Iterator[tuple[str, str]]:
    """Yields what came of each move, and its name."""
    newest = target().opset
    for case in collect_testcases(None):
        if case.model is None or only not in case.name or not case.data_sets:
            continue
        if skip is not None and skip in case.name:
            continue
        inputs = list(case.data_sets[0][0])
        before: list[Any] | None = None
        for number in _others(case.model, newest):
            name = f"{case.name} {_opset(case.model)} to {number}"
            moved = onnx.ModelProto()
            moved.CopyFrom(case.model)
            try:
                opset.set_opset(moved, number)
            except ValueError:
                yield "refused", name
                continue
            before = before or _run(case.model, inputs)
            if before is None:
                yield "original does not run", name
                continue
            after = _run(moved, inputs)
            if after is None:
                yield "moved one does not run", name
            else:
                yield "same" if _same(before, after) else "DIFFERS", name


def main() -> int:
    """Runs all, prints what differs and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--skip", help="leave out what has this in its name")
    parser.add_argument("--list", default="DIFFERS", help="print the moves that came to this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for outcome, name in _moves(arguments.only, arguments.skip):
        counts[outcome] += 1
        if outcome in ("DIFFERS", arguments.list):
            print(f"{outcome}: {name}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return 1 if counts["DIFFERS"] else 0


if __name__ == "__main__":
    sys.exit(main())
