"""Ops that move elements and compute nothing, which the TorchScript exporter lacks."""

from collections.abc import Sequence
from typing import Any

from custom_ops.onnx._mappings.pack._values import axis_of, known_size
from custom_ops.onnx._mappings.registry import packed

torchscript: Any = {"since_opset": 15, "exporter": "torchscript", "wide": False}


@packed("aten::alias_copy", **torchscript)
def _alias_copy(op: Any, self: Any) -> Any:
    return op.Identity(self)


@packed("aten::expand_copy", **torchscript)
def _expand_copy(op: Any, self: Any, size: Sequence[Any], implicit: bool = False) -> Any:
    # -1 keeps a size, as 1 does in ONNX.
    return op.Expand(self, [1 if n == -1 else n for n in size])


@packed("aten::view_copy", **torchscript)
def _view_copy(op: Any, self: Any, size: Sequence[Any]) -> Any:
    if isinstance(size, int):
        raise op.refusal("a view as another dtype has no mapping; convert with .to(dtype)")
    return op.Reshape(self, list(size), allowzero=1)


@packed("aten::ravel", **torchscript)
def _ravel(op: Any, self: Any) -> Any:
    return op.Reshape(self, [-1])


@packed("aten::permute_copy", **torchscript)
def _permute_copy(op: Any, self: Any, dims: Sequence[int]) -> Any:
    return op.Transpose(self, perm=[axis_of(self, dim) for dim in dims])


