"""Inverses, solutions and determinants by Gaussian elimination with the largest pivots."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack import matrices as m
from custom_ops.onnx._mappings.registry import packed


def _eliminated(op: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """Returns the solution x of a x = b, and the number of the first zero pivot, else 0.

    A singular matrix gives values that are not finite, where torch raises.
    """
    size = m.columns_of(op, a)
    both = op.Concat(a, b, axis=-1)

    def step(k: Any, go_on: Any, now: Any, fault: Any) -> Any:
        now = m.swapped_rows(op, now, k, m.pivot_of(op, now, k))
        line = m.row(op, now, k)
        pivot = m.column(op, line, k)
        zero = op.Squeeze(op.Equal(pivot, 0.0), [-2, -1])
        first = op.And(zero, op.Equal(fault, 0))
        fault = op.Where(first, op.Cast(op.Add(k, 1), to=ir.DataType.INT32), fault)
        line = op.Div(line, pivot)
        others = op.Sub(now, op.Mul(m.column(op, now, k), line))
        here = m.column_vector(op, op.Equal(op.Range(0, size, 1), k))
        return go_on, op.Where(here, line, others), fault

    done, fault = op.Loop(size, True, both, m.no_information(op, a), body=step)
    return op.Slice(done, op.Shape(a, start=-1), [2**63 - 1], [-1]), fault


def inverse(op: Any, a: Any) -> tuple[Any, Any]:
    """Returns the inverse, and the number of the first zero pivot."""
    unit = m.identity(op, m.columns_of(op, a), a)
    unit = op.Expand(unit, op.Shape(a))
    return _eliminated(op, a, unit)


@packed("aten::linalg_inv", since_opset=15)
@packed("aten::inverse", since_opset=15)
def _inv(op: Any, A: Any) -> Any:
    return inverse(op, A)[0]


@packed("aten::linalg_inv_ex", since_opset=15)
def _inv_ex(op: Any, A: Any, check_errors: bool = False) -> Any:
    return inverse(op, A)


def _solved(op: Any, a: Any, b: Any, left: bool) -> tuple[Any, Any]:
    vector = b.rank == 1
    if not vector and b.rank == a.rank - 1:
        if a.shape is None or None in a.shape or None in b.shape:
            raise op.refusal(
                "B must have as many dimensions as A, or one, got one less with dynamic sizes, "
                "which may be vectors or a matrix; unsqueeze B"
            )
        vector = a.shape[:-1] == b.shape
    if vector:
        b = op.Unsqueeze(b, [-1 if left else -2])
    if not left:
        a, b = m.transposed(op, a), m.transposed(op, b)
    a, b = m.common_batch(op, a, b)
    x, fault = _eliminated(op, a, b)
    if not left:
        x = m.transposed(op, x)
    return (op.Squeeze(x, [-1 if left else -2]) if vector else x), fault


@packed("aten::linalg_solve", since_opset=15)
def _solve(op: Any, A: Any, B: Any, left: bool = True) -> Any:
    return _solved(op, A, B, left)[0]


@packed("aten::linalg_solve_ex", since_opset=15)
def _solve_ex(op: Any, A: Any, B: Any, left: bool = True, check_errors: bool = False) -> Any:
    return _solved(op, A, B, left)


@packed("aten::linalg_tensorinv", since_opset=15)
def _tensorinv(op: Any, self: Any, ind: int = 2) -> Any:
    shape = op.Shape(self)
    ahead, after = op.Slice(shape, [0], [ind]), op.Slice(shape, [ind], [self.rank])
    size = op.ReduceProd(after, keepdims=1)
    square = op.Reshape(self, op.Concat(size, size, axis=0))
    return op.Reshape(inverse(op, square)[0], op.Concat(after, ahead, axis=0))


@packed("aten::linalg_tensorsolve", since_opset=15)
def _tensorsolve(op: Any, self: Any, other: Any, dims: Any = None) -> Any:
    if dims is not None:
        moved = [d % self.rank for d in dims]
        kept = [d for d in range(self.rank) if d not in moved]
        self = op.Transpose(self, perm=[*kept, *moved])
    flat = op.Reshape(other, [-1, 1])
    size = op.Shape(flat, end=1)
    x, _ = _eliminated(op, op.Reshape(self, op.Concat(size, size, axis=0)), flat)
    return op.Reshape(x, op.Shape(self, start=other.rank))


def _signs_and_pivots(op: Any, a: Any) -> tuple[Any, Any]:
    """Returns the sign of the row exchanges, and the pivots as [n, *batch]."""
    size = m.columns_of(op, a)
    none = op.Expand(op.Cast(0, to=ir.DataType.INT64), m.batch_of(op, a))

    def step(k: Any, go_on: Any, now: Any, exchanges: Any) -> Any:
        other = m.pivot_of(op, now, k)
        now = m.swapped_rows(op, now, k, other)
        moved = op.Not(op.Equal(op.Squeeze(other, [-1]), k))
        exchanges = op.Add(exchanges, op.Cast(moved, to=ir.DataType.INT64))
        line = m.row(op, now, k)
        pivot = m.column(op, line, k)
        factor = op.Div(m.column(op, now, k), op.Where(op.Equal(pivot, 0.0), 1.0, pivot))
        below = m.column_vector(op, op.Greater(op.Range(0, size, 1), k))
        now = op.Where(below, op.Sub(now, op.Mul(factor, line)), now)
        return go_on, now, exchanges, op.Squeeze(pivot, [-2, -1])

    _, exchanges, pivots = op.Loop(size, True, a, none, body=step)
    sign = op.Sub(1, op.Mul(op.Mod(exchanges, 2), 2))
    return op.CastLike(sign, a), pivots


@packed("aten::linalg_det", since_opset=15)
@packed("aten::det", since_opset=15)
def _det(op: Any, A: Any) -> Any:
    sign, pivots = _signs_and_pivots(op, A)
    return op.Mul(sign, op.ReduceProd(pivots, [0], keepdims=0))


@packed("aten::linalg_slogdet", since_opset=15)
@packed("aten::slogdet", since_opset=15)
def _slogdet(op: Any, A: Any) -> Any:
    sign, pivots = _signs_and_pivots(op, A)
    sign = op.Mul(sign, op.ReduceProd(op.Sign(pivots), [0], keepdims=0))
    return sign, op.ReduceSum(op.Log(op.Abs(pivots)), [0], keepdims=0)


@packed("aten::logdet", since_opset=15)
def _logdet(op: Any, self: Any) -> Any:
    sign, logarithm = _slogdet(op, self)
    return op.Where(op.Less(sign, 0.0), float("nan"), logarithm)
