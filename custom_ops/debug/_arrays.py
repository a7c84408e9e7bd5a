"""Arithmetic of arrays piece by piece, in float64 and for integers exactly."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

# Elements looked at together: three arrays of them, in float64, stay in the cache of a core.
_CHUNK = 32_768

Array = np.ndarray[Any, Any]


def is_text(array: Array) -> bool:
    """Says whether an array holds strings."""
    return array.dtype.kind in "OSTU"


def mismatch(expected: Array, actual: Array) -> str:
    """Says which shape and dtype an array has instead of those that it should have."""
    said = []
    if expected.shape != actual.shape:
        said.append(f"shape {list(actual.shape)}, not {list(expected.shape)}")
    ours, theirs = (
        "string" if is_text(array) else array.dtype.name for array in (expected, actual)
    )
    if ours != theirs:
        said.append(f"dtype {theirs}, not {ours}")
    return "; ".join(said)


def comparable(expected: Array, actual: Array) -> bool:
    """Says whether two arrays can be compared element by element."""
    return expected.shape == actual.shape and is_text(expected) == is_text(actual)


def working(*dtypes: Any) -> list[np.dtype[Any]]:
    """Returns the types to compute in: float64, unless integers do not fit in."""
    if any(dtype.kind == "c" for dtype in dtypes):
        return [np.dtype(np.complex128)] * len(dtypes)
    sizes = {dtype.itemsize for dtype in dtypes}
    if all(dtype.kind in "biu" for dtype in dtypes) and 8 in sizes:
        return [np.dtype(np.uint64 if dtype.kind == "u" else np.int64) for dtype in dtypes]
    return [np.dtype(np.float64)] * len(dtypes)


def chunks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Gives arrays of one shape in pieces, flat and in the types to compute in."""
    if not arrays[0].size:
        return
    pieces = np.nditer(
        arrays,
        flags=["buffered", "external_loop"],
        op_flags=[["readonly"]] * len(arrays),
        op_dtypes=working(*(array.dtype for array in arrays)),
        casting="unsafe",
        buffersize=_CHUNK,
    )
    for piece in pieces:
        yield piece if isinstance(piece, tuple) else (piece,)


def all_equal(expected: Array, actual: Array) -> bool:
    """Says whether all numbers are equal; ends at the first piece with a difference."""
    if expected.dtype != actual.dtype:
        return False
    if not expected.size:
        return True
    pieces = np.nditer(
        [expected, actual],
        flags=["buffered", "external_loop"],
        op_flags=[["readonly"]] * 2,
        buffersize=_CHUNK,
    )
    return all((ours == theirs).all() for ours, theirs in pieces)


def largest(array: Array) -> float:
    """Returns the largest magnitude; not finite where an element is not."""
    if not array.size:
        return 0.0
    if array.dtype.kind == "c":
        return float(np.abs(array).max())
    return float(max(array.max().item(), -array.min().item()))


def difference(wanted: Array, found: Array) -> Array:
    """Returns the absolute differences, rounded once."""
    if wanted.dtype.kind not in "iu":
        return np.asarray(np.abs(found - wanted))
    ours, theirs = wanted.view(np.uint64), found.view(np.uint64)
    # Differences of int64 may need a bit more than it has: uint64 holds their magnitude.
    exact = np.where(found > wanted, theirs - ours, ours - theirs).astype(np.float64)
    if wanted.dtype == found.dtype:
        return exact
    signed, unsigned = (wanted, found) if wanted.dtype.kind == "i" else (found, wanted)
    apart = unsigned.astype(np.float64) - signed.astype(np.float64)
    return np.where(signed < 0, apart, exact)


def disagreeing(wanted: Array, found: Array) -> Array:
    """Says which elements are not finite on one side alone, or differently."""
    alike = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    return np.asarray(~alike & ~(np.isfinite(wanted) & np.isfinite(found)))


def alone(array: Array) -> tuple[float, int, int]:
    """Returns the largest finite magnitude, and how many elements are NaN and infinite."""
    top, nan, infinite = 0.0, 0, 0
    if is_text(array):
        return top, nan, infinite
    for (piece,) in chunks(array):
        here = largest(piece)
        if not math.isfinite(here):
            nans, infinities = not_finite(piece)
            nan += nans
            infinite += infinities
            here = largest(piece[np.isfinite(piece)])
        top = max(top, here)
    return top, nan, infinite


def not_finite(array: Array) -> tuple[int, int]:
    """Counts what is NaN, and what is infinite; a complex number with NaN in it is NaN."""
    nan = int(np.count_nonzero(np.isnan(array)))
    return nan, array.size - int(np.count_nonzero(np.isfinite(array))) - nan
