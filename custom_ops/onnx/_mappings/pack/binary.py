"""Functions of two numbers, which an exporter lacks or gets wrong."""

import math
from typing import Any

from custom_ops.onnx._mappings.pack._values import as_float, is_float, promoted
from custom_ops.onnx._mappings.pack.elementwise import log1p, negative
from custom_ops.onnx._mappings.registry import packed

both: Any = {"since_opset": 15, "exporter": "both"}


@packed("aten::floor_divide", **both)
def _floor_divide(op: Any, self: Any, other: Any) -> Any:
    # TorchScript's exporter rounds to zero, and dynamo's makes infinities of NaN.
    a, b = promoted(op, self, other)
    rest = op.Mod(a, b, fmod=1)
    quotient = op.Div(op.Sub(a, rest), b)
    other_sides = op.Xor(op.Less(rest, 0), op.Less(b, 0))
    below = op.And(op.Not(op.Equal(rest, 0)), other_sides)
    quotient = op.Where(below, op.Sub(quotient, 1), quotient)
    if not (is_float(self) or is_float(other)):
        return quotient
    floor = op.Floor(quotient)
    floor = op.Where(op.Greater(op.Sub(quotient, floor), 0.5), op.Add(floor, 1.0), floor)
    return op.Where(op.Equal(b, 0.0), op.Div(a, b), floor)


@packed("aten::copysign", **both)
def _copysign(op: Any, input: Any, other: Any) -> Any:
    a, b = promoted(op, as_float(op, input), as_float(op, other))
    size = op.Abs(a)
    return op.Where(negative(op, b), op.Neg(size), size)


@packed("aten::fmax", **both)
def _fmax(op: Any, self: Any, other: Any) -> Any:
    return _ignoring_nan(op, "Max", self, other)


@packed("aten::fmin", **both)
def _fmin(op: Any, self: Any, other: Any) -> Any:
    return _ignoring_nan(op, "Min", self, other)


def _ignoring_nan(op: Any, kind: str, self: Any, other: Any) -> Any:
    a, b = promoted(op, self, other)
    found = getattr(op, kind)(a, b)
    if not (is_float(self) or is_float(other)):
        return found
    return op.Where(op.IsNaN(a), b, op.Where(op.IsNaN(b), a, found))


@packed("aten::hypot", **both)
def _hypot(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, self, other)
    a, b = op.Abs(a), op.Abs(b)
    big, small = op.Max(a, b), op.Min(a, b)
    part = op.Div(small, op.Where(op.Equal(big, 0.0), 1.0, big))
    value = op.Mul(big, op.Sqrt(op.Add(op.Mul(part, part), 1.0)))
    return op.Where(op.Or(op.IsInf(a), op.IsInf(b)), math.inf, value)


@packed("aten::logaddexp", **both)
def _logaddexp(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, self, other)
    big = op.Max(a, b)
    value = op.Add(big, log1p(op, op.Exp(op.Neg(op.Abs(op.Sub(a, b))))))
    return op.Where(op.And(op.IsInf(a), op.Equal(a, b)), a, value)


@packed("aten::logaddexp2", **both)
def _logaddexp2(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, self, other)
    big, gap = op.Max(a, b), op.Neg(op.Abs(op.Sub(a, b)))
    value = op.Add(big, op.Div(log1p(op, op.Exp(op.Mul(gap, math.log(2)))), math.log(2)))
    return op.Where(op.And(op.IsInf(a), op.Equal(a, b)), a, value)


@packed("aten::xlogy", **both)
@packed("aten::special_xlogy", **both)
def _xlogy(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, as_float(op, self), as_float(op, other))
    return _times_log(op, a, b, op.Log(b))


@packed("aten::special_xlog1py", **both)
def _xlog1py(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, as_float(op, self), as_float(op, other))
    return _times_log(op, a, b, log1p(op, b))


def _times_log(op: Any, a: Any, b: Any, logarithm: Any) -> Any:
    zero = op.And(op.Equal(a, 0.0), op.Not(op.IsNaN(b)))
    return op.Where(zero, 0.0, op.Mul(a, logarithm))


@packed("aten::heaviside", **both)
def _heaviside(op: Any, self: Any, values: Any) -> Any:
    step = op.CastLike(op.Greater(self, 0), self)
    return op.Where(op.Equal(self, 0), values, step)


@packed("aten::isclose", **both)
def _isclose(
    op: Any, self: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    a, b = promoted(op, self, other)
    same = op.Equal(a, b)
    if is_float(self) and equal_nan:
        same = op.Or(same, op.And(op.IsNaN(a), op.IsNaN(b)))
    a, b = as_float(op, a), as_float(op, b)
    gap = op.Abs(op.Sub(a, b))
    room = op.Add(op.Mul(op.Abs(b), float(rtol)), float(atol))
    finite = op.Not(op.Or(op.IsInf(gap), op.IsNaN(gap)))
    return op.Or(same, op.And(finite, op.LessOrEqual(gap, room)))


@packed("aten::ldexp", **both)
def _ldexp(op: Any, self: Any, other: Any) -> Any:
    a, b = promoted(op, as_float(op, self), as_float(op, other))
    return op.Mul(a, op.Pow(op.CastLike(2.0, b), b))


@packed("aten::float_power", **both)
def _float_power(op: Any, self: Any, exponent: Any) -> Any:
    double = 11
    a, b = (
        op.Cast(x, to=double) if not isinstance(x, (int, float)) else float(x)
        for x in (self, exponent)
    )
    if isinstance(a, float):
        a = op.CastLike(a, b)
    return op.Pow(a, b)


@packed("aten::addcdiv", **both)
def _addcdiv(op: Any, self: Any, tensor1: Any, tensor2: Any, value: float = 1) -> Any:
    return op.Add(self, op.Mul(op.Div(tensor1, tensor2), value))
