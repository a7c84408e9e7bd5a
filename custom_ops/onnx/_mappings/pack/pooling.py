"""Pools whose windows no pooling op of ONNX has."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx._mappings.registry import packed

_INT64 = ir.DataType.INT64


def _windows(op: Any, size: Any, out: Any) -> tuple[Any, Any, Any]:
    """Returns the windows of an adaptive pool along one dimension.

    Args:
        op: The ops.
        size: The size of the input, a tensor of one element.
        out: The size of the output, a number or a tensor.

    Returns:
        Which elements each window looks at, as [out, longest]; whether they belong to it; and how
        many do.
    """
    count = out if isinstance(out, int) else op.Squeeze(out)
    number = op.Range(0, count, 1)
    start = op.Div(op.Mul(number, size), count)
    # The end is rounded up.
    above = op.Sub(op.Add(op.Mul(op.Add(number, 1), size), count), 1)
    length = op.Sub(op.Div(above, count), start)
    longest = op.ReduceMax(length, keepdims=0)
    steps = op.Unsqueeze(op.Range(0, longest, 1), [0])
    inside = op.Less(steps, op.Unsqueeze(length, [1]))
    places = op.Add(op.Unsqueeze(start, [1]), steps)
    return op.Min(places, op.Sub(size, 1)), inside, length


def _is_whole(x: Any, sizes: Sequence[Any]) -> bool:
    """Returns whether the windows are known to be of one size and to lie side by side."""
    if x.dtype is ir.DataType.DOUBLE:  # runtimes have no kernel of AveragePool
        return False
    if x.shape is None or None in x.shape[-len(sizes) :]:
        return False
    pairs = zip(x.shape[-len(sizes) :], sizes, strict=True)
    return all(isinstance(out, int) and out and n and n % out == 0 for n, out in pairs)


def _pooled(op: Any, x: Any, sizes: Sequence[Any], dims: int, kind: str) -> Any:
    """Returns what an op of ONNX pools, where the windows lie side by side."""
    inputs = x.shape[-dims:]
    kernel = [n // out for n, out in zip(inputs, sizes, strict=True)]
    batched = x if x.rank == dims + 2 else op.Unsqueeze(x, [0])
    found = getattr(op, kind)(batched, kernel_shape=kernel, strides=kernel)
    return found if x.rank == dims + 2 else op.Squeeze(found, [0])


def _adaptive_average(op: Any, x: Any, sizes: Sequence[Any]) -> Any:
    if all(out == 1 for out in sizes):
        axes = list(range(x.rank - len(sizes), x.rank))
        return op.ReduceMean(x, axes, keepdims=1)
    if _is_whole(x, sizes):
        return _pooled(op, x, sizes, len(sizes), "AveragePool")
    for i, out in enumerate(sizes):  # an average over a box is one along each dimension
        axis = x.rank - len(sizes) + i
        places, inside, length = _windows(op, op.Shape(x, start=axis, end=axis + 1), out)
        rest = [1] * (x.rank - axis - 1)
        seen = op.Gather(x, places, axis=axis)
        inside = op.Reshape(inside, op.Concat(op.Shape(inside), rest, axis=0)) if rest else inside
        total = op.ReduceSum(op.Where(inside, seen, 0.0), [axis + 1], keepdims=0)
        x = op.Div(total, op.CastLike(op.Reshape(length, [-1, *rest]), x))
    return x


@packed("aten::adaptive_avg_pool1d", since_opset=18)
@packed("aten::_adaptive_avg_pool2d", since_opset=18)
@packed("aten::adaptive_avg_pool2d", since_opset=18)
@packed("aten::_adaptive_avg_pool3d", since_opset=18)
@packed("aten::adaptive_avg_pool3d", since_opset=18)
def _adaptive_avg_pool(op: Any, self: Any, output_size: Sequence[Any]) -> Any:
    return _adaptive_average(op, self, output_size)


def _adaptive_largest(op: Any, x: Any, sizes: Sequence[Any]) -> tuple[Any, Any]:
    """Returns the largest elements, and where each is in its image, counted along the rows."""
    first = x.rank - len(sizes)
    shape = op.Shape(x, start=first)
    total = op.ReduceProd(shape, keepdims=0)
    numbers = op.Reshape(op.Range(0, total, 1), shape)
    index = op.Expand(numbers, op.Shape(x))
    for i in reversed(range(len(sizes))):  # rows last: the first of equals counts
        axis = first + i
        places, inside, _ = _windows(op, op.Shape(x, start=axis, end=axis + 1), sizes[i])
        rest = [1] * (x.rank - axis - 1)
        inside = op.Reshape(inside, op.Concat(op.Shape(inside), rest, axis=0)) if rest else inside
        seen = op.Gather(x, places, axis=axis)
        seen = op.Where(inside, seen, float("-inf"))
        best = op.ArgMax(seen, axis=axis + 1, keepdims=1)
        found = op.GatherElements(seen, best, axis=axis + 1)
        index = op.GatherElements(op.Gather(index, places, axis=axis), best, axis=axis + 1)
        x, index = op.Squeeze(found, [axis + 1]), op.Squeeze(index, [axis + 1])
    return x, index


@packed("aten::adaptive_max_pool1d", since_opset=18)
@packed("aten::adaptive_max_pool2d", since_opset=18)
@packed("aten::adaptive_max_pool3d", since_opset=18)
def _adaptive_max_pool(op: Any, self: Any, output_size: Sequence[Any]) -> Any:
    return _adaptive_largest(op, self, output_size)


def _average(
    op: Any,
    x: Any,
    kernel: Sequence[int],
    stride: Sequence[int] | None,
    padding: Sequence[int],
    ceil: bool,
    divisor: int,
) -> Any:
    """Returns sums over windows, divided by one number wherever the window lies."""
    dims = x.rank - 1 if x.rank < 4 else x.rank - 2
    dims = len(kernel) if len(kernel) > 1 else dims
    kernel, padding = _each(kernel, dims), _each(padding, dims)
    stride = _each(stride, dims) if stride else kernel
    front = [0] * (x.rank - dims)
    more = [s - 1 if ceil else 0 for s in stride]
    padded = op.Pad(
        x, [*front, *padding, *front, *(p + m for p, m in zip(padding, more, strict=True))]
    )
    batched = padded if x.rank == dims + 2 else op.Unsqueeze(padded, [0])
    if x.dtype is ir.DataType.DOUBLE:  # runtimes have no kernel
        mean = _mean_of_slices(op, padded, kernel, stride)
    else:
        mean = op.AveragePool(batched, kernel_shape=kernel, strides=stride)
        mean = mean if x.rank == dims + 2 else op.Squeeze(mean, [0])
    if ceil:  # no window may begin behind the input and what is put before it
        room = op.Add(op.Shape(x, start=x.rank - dims), list(padding))
        last = op.Div(op.Sub(op.Add(room, list(stride)), 1), list(stride))
        axes = list(range(x.rank - dims, x.rank))
        mean = op.Slice(mean, [0] * dims, last, axes)
    return op.Mul(mean, float(np.prod(kernel)) / divisor)


def _mean_of_slices(op: Any, x: Any, kernel: Sequence[int], stride: Sequence[int]) -> Any:
    """Returns means over windows, from one slice for each place in the window."""
    axes = list(range(x.rank - len(kernel), x.rank))
    room = op.Sub(op.Shape(x, start=axes[0]), [k - 1 for k in kernel])
    total = None
    for place in itertools.product(*map(range, kernel)):
        seen = op.Slice(x, list(place), op.Add(room, list(place)), axes, list(stride))
        total = seen if total is None else op.Add(total, seen)
    return op.Div(total, float(np.prod(kernel)))


def _each(numbers: Sequence[int], dims: int) -> list[int]:
    return list(numbers) * dims if len(numbers) == 1 else list(numbers)


@packed("aten::avg_pool2d", since_opset=18)
@packed("aten::avg_pool3d", since_opset=18)
def _avg_pool(
    op: Any,
    self: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    if divisor_override is None:
        return NotImplemented
    return _average(op, self, kernel_size, stride, padding, ceil_mode, divisor_override)


@packed("aten::max_unpool2d", since_opset=15)
def _max_unpool2d(op: Any, self: Any, indices: Any, output_size: Sequence[Any]) -> Any:
    return _unpooled(op, self, indices, output_size)


@packed("aten::max_unpool3d", since_opset=15)
def _max_unpool3d(
    op: Any, self: Any, indices: Any, output_size: Sequence[Any], stride: Any, padding: Any
) -> Any:
    return _unpooled(op, self, indices, output_size)


def _unpooled(op: Any, x: Any, indices: Any, sizes: Sequence[Any]) -> Any:
    """Puts elements where they came from, and 0 elsewhere."""
    ahead = op.Shape(x, end=x.rank - len(sizes))
    flat = op.Concat(ahead, [-1], axis=0)
    shape = op.Concat(ahead, list(sizes), axis=0)
    empty = op.Reshape(op.Expand(op.CastLike(0.0, x), shape), flat)
    filled = op.ScatterElements(empty, op.Reshape(indices, flat), op.Reshape(x, flat), axis=-1)
    return op.Reshape(filled, shape)
