"""How two arrays differ: a few numbers for each value, and many for those worth a look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metrics:
    """How a value differs from what it should be, in float64.

    Elements that are not finite on either side count in no mean and no maximum.

    Attributes:
        max_abs: Largest absolute difference; infinite where shape or dtype disagree.
        mean_abs: Mean of the absolute differences.
        mean_square: Mean of the squares of the differences.
        largest: Largest magnitude of what should be.
        nan: Elements that are NaN: in what should be, in what is.
        infinite: Elements that are infinite: in what should be, in what is.
        disagree: Elements that are not finite on one side alone, or differently.
        mismatch: What shape or dtype it has instead; "" where they agree.
    """

    max_abs: float
    mean_abs: float
    mean_square: float
    largest: float
    nan: tuple[int, int] = (0, 0)
    infinite: tuple[int, int] = (0, 0)
    disagree: int = 0
    mismatch: str = ""


@dataclass(frozen=True)
class Element:
    """One element: where it is, what it should be, and what it is."""

    index: tuple[int, ...]
    expected: float
    actual: float


@dataclass(frozen=True)
class Details:
    """More of how a value differs.

    Attributes:
        max_relative: Largest relative difference of elements that are not 0; shown, not judged.
        cosine: Cosine of the angle between both, as vectors.
        sqnr: Signal-to-noise ratio in dB; infinite where both are equal.
        ulp_max: Largest distance in units in the last place of the dtype; None of integers.
        ulp_median: The median of the distances.
        edges: Edges of a histogram of the differences, one more than `counts`.
        counts: Number of elements in each bin.
        worst: The elements that differ most, the worst first.
        heat: Where the differences are, for values of two axes or more: the largest of each cell
            of a grid of at most 32 by 32 over the last two axes, by rows; () for others.
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
