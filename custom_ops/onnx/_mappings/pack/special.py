"""The error functions and the normal distribution, computed in float64."""

import math
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import as_float
from custom_ops.onnx._mappings.pack.elementwise import log1p
from custom_ops.onnx._mappings.registry import packed

both: Any = {"since_opset": 15, "exporter": "both"}
torchscript: Any = {"since_opset": 15, "exporter": "torchscript"}

# exp(x^2) erfc(x) times (x + 3), as a polynomial of 1 - 6 / (x + 3): the interpolation at the
# Chebyshev points of degree 22; its relative error on x >= 0 is below 2e-14.
_ERFCX = (
    1.074006907088342,
    -0.88339445316984122,
    0.59022835710350752,
    -0.31046726190396828,
    0.11952776131361038,
    -0.026827234544587325,
    -0.0012124170736644167,
    0.0030340611429291739,
    -0.00054830585047474642,
    -0.00027677278065110414,
    0.00010754236247741433,
    3.038015852474058e-05,
    -1.7411604344290577e-05,
    -4.7089116309428434e-06,
    2.6493507903069258e-06,
    9.4127527399509936e-07,
    -2.6216481352963927e-07,
    -1.8184516153743727e-07,
    -6.6851024040142455e-08,
    2.3142606748834877e-08,
    4.7830247279742466e-08,
    -7.8959957413051438e-10,
    -9.7308024440122682e-09,
)

# Wichura's algorithm AS 241: numerators and denominators for the middle and both tails.
_MIDDLE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_NEAR = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def horner(op: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """Returns a polynomial; the coefficients begin with that of x to the power 0."""
    value = op.Add(op.Mul(x, coefficients[-1]), coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        value = op.Add(op.Mul(value, x), coefficient)
    return value


def wide(op: Any, x: Any) -> Any:
    """Returns a tensor in float64."""
    return op.Cast(x, to=ir.DataType.DOUBLE)


def narrow(op: Any, value: Any, x: Any) -> Any:
    """Returns a float64 result in the dtype that torch gives for an input."""
    return op.CastLike(value, as_float(op, x))


def _scaled(op: Any, x: Any) -> Any:
    """Returns exp(x^2) erfc(x) for x >= 0 in float64."""
    below = op.Add(x, 3.0)
    return op.Div(horner(op, op.Sub(1.0, op.Div(6.0, below)), _ERFCX), below)


def complement(op: Any, x: Any) -> Any:
    """Returns erfc(x) in float64."""
    size = op.Abs(x)
    # Where the exponential is 0 the square may be infinite; the product is 0 all the same.
    value = op.Mul(op.Exp(op.Neg(op.Mul(size, size))), _scaled(op, size))
    return op.Where(op.Less(x, 0.0), op.Sub(2.0, value), value)


@packed("aten::erfc", **torchscript)
@packed("aten::special_erfc", **torchscript)
def _erfc(op: Any, self: Any) -> Any:
    return narrow(op, complement(op, wide(op, self)), self)


@packed("aten::special_erfcx", **both)
def _erfcx(op: Any, self: Any) -> Any:
    x = wide(op, self)
    size = op.Abs(x)
    value = _scaled(op, size)
    mirrored = op.Sub(op.Mul(op.Exp(op.Mul(x, x)), 2.0), value)
    return narrow(op, op.Where(op.Less(x, 0.0), mirrored, value), self)


@packed("aten::special_ndtr", **torchscript)
def _ndtr(op: Any, self: Any) -> Any:
    x = op.Mul(wide(op, self), -math.sqrt(0.5))
    return narrow(op, op.Mul(complement(op, x), 0.5), self)


@packed("aten::special_log_ndtr", **both)
def _log_ndtr(op: Any, self: Any) -> Any:
    x = op.Mul(wide(op, self), -math.sqrt(0.5))
    size = op.Abs(x)
    tail = op.Sub(op.Log(op.Mul(_scaled(op, size), 0.5)), op.Mul(x, x))
    body = log1p(op, op.Mul(complement(op, op.Neg(x)), -0.5))
    return narrow(op, op.Where(op.Greater(x, 0.0), tail, body), self)


def _quantile(op: Any, q: Any, tail: Any) -> Any:
    """Returns the quantile of the normal distribution in float64.

    Args:
        op: The ops.
        q: The probability less a half.
        tail: The smaller of the probability and what it lacks to 1.
    """
    middle = op.Mul(q, _ratio(op, op.Sub(0.180625, op.Mul(q, q)), _MIDDLE))
    root = op.Sqrt(op.Neg(op.Log(tail)))
    near = _ratio(op, op.Sub(root, 1.6), _NEAR)
    far = _ratio(op, op.Sub(root, 5.0), _FAR)
    size = op.Where(op.LessOrEqual(root, 5.0), near, far)
    size = op.Where(op.IsInf(op.Cast(root, to=ir.DataType.FLOAT)), math.inf, size)
    outer = op.Where(op.Less(q, 0.0), op.Neg(size), size)
    return op.Where(op.LessOrEqual(op.Abs(q), 0.425), middle, outer)


def _ratio(op: Any, x: Any, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    above, below = coefficients
    return op.Div(horner(op, x, above), horner(op, x, below))


@packed("aten::erfinv", **both)
@packed("aten::special_erfinv", **both)
def _erfinv(op: Any, self: Any) -> Any:
    x = wide(op, self)
    tail = op.Mul(op.Sub(1.0, op.Abs(x)), 0.5)
    value = _quantile(op, op.Mul(x, 0.5), tail)
    return narrow(op, op.Mul(value, math.sqrt(0.5)), self)


@packed("aten::special_ndtri", **both)
def _ndtri(op: Any, self: Any) -> Any:
    x = wide(op, self)
    return narrow(op, _quantile(op, op.Sub(x, 0.5), op.Min(x, op.Sub(1.0, x))), self)
