"""What the page and the picture draw: the differences along the depth of the network."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from custom_ops.debug._result import Comparison, Value

Level = Literal["fault", "near", "within", "exact", "none"]
# A sign beside each colour, and what both mean.
SIGNS: dict[Level, tuple[str, str]] = {
    "fault": ("✕", "above its limit"),
    "near": ("▲", "more than half of its limit"),
    "within": ("●", "within its limit"),
    "exact": ("○", "equal"),
    "none": ("-", "not compared"),
}


@dataclass(frozen=True)
class Series:
    """Differences in the order of the graph.

    Infinite where shapes disagree, or an element is not finite on one side alone.
    """

    introduced: tuple[float, ...]
    inherited: tuple[float, ...]
    limit: tuple[float, ...]
    faults: tuple[int, ...]

    @property
    def decades(self) -> tuple[int, int]:
        """The powers of ten between which the numbers above 0 lie."""
        numbers = [*self.introduced, *self.inherited, *self.limit]
        shown = [math.log10(x) for x in numbers if 0 < x < math.inf]
        low = math.floor(min(shown, default=-8.0))
        return low, max(low + 1, math.ceil(max(shown, default=0.0)))


def series(comparison: "Comparison") -> Series:
    """Returns what is drawn of a comparison."""
    values = comparison.values
    return Series(
        tuple(value.metrics.apart for value in values),
        tuple(value.arriving.apart for value in values),
        tuple(value.limit for value in values),
        tuple(i for i, value in enumerate(values) if not value.ok),
    )


def level(value: "Value") -> Level:
    """Returns how far a value is from its limit."""
    if not value.ok:
        return "fault"
    if value.share == 0:
        return "exact"
    return "near" if value.share > 0.5 else "within"