def swapped(op: Any, x: Any, dim0: int = -2, dim1: int = -1) -> Any:
    """Exchanges two dimensions."""
    order = list(range(x.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return op.Transpose(x, perm=order)


@packed("aten::transpose_copy", **torchscript)
def _transpose_copy(op: Any, self: Any, dim0: int, dim1: int) -> Any:
    return swapped(op, self, dim0, dim1) if self.rank else op.Identity(self)


@packed("aten::mT", **torchscript)
@packed("aten::mH", **torchscript)
@packed("aten::matrix_H", **torchscript)
@packed("aten::adjoint", **torchscript)
@packed("aten::t_copy", **torchscript)
def transposed(op: Any, self: Any) -> Any:
    """Exchanges the last two dimensions."""
    return swapped(op, self) if self.rank > 1 else op.Identity(self)


@packed("aten::unsqueeze_copy", **torchscript)
def _unsqueeze_copy(op: Any, self: Any, dim: int) -> Any:
    return op.Unsqueeze(self, [dim])


@packed("aten::squeeze_copy", **torchscript)
def _squeeze_copy(op: Any, self: Any, dim: Any = None) -> Any:
    if dim is None:
        return op.Squeeze(self)
    dims = [dim] if isinstance(dim, int) else list(dim)
    ones = [axis_of(self, d) for d in dims if known_size(op, self, d, "it says what remains") == 1]
    return op.Squeeze(self, ones) if ones else op.Identity(self)


@packed("aten::narrow_copy", **torchscript)
def _narrow_copy(op: Any, self: Any, dim: int, start: Any, length: Any) -> Any:
    start = op.Reshape(start, [1]) if not isinstance(start, int) else start
    if isinstance(start, int) and start < 0:
        start = op.Add(op.Shape(self, start=dim, end=dim + 1 or None), start)
    end = op.Add(start, length) if not isinstance(start, int) else start + length
    end = [end] if isinstance(end, int) else end
    start = [start] if isinstance(start, int) else start
    return op.Slice(self, start, end, [dim])


def flipped(op: Any, x: Any, dims: Sequence[int]) -> Any:
    """Reverses some dimensions."""
    return op.Slice(x, [-1] * len(dims), [-(2**63) + 1] * len(dims), list(dims), [-1] * len(dims))


@packed("aten::fliplr", **torchscript)
def _fliplr(op: Any, self: Any) -> Any:
    return flipped(op, self, [1])


@packed("aten::flipud", **torchscript)
def _flipud(op: Any, self: Any) -> Any:
    return flipped(op, self, [0])


@packed("aten::rot90", **torchscript)
def _rot90(op: Any, self: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    a, b = dims
    if k % 4 == 0:
        return op.Identity(self)
    if k % 4 == 2:
        return flipped(op, self, [a, b])
    turned = swapped(op, self, axis_of(self, a), axis_of(self, b))
    return flipped(op, turned, [a if k % 4 == 1 else b])


@packed("aten::column_stack", **torchscript)
def _column_stack(op: Any, tensors: Sequence[Any]) -> Any:
    columns = [op.Reshape(t, [-1, 1]) if t.rank < 2 else t for t in tensors]
    return op.Concat(*columns, axis=1)


@packed("aten::dstack", **torchscript)
def _dstack(op: Any, tensors: Sequence[Any]) -> Any:
    deep = []
    for t in tensors:
        if t.rank < 2:
            deep.append(op.Reshape(t, [1, -1, 1]))
        else:
            deep.append(op.Unsqueeze(t, [2]) if t.rank == 2 else t)
    return op.Concat(*deep, axis=2)


@packed("aten::channel_shuffle", **torchscript)
@packed("aten::native_channel_shuffle", **torchscript)
def _channel_shuffle(op: Any, self: Any, groups: int) -> Any:
    shape = op.Shape(self)
    rest = op.Slice(shape, [2], [self.rank])
    apart = op.Reshape(self, op.Concat([0, groups, -1], rest, axis=0))
    return op.Reshape(swapped(op, apart, 1, 2), shape)


def diagonal_mask(op: Any, rows: Any, columns: Any, offset: int) -> Any:
    """Tells which elements of a matrix are on a diagonal; sizes are tensors of one element."""
    row = op.Unsqueeze(op.Range(0, op.Squeeze(rows), 1), [1])
    column = op.Unsqueeze(op.Range(0, op.Squeeze(columns), 1), [0])
    return op.Equal(op.Sub(column, row), offset)


@packed("aten::diag_embed", **torchscript)
def diag_embed(op: Any, self: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Puts the last dimension on a diagonal of matrices."""
    size = op.Add(op.Shape(self, start=-1), abs(offset))
    mask = diagonal_mask(op, size, size, offset)
    before, after = max(-offset, 0), max(offset, 0)
    # A column of each row's number: what is above the diagonal starts later.
    pads = [0] * (self.rank - 1) + [before] + [0] * (self.rank - 1) + [after]
    rows = op.Unsqueeze(op.Pad(self, pads), [-1])
    finite = op.Where(mask, rows, 0)
    rank = self.rank + 1
    first, second = dim1 % rank, dim2 % rank
    if (first, second) == (rank - 2, rank - 1):
        return finite
    order = list(range(rank - 2))
    places: dict[int, int] = {first: rank - 2, second: rank - 1}
    return op.Transpose(
        finite, perm=[places[i] if i in places else order.pop(0) for i in range(rank)]
    )


@packed("aten::diagflat", **torchscript)
def _diagflat(op: Any, self: Any, offset: int = 0) -> Any:
    return diag_embed(op, op.Reshape(self, [-1]), offset)


def diagonal(op: Any, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Returns a diagonal of matrices as the last dimension."""
    first, second = axis_of(x, dim1), axis_of(x, dim2)
    others = [i for i in range(x.rank) if i not in (first, second)]
    x = op.Transpose(x, perm=[*others, first, second])
    rows, columns = op.Shape(x, start=-2, end=-1), op.Shape(x, start=-1)
    flat = op.Reshape(x, op.Concat(op.Shape(x, end=-2), [-1], axis=0))
    length = op.Min(op.Sub(rows, max(-offset, 0)), op.Sub(columns, max(offset, 0)))
    start = op.Add(op.Mul(columns, max(-offset, 0)), max(offset, 0))
    steps = op.Mul(op.Range(0, op.Squeeze(op.Max(length, 0)), 1), op.Add(columns, 1))
    return op.Gather(flat, op.Add(steps, start), axis=-1)


@packed("aten::diagonal_copy", **torchscript)
@packed("aten::linalg_diagonal", **torchscript)
def _diagonal_copy(op: Any, self: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return diagonal(op, self, offset, dim1, dim2)


@packed("aten::diag", **torchscript)
def _diag(op: Any, self: Any, diagonal_: int = 0) -> Any:
    if self.rank == 1:
        return diag_embed(op, self, diagonal_)
    return diagonal(op, self, diagonal_)


@packed("aten::trace", **torchscript)
def _trace(op: Any, self: Any) -> Any:
    return op.ReduceSum(diagonal(op, self), [0], keepdims=0)


@packed("aten::take_along_dim", **torchscript)
def _take_along_dim(op: Any, self: Any, indices: Any, dim: int | None = None) -> Any:
    if dim is None:
        flat = op.Reshape(indices, [-1])
        return op.GatherElements(op.Reshape(self, [-1]), flat, axis=0)
    axis = axis_of(self, dim)
    ours, theirs = op.Shape(self), op.Shape(indices)
    common = op.Max(ours, theirs)
    at = op.Equal(op.Range(0, self.rank, 1), axis)
    x = op.Expand(self, op.Where(at, ours, common))
    return op.GatherElements(x, op.Expand(indices, op.Where(at, theirs, common)), axis=axis)


@packed("aten::select_scatter", **torchscript)
def _select_scatter(op: Any, self: Any, src: Any, dim: int, index: Any) -> Any:
    axis = axis_of(self, dim)
    size = op.Shape(self, start=axis, end=axis + 1)
    place = op.Where(op.Less(index, 0), op.Add(size, index), op.Add(op.Mul(size, 0), index))
    at = op.Equal(op.Range(0, op.Squeeze(size), 1), place)
    at = op.Unsqueeze(at, list(range(1, self.rank - axis))) if axis < self.rank - 1 else at
    return op.Where(at, op.Unsqueeze(src, [axis]), self)


@packed("aten::slice_scatter", **torchscript)
def _slice_scatter(
    op: Any,
    self: Any,
    src: Any,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: Any = 1,
) -> Any:
    axis = axis_of(self, dim)
    size = op.Shape(self, start=axis, end=axis + 1)
    places = op.Range(0, op.Squeeze(size), 1)
    chosen = op.Slice(
        places,
        [0 if start is None else start],
        [2**63 - 1 if end is None else end],
        [0],
        [step],
    )
    shape = [1] * axis + [-1] + [1] * (self.rank - axis - 1)
    places = op.Expand(op.Reshape(chosen, shape), op.Shape(src))
    return op.ScatterElements(self, places, src, axis=axis)


@packed("aten::argwhere", **torchscript)
def _argwhere(op: Any, self: Any) -> Any:
    return op.Transpose(op.NonZero(self), perm=[1, 0])


@packed("aten::cartesian_prod", **torchscript)
def _cartesian_prod(op: Any, tensors: Sequence[Any]) -> Any:
    if len(tensors) == 1:
        return op.Identity(tensors[0])
    shape = op.Concat(*(op.Shape(t) for t in tensors), axis=0)
    columns = []
    for i, t in enumerate(tensors):
        place = [1] * i + [-1] + [1] * (len(tensors) - i - 1)
        columns.append(op.Reshape(op.Expand(op.Reshape(t, place), shape), [-1, 1]))
    return op.Concat(*columns, axis=1)


@packed("aten::block_diag", **torchscript)
def _block_diag(op: Any, tensors: Sequence[Any]) -> Any:
    blocks = [op.Reshape(t, [1, -1]) if t.rank < 2 else t for t in tensors]
    widths = [op.Shape(b, start=1) for b in blocks]
    before: Any = op.Mul(widths[0], 0)
    total = before
    for width in widths:
        total = op.Add(total, width)
    rows = []
    for block, width in zip(blocks, widths, strict=True):
        after = op.Sub(op.Sub(total, before), width)
        rows.append(op.Pad(block, op.Concat([0], before, [0], after, axis=0)))
        before = op.Add(before, width)
    return op.Concat(*rows, axis=0)
