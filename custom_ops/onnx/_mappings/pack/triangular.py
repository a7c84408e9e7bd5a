"""Triangular systems by substitution, and what is solved through Cholesky's factor."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.pack import matrices as m
from custom_ops.onnx._mappings.registry import packed


def substituted(op: Any, a: Any, b: Any, upper: bool, unit: bool = False) -> Any:
    """Returns the solution x of a x = b; the other triangle of a is not looked at."""
    size = m.columns_of(op, a)

    def step(i: Any, go_on: Any, x: Any) -> Any:
        k = op.Sub(op.Sub(size, 1), i) if upper else i
        line = m.row(op, a, k)  # the unknowns behind it are 0 so far
        value = op.Sub(m.row(op, b, k), op.MatMul(line, x))
        if not unit:
            value = op.Div(value, m.column(op, line, k))
        here = m.column_vector(op, op.Equal(op.Range(0, size, 1), k))
        return go_on, op.Where(here, value, x)

    return op.Loop(size, True, op.Mul(b, 0.0), body=step)


def _solved(op: Any, a: Any, b: Any, upper: bool, left: bool, unit: bool) -> Any:
    if not left:
        a, b, upper = m.transposed(op, a), m.transposed(op, b), not upper
    a, b = m.common_batch(op, a, b)
    x = substituted(op, m.triangle(op, a, upper), b, upper, unit)
    return x if left else m.transposed(op, x)


@packed("aten::linalg_solve_triangular", since_opset=15)
def _solve_triangular(
    op: Any, self: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    return _solved(op, self, B, upper, left, unitriangular)


@packed("aten::triangular_solve", since_opset=15)
def _triangular_solve(
    op: Any,
    self: Any,
    A: Any,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    a, b = m.common_batch(op, A, self)
    given = a
    if transpose:
        a, upper = m.transposed(op, a), not upper
    return _solved(op, a, b, upper, True, unitriangular), given


def cholesky(op: Any, a: Any) -> tuple[Any, Any]:
    """Returns the lower factor, and the order of the first minor that is not positive, else 0.

    Only the lower triangle is looked at.
    """
    size = m.columns_of(op, a)

    def step(k: Any, go_on: Any, now: Any, fault: Any) -> Any:
        line = m.column(op, now, k)
        square = m.row(op, line, k)
        bad = op.Squeeze(op.Not(op.Greater(square, 0.0)), [-2, -1])
        first = op.And(bad, op.Equal(fault, 0))
        fault = op.Where(first, op.Cast(op.Add(k, 1), to=ir.DataType.INT32), fault)
        above = m.column_vector(op, op.Less(op.Range(0, size, 1), k))
        factor = op.Where(above, 0.0, op.Div(line, op.Sqrt(square)))
        now = op.Sub(now, op.MatMul(factor, m.transposed(op, factor)))
        return go_on, now, fault, op.Squeeze(factor, [-1])

    _, fault, columns = op.Loop(size, True, a, m.no_information(op, a), body=step)
    order = [*range(1, a.rank), 0]
    return op.Transpose(columns, perm=order), fault


def _factor(op: Any, a: Any, upper: bool) -> tuple[Any, Any]:
    if upper:
        a = m.transposed(op, a)
    lower, fault = cholesky(op, a)
    return (m.transposed(op, lower) if upper else lower), fault


@packed("aten::linalg_cholesky", since_opset=15)
def _cholesky(op: Any, self: Any, upper: bool = False) -> Any:
    return _factor(op, self, upper)[0]


@packed("aten::linalg_cholesky_ex", since_opset=15)
def _cholesky_ex(op: Any, self: Any, upper: bool = False, check_errors: bool = False) -> Any:
    return _factor(op, self, upper)


@packed("aten::cholesky_solve", since_opset=15)
def _cholesky_solve(op: Any, self: Any, input2: Any, upper: bool = False) -> Any:
    a, b = m.common_batch(op, input2, self)
    lower = m.transposed(op, m.triangle(op, a, True)) if upper else m.triangle(op, a, False)
    y = substituted(op, lower, b, upper=False)
    return substituted(op, m.transposed(op, lower), y, upper=True)


@packed("aten::cholesky_inverse", since_opset=15)
def _cholesky_inverse(op: Any, self: Any, upper: bool = False) -> Any:
    unit = m.identity(op, m.columns_of(op, self), self)
    return _cholesky_solve(op, op.Expand(unit, op.Shape(self)), self, upper)
