"""The parts of the page that stand without a script: what is wrong, and what else to know."""

import html
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from custom_ops.debug import _report
from custom_ops.debug._page.series import SIGNS, level
from custom_ops.debug._report import number

if TYPE_CHECKING:
    from custom_ops.debug._metrics import Metrics
    from custom_ops.debug._result import Comparison, Fault, Unmatched, Value

_FAULTS = 50  # that are told at the top; all are in the table


def text(said: object) -> str:
    """Returns a text as HTML."""
    return html.escape(str(said))


def difference(metrics: "Metrics") -> str:
    """Returns a difference in words: its size, or what disagrees."""
    return text(_report.apart(metrics)).replace("\n", ", ")


def sign(value: "Value") -> str:
    """Returns the sign of how far a value is from its limit."""
    found = level(value)
    mark, meaning = SIGNS[found]
    return f'<span class="sign {found}" role="img" aria-label="{meaning}">{mark}</span>'


def faults(found: Iterable["Fault"], rows: Mapping[tuple[str, str], int]) -> str:
    """Returns the faults as a list.

    Args:
        found: The faults.
        rows: Which row of the table has a fault, by its name and kind; empty where there is none.
    """
    found = list(found)
    items = [_fault(each, rows.get((each.name, each.kind))) for each in found[:_FAULTS]]
    if len(found) > _FAULTS:
        items.append(f"<li>and {len(found) - _FAULTS:,} more, which the table has")
    return f'<ol class="faults">{"".join(items)}</ol>' if items else ""


def _fault(fault: "Fault", row: int | None) -> str:
    name = text(fault.node or fault.name)
    shown = f"<b>{name}</b>"
    if row is not None:
        shown = f'<button data-value="{row}">{name}</button>'
    where = ", ".join(fault.module)
    facts = [f"introduced {difference(fault.metrics)}", f"limit {number(fault.limit)}"]
    times = fault.share
    if 1 < times < float("inf"):
        facts.append(f"{times:,.0f} times its limit" if times >= 10 else f"{times:.2g} times it")
    facts.append(f"inherited {difference(fault.arriving)}")
    lines = [
        " · ".join(facts),
        "" if fault.kind == "nodes" else f"only in the session asked for: {text(fault.kind)}",
        f"<strong>{text(fault.difference)}</strong>" if fault.difference else "",
        text(fault.note),
        f"<code>{text(fault.source)}</code>" if fault.source else "",
    ]
    return (
        f"<li>{sign(fault)} {shown} <span>{text(fault.op_type)}"
        f"{f' in <code>{text(where)}</code>' if where else ''}</span>"
        + "".join(f"<div>{line}</div>" for line in lines if line)
    )


def outputs(comparison: "Comparison") -> str:
    """Returns the outputs of the session as a table."""
    rows = "".join(
        f"<tr><td>{sign(each)}&nbsp;<code>{text(each.name)}</code>"
        f'<td class="number">{difference(each.metrics)}<td class="number">'
        f'{difference(each.arriving)}<td class="number">{number(each.limit)}'
        for each in comparison.outputs
    )
    if not rows:
        return ""
    return _section(
        "Outputs",
        '<p class="quiet">By optimization: the difference between the session as it was asked for '
        "and one without optimization.</p>"
        '<div class="scroll"><table><tr><th>Output<th class="number">By optimization'
        f'<th class="number">From the reference<th class="number">Limit{rows}</table></div>',
    )


def unmatched(found: Iterable["Unmatched"]) -> str:
    """Returns what has no partner, by side and reason; all of it, folded."""
    groups: dict[tuple[str, str], list[Unmatched]] = {}
    for each in found:
        groups.setdefault((each.side, each.reason), []).append(each)
    if not groups:
        return ""
    folds = []
    for (side, reason), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        items = "".join(
            f"<li><code>{text(each.name)}</code> {text(each.op_type)} {text(each.module)}"
            for each in group
        )
        folds.append(
            f"<details><summary>{len(group):,} of {_report.SIDES[side]}: "
            f"{text(reason)}</summary><ul>{items}</ul></details>"
        )
    return _section("Without partner", "".join(folds))


def notes(comparison: "Comparison") -> str:
    """Returns what else to know."""
    said = [*comparison.uncompared, *comparison.notes]
    if comparison.approximate:
        said.insert(0, "The values found their partners by shapes and numbers alone.")
    items = "".join(f"<li>{text(each)}" for each in said)
    return _section("Notes", f"<ul>{items}</ul>") if items else ""


def footer(comparison: "Comparison") -> str:
    """Returns the versions, and how long each part took."""
    versions = " · ".join(f"{name} {version}" for name, version in comparison.versions)
    seconds = " · ".join(f"{name} {seconds:.2f} s" for name, seconds in comparison.seconds)
    return "<br>".join(text(line) for line in (versions, seconds) if line)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"
