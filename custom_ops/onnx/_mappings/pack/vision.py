"""The ops of torchvision on regions of interest.

Each region is a row (index of the image, x1, y1, x2, y2). The averages over regions are products:
what a bin takes of a row of pixels does not depend on the columns, so that with the weights
`by_row` (bins, height) and `by_column` (bins, width) its result is by_row @ image @ by_column'.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx._mappings.pack.regions import (
    bin_edges,
    coordinates,
    images_of,
    in_kind,
    in_single,
    over_regions,
    sampled_weights,
    spatial_sizes,
)
from custom_ops.onnx._mappings.registry import packed

# Runtimes have kernels of RoiAlign (16) and MaxRoiPool (1), and none of those of opset 22.
_NO_KERNELS = 22
# The ops that all this is written with.
_SINCE = 16


@packed("torchvision::roi_align", since_opset=10, wide=False)
def roi_align(
    op: Any,
    images: Any,
    rois: Any,
    spatial_scale: Any,
    pooled_height: Any,
    pooled_width: Any,
    sampling_ratio: Any,
    aligned: Any,
) -> Any:
    """Averages bilinear samples of each bin."""
    if op.model_opset < _SINCE:  # RoiAlign has no samples at half pixels there
        if aligned:
            raise ValueError(
                f"aligned must be False at opset {op.model_opset}, got True; export with "
                f"opset_version={_SINCE}"
            )
        return NotImplemented
    # Attributes are float32, and float16 is more than a region's coordinates bear.
    exact = images.dtype in (ir.DataType.FLOAT, None) or (
        images.dtype is ir.DataType.DOUBLE and float(np.float32(spatial_scale)) == spatial_scale
    )
    if op.model_opset < _NO_KERNELS and exact:
        return op.RoiAlign(
            images,
            op.Slice(rois, [1], [5], [1]),
            images_of(op, rois),
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=spatial_scale,
        )
    kind, (images, rois) = images.dtype, in_single(op, images, rois)
    height, width = spatial_sizes(op, images)
    left, top, right, bottom = coordinates(op, rois, spatial_scale, 0.5 if aligned else 0.0)
    least = None if aligned else 1.0
    by_row = sampled_weights(op, top, bottom, least, pooled_height, sampling_ratio, height, 1.0)
    by_column = sampled_weights(op, left, right, least, pooled_width, sampling_ratio, width, 1.0)

    def pool(image: Any, rows: Any, columns: Any) -> Any:
        return op.MatMul(op.MatMul(rows, image), op.Transpose(columns, perm=[1, 0]))

    channels = op.Shape(images, start=1, end=2)
    shape = op.Concat(channels, [pooled_height, pooled_width], axis=0)
    return in_kind(op, over_regions(op, images, rois, (by_row, by_column), pool, shape), kind)


@packed("torchvision::ps_roi_align", since_opset=_SINCE, wide=False)
def ps_roi_align(
    op: Any,
    images: Any,
    rois: Any,
    spatial_scale: Any,
    pooled_height: Any,
    pooled_width: Any,
    sampling_ratio: Any,
) -> Any:
    """Averages bilinear samples of each bin, of a channel for each bin."""
    kind, (images, rois) = images.dtype, in_single(op, images, rois)
    height, width = spatial_sizes(op, images)
    left, top, right, bottom = coordinates(op, rois, spatial_scale, 0.5)
    by_row = sampled_weights(op, top, bottom, None, pooled_height, sampling_ratio, height, None)
    by_column = sampled_weights(op, left, right, None, pooled_width, sampling_ratio, width, None)
    bins = (pooled_height, pooled_width)
    return _position_sensitive(op, images, rois, by_row, by_column, bins, kind)


@packed("torchvision::ps_roi_pool", since_opset=_SINCE, wide=False)
def ps_roi_pool(
    op: Any, images: Any, rois: Any, spatial_scale: Any, pooled_height: Any, pooled_width: Any
) -> Any:
    """Averages the pixels of each bin, of a channel for each bin."""
    kind, (images, rois) = images.dtype, in_single(op, images, rois)
    height, width = spatial_sizes(op, images)
    left, top, right, bottom = coordinates(op, rois, spatial_scale, 0.0)

    def averages(first: Any, last: Any, bins: int, size: Any) -> Any:
        start, end = _rounded(op, first), _rounded(op, last)
        length = op.Max(op.Sub(end, start), 1.0)
        # torchvision never takes the last row and column.
        start, end = bin_edges(op, start, length, bins, op.Sub(size, 1))
        pixels = op.Cast(op.Range(0, size, 1), to=images.dtype)
        start, end = op.Unsqueeze(start, [2]), op.Unsqueeze(end, [2])
        inside = op.And(op.GreaterOrEqual(pixels, start), op.Less(pixels, end))
        count = op.Max(op.Sub(end, start), 1.0)
        return op.Div(op.Cast(inside, to=images.dtype), count)

    by_row = averages(top, bottom, pooled_height, height)
    by_column = averages(left, right, pooled_width, width)
    bins = (pooled_height, pooled_width)
    return _position_sensitive(op, images, rois, by_row, by_column, bins, kind)


@packed("torchvision::roi_pool", wide=False)
def roi_pool(
    op: Any, images: Any, rois: Any, spatial_scale: Any, pooled_height: Any, pooled_width: Any
) -> Any:
    """The maximum of each bin, and where in the image it is."""
    if op.model_opset < _SINCE:
        return NotImplemented
    kind, (images, rois) = images.dtype, in_single(op, images, rois)
    height, width = spatial_sizes(op, images)
    left, top, right, bottom = coordinates(op, rois, spatial_scale, 0.0)

    def edges(first: Any, last: Any, bins: int, size: Any) -> Any:
        start, end = _rounded(op, first), _rounded(op, last)
        length = op.Max(op.Add(op.Sub(end, start), 1.0), 1.0)
        found = bin_edges(op, start, length, bins, size)
        return (op.Cast(each, to=ir.DataType.INT64) for each in found)

    row, row_end = edges(top, bottom, pooled_height, height)
    column, column_end = edges(left, right, pooled_width, width)
    channels = op.Shape(images, start=1, end=2)
    bins = pooled_height * pooled_width
    image_of = images_of(op, rois)

    def body(i: Any, go_on: Any) -> Any:
        region, at = op.Div(i, bins), op.Mod(i, bins)
        image = op.Gather(images, op.Gather(image_of, region), axis=0)

        def edge(edges: Any, index: Any) -> Any:
            return op.Reshape(op.Gather(op.Gather(edges, region), index), [1])

        y, x = op.Div(at, pooled_width), op.Mod(at, pooled_width)
        top, bottom = edge(row, y), edge(row_end, y)
        left, right = edge(column, x), edge(column_end, x)
        empty = op.Or(op.LessOrEqual(bottom, top), op.LessOrEqual(right, left))
        # An empty bin looks at the first pixel, and is 0.
        top, left = op.Where(empty, 0, top), op.Where(empty, 0, left)
        bottom, right = op.Where(empty, 1, bottom), op.Where(empty, 1, right)
        window = op.Slice(
            image, op.Concat(top, left, axis=0), op.Concat(bottom, right, axis=0), [1, 2]
        )
        flat = op.Reshape(window, [0, -1])
        index = op.ArgMax(flat, axis=1, keepdims=1)
        wide = op.Sub(right, left)
        y = op.Add(op.Div(index, wide), top)
        x = op.Add(op.Mod(index, wide), left)
        place = op.Where(empty, -1, op.Add(op.Mul(y, width), x))
        best = op.Where(empty, 0.0, op.GatherElements(flat, index, axis=1))
        return go_on, op.Squeeze(best, [1]), op.Squeeze(op.Cast(place, to=ir.DataType.INT32), [1])

    regions = op.Shape(rois, start=0, end=1)
    best, places = op.Loop(op.Squeeze(op.Mul(regions, bins), [0]), True, body=body)
    shape = op.Concat(regions, [pooled_height, pooled_width], channels, axis=0)
    best, places = (
        op.Transpose(op.Reshape(each, shape), perm=[0, 3, 1, 2]) for each in (best, places)
    )
    if op.model_opset < _NO_KERNELS and images.dtype is ir.DataType.FLOAT:  # of 32 bits alone
        pooled = [pooled_height, pooled_width]  # then only who asks for the places has the loop
        best = op.MaxRoiPool(images, rois, pooled_shape=pooled, spatial_scale=spatial_scale)
    return in_kind(op, best, kind), places


def _rounded(op: Any, edge: Any) -> Any:
    """Rounds halves away from zero, as C does; Round of ONNX takes the even neighbour."""
    return op.Mul(op.Sign(edge), op.Floor(op.Add(op.Abs(edge), 0.5)))


def _position_sensitive(
    op: Any, images: Any, rois: Any, by_row: Any, by_column: Any, bins: tuple[int, int], kind: Any
) -> Any:
    """Returns the averages with a channel for each bin, and which channel that is."""
    rows, columns = bins
    sizes = op.Shape(images, start=2, end=4)

    def pool(image: Any, by_row: Any, by_column: Any) -> Any:
        shape = op.Concat([-1, rows, columns], sizes, axis=0)
        channels = op.Reshape(image, shape)  # (channels, rows, columns, height, width)
        lines = op.MatMul(op.Unsqueeze(by_row, [1, 2]), channels)
        found = op.MatMul(lines, op.Unsqueeze(by_column, [2]))
        return op.Squeeze(found, [3, 4])

    count = op.Div(op.Shape(images, start=1, end=2), rows * columns)
    places = op.Range(0, op.Squeeze(op.Mul(count, rows * columns), [0]), 1)
    each = op.Concat(count, [rows, columns], axis=0)
    result = over_regions(op, images, rois, (by_row, by_column), pool, each)
    mapping = op.Cast(op.Reshape(places, each), to=ir.DataType.INT32)
    result = in_kind(op, result, kind)
    return result, op.Expand(mapping, op.Concat(op.Shape(rois, start=0, end=1), each, axis=0))
