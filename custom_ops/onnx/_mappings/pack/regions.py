"""What the ops on regions of interest share: the weights of samples, and the walk over regions."""

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def images_of(op: Any, rois: Any) -> Any:
    """Returns the index of the image of each region."""
    index = op.Squeeze(op.Slice(rois, [0], [1], [1]), [1])
    return op.Cast(index, to=ir.DataType.INT64)


def in_single(op: Any, *tensors: Any) -> tuple[Any, ...]:
    """Returns half types in float32, where places between pixels are told apart."""
    return tuple(
        op.Cast(each, to=ir.DataType.FLOAT) if each.dtype in _HALF else each for each in tensors
    )


def in_kind(op: Any, tensor: Any, kind: ir.DataType | None) -> Any:
    """Returns what was computed from `in_single` in the type that there was before."""
    return op.Cast(tensor, to=kind) if kind in _HALF else tensor


def spatial_sizes(op: Any, images: Any) -> tuple[Any, Any]:
    """Returns height and width of the images, as int64."""
    sizes = op.Shape(images, start=2, end=4)
    return op.Gather(sizes, 0), op.Gather(sizes, 1)


def coordinates(op: Any, rois: Any, scale: float, offset: float) -> list[Any]:
    """Returns left, top, right and bottom of the regions, each of shape (regions, 1)."""
    scaled = op.Sub(op.Mul(rois, scale), offset)
    return [op.Slice(scaled, [i], [i + 1], [1]) for i in (1, 2, 3, 4)]


def sampled_weights(
    op: Any,
    first: Any,
    last: Any,
    least: float | None,
    bins: int,
    ratio: int,
    size: Any,
    least_count: float | None,
) -> Any:
    """Returns how much a bin takes of each pixel along one axis: its samples' mean.

    A sample lies between two pixels and takes of both; it counts as on the border where it is at
    most one pixel outside, and as 0 beyond.

    Args:
        op: The ops.
        first: Where the regions begin, (regions, 1).
        last: Where they end.
        least: The least length; None for none.
        bins: The number of bins.
        ratio: The number of samples in a bin; as many as it has pixels where it is not positive.
        size: The number of pixels.
        least_count: What the sum of samples is divided by at least; None where 0 / 0 is nan.

    Returns:
        Weights of shape (regions, bins, size).
    """
    dtype = first.dtype
    length = op.Sub(last, first)
    if least is not None:
        length = op.Max(length, least)
    step = op.Div(length, float(bins))
    count = op.Ceil(step) if ratio <= 0 else op.Add(op.Mul(step, 0.0), float(ratio))
    most = op.Max(op.ReduceMax(op.Concat(count, [[0.0]], axis=0), keepdims=0), 0.0)
    samples = op.Cast(op.Range(0, op.Cast(most, to=ir.DataType.INT64), 1), to=dtype)
    # Along (regions, bins, samples, pixels).
    count, step, begin = (op.Unsqueeze(each, [2]) for each in (count, step, first))
    index = op.Reshape(op.Cast(op.Range(0, bins, 1), to=dtype), [1, -1, 1])
    within = op.Div(op.Mul(op.Add(samples, 0.5), step), op.Max(count, 1.0))
    place = op.Add(op.Add(begin, op.Mul(index, step)), within)
    pixels = op.Cast(size, to=dtype)
    inside = op.And(op.GreaterOrEqual(place, -1.0), op.LessOrEqual(place, pixels))
    counts = op.And(inside, op.Less(samples, count))
    kept = op.Min(op.Max(place, 0.0), op.Sub(pixels, 1.0))
    distance = op.Abs(op.Sub(op.Unsqueeze(kept, [3]), op.Cast(op.Range(0, size, 1), to=dtype)))
    near = op.Max(op.Sub(1.0, distance), 0.0)
    weights = op.Mul(near, op.Cast(op.Unsqueeze(counts, [3]), to=dtype))
    total = op.ReduceSum(weights, [2], keepdims=0)
    return op.Div(total, count if least_count is None else op.Max(count, least_count))


def bin_edges(op: Any, start: Any, length: Any, bins: int, size: Any) -> tuple[Any, Any]:
    """Returns where the bins of whole pixels begin and end, each of shape (regions, bins)."""
    dtype = start.dtype
    step = op.Div(length, float(bins))
    index = op.Cast(op.Range(0, bins, 1), to=dtype)
    begin = op.Floor(op.Mul(index, step))
    end = op.Ceil(op.Mul(op.Add(index, 1.0), step))
    most = op.Cast(size, to=dtype)
    first, last = (op.Min(op.Max(op.Add(e, start), 0.0), most) for e in (begin, end))
    return first, last


def over_regions(
    op: Any,
    images: Any,
    rois: Any,
    weights: Sequence[Any],
    pool: Callable[..., Any],
    shape: Any,
) -> Any:
    """Returns what `pool` makes of each region: (regions, *shape).

    One region at a time, so that no image is copied for each of its regions.

    Args:
        op: The ops.
        images: The images.
        rois: The regions.
        weights: What there is for each region.
        pool: From an image and what there is for the region to its result.
        shape: The shape of that; without a region no result tells it.
    """
    image_of = images_of(op, rois)

    def body(i: Any, go_on: Any) -> Any:
        image = op.Gather(images, op.Gather(image_of, i), axis=0)
        return go_on, pool(image, *(op.Gather(each, i, axis=0) for each in weights))

    count = op.Shape(rois, start=0, end=1)
    found = op.Loop(op.Squeeze(count, [0]), True, body=body)
    return op.Reshape(found, op.Concat(count, shape, axis=0))
