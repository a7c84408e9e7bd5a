"""Products of vectors and matrices, which the TorchScript exporter lacks."""

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack import matrices as m
from custom_ops.onnx._mappings.pack._values import axis_of, number_like
from custom_ops.onnx._mappings.pack.elimination import inverse
from custom_ops.onnx._mappings.registry import packed


def _combined(op: Any, base: Any, product: Any, beta: float, alpha: float) -> Any:
    """Returns beta base + alpha product; a beta of 0 drops what base holds, NaN too."""
    product = product if alpha == 1 else op.Mul(product, alpha)
    if beta == 0:
        return op.Expand(product, op.Max(op.Shape(product), op.Shape(base)))
    return op.Add(base if beta == 1 else op.Mul(base, beta), product)


@packed("aten::addmv", since_opset=15, exporter="torchscript")
def _addmv(op: Any, self: Any, mat: Any, vec: Any, beta: float = 1, alpha: float = 1) -> Any:
    return _combined(op, self, op.MatMul(mat, vec), beta, alpha)


@packed("aten::addbmm", since_opset=15, exporter="torchscript")
def _addbmm(op: Any, self: Any, batch1: Any, batch2: Any, beta: float = 1, alpha: float = 1) -> Any:
    product = op.ReduceSum(op.MatMul(batch1, batch2), [0], keepdims=0)
    return _combined(op, self, product, beta, alpha)


@packed("aten::addr", since_opset=15, exporter="torchscript")
def _addr(op: Any, self: Any, vec1: Any, vec2: Any, beta: float = 1, alpha: float = 1) -> Any:
    return _combined(op, self, _outer(op, vec1, vec2), beta, alpha)


def _outer(op: Any, a: Any, b: Any) -> Any:
    return op.Mul(op.Unsqueeze(a, [1]), op.Unsqueeze(b, [0]))


@packed("aten::vdot", since_opset=15, exporter="torchscript")
def _vdot(op: Any, self: Any, other: Any) -> Any:
    return op.MatMul(self, other)


@packed("aten::inner", since_opset=15, exporter="torchscript")
def _inner(op: Any, self: Any, other: Any) -> Any:
    if not (self.rank and other.rank):
        return op.Mul(self, other)
    if other.rank == 1:
        return op.MatMul(self, other)
    left, right = (
        op.Reshape(x, op.Concat([-1], op.Shape(x, start=-1), axis=0)) for x in (self, other)
    )
    shape = op.Concat(op.Shape(self, end=-1), op.Shape(other, end=-1), axis=0)
    return op.Reshape(op.MatMul(left, op.Transpose(right, perm=[1, 0])), shape)


@packed("aten::linalg_vecdot", since_opset=15, exporter="torchscript")
def _vecdot(op: Any, x: Any, y: Any, dim: int = -1) -> Any:
    rank = max(x.rank, y.rank)
    return op.ReduceSum(op.Mul(x, y), [dim % rank], keepdims=0)


@packed("aten::linalg_multi_dot", since_opset=15, exporter="torchscript")
def _multi_dot(op: Any, tensors: Sequence[Any]) -> Any:
    product = tensors[0]
    for factor in tensors[1:]:
        product = op.MatMul(product, factor)
    return product


@packed("aten::kron", since_opset=15, exporter="torchscript")
def _kron(op: Any, self: Any, other: Any) -> Any:
    rank = max(self.rank, other.rank)
    a, b = (
        op.Reshape(x, op.Concat([1] * (rank - x.rank), op.Shape(x), axis=0)) for x in (self, other)
    )
    shape = op.Mul(op.Shape(a), op.Shape(b))
    left = op.Unsqueeze(a, list(range(1, 2 * rank, 2)))
    right = op.Unsqueeze(b, list(range(0, 2 * rank, 2)))
    return op.Reshape(op.Mul(left, right), shape)


