"""QR by Householder's reflections and LU with the largest pivots, as LAPACK has them."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack import matrices as m
from custom_ops.onnx._mappings.pack.triangular import substituted
from custom_ops.onnx._mappings.registry import packed


def _reflected(op: Any, a: Any) -> tuple[Any, Any, Any]:
    """Returns R, the reflecting vectors as columns, and their factors as [steps, *batch]."""
    rows = m.rows_of(op, a)
    steps = op.Min(rows, m.columns_of(op, a))

    def step(k: Any, go_on: Any, r: Any) -> Any:
        x = m.column(op, r, k)
        below = m.column_vector(op, op.Greater(op.Range(0, rows, 1), k))
        rest = op.Where(below, x, 0.0)
        head = m.row(op, x, k)
        tail = op.ReduceSum(op.Mul(rest, rest), [-2], keepdims=1)
        norm = op.Sqrt(op.Add(op.Mul(head, head), tail))
        beta = op.Where(op.Less(head, 0.0), norm, op.Neg(norm))
        nothing = op.Equal(tail, 0.0)  # LAPACK leaves such a column, with its sign
        scale = op.Where(nothing, 1.0, op.Sub(head, beta))
        factor = op.Div(op.Sub(beta, head), op.Where(nothing, 1.0, beta))
        factor = op.Where(nothing, 0.0, factor)
        here = m.column_vector(op, op.Equal(op.Range(0, rows, 1), k))
        v = op.Where(here, 1.0, op.Div(rest, scale))
        r = op.Sub(r, op.Mul(op.Mul(factor, v), op.MatMul(m.transposed(op, v), r)))
        return go_on, r, op.Squeeze(v, [-1]), op.Squeeze(factor, [-2, -1])

    r, vectors, factors = op.Loop(steps, True, a, body=step)
    return r, op.Transpose(vectors, perm=[*range(1, a.rank), 0]), factors


def _product(op: Any, q: Any, vectors: Any, factors: Any, backward: bool = True) -> Any:
    """Applies reflections to the columns of q, the last one first; or the first one first."""
    steps = op.Squeeze(op.Shape(factors, end=1), [0])

    def step(i: Any, go_on: Any, q: Any) -> Any:
        k = op.Sub(op.Sub(steps, 1), i) if backward else i
        v = m.column(op, vectors, k)
        factor = op.Unsqueeze(op.Gather(factors, k, axis=0), [-2, -1])
        return go_on, op.Sub(q, op.Mul(op.Mul(factor, v), op.MatMul(m.transposed(op, v), q)))

    return op.Loop(steps, True, q, body=step)


@packed("aten::linalg_qr", since_opset=15)
def _qr(op: Any, A: Any, mode: str = "reduced") -> Any:
    r, vectors, factors = _reflected(op, A)
    r = m.triangle(op, r, True)
    if mode == "r":
        return op.Expand(op.CastLike(0.0, A), [0]), op.Slice(r, [0], op.Shape(factors, end=1), [-2])
    rows = m.rows_of(op, A)
    size = op.Concat(m.batch_of(op, A), op.Reshape(rows, [1]), op.Reshape(rows, [1]), axis=0)
    q = _product(op, op.Expand(m.identity(op, rows, A), size), vectors, factors)
    if mode == "complete":
        return q, r
    steps = op.Shape(factors, end=1)
    return op.Slice(q, [0], steps, [-1]), op.Slice(r, [0], steps, [-2])


@packed("aten::geqrf", since_opset=15)
def _geqrf(op: Any, self: Any) -> Any:
    r, vectors, factors = _reflected(op, self)
    # The vectors stay where R is 0; those of a wide matrix have no column beyond the rows.
    missing = op.Sub(op.Shape(self, start=-1), op.Shape(vectors, start=-1))
    nothing = op.Expand(op.CastLike(0.0, self), op.Concat(op.Shape(self, end=-1), missing, axis=0))
    stored = m.triangle(op, op.Concat(vectors, nothing, axis=-1), False, -1)
    last_first = [*range(1, self.rank - 1), 0]
    return op.Add(m.triangle(op, r, True), stored), op.Transpose(factors, perm=last_first)


def _unpacked(op: Any, stored: Any, factors: Any) -> tuple[Any, Any]:
    """Returns reflecting vectors and their factors, from the form in which geqrf stores them."""
    steps = op.Shape(factors, start=-1)
    below = m.triangle(op, op.Slice(stored, [0], steps, [-1]), False, -1)
    numbers = op.Range(0, m.rows_of(op, stored), 1)
    ones = op.Equal(m.column_vector(op, numbers), op.Range(0, op.Squeeze(steps), 1))
    vectors = op.Add(below, op.CastLike(ones, stored))
    return vectors, op.Transpose(factors, perm=[factors.rank - 1, *range(factors.rank - 1)])


@packed("aten::linalg_householder_product", since_opset=15)
@packed("aten::orgqr", since_opset=15)
def _householder_product(op: Any, input: Any, tau: Any) -> Any:
    vectors, factors = _unpacked(op, input, tau)
    rows, columns = m.rows_of(op, input), m.columns_of(op, input)
    ones = op.Equal(m.column_vector(op, op.Range(0, rows, 1)), op.Range(0, columns, 1))
    start = op.Expand(op.CastLike(ones, input), op.Shape(input))
    return _product(op, start, vectors, factors)


@packed("aten::ormqr", since_opset=15)
def _ormqr(
    op: Any, self: Any, input2: Any, input3: Any, left: bool = True, transpose: bool = False
) -> Any:
    vectors, factors = _unpacked(op, self, input2)
    if left:
        return _product(op, input3, vectors, factors, backward=not transpose)
    turned = m.transposed(op, input3)
    return m.transposed(op, _product(op, turned, vectors, factors, backward=transpose))


def _lu(op: Any, a: Any) -> tuple[Any, Any, Any]:
    """Returns both factors in one matrix, the exchanged rows counted from 1, and a fault."""
    rows = m.rows_of(op, a)
    steps = op.Min(rows, m.columns_of(op, a))

    def step(k: Any, go_on: Any, now: Any, fault: Any) -> Any:
        other = m.pivot_of(op, now, k)
        now = m.swapped_rows(op, now, k, other)
        line = m.row(op, now, k)
        pivot = m.column(op, line, k)
        zero = op.Squeeze(op.Equal(pivot, 0.0), [-2, -1])
        first = op.And(zero, op.Equal(fault, 0))
        fault = op.Where(first, op.Cast(op.Add(k, 1), to=ir.DataType.INT32), fault)
        factor = op.Div(m.column(op, now, k), op.Where(op.Equal(pivot, 0.0), 1.0, pivot))
        columns = op.Range(0, m.columns_of(op, now), 1)
        changed = op.Where(op.Equal(columns, k), factor, op.Sub(now, op.Mul(factor, line)))
        inside = op.And(
            m.column_vector(op, op.Greater(op.Range(0, rows, 1), k)),
            op.GreaterOrEqual(columns, k),
        )
        number = op.Cast(op.Squeeze(op.Add(other, 1), [-1]), to=ir.DataType.INT32)
        return go_on, op.Where(inside, changed, now), fault, number

    done, fault, numbers = op.Loop(steps, True, a, m.no_information(op, a), body=step)
    return done, op.Transpose(numbers, perm=[*range(1, a.rank - 1), 0]), fault


def _check_pivot(op: Any, pivot: bool) -> None:
    if not pivot:
        raise op.refusal("pivot must be True, got False; torch has it on CUDA alone")


@packed("aten::linalg_lu_factor_ex", since_opset=15)
def _lu_factor_ex(op: Any, A: Any, pivot: bool = True, check_errors: bool = False) -> Any:
    _check_pivot(op, pivot)
    return _lu(op, A)


@packed("aten::_lu_with_info", since_opset=15)
def _lu_with_info(op: Any, self: Any, pivot: bool = True, check_errors: bool = True) -> Any:
    return _lu_factor_ex(op, self, pivot)


@packed("aten::linalg_lu_factor", since_opset=15)
def _lu_factor(op: Any, A: Any, pivot: bool = True) -> Any:
    return _lu_factor_ex(op, A, pivot)[:2]


def _permuted(op: Any, b: Any, pivots: Any, backward: bool) -> Any:
    """Exchanges rows as LU did, or undoes it."""
    steps = op.Squeeze(op.Shape(pivots, start=-1), [0])
    numbers = op.Sub(op.Cast(pivots, to=ir.DataType.INT64), 1)

    def step(i: Any, go_on: Any, now: Any) -> Any:
        k = op.Sub(op.Sub(steps, 1), i) if backward else i
        return go_on, m.swapped_rows(op, now, k, op.Gather(numbers, op.Reshape(k, [1]), axis=-1))

    return op.Loop(steps, True, b, body=step)


def _three(op: Any, both: Any, pivots: Any) -> tuple[Any, Any, Any]:
    rows, steps = m.rows_of(op, both), op.Shape(pivots, start=-1)
    lower = m.triangle(op, op.Slice(both, [0], steps, [-1]), False, -1)
    numbers = op.Range(0, rows, 1)
    ones = op.Equal(m.column_vector(op, numbers), op.Range(0, op.Squeeze(steps), 1))
    size = op.Concat(m.batch_of(op, both), op.Reshape(rows, [1]), op.Reshape(rows, [1]), axis=0)
    p = _permuted(op, op.Expand(m.identity(op, rows, both), size), pivots, backward=True)
    upper = m.triangle(op, op.Slice(both, [0], steps, [-2]), True)
    return p, op.Add(lower, op.CastLike(ones, both)), upper


@packed("aten::linalg_lu", since_opset=15)
def _linalg_lu(op: Any, A: Any, pivot: bool = True) -> Any:
    _check_pivot(op, pivot)
    both, pivots, _ = _lu(op, A)
    return _three(op, both, pivots)


@packed("aten::lu_unpack", since_opset=15)
def _lu_unpack(
    op: Any, LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    if not (unpack_data and unpack_pivots):
        raise op.refusal("unpack_data and unpack_pivots must be True, got False")
    return _three(op, LU_data, LU_pivots)


@packed("aten::linalg_lu_solve", since_opset=15)
def _linalg_lu_solve(
    op: Any, LU: Any, pivots: Any, B: Any, left: bool = True, adjoint: bool = False
) -> Any:
    if not left:
        B = m.transposed(op, B)
        adjoint = not adjoint
    a, b = m.common_batch(op, LU, B)
    if adjoint:
        turned = m.transposed(op, a)
        y = substituted(op, turned, b, upper=False)
        x = substituted(op, turned, y, upper=True, unit=True)
        x = _permuted(op, x, pivots, backward=True)
    else:
        b = _permuted(op, b, pivots, backward=False)
        y = substituted(op, a, b, upper=False, unit=True)
        x = substituted(op, a, y, upper=True)
    return x if left else m.transposed(op, x)


@packed("aten::lu_solve", since_opset=15)
def _lu_solve(op: Any, self: Any, LU_data: Any, LU_pivots: Any) -> Any:
    return _linalg_lu_solve(op, LU_data, LU_pivots, self)
