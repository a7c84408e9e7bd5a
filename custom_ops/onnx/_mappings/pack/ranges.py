"""Equally spaced numbers between two tensors, which both exporters get wrong for one step."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import default_float
from custom_ops.onnx._mappings.registry import packed
from custom_ops.onnx._mappings.tensor import is_floating


def _spaced(op: Any, start: Any, end: Any, steps: Any, dtype: Any, inner: Any) -> Any:
    """Returns the numbers, computed from the nearer end as torch does.

    Args:
        op: The ops.
        start: The first number.
        end: The last one; left out where there is one step.
        steps: How many.
        dtype: That of the result: for integers both ends are made so first.
        inner: The dtype that it is computed and returned in.
    """
    kinds = [inner] if is_floating(dtype) else [dtype, inner]
    for kind in kinds:
        start, end = op.Cast(start, to=kind), op.Cast(end, to=kind)
    # TorchScript's exporter makes float32 of what meets float64 without dimensions.
    start, end = op.Reshape(start, [1]), op.Reshape(end, [1])
    number = op.Range(0, op.Squeeze(steps), 1)
    last = op.Sub(steps, 1)
    step = op.Div(op.Sub(end, start), op.Cast(op.Max(last, [1]), to=inner))
    forth = op.Add(start, op.Mul(step, op.Cast(number, to=inner)))
    back = op.Sub(end, op.Mul(step, op.Cast(op.Sub(last, number), to=inner)))
    return op.Where(op.Less(number, op.Max(op.Div(steps, 2), 1)), forth, back)


@packed("aten::linspace", since_opset=13, wide=False)
def _linspace(op: Any, start: Any, end: Any, steps: Any, *, dtype: Any = None) -> Any:
    dtype = dtype or default_float()
    inner = ir.DataType.FLOAT if dtype.itemsize < 4 and is_floating(dtype) else dtype
    inner = inner if is_floating(dtype) else ir.DataType.DOUBLE
    return op.Cast(_spaced(op, start, end, steps, dtype, inner), to=dtype)


@packed("aten::logspace", since_opset=13, wide=False)
def _logspace(
    op: Any, start: Any, end: Any, steps: Any, base: float = 10.0, *, dtype: Any = None
) -> Any:
    dtype, double = dtype or default_float(), ir.DataType.DOUBLE
    # The powers in float64, of exponents in the type of the result: integers have float32 ones.
    inner = double if dtype is double else ir.DataType.FLOAT
    exponents = op.Cast(_spaced(op, start, end, steps, dtype, inner), to=double)
    return op.Cast(op.Pow(op.Cast(float(base), to=double), exponents), to=dtype)
