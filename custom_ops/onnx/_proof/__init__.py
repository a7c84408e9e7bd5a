"""Runs a model before and after a change on the same random inputs, and compares the outputs."""

from custom_ops.onnx._proof.compare import Differs, compare
from custom_ops.onnx._proof.drawing import Feed, Undrawable, described, feeds, required
from custom_ops.onnx._proof.proof import Proof, Verdict

__all__ = [
    "Differs",
    "Feed",
    "Proof",
    "Undrawable",
    "Verdict",
    "compare",
    "described",
    "feeds",
    "required",
]
