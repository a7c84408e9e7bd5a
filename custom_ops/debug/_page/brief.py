"""The short form of a comparison that notebooks show: no script, and no color of its own page."""

from importlib import resources
from typing import TYPE_CHECKING

from custom_ops.debug import _report
from custom_ops.debug._page import parts
from custom_ops.debug._page.chart import chart
from custom_ops.debug._page.series import series

if TYPE_CHECKING:
    from custom_ops.debug._result import Comparison


def brief(comparison: "Comparison") -> str:
    """Returns the verdict, the faults and the chart as HTML."""
    style = resources.files(__package__ or "").joinpath("chart.css").read_text("utf-8")
    mark = "✓" if comparison.ok else "✕"
    return (
        f"<div><style>{style}</style>"
        f"<p><b>{mark} {parts.text(_report.summary(comparison))}</b></p>"
        f"{parts.faults(comparison.faults, {})}{chart(series(comparison))}</div>"
    )
