"""Dtypes and sizes, as torch has them, of the tensors and numbers that a mapping is given."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from custom_ops.onnx._mappings.tensor import Tensor, is_floating

_TORCH: dict[ir.DataType | None, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT64: torch.int64,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}
_ONNX = {dtype: code for code, dtype in _TORCH.items() if code is not None}


def default_float() -> ir.DataType:
    """Returns the dtype that torch takes for real numbers where none is given."""
    return _ONNX[torch.get_default_dtype()]


def is_float(x: Any) -> bool:
    """Returns whether a tensor or number is of a real floating-point type."""
    return isinstance(x, float) or (isinstance(x, Tensor) and is_floating(x.dtype))


def as_float(op: Any, x: Any) -> Any:
    """Returns a tensor that functions of real numbers take: integers become float32."""
    if not isinstance(x, Tensor):
        return float(x)
    return x if is_float(x) else op.Cast(x, to=ir.DataType.FLOAT)


def promoted(op: Any, *values: Any) -> list[Any]:
    """Returns operands in the dtype that torch computes them in; numbers stay numbers."""
    examples = [
        torch.empty([1] * bool(v.rank), dtype=_TORCH[v.dtype]) if isinstance(v, Tensor) else v
        for v in values
    ]
    result = examples[0]
    for other in examples[1:]:
        dtype = torch.result_type(result, other)
        rank = max(x.dim() if isinstance(x, torch.Tensor) else 0 for x in (result, other))
        result = torch.empty([1] * rank, dtype=dtype)
    wanted = _ONNX[result.dtype]
    return [
        op.Cast(v, to=wanted)
        if isinstance(v, Tensor) and v.dtype != wanted
        else (float(v) if is_floating(wanted) and not isinstance(v, Tensor) else v)
        for v in values
    ]


def axis_of(x: Tensor, dim: int) -> int:
    """Returns a dimension counted from the front."""
    return dim % x.rank if x.rank else 0


def known_size(op: Any, x: Tensor, dim: int, why: str) -> int:
    """Returns a size that must be fixed.

    Raises:
        MappingRefused: It is dynamic.
    """
    size = x.shape[dim] if x.shape is not None else None
    if size is None:
        raise op.refusal(f"dimension {dim} must have a fixed size, got a dynamic one; {why}")
    return size


def number_like(op: Any, value: float, x: Tensor) -> Any:
    """Returns a constant in the dtype of a tensor, for inputs that may have another one."""
    assert x.dtype is not None
    return op.Constant(value=np.asarray(value, x.dtype.numpy()))
