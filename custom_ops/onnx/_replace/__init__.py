"""Replaces nodes of a model by others that compute the same: ours, the standard op, or a user's."""

from custom_ops.onnx._replace.forms import sources
from custom_ops.onnx._replace.replace import replace
from custom_ops.onnx._replace.result import Replacement
from custom_ops.onnx._replace.rules import Rule
from custom_ops.onnx._replace.shapes import same_shape, scalar

__all__ = ["Replacement", "Rule", "replace", "same_shape", "scalar", "sources"]
