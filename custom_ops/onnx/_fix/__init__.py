"""Mends models: versions, names and places of data; each change is proven or refused."""

from custom_ops.onnx._fix.fix import fix, set_ir_version
from custom_ops.onnx._fix.result import Change, Fixed

__all__ = ["Change", "Fixed", "fix", "set_ir_version"]
