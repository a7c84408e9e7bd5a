"""The picture of a comparison, by matplotlib."""

import math
from typing import TYPE_CHECKING, Any

from custom_ops.debug import _report
from custom_ops.debug._page.series import series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from custom_ops.debug._result import Comparison


def plot(comparison: "Comparison") -> "Figure":
    """Draws a comparison; see `Comparison.plot`."""
    try:
        # Not by pyplot, which would keep the figure, and choose a backend for the caller.
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "plot needs matplotlib, which is not installed; run `pip install 'custom-ops[plot]'`"
        ) from error
    drawn = series(comparison)
    low, high = drawn.decades
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes: Any = figure.subplots()
    # Zeros and infinities have a place of their own, below and above the log scale.
    places = {0.0: 10.0 ** (low - 1), math.inf: 10.0 ** (high + 1)}

    def heights(numbers: tuple[float, ...]) -> list[float]:
        return [places.get(number, number) for number in numbers]

    order, introduced = range(len(drawn.limit)), heights(drawn.introduced)
    axes.plot(order, heights(drawn.inherited), color="gray", label="inherited")
    axes.plot(order, heights(drawn.limit), color="#c48a00", linestyle="--", label="limit")
    axes.plot(order, introduced, "o", color="#2c7fb8", markersize=4, label="introduced")
    if drawn.faults:
        above = [introduced[i] for i in drawn.faults]
        axes.plot(drawn.faults, above, "s", color="#d55e00", markersize=8, label="above its limit")
    axes.set_yscale("log")
    step = math.ceil((high - low) / 10)
    ticks = {10.0**power: f"1e{power}" for power in range(low, high + 1, step)}
    shown = {*drawn.introduced, *drawn.inherited, *drawn.limit}
    ticks |= {places[number]: f"{number:g}" for number in places if number in shown}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set(
        title=_report.summary(comparison),
        xlabel="values, in the order of the graph",
        ylabel="largest absolute difference",
    )
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    return figure