@packed("aten::linalg_matrix_power", since_opset=15)
@packed("aten::matrix_power", since_opset=15)
def _matrix_power(op: Any, self: Any, n: int) -> Any:
    if n == 0:
        return op.Expand(m.identity(op, m.columns_of(op, self), self), op.Shape(self))
    square = inverse(op, self)[0] if n < 0 else self
    result, n = None, abs(n)
    while n:
        if n % 2:
            result = square if result is None else op.MatMul(result, square)
        square, n = op.MatMul(square, square) if n > 1 else square, n // 2
    return op.Identity(result)


@packed("aten::linalg_matrix_exp", since_opset=18)
@packed("aten::matrix_exp", since_opset=18)
def _matrix_exp(op: Any, self: Any) -> Any:
    # Scaled until its norm is at most 1/2, a series of 14 terms, squared as often.
    x = op.Cast(self, to=ir.DataType.DOUBLE)
    norm = op.ReduceMax(op.ReduceSum(op.Abs(x), [-1], keepdims=1), keepdims=1)
    halvings = op.Ceil(op.Div(op.Log(op.Max(norm, 0.5)), math.log(2)))
    halvings = op.Add(halvings, 1.0)
    x = op.Div(x, op.Pow(number_like(op, 2.0, x), halvings))
    unit = m.identity(op, m.columns_of(op, x), x)
    total = op.Add(unit, op.Div(x, 14.0))
    for i in range(13, 0, -1):
        total = op.Add(unit, op.Div(op.MatMul(x, total), float(i)))
    count = op.Squeeze(op.Cast(halvings, to=ir.DataType.INT64))
    done = op.Loop(count, True, total, body=lambda i, go_on, e: (go_on, op.MatMul(e, e)))
    return op.CastLike(done, self)


@packed("aten::bilinear", since_opset=15, exporter="torchscript")
def _bilinear(op: Any, input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    left = op.Unsqueeze(op.Unsqueeze(input1, [-2]), [-2])  # [..., 1, 1, i]
    turned = op.MatMul(left, weight)  # [..., o, 1, j]
    value = op.ReduceSum(
        op.Mul(op.Squeeze(turned, [-2]), op.Unsqueeze(input2, [-2])), [-1], keepdims=0
    )
    return value if bias is None else op.Add(value, bias)


@packed("aten::linalg_vander", since_opset=15, exporter="torchscript")
def _vander(op: Any, x: Any, N: int | None = None) -> Any:
    count = op.Squeeze(op.Shape(x, start=-1)) if N is None else N
    return op.Pow(op.Unsqueeze(x, [-1]), op.CastLike(op.Range(0, count, 1), x))


@packed("aten::trapezoid", since_opset=15, exporter="torchscript")
@packed("aten::trapz", since_opset=15, exporter="torchscript")
def _trapezoid(op: Any, y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    return op.ReduceSum(_trapezes(op, y, x, dx, dim), [axis_of(y, dim)], keepdims=0)


@packed("aten::cumulative_trapezoid", since_opset=15, exporter="torchscript")
def _cumulative_trapezoid(op: Any, y: Any, x: Any = None, *, dx: float = 1, dim: int = -1) -> Any:
    return op.CumSum(_trapezes(op, y, x, dx, dim), axis_of(y, dim))


def _trapezes(op: Any, y: Any, x: Any, dx: float, dim: int) -> Any:
    axis = axis_of(y, dim)
    means = op.Mul(op.Add(_part(op, y, 1, axis), _part(op, y, 0, axis)), 0.5)
    if not hasattr(x, "rank"):
        return op.Mul(means, float(dx if x is None else x))
    along = axis if x.rank == y.rank else 0
    width = op.Sub(_part(op, x, 1, along), _part(op, x, 0, along))
    if x.rank != y.rank:
        width = op.Reshape(width, [-1] + [1] * (y.rank - axis - 1))
    return op.Mul(means, width)


def _part(op: Any, x: Any, start: int, axis: int) -> Any:
    return op.Slice(x, [start], [2**63 - 1 if start else -1], [axis])
