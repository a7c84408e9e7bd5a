"""How two arrays differ: a few numbers for each value, and many for those worth a look."""

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from custom_ops.debug import _arrays
from custom_ops.debug._arrays import Array

_BINS, _WORST, _GRID, _BLOCK = 40, 10, 32, 1024
# Types whose numbers, seen as integers, count the steps between them, and those integers.
_COUNTED: dict[np.dtype[Any], Any] = {
    np.dtype(np.float16): np.int16,
    np.dtype(ml_dtypes.bfloat16): np.int16,
    np.dtype(np.float32): np.int32,
    np.dtype(np.float64): np.int64,
}


@dataclass(frozen=True)
class Metrics:
    """How a value differs from what it should be, in float64.

    Elements that are not finite on either side count in no mean and no difference.

    Attributes:
        max_abs: Largest absolute difference; infinite where the shapes disagree, or text is
            compared with numbers.
        mean_abs: Mean of the absolute differences.
        mean_square: Mean of the squares of the differences.
        largest: Largest finite magnitude of what should be.
        nan: Elements that are NaN: in what should be, in what is.
        infinite: Elements that are infinite: in what should be, in what is.
        disagree: Elements that are not finite on one side alone, or differently; of text, all
            that differ.
        mismatch: What shape or dtype it has, and should have; "" where they agree.
    """

    max_abs: float
    mean_abs: float
    mean_square: float
    largest: float
    nan: tuple[int, int] = (0, 0)
    infinite: tuple[int, int] = (0, 0)
    disagree: int = 0
    mismatch: str = ""

    @property
    def apart(self) -> float:
        """The largest difference; infinite where shapes disagree, or what is no number."""
        return math.inf if self.disagree or self.mismatch else self.max_abs

    def within(self, limit: float) -> bool:
        """Returns whether nothing differs by more than a limit, in kind or in what is no number."""
        return self.max_abs <= limit and not self.disagree and not self.mismatch


@dataclass(frozen=True)
class Element:
    """One element: where it is, what it should be, and what it is."""

    index: tuple[int, ...]
    expected: float | complex | str
    actual: float | complex | str


@dataclass(frozen=True)
class Details:
    """More of how a value differs.

    Attributes:
        max_relative: Largest relative difference of elements that are not 0; shown, not judged.
        cosine: Cosine of the angle between both, as vectors; NaN where one alone is 0.
        sqnr: Signal-to-noise ratio in dB; infinite where both are equal.
        ulp_max: Largest distance in units in the last place of the dtype; None of integers, of
            text, and where the dtypes disagree.
        ulp_median: The median of the distances.
        edges: Edges of a histogram of the differences (what is, less what should be), one more
            than `counts`; a single bin of no width where nothing differs.
        counts: Number of elements in each bin.
        worst: The elements that differ most, the worst first: those that are not finite on one
            side alone, then by the difference.
        heat: Where the differences are, for values of two axes or more: the largest of each cell
            of a grid of at most 32 by 32 over the last two axes, by rows, infinite where one
            side alone is not finite; () for others.
    """

    max_relative: float
    cosine: float
    sqnr: float
    ulp_max: float | None
    ulp_median: float | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    worst: tuple[Element, ...]
    heat: tuple[tuple[float, ...], ...] = ()


def measure(expected: Array, actual: Array) -> Metrics:
    """Measures how an array differs from what it should be.

    Args:
        expected: What it should be: numbers of any dtype (those of ml_dtypes too), or text.
        actual: What it is.

    Returns:
        The metrics. Where the dtypes alone disagree, the numbers are compared all the same.

    Example:
        >>> import numpy
        >>> measure(numpy.float32([1, 2]), numpy.float32([1, 2.5])).max_abs
        0.5
    """
    mismatch = _arrays.mismatch(expected, actual)
    if not _arrays.comparable(expected, actual):
        (largest, *one), (_, *other) = _arrays.alone(expected), _arrays.alone(actual)
        nan, infinite = zip(one, other, strict=True)
        return Metrics(math.inf, math.inf, math.inf, largest, nan, infinite, mismatch=mismatch)
    if _arrays.is_text(expected):
        differ = int(np.count_nonzero(np.asarray(expected != actual)))
        return Metrics(0.0, 0.0, 0.0, 0.0, disagree=differ)
    if _arrays.all_equal(expected, actual):
        largest, nan_count, infinite_count = _arrays.alone(expected)
        both = (nan_count, nan_count), (infinite_count, infinite_count)
        return Metrics(0.0, 0.0, 0.0, largest, *both, mismatch=mismatch)
    with np.errstate(invalid="ignore", over="ignore"):
        return _measured(expected, actual, mismatch)


