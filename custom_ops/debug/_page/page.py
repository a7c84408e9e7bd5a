"""Builds the page of a comparison: one HTML file that needs no other."""

import json
import string
from importlib import resources
from typing import TYPE_CHECKING, Any

from custom_ops._plain import plain
from custom_ops.debug import _report
from custom_ops.debug._page import parts
from custom_ops.debug._page.chart import chart
from custom_ops.debug._page.series import SIGNS, level, series
from custom_ops.onnx import _page

if TYPE_CHECKING:
    from custom_ops.debug._result import Comparison, Value

_SCRIPTS = ("words.js", "dialog.js", "table.js", "tree.js", "depth.js")


def build(comparison: "Comparison") -> str:
    """Returns the page."""
    title = comparison.model or "Comparison"
    rows = _rows(comparison)
    of_fault = {(row.name, getattr(row, "kind", "")): i for i, row in enumerate(rows) if not row.ok}
    content = string.Template(_file("page.html")).substitute(
        style=_file("chart.css") + _file("page.css"),
        title=parts.text(title),
        verdict=_verdict(comparison),
        verdict_class="within" if comparison.ok else "fault",
        summary=parts.text(_report.summary(comparison)),
        faults=parts.faults(comparison.faults, of_fault),
        chart=chart(series(comparison)),
        outputs=parts.outputs(comparison),
        unmatched=parts.unmatched(comparison.unmatched),
        notes=parts.notes(comparison),
        footer=parts.footer(comparison),
        data=_data(comparison, rows),
        script="\n".join(map(_file, _SCRIPTS)),
    )
    return _page.frame(title, content)


def _verdict(comparison: "Comparison") -> str:
    if not comparison.comparable:
        return "✕ Not comparable"
    return "✓ Within limits" if comparison.ok else "✕ Not within limits"


def _file(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _rows(comparison: "Comparison") -> list["Value"]:
    """Returns the values, those at fault as faults, and after them the faults of outputs."""
    at_fault = {fault.name: fault for fault in comparison.faults if fault.kind == "nodes"}
    rows = [at_fault.get(value.name, value) for value in comparison.values]
    return rows + [fault for fault in comparison.faults if fault.kind != "nodes"]


def _data(comparison: "Comparison", rows: list["Value"]) -> str:
    """Returns the data of the page; what a click shows is apart, to be read then."""
    values, details = [], []
    for i, row in enumerate(rows):
        said = _report.value_as_dict(row)
        more = said.pop("details")
        values.append(said | {"level": level(row), "share": _short(row.share, 4)})
        if more is not None:
            more["heat"] = [[_short(cell, 3) for cell in line] for line in more["heat"]]
            details.append(_json(f"details-{i}", more))
    signs = {name: {"sign": mark, "means": means} for name, (mark, means) in SIGNS.items()}
    drawn = len(comparison.values)
    everything = _json("data", {"values": values, "drawn": drawn, "signs": signs})
    return "\n".join([everything, *details])


def _short(number: float | None, digits: int) -> float | None:
    return None if number is None else float(f"{number:.{digits}g}")


def _json(name: str, data: Any) -> str:
    written = json.dumps(plain(data), separators=(",", ":"), allow_nan=False)
    # Nothing in it can end the element, or begin a comment.
    written = written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{written}</script>'
