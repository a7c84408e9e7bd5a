"""Writing and reading by index, which an exporter lacks or gets wrong."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack._values import axis_of, is_float
from custom_ops.onnx._mappings.registry import packed

_INT64 = ir.DataType.INT64
_REDUCTIONS = {"sum": "add", "prod": "mul", "amin": "min", "amax": "max", "mean": "add"}


def _neutral(x: Any, reduce: str) -> float:
    """Returns what a reduction begins with."""
    if reduce in ("amin", "amax"):
        if not is_float(x):
            limits = ir.DataType(x.dtype)
            return limits.max if reduce == "amin" else limits.min  # type: ignore[return-value]
        return float("inf") if reduce == "amin" else float("-inf")
    return 1 if reduce == "prod" else 0


def _scattered(
    op: Any, x: Any, axis: int, index: Any, source: Any, reduce: str, include: bool
) -> Any:
    """Reduces what an index puts in each place; the index has the shape of the source."""
    flat = not x.rank
    if flat:
        x, index, source = (op.Reshape(each, [1]) for each in (x, index, source))
    one = op.Expand(op.CastLike(1, x), op.Shape(source))
    nothing = op.Mul(op.CastLike(op.IsNaN(x), x), 0) if is_float(x) else op.Mul(x, 0)
    number = op.ScatterElements(nothing, index, one, axis=axis, reduction="add")
    start = x
    if not include:
        start = op.Where(op.Greater(number, 0), _neutral(x, reduce), x)
    done = op.ScatterElements(start, index, source, axis=axis, reduction=_REDUCTIONS[reduce])
    if reduce == "mean":
        divisor = op.Add(number, 1) if include else op.Max(number, 1)
        done = op.Div(done, divisor) if is_float(x) else _floor_divided(op, done, divisor)
    return op.Squeeze(done, [0]) if flat else done


def _floor_divided(op: Any, a: Any, b: Any) -> Any:
    return op.Div(op.Sub(a, op.Mod(a, b)), b)


@packed("aten::scatter_reduce", since_opset=18)
def _scatter_reduce(
    op: Any, self: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    if reduce not in _REDUCTIONS:
        raise op.refusal(f"reduce must be one of {', '.join(_REDUCTIONS)}, got {reduce!r}")
    if include_self and reduce != "mean":
        return NotImplemented
    # The index may be smaller than the source.
    source = src
    if index.rank:
        axes = list(range(index.rank))
        source = op.Slice(src, [0] * index.rank, op.Shape(index), axes)
    return _scattered(op, self, axis_of(self, dim), index, source, reduce, include_self)


@packed("aten::index_reduce", since_opset=18)
def _index_reduce(
    op: Any, self: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    axis = axis_of(self, dim)
    shape = [1] * axis + [-1] + [1] * max(self.rank - axis - 1, 0)
    wide = op.Expand(op.Reshape(index, shape), op.Shape(source)) if self.rank else index
    return _scattered(op, self, axis, wide, source, reduce, include_self)


@packed("aten::index_add", since_opset=18, exporter="torchscript")
def _index_add(op: Any, self: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    axis = axis_of(self, dim)
    scaled = source if alpha == 1 else op.Mul(source, alpha)
    if not self.rank:
        total = op.ReduceSum(op.Reshape(scaled, [-1]), keepdims=0)
        return op.Add(self, total)
    shape = [1] * axis + [-1] + [1] * (self.rank - axis - 1)
    wide = op.Expand(op.Reshape(index, shape), op.Shape(source))
    return op.ScatterElements(self, wide, scaled, axis=axis, reduction="add")


@packed("aten::put", since_opset=18)
def _put(op: Any, self: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    flat = op.Reshape(self, [-1])
    places, values = op.Reshape(index, [-1]), op.Reshape(source, [-1])
    reduction = "add" if accumulate else "none"
    done = op.ScatterElements(flat, places, values, axis=0, reduction=reduction)
    return op.Reshape(done, op.Shape(self))


@packed("aten::masked_select", since_opset=15, exporter="dynamo")
def _masked_select(op: Any, self: Any, mask: Any) -> Any:
    shape = op.Max(_shape(op, self, mask.rank), _shape(op, mask, self.rank))
    return op.Compress(
        op.Reshape(op.Expand(self, shape), [-1]), op.Reshape(op.Expand(mask, shape), [-1]), axis=0
    )


def _shape(op: Any, x: Any, rank: int) -> Any:
    """Returns the sizes, with as many ones before as the other tensor needs."""
    missing = max(rank - x.rank, 0)
    return op.Concat([1] * missing, op.Shape(x), axis=0) if missing else op.Shape(x)


@packed("aten::nonzero_static", since_opset=15)
def _nonzero_static(op: Any, self: Any, *, size: int, fill_value: int = -1) -> Any:
    found = op.Transpose(op.NonZero(self), perm=[1, 0])
    more = op.Expand(op.Cast(fill_value, to=_INT64), [size, max(self.rank, 1)])
    return op.Slice(op.Concat(found, more, axis=0), [0], [size], [0])


@packed("aten::index_put", since_opset=18, exporter="torchscript")
def _index_put(
    op: Any, self: Any, indices: list[Any], values: Any, accumulate: bool = False
) -> Any:
    masks = [i for i in indices if i is not None and i.dtype is ir.DataType.BOOL]
    if not accumulate or None in indices or masks:
        return NotImplemented
    # The exporter adds only one of several values for one place.
    shape = op.Max(*(_shape(op, i, max(j.rank for j in indices)) for i in indices))
    places = []
    for axis, index in enumerate(indices):
        wide = op.Expand(index, shape)
        size = op.Shape(self, start=axis, end=axis + 1)
        wide = op.Where(op.Less(wide, 0), op.Add(wide, size), wide)
        places.append(op.Unsqueeze(wide, [-1]))
    rest = op.Shape(self, start=len(indices))
    source = op.Expand(values, op.Concat(shape, rest, axis=0))
    return op.ScatterND(self, op.Concat(*places, axis=-1), source, reduction="add")
