"""Batch normalization by the statistics of the batch, which dynamo computes by the running ones."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack.reductions import mean
from custom_ops.onnx._mappings.registry import packed


def _statistics(op: Any, x: Any) -> tuple[Any, Any, Any]:
    """Returns mean and variance of each channel, and the number of elements of one."""
    axes = [i for i in range(x.rank) if i != 1]
    middle = mean(op, x, axes, True)
    gap = op.Sub(x, middle)
    square = mean(op, op.Mul(gap, gap), axes)
    count = op.CastLike(op.ReduceProd(op.Gather(op.Shape(x), axes), keepdims=0), x)
    return op.Squeeze(middle, axes), square, count


def _normalized(op: Any, x: Any, weight: Any, bias: Any, middle: Any, inverse: Any) -> Any:
    shape = [1, -1] + [1] * (x.rank - 2)
    scale = inverse if weight is None else op.Mul(inverse, weight)
    value = op.Mul(op.Sub(x, op.Reshape(middle, shape)), op.Reshape(scale, shape))
    return value if bias is None else op.Add(value, op.Reshape(bias, shape))


def _by_batch(op: Any, x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    """Returns the result, mean, inverse deviation, variance and count."""
    if x.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        raise op.refusal(
            f"input must be float32 or float64 in training mode, got {x.dtype}; call eval()"
        )
    middle, variance, count = _statistics(op, x)
    inverse = op.Div(1.0, op.Sqrt(op.Add(variance, float(eps))))
    value = _normalized(op, x, weight, bias, middle, inverse)
    return value, middle, inverse, variance, count


@packed("aten::native_batch_norm", since_opset=18, exporter="dynamo", wide=False)
@packed("aten::_native_batch_norm_legit", since_opset=18, exporter="dynamo", wide=False)
def _native_batch_norm(
    op: Any,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    if not training:
        return NotImplemented
    return _by_batch(op, input, weight, bias, eps)[:3]


@packed("aten::_native_batch_norm_legit_functional", since_opset=18, exporter="dynamo", wide=False)
def _functional(
    op: Any,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    if not training:
        return NotImplemented
    value, middle, inverse, variance, count = _by_batch(op, input, weight, bias, eps)
    unbiased = op.Mul(variance, op.Div(count, op.Sub(count, 1.0)))
    kept = 1.0 - momentum
    new_mean = op.Add(op.Mul(running_mean, kept), op.Mul(middle, float(momentum)))
    new_var = op.Add(op.Mul(running_var, kept), op.Mul(unbiased, float(momentum)))
    return value, middle, inverse, new_mean, new_var
