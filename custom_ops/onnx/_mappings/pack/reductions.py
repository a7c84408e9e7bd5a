"""Sums, largest and smallest values, and statistics, which an exporter lacks or gets wrong."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import (
    as_float,
    axis_of,
    is_float,
    number_like,
)
from custom_ops.onnx._mappings.registry import packed

_INT64 = ir.DataType.INT64


def axes_of(x: Any, dim: Any) -> list[int]:
    """Returns the dimensions that a reduction goes over: all, where none is named."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.rank))
    return [axis_of(x, d) for d in ([dim] if isinstance(dim, int) else dim)]


def _summed(op: Any, x: Any, axes: Sequence[int], keepdim: bool) -> Any:
    return op.ReduceSum(x, list(axes), keepdims=int(keepdim), noop_with_empty_axes=1)


@packed("aten::all", since_opset=15, exporter="torchscript")
def _all(op: Any, self: Any, dim: Any = None, keepdim: bool = False) -> Any:
    good = op.Cast(self, to=ir.DataType.BOOL)
    least = op.Sub(1, op.Cast(good, to=_INT64))
    found = op.Equal(_summed(op, least, axes_of(self, dim), keepdim), 0)
    return _as_truth(op, self, found)


@packed("aten::any", since_opset=15, exporter="torchscript")
def _any(op: Any, self: Any, dim: Any = None, keepdim: bool = False) -> Any:
    true = op.Cast(op.Cast(self, to=ir.DataType.BOOL), to=_INT64)
    found = op.Greater(_summed(op, true, axes_of(self, dim), keepdim), 0)
    return _as_truth(op, self, found)


def _as_truth(op: Any, x: Any, found: Any) -> Any:
    # torch keeps uint8 there.
    return op.Cast(found, to=ir.DataType.UINT8) if x.dtype is ir.DataType.UINT8 else found


@packed("aten::count_nonzero", since_opset=15, exporter="torchscript")
def _count_nonzero(op: Any, self: Any, dim: Any = None) -> Any:
    there = op.Cast(op.Cast(self, to=ir.DataType.BOOL), to=_INT64)
    return _summed(op, there, axes_of(self, dim), False)


