"""Numbers and lists that a mapping writes, and the dtype that they take."""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from custom_ops.onnx._mappings.refusal import MappingRefused
from custom_ops.onnx._mappings.tensor import Tensor, dtype_name, is_floating


def is_number(value: Any) -> bool:
    """Returns whether a value is a Python number, or a list of them."""
    if isinstance(value, (list, tuple)):
        return all(is_number(each) for each in value)
    return isinstance(value, (bool, int, float))


def default_dtype(
    value: Any, allowed: Collection[str] | None, floating: ir.DataType
) -> ir.DataType:
    """Returns the dtype of a number that meets no tensor.

    Args:
        value: The number, list, or constant without a dtype.
        allowed: Types that the input takes, as schemas write them; None for all.
        floating: The dtype for fractions.
    """
    if isinstance(value, Tensor):
        value = value.number
    numbers = np.asarray(value if is_number(value) else 0)
    if numbers.size == 0 or numbers.dtype.kind == "i":
        wanted = ir.DataType.INT64
    elif numbers.dtype.kind == "b":
        wanted = ir.DataType.BOOL
    else:
        wanted = floating
    if allowed is None or f"tensor({dtype_name(wanted)})" in allowed:
        return wanted
    if f"tensor({dtype_name(floating)})" in allowed:
        return floating
    for other in (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL):
        if f"tensor({dtype_name(other)})" in allowed:
            return other
    return wanted


def array_of(value: Any, dtype: ir.DataType, name: str) -> Any:
    """Returns numbers in a dtype.

    Args:
        value: A number or a list.
        dtype: What they become.
        name: The op that is mapped, for the message.

    Raises:
        MappingRefused: The dtype has no such number, as int64 has no 0.5.
    """
    numbers = np.asarray(value)
    if dtype is ir.DataType.STRING:
        raise MappingRefused(f"{name}: a number must not meet strings, got {value!r}")
    cast = numbers.astype(dtype.numpy())
    exact = is_floating(dtype) or bool(np.array_equal(cast.astype(numbers.dtype), numbers))
    if not exact:
        raise MappingRefused(
            f"{name}: a number that meets a tensor of {dtype_name(dtype)} must be one of it, got "
            f"{value!r}; put an op.Cast before the tensor"
        )
    return cast


def fixed_array(value: Any) -> Any:
    """Returns a constant as what `ir.tensor` takes."""
    if isinstance(value, onnx.TensorProto):
        return ir.serde.deserialize_tensor(value).numpy()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, Tensor):
        raise MappingRefused("Constant: value must be a constant, got a tensor of the graph")
    return value.numpy() if isinstance(value, ir.TensorProtocol) else np.asarray(value)
