"""Grids, and sampling of volumes: ONNX has them from opset 20 on, runtimes not in every dtype."""

import itertools
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.registry import packed

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def _unnormalized(op: Any, g: Any, size: Any, padding: int, aligned: bool) -> Any:
    """Returns coordinates in elements, from those in -1 to 1."""
    size = op.CastLike(size, g)
    if aligned:
        place = op.Mul(op.Add(g, 1.0), op.Mul(op.Sub(size, 1.0), 0.5))
    else:
        place = op.Mul(op.Sub(op.Mul(op.Add(g, 1.0), size), 1.0), 0.5)
    if padding not in (_ZEROS, _BORDER):
        low, span = (0.0, op.Sub(size, 1.0)) if aligned else (-0.5, size)
        there = op.Abs(op.Sub(place, low))
        flips = op.Floor(op.Div(there, span))
        rest = op.Sub(there, op.Mul(flips, span))
        odd = op.Equal(op.Sub(flips, op.Mul(op.Floor(op.Mul(flips, 0.5)), 2.0)), 1.0)
        place = op.Add(op.Where(odd, op.Sub(span, rest), rest), low)
        place = op.Where(op.Equal(span, 0.0), 0.0, place)
    if padding != _ZEROS:
        place = op.Max(op.Min(place, op.Sub(size, 1.0)), 0.0)
    return place


@packed("aten::grid_sampler_3d", since_opset=16)
def _grid_sampler_3d(
    op: Any,
    input: Any,
    grid: Any,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Any:
    if interpolation_mode not in (_BILINEAR, _NEAREST):
        raise op.refusal("interpolation_mode must be bilinear or nearest of a volume, got bicubic")
    sizes = [op.Shape(input, start=axis, end=axis + 1) for axis in (2, 3, 4)]
    places = [
        _unnormalized(op, op.Gather(grid, 2 - i, axis=-1), size, padding_mode, align_corners)
        for i, size in enumerate(sizes)
    ]  # the grid has x, y, z; the image z, y, x
    batch = op.Concat(op.Shape(input, end=2), [-1], axis=0)
    flat = op.Reshape(input, batch)
    out = op.Concat(op.Shape(input, end=2), op.Shape(grid, start=1, end=4), axis=0)
    if interpolation_mode == _NEAREST:
        return _looked_up(op, input, flat, [op.Round(p) for p in places], sizes, None, out)
    total = None
    floors = [op.Floor(place) for place in places]
    parts = [op.Sub(place, floor) for place, floor in zip(places, floors, strict=True)]
    for corner in itertools.product((0, 1), repeat=3):
        weight = None
        at = []
        for side, floor, part in zip(corner, floors, parts, strict=True):
            share = part if side else op.Sub(1.0, part)
            weight = share if weight is None else op.Mul(weight, share)
            at.append(op.Add(floor, float(side)))
        seen = _looked_up(op, input, flat, at, sizes, weight, out)
        total = seen if total is None else op.Add(total, seen)
    return total


def _looked_up(
    op: Any, image: Any, flat: Any, at: list[Any], sizes: list[Any], weight: Any, out: Any
) -> Any:
    """Returns elements at whole coordinates, 0 outside, times a weight."""
    inside, number = None, None
    for place, size in zip(at, sizes, strict=True):
        last = op.Sub(op.CastLike(size, place), 1.0)
        here = op.And(op.GreaterOrEqual(place, 0.0), op.LessOrEqual(place, last))
        inside = here if inside is None else op.And(inside, here)
        index = op.Cast(op.Max(op.Min(place, last), 0.0), to=ir.DataType.INT64)
        number = index if number is None else op.Add(op.Mul(number, size), index)
    rows = op.Unsqueeze(op.Reshape(number, op.Concat(op.Shape(number, end=1), [-1], axis=0)), [1])
    wide = op.Concat(op.Shape(image, end=2), op.Shape(rows, start=2), axis=0)
    seen = op.Reshape(op.GatherElements(flat, op.Expand(rows, wide), axis=2), out)
    keep = op.CastLike(inside, image)
    factor = keep if weight is None else op.Mul(keep, weight)
    return op.Mul(seen, op.Unsqueeze(factor, [1]))


@packed("aten::grid_sampler", since_opset=16, exporter="torchscript")
def _grid_sampler(
    op: Any,
    input: Any,
    grid: Any,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Any:
    if input.rank == 4:
        return NotImplemented
    return _grid_sampler_3d(op, input, grid, interpolation_mode, padding_mode, align_corners)


@packed("aten::grid_sampler_2d", since_opset=16, exporter="torchscript")
def _grid_sampler_2d(
    op: Any,
    input: Any,
    grid: Any,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Any:
    linear, cubic = ("linear", "cubic") if op.opset_version >= 20 else ("bilinear", "bicubic")
    return op.GridSample(
        input,
        grid,
        mode=(linear, "nearest", cubic)[interpolation_mode],
        padding_mode=("zeros", "border", "reflection")[padding_mode],
        align_corners=int(align_corners),
    )


@packed("aten::affine_grid_generator", since_opset=13)
def _affine_grid_generator(op: Any, theta: Any, size: Any, align_corners: bool) -> Any:
    rank = len(size)
    grid = _column(op, theta, rank - 2, rank)
    for j, axis in enumerate(range(rank - 1, 1, -1)):  # theta has x, y, z; the size z, y, x
        line = _centres(op, theta, size[axis], align_corners)
        line = op.Reshape(line, [1] * (axis - 1) + [-1] + [1] * (rank - axis))
        grid = op.Add(grid, op.Mul(_column(op, theta, j, rank), line))
    return grid


def _column(op: Any, theta: Any, j: int, rank: int) -> Any:
    """Returns what theta has for one coordinate, in as many dimensions as the grid."""
    return op.Unsqueeze(op.Gather(theta, j, axis=2), list(range(1, rank - 1)))


def _centres(op: Any, theta: Any, size: Any, aligned: bool) -> Any:
    """Returns the coordinates of a row of elements, from -1 to 1."""
    last = op.Sub(size, 1)
    doubled = op.Sub(op.Mul(op.Range(0, op.Squeeze(size), 1), 2), last)
    span = op.Max(last, 1) if aligned else op.Identity(size)
    return op.Div(op.CastLike(doubled, theta), op.CastLike(span, theta))
