"""The gamma function and its kin, computed in float64."""

import math
from typing import Any

from custom_ops.onnx._mappings.pack.special import horner, narrow, wide
from custom_ops.onnx._mappings.registry import packed

both: Any = {"since_opset": 15, "exporter": "both"}

# Lanczos' series with g = 7 and 9 terms: relative error below 1e-15 on the right half plane.
_LANCZOS = (
    0.99999999999980993,
    676.5203681218851,
    -1259.1392167224028,
    771.32342877765313,
    -176.61502916214059,
    12.507343278686905,
    -0.13857109526572012,
    9.9843695780195716e-6,
    1.5056327351493116e-7,
)
# The terms of the asymptotic series of digamma, in powers of 1 / x^2: -B(2n) / 2n.
_DIGAMMA = (0.0, -1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_STEPS = 12  # so many terms are summed as they are, before the asymptotic series begins


def _log_gamma(op: Any, x: Any) -> Any:
    """Returns log |gamma(x)| in float64."""
    low = op.Less(x, 0.5)
    z = op.Sub(op.Where(low, op.Sub(1.0, x), x), 1.0)
    series = op.Add(op.Mul(z, 0.0), _LANCZOS[0])
    for i, coefficient in enumerate(_LANCZOS[1:], 1):
        series = op.Add(series, op.Div(coefficient, op.Add(z, float(i))))
    t = op.Add(z, 7.5)
    right = op.Sub(op.Mul(op.Add(z, 0.5), op.Log(t)), t)
    right = op.Add(op.Add(right, op.Log(series)), 0.5 * math.log(2 * math.pi))
    sine = op.Abs(op.Sin(op.Mul(op.Sub(x, op.Floor(x)), math.pi)))
    left = op.Sub(op.Sub(math.log(math.pi), op.Log(sine)), right)
    value = op.Where(low, left, right)
    whole = op.And(op.LessOrEqual(x, 0.0), op.Equal(x, op.Floor(x)))
    infinite = op.Greater(op.Abs(x), 1e300)
    return op.Where(op.Or(whole, infinite), math.inf, value)


@packed("aten::lgamma", **both)
@packed("aten::special_gammaln", **both)
def _lgamma(op: Any, self: Any) -> Any:
    return narrow(op, _log_gamma(op, wide(op, self)), self)


@packed("aten::mvlgamma", **both)
@packed("aten::special_multigammaln", **both)
def _mvlgamma(op: Any, self: Any, p: int) -> Any:
    x = wide(op, self)
    total = op.Add(_log_gamma(op, x), p * (p - 1) / 4 * math.log(math.pi))
    for i in range(1, p):
        total = op.Add(total, _log_gamma(op, op.Sub(x, i / 2)))
    return narrow(op, total, self)


def _digamma_of(op: Any, x: Any) -> Any:
    """Returns the logarithmic derivative of the gamma function in float64."""
    low = op.Less(x, 0.5)
    y = op.Where(low, op.Sub(1.0, x), x)
    steps = op.Constant(value_floats=[float(i) for i in range(_STEPS)])
    terms = op.Div(1.0, op.Add(op.Unsqueeze(y, [-1]), steps))
    far = op.Add(y, float(_STEPS))
    square = op.Div(1.0, op.Mul(far, far))
    value = op.Sub(op.Log(far), op.Div(0.5, far))
    value = op.Add(value, horner(op, square, _DIGAMMA))
    value = op.Sub(value, op.ReduceSum(terms, [-1], keepdims=0))
    # Reflection: pi / tan(pi x), from the part of x that is left of whole numbers.
    part = op.Mul(op.Sub(x, op.Round(x)), math.pi)
    cotangent = op.Div(op.Sin(op.Add(part, math.pi / 2)), op.Sin(part))
    value = op.Where(low, op.Sub(value, op.Mul(cotangent, math.pi)), value)
    whole = op.And(op.Less(x, 0.0), op.Equal(x, op.Floor(x)))
    zero = op.Div(-1.0, x)  # torch: the sign of the zero tells the side
    return op.Where(op.Equal(x, 0.0), zero, op.Where(whole, math.nan, value))


@packed("aten::digamma", **both)
@packed("aten::special_digamma", **both)
@packed("aten::special_psi", **both)
def _digamma(op: Any, self: Any) -> Any:
    return narrow(op, _digamma_of(op, wide(op, self)), self)


def _zeta(op: Any, s: float, x: Any) -> Any:
    """Returns the sum of 1 / (x + k)^s over k = 0, 1, ... by Euler and Maclaurin, in float64."""
    steps = op.Constant(value_floats=[float(i) for i in range(2 * _STEPS)])
    terms = op.Pow(op.Add(op.Unsqueeze(x, [-1]), steps), -s)
    far = op.Add(x, float(2 * _STEPS))
    power = op.Pow(far, -s)
    total = op.Add(op.ReduceSum(terms, [-1], keepdims=0), op.Mul(power, 0.5))
    total = op.Add(total, op.Div(op.Mul(power, far), s - 1))
    factor, term = s, op.Div(power, far)
    for i, number in enumerate(_BERNOULLI, 1):
        total = op.Add(total, op.Mul(term, number * factor / math.factorial(2 * i)))
        factor *= (s + 2 * i - 1) * (s + 2 * i)
        term = op.Div(term, op.Mul(far, far))
    return op.Where(op.IsInf(x), 0.0, total)


@packed("aten::polygamma", **both)
@packed("aten::special_polygamma", **both)
def _polygamma(op: Any, n: int, self: Any) -> Any:
    x = wide(op, self)
    if n == 0:
        return narrow(op, _digamma_of(op, x), self)
    sign = 1 if n % 2 else -1
    if n == 1:  # torch mirrors this one alone
        low = op.Less(x, 0.5)
        value = _zeta(op, 2.0, op.Where(low, op.Sub(1.0, x), x))
        sine = op.Div(math.pi, op.Sin(op.Mul(op.Sub(x, op.Round(x)), math.pi)))
        value = op.Where(low, op.Sub(op.Mul(sine, sine), value), value)
        return narrow(op, value, self)
    raised = op.Mul(_zeta(op, n + 1.0, x), float(sign * math.factorial(n)))
    # Left of 0, and where whole numbers make a term infinite, torch says no more than this.
    whole = op.And(op.LessOrEqual(x, 0.0), op.Equal(x, op.Floor(x)))
    return narrow(op, op.Where(whole, sign * math.inf, raised), self)
