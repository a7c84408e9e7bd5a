"""Sorting, searching and order statistics."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import (
    as_float,
    axis_of,
    is_float,
    number_like,
    promoted,
)
from custom_ops.onnx._mappings.registry import packed

_INT64 = ir.DataType.INT64


def _size(op: Any, x: Any, axis: int) -> Any:
    """Returns a size as a tensor of one element."""
    return op.Shape(x, start=axis, end=axis + 1)


def ascending(op: Any, x: Any, axis: int) -> tuple[Any, Any]:
    """Returns sorted values with NaN at the end, as torch has it, and where each came from."""
    if not is_float(x):
        return op.TopK(x, _size(op, x, axis), axis=axis, largest=0)  # type: ignore[no-any-return]
    # Runtimes put NaN anywhere: +inf takes its place, then it takes the place of the last ones.
    nan = op.IsNaN(x)
    key = op.Where(nan, math.inf, x)
    values, places = op.TopK(key, _size(op, x, axis), axis=axis, largest=0)
    number = op.ReduceSum(op.Cast(nan, to=_INT64), [axis], keepdims=1)
    shape = [1] * axis + [-1] + [1] * (x.rank - axis - 1)
    positions = op.Reshape(op.Range(0, op.Squeeze(_size(op, x, axis)), 1), shape)
    end = op.GreaterOrEqual(positions, op.Sub(_size(op, x, axis), number))
    return op.Where(end, math.nan, values), places


@packed("aten::msort", since_opset=15, exporter="torchscript")
def _msort(op: Any, self: Any) -> Any:
    return ascending(op, self, 0)[0]


def _picked(op: Any, x: Any, axis: int, place: Any, keepdim: bool) -> tuple[Any, Any]:
    """Returns the element of a place in the order, and where it is; a place is [.., 1, ..]."""
    values, places = ascending(op, x, axis)
    value, index = (op.GatherElements(each, place, axis=axis) for each in (values, places))
    if keepdim:
        return value, index
    return op.Squeeze(value, [axis]), op.Squeeze(index, [axis])


def _whole(op: Any, number: Any, x: Any, axis: int) -> Any:
    """Returns one place for all rows."""
    ones = op.Concat(op.Shape(x, end=axis), [1], op.Shape(x, start=axis + 1), axis=0)
    return op.Expand(number, ones)


@packed("aten::kthvalue", since_opset=15)
def _kthvalue(op: Any, self: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    if not self.rank:
        return op.Identity(self), op.Constant(value=_zero())
    axis = axis_of(self, dim)
    return _picked(op, self, axis, _whole(op, k - 1, self, axis), keepdim)


def _zero() -> Any:
    return np.asarray(0, np.int64)


def _middle(op: Any, x: Any, axis: int, ignore_nan: bool) -> Any:
    """Returns the place of the lower median; the end, where NaN is, if there is one."""
    last = op.Sub(_size(op, x, axis), 1)
    if not is_float(x):
        return _whole(op, op.Div(last, 2), x, axis)
    number = op.ReduceSum(op.Cast(op.IsNaN(x), to=_INT64), [axis], keepdims=1)
    if ignore_nan:
        return op.Max(op.Div(op.Sub(last, number), 2), 0)
    return op.Where(op.Greater(number, 0), last, op.Div(last, 2))


def _median(op: Any, x: Any, dim: Any, keepdim: bool, ignore_nan: bool) -> tuple[Any, Any]:
    if not x.rank:
        return op.Identity(x), op.Constant(value=_zero())
    axis = axis_of(x, dim)
    return _picked(op, x, axis, _middle(op, x, axis, ignore_nan), keepdim)


@packed("aten::median.default", since_opset=15)
def _median_of_all(op: Any, self: Any) -> Any:
    return _median(op, op.Reshape(self, [-1]), 0, False, False)[0]


@packed("aten::median.dim", since_opset=15)
def _median_along(op: Any, self: Any, dim: int, keepdim: bool = False) -> Any:
    return _median(op, self, dim, keepdim, False)


@packed("aten::nanmedian.default", since_opset=15)
def _nanmedian_of_all(op: Any, self: Any) -> Any:
    return _median(op, op.Reshape(self, [-1]), 0, False, True)[0]


@packed("aten::nanmedian.dim", since_opset=15)
def _nanmedian_along(op: Any, self: Any, dim: int, keepdim: bool = False) -> Any:
    return _median(op, self, dim, keepdim, True)


def _cumulative(op: Any, self: Any, dim: int, larger: bool) -> tuple[Any, Any]:
    if not self.rank:
        return op.Identity(self), op.Constant(value=_zero())
    axis = axis_of(self, dim)
    order = [axis, *(i for i in range(self.rank) if i != axis)]
    x = op.Transpose(self, perm=order)
    first = op.Gather(x, 0, axis=0)
    start = op.Expand(op.Constant(value=_zero()), op.Shape(first))

    def step(i: Any, go_on: Any, best: Any, place: Any) -> Any:
        now = op.Gather(x, i, axis=0)
        # The later one of equals counts; NaN stays once it came.
        better = (op.GreaterOrEqual if larger else op.LessOrEqual)(now, best)
        if is_float(self):
            better = op.Or(better, op.IsNaN(now))
        best, place = op.Where(better, now, best), op.Where(better, i, place)
        return go_on, best, place, best, place

    steps = op.Squeeze(op.Shape(x, end=1), [0])
    _, _, values, places = op.Loop(steps, True, first, start, body=step)
    back = [order.index(i) for i in range(self.rank)]
    return op.Transpose(values, perm=back), op.Transpose(places, perm=back)


@packed("aten::cummax", since_opset=15)
def _cummax(op: Any, self: Any, dim: int) -> Any:
    return _cumulative(op, self, dim, True)


@packed("aten::cummin", since_opset=15)
def _cummin(op: Any, self: Any, dim: int) -> Any:
    return _cumulative(op, self, dim, False)


def _searched(op: Any, ordered: Any, values: Any, out_int32: bool, right: bool) -> Any:
    """Returns how many of a row come before each value: a search by comparing with all."""
    if values.dtype != ordered.dtype:
        ordered, values = promoted(op, ordered, values)
    row, each = op.Unsqueeze(ordered, [-2]), op.Unsqueeze(values, [-1])
    before = (op.LessOrEqual if right else op.Less)(row, each)
    if is_float(ordered):
        before = op.Or(before, op.IsNaN(each))
    number = op.ReduceSum(op.Cast(before, to=_INT64), [-1], keepdims=0)
    return op.Cast(number, to=ir.DataType.INT32) if out_int32 else number


@packed("aten::searchsorted", since_opset=15)
def _searchsorted(
    op: Any,
    sorted_sequence: Any,
    self: Any,
    out_int32: bool = False,
    right: bool = False,
    side: Any = None,
    sorter: Any = None,
) -> Any:
    right = right or side == "right"
    if sorter is not None:
        sorted_sequence = op.GatherElements(sorted_sequence, sorter, axis=-1)
    if isinstance(self, (int, float)):
        self = number_like(op, self, sorted_sequence)
    if not self.rank:
        found = _searched(op, sorted_sequence, op.Unsqueeze(self, [0]), out_int32, right)
        return op.Squeeze(found, [0])
    return _searched(op, sorted_sequence, self, out_int32, right)


@packed("aten::bucketize", since_opset=15)
def _bucketize(
    op: Any, self: Any, boundaries: Any, out_int32: bool = False, right: bool = False
) -> Any:
    if isinstance(self, (int, float)):
        self = number_like(op, self, boundaries)
    found = _searched(op, boundaries, op.Reshape(self, [-1]), out_int32, right)
    return op.Reshape(found, op.Shape(self))


@packed("aten::isin.Tensor_Tensor", since_opset=15, exporter="torchscript")
def _isin(
    op: Any, elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False
) -> Any:
    same = op.Equal(op.Unsqueeze(elements, [-1]), op.Reshape(test_elements, [-1]))
    found = op.Greater(op.ReduceSum(op.Cast(same, to=_INT64), [-1], keepdims=0), 0)
    return op.Not(found) if invert else found


def _quantile_of(
    op: Any, x: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, ignore_nan: bool
) -> Any:
    rank = x.rank
    axis = 0 if dim is None else axis_of(x, dim)
    flat = op.Reshape(x, [-1]) if dim is None else x
    values, _ = ascending(op, flat, axis)
    last = op.Sub(_size(op, values, axis), 1)
    bad = op.ReduceSum(op.Cast(op.IsNaN(flat), to=_INT64), [axis], keepdims=1)
    last = op.Max(op.Sub(last, bad), 0) if ignore_nan else op.Add(last, op.Mul(bad, 0))
    q = number_like(op, q, x) if isinstance(q, (int, float)) else q
    many = bool(q.rank)
    shape = [-1] + [1] * flat.rank
    place = op.Mul(op.Reshape(q, shape), op.CastLike(op.Unsqueeze(last, [0]), x))
    shape = op.Concat(op.Shape(op.Reshape(q, [-1])), [1] * flat.rank, axis=0)
    wide = op.Expand(op.Unsqueeze(values, [0]), shape)

    def at(place: Any) -> Any:
        return op.GatherElements(wide, op.Cast(place, to=_INT64), axis=axis + 1)

    low, high = op.Floor(place), op.Ceil(place)
    if interpolation in ("lower", "higher", "nearest"):
        found = at({"lower": low, "higher": high, "nearest": op.Round(place)}[interpolation])
    else:
        weight = op.Sub(place, low)
        if interpolation == "midpoint":
            weight = op.Mul(op.Ceil(weight), 0.5)
        below, above = at(low), at(high)
        # As torch's lerp; of two infinities of one sign it makes NaN, and so does this.
        gap = op.Sub(above, below)
        rising = op.Add(below, op.Mul(gap, weight))
        falling = op.Sub(above, op.Mul(gap, op.Sub(1.0, weight)))
        found = op.Where(op.Less(weight, 0.5), rising, falling)
    if not ignore_nan:
        found = op.Where(op.Greater(op.Unsqueeze(bad, [0]), 0), math.nan, found)
    if keepdim and dim is None:
        found = op.Reshape(found, [-1] + [1] * rank)
    elif not keepdim:
        found = op.Squeeze(found, [axis + 1])
    return found if many else op.Squeeze(found, [0])


@packed("aten::quantile", since_opset=15, exporter="torchscript")
def _quantile(
    op: Any,
    self: Any,
    q: Any,
    dim: Any = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Any:
    return _quantile_of(op, self, q, dim, keepdim, interpolation, False)


@packed("aten::nanquantile", since_opset=15, exporter="torchscript")
def _nanquantile(
    op: Any,
    self: Any,
    q: Any,
    dim: Any = None,
    keepdim: bool = False,
    interpolation: str = "linear",
) -> Any:
    return _quantile_of(op, as_float(op, self), q, dim, keepdim, interpolation, True)
