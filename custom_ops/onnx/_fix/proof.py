"""Proves with onnxruntime that a changed model computes what it did."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from custom_ops.onnx._doctor.trial import shortened
from custom_ops.onnx._fix.drawing import Feed, Undrawable, feeds
from custom_ops.onnx._fix.result import Proof, Verdict
from custom_ops.ops._samples import TOLERANCES

SECONDS = 300.0
_RUNS = 2  # of different sizes, where sizes are open
_CHILD = Path(__file__).with_name("_proof_child.py")


class Differs(Exception):
    """What the changed model does that the original does not."""


def compare(
    inputs: Sequence[onnx.ValueInfoProto],
    before: Path,
    after: Path,
    libraries: Sequence[str | os.PathLike[str]],
    drawn: Sequence[Feed] = (),
    seconds: float = SECONDS,
) -> Proof:
    """Runs two models on the same random inputs, in another process.

    Args:
        inputs: Those of both, in order; names may differ.
        before: File of the original.
        after: File of the changed model.
        libraries: Libraries of custom ops that the sessions register.
        drawn: Inputs to run on; drawn by the model if left out.
        seconds: How long it may take.

    Returns:
        The proof, or why there is none.

    Raises:
        Differs: The outputs differ, or the changed model alone does not run.
    """

    def unproven(note: str, verdict: Verdict = Verdict.NOT_COMPARED) -> Proof:
        return Proof(verdict, note, release=onnxruntime.__version__)

    try:
        drawn = list(drawn) or list(feeds(inputs))
    except Undrawable as reason:
        return unproven(str(reason))
    lines, ended = _run(inputs, before, after, libraries, drawn, seconds)
    said: dict[str, Any] = {}
    for line in lines:
        said |= line
    if said.get("random"):
        return unproven("the original gives other outputs each time it runs")
    if "before" not in said:
        return unproven(f"the original {ended}")
    original, changed = (shortened(said.get(which, ended)) for which in ("before", "after"))
    if original:
        if changed:
            return unproven(f"the original does not run here: {original}; nor does this: {changed}")
        return unproven(f"the original does not run here: {original}", Verdict.ONLY_AFTER)
    if changed:
        raise Differs(f"it does not run as the original does: {changed}")
    runs = [line for line in lines if "run" in line]
    for line in runs:
        if line["differs"]:
            raise Differs(f"{line['differs']} on {drawn[line['run']].sizes}")
    sizes = tuple(drawn[line["run"]].sizes for line in runs)
    largest = max(line["difference"] for line in runs)
    return Proof(Verdict.EQUAL, "", sizes, largest, onnxruntime.__version__)


def _run(
    inputs: Sequence[onnx.ValueInfoProto],
    before: Path,
    after: Path,
    libraries: Sequence[str | os.PathLike[str]],
    drawn: Sequence[Feed],
    seconds: float,
) -> tuple[list[dict[str, Any]], str]:
    """Returns what the child said, and how it ended where it did not end well."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {
            f"{i}_{j}": _plain(array)
            for i, feed in enumerate(drawn)
            for j, array in enumerate(feed.arrays)
        }
        np.savez(os.path.join(folder, "feeds.npz"), **arrays)  # type: ignore[arg-type]
        work = {
            "before": os.fspath(before),
            "after": os.fspath(after),
            "libraries": [os.fspath(library) for library in libraries],
            "feeds": os.path.join(folder, "feeds.npz"),
            "count": len(drawn),
            "element_types": [each.type.tensor_type.elem_type for each in inputs],
            "runs": _RUNS,
            "tolerances": {name: [t.atol, t.rtol] for name, t in TOLERANCES.items()},
        }
        try:
            done = subprocess.run(
                [sys.executable, str(_CHILD)],
                input=json.dumps(work),
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
            output, ended = done.stdout, f"ended onnxruntime's process with {done.returncode}"
        except subprocess.TimeoutExpired as expired:
            output = (expired.stdout or b"").decode(errors="replace")
            ended = f"did not end within {seconds:g} s"
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], ended


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns an array of a dtype that NumPy can save: bits where it does not know the numbers."""
    if array.dtype.kind in "biufcU":
        return array
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
