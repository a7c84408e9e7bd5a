"""Operators written once in C++, for PyTorch and ONNX Runtime.

The ops are functions and modules of this package; `custom_ops.numpy` has them for arrays, and
`custom_ops.onnx` has the tools for export and deployment, loaded when first used.
"""

import importlib
from typing import Any

from custom_ops import _library, numpy, ops
from custom_ops.ops.deform_conv2d import (
    DeformConv2d,
    accelerate_torchvision,
    convert,
    deform_conv2d,
)
from custom_ops.ops.mul_add import MulAdd, mul_add

__all__ = [
    "DeformConv2d",
    "MulAdd",
    "accelerate_torchvision",
    "convert",
    "deform_conv2d",
    "get_library_path",
    "mul_add",
    "numpy",
    "onnx",
    "ops",
]
__version__ = "0.1.0"


def get_library_path() -> str:
    """Returns the path of the kernel library, for sessions of one's own.

    Example:
        >>> import onnxruntime, custom_ops
        >>> options = onnxruntime.SessionOptions()
        >>> options.register_custom_ops_library(custom_ops.get_library_path())
    """
    return str(_library.library_path())


def __getattr__(name: str) -> Any:
    if name == "onnx":  # loads onnx, onnxscript and onnxruntime
        return importlib.import_module("custom_ops.onnx")
    raise AttributeError(f"module 'custom_ops' has no attribute {name!r}")