@packed("aten::nansum", since_opset=15, exporter="torchscript")
def _nansum(op: Any, self: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    x = op.Cast(self, to=dtype) if dtype is not None else self
    if not is_float(x):
        x = op.Cast(x, to=_INT64)
        return _summed(op, x, axes_of(x, dim), keepdim)
    return _summed(op, op.Where(op.IsNaN(x), 0.0, x), axes_of(x, dim), keepdim)


@packed("aten::nanmean", since_opset=15, exporter="torchscript")
def _nanmean(op: Any, self: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    x = op.Cast(self, to=dtype) if dtype is not None else self
    axes = axes_of(x, dim)
    total = _nansum(op, x, axes, keepdim)
    number = _summed(op, op.CastLike(op.Not(op.IsNaN(x)), x), axes, keepdim)
    return op.Div(total, number)


@packed("aten::amax", since_opset=18)
def _amax(op: Any, self: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return _extreme(op, "ReduceMax", self, dim, keepdim)


@packed("aten::amin", since_opset=18)
def _amin(op: Any, self: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return _extreme(op, "ReduceMin", self, dim, keepdim)


def _extreme(op: Any, kind: str, x: Any, dim: Any, keepdim: bool) -> Any:
    if not x.rank:
        return op.Identity(x)
    y = op.Cast(x, to=ir.DataType.UINT8) if x.dtype is ir.DataType.BOOL else x
    found = getattr(op, kind)(y, axes_of(x, dim), keepdims=int(keepdim))
    if is_float(x):
        # Runtimes pass over a NaN, which torch gives.
        bad = op.ReduceMax(op.Cast(op.IsNaN(x), to=_INT64), axes_of(x, dim), keepdims=int(keepdim))
        found = op.Where(op.Cast(bad, to=ir.DataType.BOOL), float("nan"), found)
    return op.Cast(found, to=x.dtype) if x.dtype is ir.DataType.BOOL else found


@packed("aten::logcumsumexp", since_opset=15)
def _logcumsumexp(op: Any, self: Any, dim: int) -> Any:
    if not self.rank:
        return op.Identity(self)
    # A running maximum keeps every sum in range: the pair (maximum, sum) goes along the dimension.
    axis = axis_of(self, dim)
    order = [axis, *(i for i in range(self.rank) if i != axis)]
    x = op.Transpose(self, perm=order)
    shape = op.Shape(x, start=1)
    low = op.Expand(op.CastLike(float("-inf"), x), shape)
    zero = op.Expand(op.CastLike(0.0, x), shape)

    def step(i: Any, go_on: Any, top: Any, total: Any) -> Any:
        now = op.Gather(x, i, axis=0)
        new = op.Max(top, now)
        safe = op.Where(op.IsInf(new), 0.0, new)
        total = op.Add(op.Mul(total, op.Exp(op.Sub(top, safe))), op.Exp(op.Sub(now, safe)))
        return go_on, new, total, op.Add(op.Log(total), safe)

    size = op.Squeeze(op.Shape(x, end=1), [0])
    _, _, sums = op.Loop(size, True, low, zero, body=step)
    return op.Transpose(sums, perm=[order.index(i) for i in range(self.rank)])


@packed("aten::cumprod", since_opset=15)
def _cumprod(op: Any, self: Any, dim: int, dtype: Any = None) -> Any:
    x = op.Cast(self, to=dtype) if dtype is not None else self
    x = x if is_float(x) or dtype is not None else op.Cast(x, to=_INT64)
    if not x.rank:
        return op.Identity(x)
    axis = axis_of(x, dim)
    order = [axis, *(i for i in range(x.rank) if i != axis)]
    x = op.Transpose(x, perm=order)
    one = op.Expand(op.CastLike(1, x), op.Shape(x, start=1))

    def step(i: Any, go_on: Any, product: Any) -> Any:
        product = op.Mul(product, op.Gather(x, i, axis=0))
        return go_on, product, product

    _, products = op.Loop(op.Squeeze(op.Shape(x, end=1), [0]), True, one, body=step)
    return op.Transpose(products, perm=[order.index(i) for i in range(x.rank)])


@packed("aten::aminmax", since_opset=18)
def _aminmax(op: Any, self: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    found = _amin(op, self, dim, keepdim), _amax(op, self, dim, keepdim)
    if dim is None and keepdim:
        return tuple(op.Reshape(x, [1] * self.rank) for x in found)
    return found


@packed("aten::dist", since_opset=15, exporter="torchscript")
def _dist(op: Any, self: Any, other: Any, p: float = 2) -> Any:
    return vector_norm(op, op.Sub(self, other), float(p), None, False)


def vector_norm(op: Any, x: Any, p: float, dim: Any, keepdim: bool) -> Any:
    """Returns the norm of a float tensor over some dimensions."""
    if not x.rank:
        return op.Abs(x)
    size, keep, axes = op.Abs(x), int(keepdim), axes_of(x, dim)
    if p == 0:
        return _summed(op, op.CastLike(op.Not(op.Equal(x, 0.0)), x), axes, keepdim)
    if p in (float("inf"), float("-inf")):
        kind = op.ReduceMax if p > 0 else op.ReduceMin
        return kind(size, axes, keepdims=keep)
    if p == 1:
        return _summed(op, size, axes, keepdim)
    if p == 2:
        return op.Sqrt(_summed(op, op.Mul(x, x), axes, keepdim))
    total = _summed(op, op.Pow(size, number_like(op, p, x)), axes, keepdim)
    return op.Pow(total, number_like(op, 1 / p, x))


@packed("aten::renorm", since_opset=18, exporter="torchscript")
def _renorm(op: Any, self: Any, p: float, dim: int, maxnorm: float) -> Any:
    others = [i for i in range(self.rank) if i != axis_of(self, dim)]
    norm = vector_norm(op, self, float(p), others, True)
    factor = op.Div(float(maxnorm), op.Add(norm, 1e-7))
    return op.Mul(self, op.Where(op.Greater(norm, float(maxnorm)), factor, 1.0))


@packed("aten::pairwise_distance", since_opset=18)
def _pairwise_distance(
    op: Any, x1: Any, x2: Any, p: float = 2, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    return vector_norm(op, op.Add(op.Sub(x1, x2), float(eps)), float(p), -1, keepdim)


def mean(op: Any, x: Any, axes: Sequence[int] | None = None, keepdim: bool = False) -> Any:
    """Returns a mean over dimensions, or over all; that of integers is a float32."""
    x = as_float(op, x)
    axes = list(range(x.rank)) if axes is None else list(axes)
    count = op.ReduceProd(op.Gather(op.Shape(x), axes), keepdims=0) if axes else 1
    return op.Div(_summed(op, x, axes, keepdim), op.CastLike(count, x))


@packed("aten::cov", since_opset=15, exporter="torchscript")
def _cov(
    op: Any, self: Any, correction: int = 1, fweights: Any = None, aweights: Any = None
) -> Any:
    if fweights is not None or aweights is not None:
        raise op.refusal("fweights and aweights must be None, got weights; weigh the samples first")
    x = as_float(op, self)
    flat = x.rank < 2
    x = op.Reshape(x, [1, -1]) if flat else x
    centred = op.Sub(x, mean(op, x, [1], True))
    number = op.Sub(op.CastLike(op.Squeeze(op.Shape(x, start=1)), x), float(correction))
    product = op.Div(op.MatMul(centred, op.Transpose(centred, perm=[1, 0])), op.Max(number, 0.0))
    return op.Squeeze(product, [0, 1]) if flat else product


@packed("aten::corrcoef", since_opset=15, exporter="torchscript")
def _corrcoef(op: Any, self: Any) -> Any:
    product = _cov(op, self)
    if self.rank < 2:
        return op.Div(product, product)
    from custom_ops.onnx._mappings.pack.views import diagonal

    deviation = op.Sqrt(diagonal(op, product))
    scaled = op.Div(op.Div(product, op.Unsqueeze(deviation, [1])), op.Unsqueeze(deviation, [0]))
    return op.Clip(scaled, -1.0, 1.0)
