"""Parts of matrices that the linear algebra of the pack is made of; batches come first."""

from typing import Any

import onnx_ir as ir


def rows_of(op: Any, a: Any) -> Any:
    """Returns the number of rows, a tensor without dimensions."""
    return op.Squeeze(op.Shape(a, start=-2, end=-1), [0])


def columns_of(op: Any, a: Any) -> Any:
    """Returns the number of columns, a tensor without dimensions."""
    return op.Squeeze(op.Shape(a, start=-1), [0])


def column_vector(op: Any, numbers: Any) -> Any:
    """Returns numbers as a column, which goes along the rows of a matrix."""
    return op.Unsqueeze(numbers, [-1])


def row(op: Any, a: Any, k: Any) -> Any:
    """Returns row k as a matrix of one row; k is a tensor."""
    return op.Gather(a, op.Reshape(k, [1]), axis=-2)


def column(op: Any, a: Any, k: Any) -> Any:
    """Returns column k as a matrix of one column; k is a tensor."""
    return op.Gather(a, op.Reshape(k, [1]), axis=-1)


def transposed(op: Any, a: Any) -> Any:
    """Exchanges rows and columns."""
    order = list(range(a.rank))
    return op.Transpose(a, perm=[*order[:-2], order[-1], order[-2]])


def identity(op: Any, size: Any, like: Any) -> Any:
    """Returns the unit matrix, without batch, in the dtype of another tensor."""
    numbers = op.Range(0, size, 1)
    return op.CastLike(op.Equal(column_vector(op, numbers), numbers), like)


def batch_of(op: Any, a: Any) -> Any:
    """Returns the sizes before the last two."""
    return op.Shape(a, end=-2)


def common_batch(op: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Expands two batches of matrices to one."""
    corner = op.Add(_corner(op, a), _corner(op, b))
    batch = op.Shape(corner)
    first, second = (op.Expand(m, op.Concat(batch, op.Shape(m, start=-2), axis=0)) for m in (a, b))
    return first, second


def _corner(op: Any, a: Any) -> Any:
    # A size of 0 must not matter here.
    return op.ReduceSum(a, [-2, -1], keepdims=0)


def swapped_rows(op: Any, a: Any, k: Any, other: Any) -> Any:
    """Exchanges row k with another one, which may differ in each batch.

    Args:
        op: The ops.
        a: Matrices.
        k: A tensor without dimensions.
        other: Numbers of rows, of shape [*batch, 1].
    """
    numbers = op.Range(0, rows_of(op, a), 1)
    order = op.Where(op.Equal(numbers, other), k, numbers)
    order = column_vector(op, op.Where(op.Equal(numbers, k), other, order))
    return op.GatherElements(a, op.Expand(order, op.Shape(a)), axis=-2)


def pivot_of(op: Any, a: Any, k: Any) -> Any:
    """Returns the number of the largest element of column k from row k on, as [*batch, 1]."""
    numbers = op.Range(0, rows_of(op, a), 1)
    sizes = op.Abs(op.Gather(a, k, axis=-1))
    return op.ArgMax(op.Where(op.Less(numbers, k), -1.0, sizes), axis=-1, keepdims=1)


def triangle(op: Any, a: Any, upper: bool, k: int = 0) -> Any:
    """Keeps the upper or the lower triangle."""
    return op.Trilu(a, k, upper=int(upper))


def no_information(op: Any, a: Any) -> Any:
    """Returns what says that all went well: an int32 zero for each matrix."""
    return op.Expand(op.Cast(0, to=ir.DataType.INT32), batch_of(op, a))
