"""Cuts a piece out of a model: between tensors, between nodes, or a torch module."""

from custom_ops.onnx._extract.extract import extract
from custom_ops.onnx._extract.result import Extraction

__all__ = ["Extraction", "extract"]
