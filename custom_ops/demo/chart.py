"""Draws loss curves as SVG, on a logarithmic scale."""

import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 132, 14, 46
_SMOOTH = 12  # steps; each loss is of other pictures


def losses(curves: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draws curves of equal length.

    Args:
        curves: For each the text beside its end, its CSS class, and its losses.
    """
    values = [value for _, _, curve in curves for value in curve]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    steps = len(curves[0][2])

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / max(steps - 1, 1)

    def y(loss: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - math.log10(loss)) / (high - low)

    def path(curve: Sequence[float]) -> str:
        return "M" + "L".join(f"{x(i):.1f} {y(loss):.1f}" for i, loss in enumerate(curve))

    parts = [
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="end" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}">{tick:g}</text>'
        for tick in _ticks(10**low, 10**high)
    ]
    parts += [
        f'<text class="mid" x="{x(step):.1f}" y="{_HEIGHT - 26}">{step}</text>'
        for step in range(0, steps + 1, 50)
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="mid" x="{middle:.0f}" y="{_HEIGHT - 4}">training step</text>')
    for text, css_class, curve in curves:
        smooth = _smoothed(curve)
        parts.append(f'<path class="curve faint {css_class}" d="{path(curve)}"/>')
        parts.append(f'<path class="curve {css_class}" d="{path(smooth)}"/>')
        end = y(smooth[-1]) + 4
        parts.append(
            f'<text class="name {css_class}" x="{_WIDTH - _RIGHT + 8}" y="{end:.1f}">{text}</text>'
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Mean squared error by training step">{"".join(parts)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = (digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5))
    return [tick for tick in ticks if low <= tick <= high]


def _smoothed(curve: Sequence[float]) -> list[float]:
    """Returns means over the steps around each."""
    half = _SMOOTH // 2
    spans = [curve[max(i - half, 0) : i + half + 1] for i in range(len(curve))]
    return [sum(span) / len(span) for span in spans]
