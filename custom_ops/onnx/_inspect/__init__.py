"""Shows what is in a model, without loading its external data."""

from custom_ops.onnx._inspect.inspect import inspect
from custom_ops.onnx._inspect.inspection import Inspection

__all__ = ["Inspection", "inspect"]
