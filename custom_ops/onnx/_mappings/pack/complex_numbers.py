"""Complex numbers as pairs of real ones, which the TorchScript exporter lacks."""

import math
from collections.abc import Callable
from typing import Any

from custom_ops.onnx._mappings.registry import packed

_Function = Callable[..., Any]


def of_complex(
    name: str, since_opset: int = 17, exporter: str = "torchscript"
) -> Callable[[_Function], _Function]:
    """Declares a mapping that knows pairs for complex numbers."""

    def declare(function: _Function) -> _Function:
        function.takes_complex = True  # type: ignore[attr-defined]
        return packed(name, since_opset=since_opset, exporter=exporter)(function)

    return declare


def as_pairs(op: Any, x: Any) -> Any:
    """Returns numbers as pairs."""
    if x.is_complex:
        return x
    pair = op.Unsqueeze(x, [-1])
    return op.Concat(pair, op.Mul(pair, 0.0), axis=-1)


def part(op: Any, pairs: Any, index: int) -> Any:
    return op.Gather(pairs, index, axis=-1)


def conjugate(op: Any, pairs: Any) -> Any:
    return op.Mul(pairs, op.CastLike(op.Constant(value_floats=[1.0, -1.0]), pairs))


@of_complex("aten::view_as_real", 15)
@of_complex("aten::view_as_complex", 15)
@of_complex("aten::resolve_conj", 15)
def _as_they_are(op: Any, self: Any) -> Any:
    return op.Identity(self)


@of_complex("aten::complex", 15)
def _of_parts(op: Any, real: Any, imag: Any) -> Any:
    shape = op.Shape(op.Add(real, imag))
    return op.Concat(*(op.Unsqueeze(op.Expand(x, shape), [-1]) for x in (real, imag)), axis=-1)


@of_complex("aten::polar", 15)
def _polar(op: Any, abs: Any, angle: Any) -> Any:
    return _of_parts(op, op.Mul(abs, op.Cos(angle)), op.Mul(abs, op.Sin(angle)))


@of_complex("aten::real", 15)
def _real(op: Any, self: Any) -> Any:
    return part(op, self, 0) if self.is_complex else op.Identity(self)


@of_complex("aten::imag", 15)
def _imag(op: Any, self: Any) -> Any:
    return part(op, self, 1)


@of_complex("aten::conj", 15)
def _conj(op: Any, self: Any) -> Any:
    return conjugate(op, self) if self.is_complex else op.Identity(self)


@of_complex("aten::abs", 15)
def _abs(op: Any, self: Any) -> Any:
    if not self.is_complex:
        return NotImplemented
    real, imag = (op.Abs(part(op, self, i)) for i in (0, 1))
    big = op.Max(real, imag)
    ratio = op.Div(op.Min(real, imag), op.Where(op.Equal(big, 0.0), 1.0, big))
    size = op.Mul(big, op.Sqrt(op.Add(op.Mul(ratio, ratio), 1.0)))
    return op.Where(op.Or(op.IsInf(real), op.IsInf(imag)), math.inf, size)
