"""Replaces nodes of a model by others that compute the same: ours, the standard op, or a user's."""

from custom_ops.onnx._replace.forms import sources
from custom_ops.onnx._replace.replace import replace
from custom_ops.onnx._replace.result import Change, Replacement

__all__ = ["Change", "Replacement", "replace", "sources"]
