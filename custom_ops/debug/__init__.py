"""Compares a torch module with its ONNX model, layer by layer, and names the guilty node."""

from custom_ops.debug._metrics import Details, Element, Metrics
from custom_ops.debug._result import Comparison, Fault, Unmatched, Value

__all__ = ["Comparison", "Details", "Element", "Fault", "Metrics", "Unmatched", "Value"]
