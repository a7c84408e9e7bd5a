"""Proves with onnxruntime that a changed model computes what it did."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from custom_ops.onnx import _child
from custom_ops.onnx._doctor.trial import shortened
from custom_ops.onnx._fix.dynamic import Opened
from custom_ops.onnx._proof.drawing import Feed, Undrawable, feeds
from custom_ops.onnx._proof.proof import Proof, Verdict
from custom_ops.onnx._running import storable
from custom_ops.ops._samples import TOLERANCES

SECONDS = 300.0
_RUNS = 2  # of different sizes, where sizes are open
_CHILD = Path(__file__).with_name("child.py")


class Differs(Exception):
    """What the changed model does that the original does not."""


def compare(
    inputs: Sequence[onnx.ValueInfoProto],
    before: Path,
    after: Path,
    libraries: Sequence[str | os.PathLike[str]],
    opened: Sequence[Opened] = (),
    seconds: float = SECONDS,
    drawn: Sequence[Feed] = (),
) -> Proof:
    """Runs two models on the same inputs, in another process.

    Args:
        inputs: Those of both, in order; names may differ.
        before: File of the original.
        after: File of the changed model.
        libraries: Libraries of custom ops that the sessions register.
        opened: Sizes that the changed model alone leaves open; it is tried at others.
        seconds: How long it may take.
        drawn: The inputs; random ones if left out.

    Returns:
        The proof, or why there is none.

    Raises:
        Differs: The outputs differ, the changed model alone does not run, or at no other size.
    """

    def unproven(note: str, verdict: Verdict = Verdict.NOT_COMPARED) -> Proof:
        return Proof(verdict, note, release=onnxruntime.__version__)

    try:
        drawn = list(drawn) or list(feeds(inputs))
    except Undrawable as reason:
        return unproven(str(reason))
    trials, more = _trials(inputs, opened)
    for trial in trials:
        trial["candidates"] = [(size, i + len(drawn)) for size, i in trial["candidates"]]
        trial["split"] = [i + len(drawn) for i in trial["split"]]
    files = before, after, libraries
    lines, ended = _run(inputs, *files, drawn, more, trials, seconds)
    said: dict[str, Any] = {}
    for line in lines:
        said |= line
    if said.get("random"):
        return unproven("the original gives other outputs each time it runs")
    if "before" not in said:
        return unproven(f"the original {ended}")
    sizes_tried = tuple(_judged(line, opened) for line in lines if "trial" in line)
    original, changed = (shortened(said.get(which, ended)) for which in ("before", "after"))
    if original:
        if changed:
            return unproven(f"the original does not run here: {original}; nor does this: {changed}")
        note = f"the original does not run here: {original}"
        return unproven("; ".join((note, *sizes_tried)), Verdict.ONLY_AFTER)
    if changed:
        raise Differs(f"it does not run as the original does: {changed}")
    runs = [line for line in lines if "run" in line]
    for line in runs:
        if line["differs"]:
            raise Differs(f"{line['differs']} on {drawn[line['run']].sizes}")
    sizes = tuple(drawn[line["run"]].sizes for line in runs)
    largest = max(line["difference"] for line in runs)
    note = "; ".join(sizes_tried)
    return Proof(Verdict.EQUAL, note, sizes, largest, onnxruntime.__version__)


def _trials(
    inputs: Sequence[onnx.ValueInfoProto], opened: Sequence[Opened]
) -> tuple[list[dict[str, Any]], list[Feed]]:
    """Returns what to run at which other sizes, by the places of feeds, and the feeds."""
    trials: list[dict[str, Any]] = []
    more: list[Feed] = []
    for each in opened:
        candidates = []
        for size in each.others:
            for feed in feeds(_resized(inputs, each, size)):
                candidates.append((size, len(more)))
                more.append(feed)
        first, second = (next(feeds(inputs, seed=seed)) for seed in (1, 2))
        both = [
            np.concatenate([a, b], axes[0]) if axes else a
            for value, a, b in zip(inputs, first.arrays, second.arrays, strict=True)
            for axes in [[axis for name, axis in each.axes if name == value.name]]
        ]
        # What has not the size must be the same in all three.
        alone = [
            b if any(name == value.name for name, _ in each.axes) else a
            for value, a, b in zip(inputs, first.arrays, second.arrays, strict=True)
        ]
        split = [len(more), len(more) + 1, len(more) + 2]
        more += [first, Feed(tuple(alone), ""), Feed(tuple(both), "")]
        trials.append({"label": each.label, "candidates": candidates, "split": split})
    return trials, more


def _resized(
    inputs: Sequence[onnx.ValueInfoProto], opened: Opened, size: int
) -> list[onnx.ValueInfoProto]:
    resized = []
    for value in inputs:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        for name, axis in opened.axes:
            if name == value.name:
                copy.type.tensor_type.shape.dim[axis].dim_value = size
        resized.append(copy)
    return resized


def _judged(line: dict[str, Any], opened: Sequence[Opened]) -> str:
    """Returns what a trial of other sizes shows; raises where the old one is baked in."""
    (size,) = (each for each in opened if each.label == line["trial"])
    if not line["sizes"]:
        refusal = shortened(line["refusal"])
        raise Differs(f"{size.label} must stay {size.size}, which is baked in: {refusal}")
    if size.factors and not line["alone"]:
        raise Differs(
            f"{size.label} may have to stay {size.size}, by which {', '.join(size.factors)} "
            "multiplies or divides, and rows are not computed each on its own"
        )
    ran = f"{size.label} at {' and '.join(map(str, line['sizes']))} too"
    how = "each row is computed on its own" if line["alone"] else "outputs depend on all rows"
    return f"it runs with {ran}; {how}"


def _run(
    inputs: Sequence[onnx.ValueInfoProto],
    before: Path,
    after: Path,
    libraries: Sequence[str | os.PathLike[str]],
    drawn: Sequence[Feed],
    more: Sequence[Feed],
    trials: Sequence[dict[str, Any]],
    seconds: float,
) -> tuple[list[dict[str, Any]], str]:
    """Returns what the child said, and how it ended where it did not end well."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {
            f"{i}_{j}": storable(array)
            for i, feed in enumerate([*drawn, *more])
            for j, array in enumerate(feed.arrays)
        }
        np.savez(os.path.join(folder, "feeds.npz"), **arrays)  # type: ignore[arg-type]
        work = {
            "before": os.fspath(before),
            "after": os.fspath(after),
            "libraries": [os.fspath(library) for library in libraries],
            "feeds": os.path.join(folder, "feeds.npz"),
            "count": len(drawn),
            "all": len(drawn) + len(more),
            "trials": list(trials),
            "element_types": [each.type.tensor_type.elem_type for each in inputs],
            "runs": _RUNS,
            "tolerances": {name: [t.atol, t.rtol] for name, t in TOLERANCES.items()},
        }
        done = _child.run([_CHILD], work, seconds)
    if done.code is None:
        return done.answers, f"did not end within {seconds:g} s"
    return done.answers, f"ended onnxruntime's process with {done.code}"
