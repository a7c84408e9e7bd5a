"""Runs two models in onnxruntime and compares them, in a process that may hang or crash.

Run by its path, with the work as JSON in stdin; it imports little, so that it starts fast. What
happened is written as lines of JSON, each when it happened.
"""

import gc
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime

# By its path, since the package would be imported with it, and torch.
run = runpy.run_path(str(Path(__file__).parents[1] / "_running.py"))["run"]


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _session(path: str, libraries: list[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Optimizations round in their own ways; what is compared is what the models mean.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for library in libraries:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _difference(before: Any, after: Any, tolerances: dict[str, list[float]]) -> float | str:
    """Returns the largest absolute difference, or what differs."""
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        if len(before) != len(after):
            return f"has {len(after)} elements, not {len(before)}"
        found = [_difference(a, b, tolerances) for a, b in zip(before, after, strict=True)]
        texts = [each for each in found if isinstance(each, str)]
        return texts[0] if texts else max((f for f in found if isinstance(f, float)), default=0.0)
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return 0.0 if repr(before) == repr(after) else "differs"
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"is {after.dtype}{list(after.shape)}, not {before.dtype}{list(before.shape)}"
    if before.dtype.kind not in "fc" and before.dtype != ml_dtypes.bfloat16:
        return 0.0 if bool(np.all(before == after)) else "differs"
    atol, rtol = tolerances.get(before.dtype.name, [0.0, 0.0])
    wide = np.complex128 if before.dtype.kind == "c" else np.float64
    before, after = before.astype(wide), after.astype(wide)
    finite = np.isfinite(before) & np.isfinite(after)
    apart = np.abs(np.where(finite, before - after, 0.0))
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    scale = float(np.abs(before[finite]).max(initial=0.0))
    allowed = atol + rtol * max(scale, 1.0)
    largest = float(apart.max(initial=0.0))
    return (
        largest
        if bool(np.all(same | (finite & (apart <= allowed))))
        else f"is off by {largest:.3g}"
    )


def _feeds(path: str, count: int, inputs: int) -> list[list[Any]]:
    with np.load(path) as file:
        return [[file[f"{i}_{j}"] for j in range(inputs)] for i in range(count)]


class _Stop(Exception):
    """There is nothing more to compare."""


def _expected(work: dict[str, Any], feeds: list[list[Any]]) -> dict[int, list[Any]]:
    """Returns what the original gives on the first feeds that it takes; says why if on none."""
    try:
        session = _session(work["before"], work["libraries"])
    except Exception as error:
        _say(before=str(error))
        return {}
    expected: dict[int, list[Any]] = {}
    refusal = ""
    for i in range(work["count"]):
        try:
            outputs = run(session, feeds[i], work["element_types"])
            again = run(session, feeds[i], work["element_types"])
        except Exception as error:
            refusal = refusal or str(error)
            continue
        if any(_difference(a, b, {}) != 0.0 for a, b in zip(outputs, again, strict=True)):
            _say(random=True)
            raise _Stop
        expected[i] = outputs
        if len(expected) == work["runs"]:
            break
    _say(before="" if expected else refusal)
    return expected


def _compare(
    session: Any, work: dict[str, Any], feeds: list[list[Any]], expected: dict[int, list[Any]]
) -> None:
    """Says how the outputs of the changed model differ, or whether it runs at all."""
    if not expected:
        refusal = ""
        for i in range(work["count"]):
            try:
                run(session, feeds[i], work["element_types"])
                refusal = ""
                break
            except Exception as error:
                refusal = refusal or str(error)
        _say(after=refusal)
        return
    names = [each.name for each in session.get_outputs()]
    for i, outputs in expected.items():
        got = run(session, feeds[i], work["element_types"])
        if len(got) != len(outputs):
            _say(after="", run=i, differs=f"it has {len(got)} outputs, not {len(outputs)}")
            raise _Stop
        found = [_difference(a, b, work["tolerances"]) for a, b in zip(outputs, got, strict=True)]
        pairs = zip(names, found, strict=True)
        texts = [f"output {name!r} {each}" for name, each in pairs if isinstance(each, str)]
        numbers = [each for each in found if isinstance(each, float)]
        _say(after="", run=i, differs="; ".join(texts), difference=max(numbers, default=0.0))


def _try(session: Any, work: dict[str, Any], feeds: list[list[Any]], trial: Any) -> None:
    """Says at which other sizes a model runs, and whether it computes each row on its own."""
    sizes: list[int] = []
    refusal = ""
    for size, i in trial["candidates"]:
        if size in sizes:
            continue
        try:
            run(session, feeds[i], work["element_types"])
            sizes.append(size)
        except Exception as error:
            refusal = refusal or f"at {size}: {error}"
        if len(sizes) == work["runs"]:
            break
    alone = None
    try:
        first, second, both = (
            run(session, feeds[i], work["element_types"]) for i in trial["split"]
        )
        triples = zip(first, second, both, strict=True)
        alone = all(_joined(a, b, c, work["tolerances"]) for a, b, c in triples)
    except Exception:  # it does not take twice the size, which may be right
        pass
    _say(trial=trial["label"], sizes=sizes, refusal=refusal, alone=alone)


def _joined(first: Any, second: Any, both: Any, tolerances: dict[str, list[float]]) -> bool:
    """Returns whether one result is the two others behind each other, or all are the same."""
    if not all(isinstance(each, np.ndarray) for each in (first, second, both)):
        return False
    if both.shape == first.shape:
        return all(isinstance(_difference(x, both, tolerances), float) for x in (first, second))
    axes = [i for i, (a, b) in enumerate(zip(first.shape, both.shape, strict=True)) if a != b]
    if len(axes) != 1:
        return False
    together = np.concatenate([first, second], axes[0])
    return isinstance(_difference(together, both, tolerances), float)


def _main() -> None:
    work = json.load(sys.stdin)
    feeds = _feeds(work["feeds"], work["all"], len(work["element_types"]))
    try:
        expected = _expected(work, feeds)
        gc.collect()  # the weights of one model at a time
        session = _session(work["after"], work["libraries"])
        _compare(session, work, feeds, expected)
        for trial in work["trials"]:
            _try(session, work, feeds, trial)
    except _Stop:
        return
    except Exception as error:
        _say(after=str(error))


if __name__ == "__main__":
    _main()
