"""Functions of one number, which an exporter lacks."""

import math
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import as_float, is_float
from custom_ops.onnx._mappings.registry import packed

torchscript: Any = {"since_opset": 15, "exporter": "torchscript"}


def log1p(op: Any, x: Any) -> Any:
    """Returns log(1 + x), exact for small x too (Kahan)."""
    u = op.Add(x, 1.0)
    rest = op.Sub(u, 1.0)
    exact = op.Div(op.Mul(op.Log(u), x), rest)
    plain = op.Or(op.Equal(rest, 0.0), op.IsInf(u))
    return op.Where(plain, op.Where(op.IsInf(u), op.Log(u), x), exact)


def expm1(op: Any, x: Any) -> Any:
    """Returns exp(x) - 1, exact for small x too (Kahan)."""
    u = op.Exp(x)
    rest = op.Sub(u, 1.0)
    exact = op.Div(op.Mul(rest, x), op.Log(u))
    ends = op.Or(op.Equal(rest, -1.0), op.IsInf(u))
    return op.Where(op.Equal(rest, 0.0), x, op.Where(ends, rest, exact))


def _standard(op: Any, name: str, x: Any) -> Any | None:
    """Returns what the standard op computes; runtimes have no kernel of these in float64."""
    return None if x.dtype is ir.DataType.DOUBLE else getattr(op, name)(x)


@packed("aten::asinh", **torchscript)
def _asinh(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    if standard := _standard(op, "Asinh", x):
        return standard
    size = op.Abs(x)
    root = op.Sqrt(op.Add(op.Mul(x, x), 1.0))
    value = log1p(op, op.Add(size, op.Mul(size, op.Div(size, op.Add(root, 1.0)))))
    big = op.Add(op.Log(size), math.log(2))  # where the square has no room
    return op.Mul(op.Sign(x), op.Where(op.IsInf(root), big, value))


@packed("aten::acosh", **torchscript)
def _acosh(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    if standard := _standard(op, "Acosh", x):
        return standard
    above = op.Sub(x, 1.0)
    return log1p(op, op.Add(above, op.Mul(op.Sqrt(above), op.Sqrt(op.Add(x, 1.0)))))


@packed("aten::atanh", **torchscript)
def _atanh(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    if standard := _standard(op, "Atanh", x):
        return standard
    return op.Mul(op.Sub(log1p(op, x), log1p(op, op.Neg(x))), 0.5)


@packed("aten::sinh", **torchscript)
def _sinh(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    if standard := _standard(op, "Sinh", x):
        return standard
    size = op.Abs(x)
    grown = expm1(op, size)
    value = op.Mul(op.Add(grown, op.Div(grown, op.Add(grown, 1.0))), 0.5)
    big = op.Exp(op.Sub(size, math.log(2)))
    return op.Mul(op.Sign(x), op.Where(op.IsInf(grown), big, value))


@packed("aten::cosh", **torchscript)
def _cosh(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    if standard := _standard(op, "Cosh", x):
        return standard
    return op.Mul(op.Add(op.Exp(x), op.Exp(op.Neg(x))), 0.5)


@packed("aten::expm1", **torchscript)
def _expm1(op: Any, self: Any) -> Any:
    return expm1(op, as_float(op, self))


@packed("aten::exp2", **torchscript)
@packed("aten::special_exp2", **torchscript)
def _exp2(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    return op.Pow(op.CastLike(2.0, x), x)


@packed("aten::trunc", **torchscript)
@packed("aten::fix", **torchscript)
def trunc(op: Any, self: Any) -> Any:
    """Rounds to zero."""
    if not is_float(self):
        return op.Identity(self)
    return op.Where(op.Less(self, 0.0), op.Ceil(self), op.Floor(self))


@packed("aten::frac", **torchscript)
def _frac(op: Any, self: Any) -> Any:
    return op.Sub(self, trunc(op, self))


@packed("aten::deg2rad", **torchscript)
def _deg2rad(op: Any, self: Any) -> Any:
    return op.Mul(as_float(op, self), math.pi / 180)


@packed("aten::rad2deg", **torchscript)
def _rad2deg(op: Any, self: Any) -> Any:
    return op.Mul(as_float(op, self), 180 / math.pi)


@packed("aten::sgn", **torchscript)
def _sgn(op: Any, self: Any) -> Any:
    sign = op.Sign(self)
    return op.Where(op.IsNaN(self), 0.0, sign) if is_float(self) else sign


@packed("aten::positive", **torchscript)
def _same(op: Any, self: Any) -> Any:
    return op.Identity(self)


def negative(op: Any, x: Any) -> Any:
    """Tells where the sign is negative, that of -0.0 included; a NaN counts as positive."""
    if not is_float(x):
        return op.Less(x, 0)
    return op.Or(op.Less(x, 0.0), op.Less(op.Div(1.0, x), 0.0))


@packed("aten::signbit", since_opset=15)
def _signbit(op: Any, self: Any) -> Any:
    return negative(op, self)


@packed("aten::isposinf", **torchscript)
def _isposinf(op: Any, self: Any) -> Any:
    return op.IsInf(as_float(op, self), detect_negative=0)


@packed("aten::isneginf", **torchscript)
def _isneginf(op: Any, self: Any) -> Any:
    return op.IsInf(as_float(op, self), detect_positive=0)


@packed("aten::isreal", **torchscript)
def _isreal(op: Any, self: Any) -> Any:
    return op.Expand(True, op.Shape(self))


@packed("aten::angle", since_opset=15)
def _angle(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    turned = op.Mul(op.Cast(op.Less(x, 0.0), to=x.dtype), math.pi)
    return op.Where(op.IsNaN(x), x, turned)


@packed("aten::sinc", **torchscript)
def _sinc(op: Any, self: Any) -> Any:
    x = op.Mul(as_float(op, self), math.pi)
    return op.Where(op.Equal(x, 0.0), 1.0, op.Div(op.Sin(x), x))


@packed("aten::special_entr", **torchscript)
def _entr(op: Any, self: Any) -> Any:
    x = as_float(op, self)
    inside = op.Neg(op.Mul(x, op.Log(x)))
    outside = op.Where(op.Less(x, 0.0), op.CastLike(-math.inf, x), 0.0)
    return op.Where(op.Or(op.Greater(x, 0.0), op.IsNaN(x)), inside, outside)