def absent(expected: Array, why: str) -> Metrics:
    """Returns the metrics of an array that is not there, and why.

    Example:
        >>> import numpy
        >>> absent(numpy.float32([1, 2]), "none: it does not run").mismatch
        'none: it does not run'
    """
    largest, nan, infinite = _arrays.alone(expected)
    return Metrics(math.inf, math.inf, math.inf, largest, (nan, 0), (infinite, 0), mismatch=why)


def _measured(expected: Array, actual: Array, mismatch: str) -> Metrics:
    largest = max_abs = total = squares = 0.0
    nan, infinite = [0, 0], [0, 0]
    count = disagree = 0
    for wanted, found in _arrays.chunks(expected, actual):
        difference = _arrays.difference(wanted, found)
        top, added = _arrays.largest(wanted), float(difference.sum())
        if not (math.isfinite(top) and math.isfinite(added)):
            for side, piece in enumerate((wanted, found)):
                nans, infinities = _arrays.not_finite(piece)
                nan[side] += nans
                infinite[side] += infinities
            disagree += int(np.count_nonzero(_arrays.disagreeing(wanted, found)))
            is_finite = np.isfinite(wanted)
            top = _arrays.largest(wanted[is_finite])
            difference = difference[is_finite & np.isfinite(found)]
            added = float(difference.sum())
        largest = max(largest, top)
        max_abs = max(max_abs, float(difference.max(initial=0.0)))
        total += added
        count += difference.size
        # Not as a dot product: that wakes the threads of BLAS for each piece.
        squares += float(np.square(difference, out=difference).sum())
    mean, mean_square = (total / count, squares / count) if count else (0.0, 0.0)
    counts = (nan[0], nan[1]), (infinite[0], infinite[1])
    return Metrics(max_abs, mean, mean_square, largest, *counts, disagree, mismatch)


def detail(expected: Array, actual: Array) -> Details:
    """Looks closer at how an array differs from what it should be.

    Args:
        expected: What it should be, as for `measure`.
        actual: What it is.

    Returns:
        The details; empty where the shapes disagree, or text is compared with numbers.

    Example:
        >>> import numpy
        >>> detail(numpy.float32([1, 2]), numpy.float32([1, 2.5])).worst[0]
        Element(index=(1,), expected=2.0, actual=2.5)
    """
    if not _arrays.comparable(expected, actual):
        return Details(math.inf, math.nan, -math.inf, None, None, (), (), ())
    if _arrays.is_text(expected):
        apart = np.asarray(expected != actual).astype(np.float64)
        worst = _worst(expected, actual, apart)
        return Details(0.0, math.nan, math.nan, None, None, (), (), worst)
    with np.errstate(all="ignore"):
        kinds = _arrays.working(expected.dtype, actual.dtype)
        wanted = expected.astype(kinds[0], order="C")
        found = actual.astype(kinds[1], order="C")
        distance = _arrays.difference(wanted, found)
        finite = np.isfinite(wanted) & np.isfinite(found)
        distance[~finite] = np.where(
            _arrays.disagreeing(wanted[~finite], found[~finite]), math.inf, 0.0
        )
        worst, heat = _worst(expected, actual, distance), _heat(distance)
        ulps = _ulps(expected, actual, finite)
        wanted, found, noise = wanted[finite], found[finite], distance[finite]
        signed = noise if kinds[0].kind == "c" else np.where(found < wanted, -noise, noise)
        if kinds[0].kind in "iu":  # exact until here
            wanted, found = wanted.astype(np.float64), found.astype(np.float64)
        size = np.abs(wanted)
        edges, counts = _histogram(signed)
        return Details(
            max_relative=float((noise[size > 0] / size[size > 0]).max(initial=0.0)),
            cosine=_cosine(wanted, found),
            sqnr=20 * (_log_norm(size) - _log_norm(noise)) if noise.any() else math.inf,
            ulp_max=float(ulps.max()) if ulps.size else None,
            ulp_median=float(np.median(ulps)) if ulps.size else None,
            edges=edges,
            counts=counts,
            worst=worst,
            heat=heat,
        )


