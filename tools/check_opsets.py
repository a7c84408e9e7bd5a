"""Moves onnx's own node models between opsets, and runs them before and after.

Each node model is moved to every opset at which its ops have another version, and back; where the
move is not refused, onnxruntime must give the same on the inputs that onnx has for the model.

    python tools/check_opsets.py [--only PART_OF_A_NAME] [--skip PART_OF_A_NAME] [--list OUTCOME]

Prints each move that went wrong, and how many came to what. Exit code 1 where a moved model gives
other outputs (where the original does not run: other outputs than onnx has for it), is against
ONNX's rules where the original is not, or is refused by onnxruntime for another reason than a
missing kernel. What onnxruntime has no kernel for is counted. Takes five minutes.
"""

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from doctor_models import inference_in_this_process

from custom_ops.onnx import target
from custom_ops.onnx._fix import opset

# The other version of an op may have another kernel, or none and run as the ops of its definition.
# Then the same terms are rounded at other places: by at most half an eps each time, of what is no
# larger than the largest of the output, or not much. Eight roundings may differ.
_EPS_OF_LARGEST = 4
_SHOWN = 300  # characters of a line
_BAD = ("differs", "not as onnx has it", "against the rules", "refused by onnxruntime")
_RANDOM = ("Bernoulli", "Random")


def _opset(model: onnx.ModelProto) -> int:
    """Returns a model's opset of ai.onnx; 0 where it has none."""
    return next((each.version for each in model.opset_import if not each.domain), 0)


def _others(model: onnx.ModelProto, newest: int) -> Iterator[int]:
    """Yields opsets at which an op of the model has another version than at its own."""
    own = _opset(model)
    if not opset.LOWEST <= own <= newest:
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


def _run(model: onnx.ModelProto, inputs: Sequence[Any]) -> list[Any] | str:
    """Returns the outputs, or why there are none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        pinned, feeds = _pinned(model, inputs)
        session = onnxruntime.InferenceSession(pinned.SerializeToString(), options)
        outputs: list[Any] = session.run(None, feeds)
        return outputs
    except Exception as error:  # of any kind: what it does not run is not compared
        return " ".join(str(error).split())


def _array(value: Any) -> Any:
    """Returns a value as sessions take it, which take no scalars of NumPy."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    """Returns a value of a type that NumPy has not as float32."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    value = _array(value)
    is_other = isinstance(value, np.ndarray) and not _is_numpys(value.dtype)
    return value.astype(np.float32) if is_other else value


def _is_numpys(dtype: np.dtype[Any]) -> bool:
    return dtype.type.__module__ == "numpy"


def _pinned(
    model: onnx.ModelProto, inputs: Sequence[Any]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Returns a model that takes and gives only what NumPy has, and its inputs by name.

    Inputs of other types (bfloat16, int4) become initializers, outputs are cast to float32.
    """
    pinned = onnx.ModelProto()
    pinned.CopyFrom(model)
    feeds = {}
    for value, given in zip(model.graph.input, map(_array, inputs), strict=True):
        if isinstance(given, onnx.TensorProto):
            tensor = pinned.graph.initializer.add()
            tensor.CopyFrom(given)
            tensor.name = value.name
        else:
            feeds[value.name] = given
    kept = [value for value in model.graph.input if value.name in feeds]
    del pinned.graph.input[:]
    pinned.graph.input.extend(kept)
    for value in pinned.graph.output:
        kind = value.type.tensor_type
        if kind.elem_type and not _is_numpys(helper.tensor_dtype_to_np_dtype(kind.elem_type)):
            kind.elem_type = onnx.TensorProto.FLOAT
            cast = helper.make_node("Cast", [value.name], [f"{value.name} cast"], to=1)
            value.name = cast.output[0]
            pinned.graph.node.append(cast)
    return pinned, feeds


def _against_rules(model: onnx.ModelProto) -> str:
    """Returns what the checker and strict inference say; "" if nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return " ".join(str(error).split())
    return ""


def _difference(before: Any, after: Any, share: float | None = None) -> str:
    """Returns how two outputs differ; "" if by no more than a share of the largest number."""
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return f"{len(before)} and {len(after)} outputs"
        pairs = zip(before, after, strict=True)
        return next(filter(None, (_difference(*pair, share) for pair in pairs)), "")
    if before is None or after is None:
        return "" if before is after else "one is None"
    a, b = np.asarray(before), np.asarray(after)
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"
    if a.dtype.kind not in "fc":
        return "" if np.array_equal(a, b) else "other values"
    finite = np.abs(a[np.isfinite(a)].astype(np.float64))
    share = _EPS_OF_LARGEST * float(np.finfo(a.dtype).eps) if share is None else share
    allowed = share * finite.max(initial=0)
    if np.allclose(a, b, rtol=0, atol=allowed, equal_nan=True):
        return ""
    worst = np.nanmax(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0)
    return f"{a.dtype} off by {worst:.2g}, largest {finite.max(initial=0):.2g}"


def _moved(model: onnx.ModelProto, number: int) -> onnx.ModelProto | str:
    """Returns a model at another opset, or why it is refused."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    try:
        opset.set_opset(moved, number)
    except ValueError as error:
        return str(error)
    return moved


def _outcome(case: Any, before: list[Any] | str, moved: onnx.ModelProto) -> tuple[str, str]:
    """Returns what came of a move, and the reason."""
    fault = _against_rules(moved)
    if fault and not _against_rules(case.model):
        return "against the rules", fault
    after = _run(moved, case.data_sets[0][0])
    if isinstance(after, str):
        if isinstance(before, str):
            return "run at neither", after
        missing = "NOT_IMPLEMENTED" in after
        return "without a kernel" if missing else "refused by onnxruntime", after
    if isinstance(before, str):
        found = _difference([_plain(each) for each in case.data_sets[0][1]], after, case.rtol)
        return "not as onnx has it" if found else "as onnx has it", found
    found = _difference(before, after)
    return "differs" if found else "same", found


def _moves(only: str, skip: str | None) -> Iterator[tuple[str, str]]:
    """Yields what came of each move, and its name with the reason."""
    newest = target().opset
    for case in collect_testcases(None):
        if case.model is None or only not in case.name or not case.data_sets:
            continue
        if skip is not None and skip in case.name:
            continue
        if any(node.op_type.startswith(_RANDOM) for node in case.model.graph.node):
            continue
        own, before = _opset(case.model), None
        for number in _others(case.model, newest):
            name = f"{case.name} {own} to {number}"
            there = _moved(case.model, number)
            if isinstance(there, str):
                yield "refused by fix", f"{name}: {there}"
                continue
            before = before or _run(case.model, case.data_sets[0][0])
            outcome, reason = _outcome(case, before, there)
            yield outcome, f"{name}: {reason}"
            back = _moved(there, own)
            if isinstance(back, str):
                yield "refused on the way back", f"{name} and back: {back}"
            else:
                outcome, reason = _outcome(case, before, back)
                yield outcome, f"{name} and back: {reason}"


def main() -> int:
    """Runs all, prints what differs and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--skip", help="leave out what has this in its name")
    parser.add_argument("--list", action="append", default=[*_BAD], help="print what came to this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    with inference_in_this_process():
        for outcome, name in _moves(arguments.only, arguments.skip):
            counts[outcome] += 1
            if outcome in arguments.list:
                print(f"{outcome}: {name[:_SHOWN]}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return 1 if any(counts[outcome] for outcome in _BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
