"""Draws the differences along the depth: an SVG that stretches, beside text that does not."""

import math
from collections.abc import Callable, Sequence

from custom_ops.debug._page.series import Series

_WIDTH, _TOP, _BOTTOM, _ZERO = 1000.0, 11.0, 89.0, 97.0  # of the drawing; it is 100 high
_INFINITE = 3.0
_TICKS = 8


def chart(series: Series) -> str:
    """Returns the chart; "" where there is no value."""
    count = len(series.limit)
    if not count:
        return ""
    low, high = series.decades

    def x(i: int) -> float:
        return (i + 0.5) / count * _WIDTH

    def y(number: float) -> float:
        if number == 0:
            return _ZERO
        if math.isinf(number):
            return _INFINITE
        return _BOTTOM - (math.log10(number) - low) / (high - low) * (_BOTTOM - _TOP)

    step = math.ceil((high - low) / _TICKS)
    ticks = [(y(10.0**power), f"1e{power}") for power in range(low, high + 1, step)]
    numbers = (*series.introduced, *series.inherited)
    if any(map(math.isinf, numbers)):
        ticks.append((_INFINITE, "inf"))
    if 0 in numbers:
        ticks.append((_ZERO, "0"))
    grid = "".join(f"M0 {height:.1f}H{_WIDTH:.0f}" for height, _ in ticks)
    labels = "".join(f'<span style="top:{height:.1f}%">{text}</span>' for height, text in ticks)
    faults = set(series.faults)
    fine = [number if i not in faults else math.nan for i, number in enumerate(series.introduced)]
    wrong = [number if i in faults else math.nan for i, number in enumerate(series.introduced)]
    return (
        '<figure class="depth"><div class="plot"><svg viewBox="0 0 1000 100" '
        'preserveAspectRatio="none" role="img" aria-label="Differences along the depth of the '
        f'network, on a log scale: {len(faults)} of {count} values are above their limits">'
        f'<path class="grid" d="{grid}"/>'
        f'<path class="inherited" d="{_line(series.inherited, x, y)}"/>'
        f'<path class="limit" d="{_line(series.limit, x, y)}"/>'
        f'<path class="introduced" d="{_dots(fine, x, y)}"/>'
        f'<path class="fault" d="{_dots(wrong, x, y)}"/>'
        f'<path class="cursor"/></svg><div class="ticks" aria-hidden="true">{labels}</div></div>'
        '<figcaption><span class="key introduced"></span>introduced by the node '
        '<span class="key fault"></span>introduced, above the limit '
        '<span class="key inherited"></span>inherited: in the run of the whole model '
        '<span class="key limit"></span>limit</figcaption></figure>'
    )


def _line(numbers: Sequence[float], x: Callable[[int], float], y: Callable[[float], float]) -> str:
    parts, pen = [], "M"
    for i, number in enumerate(numbers):
        if math.isnan(number):
            pen = "M"
            continue
        parts.append(f"{pen}{x(i):.1f} {y(number):.1f}")
        pen = "L"
    # A line of one point would not be seen.
    return "".join(parts) + ("h1" if len(parts) == 1 else "")


def _dots(numbers: Sequence[float], x: Callable[[int], float], y: Callable[[float], float]) -> str:
    return "".join(
        f"M{x(i):.1f} {y(number):.1f}h0"
        for i, number in enumerate(numbers)
        if not math.isnan(number)
    )