def _histogram(signed: Array) -> tuple[tuple[float, ...], tuple[int, ...]]:
    top = float(np.abs(signed).max(initial=0.0))
    if not signed.size or not math.isfinite(top):
        return (), ()
    if top == 0:
        return (0.0, 0.0), (signed.size,)
    # In units of the largest: bins of the smallest numbers have no width of their own.
    counts, edges = np.histogram(signed / top, bins=_BINS, range=(-1, 1))
    return tuple((edges * top).tolist()), tuple(counts.tolist())


def _cosine(wanted: Array, found: Array) -> float:
    sides = []
    for side in (wanted, found):
        top = np.abs(side).max(initial=0.0)
        sides.append(side / top if top else side)  # squares of it neither overflow nor vanish
    lengths = [float(np.linalg.norm(side)) for side in sides]
    if not all(lengths):
        return math.nan if any(lengths) else 1.0
    return min(1.0, max(-1.0, float(np.vdot(*sides).real) / (lengths[0] * lengths[1])))


def _log_norm(array: Array) -> float:
    """Returns the decimal logarithm of the length of a vector that may be very long or short."""
    top = float(array.max(initial=0.0))
    if not (top and math.isfinite(top)):
        return -math.inf if top == 0 else top
    return math.log10(top) + math.log10(float(np.linalg.norm(array / top)))


def _ulps(expected: Array, actual: Array, finite: Array) -> Array:
    """Returns how many numbers of the dtype lie between, for those elements that are finite."""
    integer = _COUNTED.get(expected.dtype)
    if integer is None or expected.dtype != actual.dtype:
        return np.empty(0)
    places = []
    for side in (expected, actual):
        place = side[finite].view(integer).astype(np.int64)
        places.append(np.where(place < 0, np.iinfo(integer).min - place, place))
    return _arrays.difference(*places)


def _worst(expected: Array, actual: Array, distance: Array) -> tuple[Element, ...]:
    flat = distance.reshape(-1)
    if not flat.size:
        return ()
    # Each is in one of as many blocks: those whose largest are largest.
    tops = np.maximum.reduceat(flat, np.arange(0, flat.size, _BLOCK))
    blocks = np.sort(np.argsort(-tops, kind="stable")[:_WORST])
    places = np.concatenate(
        [np.arange(b * _BLOCK, min((b + 1) * _BLOCK, flat.size)) for b in blocks]
    )
    ordered = places[np.argsort(-flat[places], kind="stable")][:_WORST].tolist()
    found = []
    for place in (place for place in ordered if flat[place]):
        index = tuple(int(i) for i in np.unravel_index(place, distance.shape))
        found.append(Element(index, _number(expected[index]), _number(actual[index])))
    return tuple(found)


def _number(element: Any) -> float | complex | str:
    plain = element.item() if isinstance(element, np.generic) else element
    if isinstance(plain, (int, float, complex, str)):
        return plain
    return float(plain) if isinstance(element, np.generic) else str(plain)


def _heat(distance: Array) -> tuple[tuple[float, ...], ...]:
    if distance.ndim < 2 or not distance.size:
        return ()
    plane = distance.reshape(-1, *distance.shape[-2:]).max(axis=0)
    for axis in (0, 1):
        cells = min(plane.shape[axis], _GRID)
        starts = [cell * plane.shape[axis] // cells for cell in range(cells)]
        plane = np.maximum.reduceat(plane, starts, axis=axis)
    return tuple(tuple(row) for row in plane.tolist())
