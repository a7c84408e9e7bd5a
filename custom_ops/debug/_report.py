"""A comparison as text for a terminal, as JSON, and as a table of pandas."""

import io
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._plain import plain
from custom_ops.debug._metrics import Metrics
from custom_ops.onnx._model import check_new, written_beside

if TYPE_CHECKING:
    import pandas

    from custom_ops.debug._result import Comparison, Fault, Value

_WIDTH = 120  # of text that goes elsewhere than to a terminal
_NARROW = 100  # below, the columns of a table of faults are too narrow for names
_COLUMNS = (
    "name", "node", "op_type", "module", "partner", "source", "shape", "dtype", "introduced",
    "inherited", "limit", "limit_by", "ok", "fault", "note", "mean_abs", "mean_square", "largest",
    "disagree", "mismatch",
)  # fmt: skip
_OF_METRICS = _COLUMNS[-5:]
SIDES = {"model": "the model", "reference": "the reference"}
_FAULTS, _WORST, _REASONS = 20, 5, 8  # how many are shown


def text(comparison: "Comparison", width: int | None = None) -> str:
    """Returns a comparison as text: the faults first, and little where there are none.

    Args:
        comparison: The comparison.
        width: How many characters a line may have; those of the terminal if left out.
    """
    width = width or shutil.get_terminal_size((_WIDTH, 0)).columns
    parts: list[RenderableType] = [Text(summary(comparison))]
    if comparison.faults:
        shown = _faults if width >= _NARROW else _narrow_faults
        parts.append(shown(comparison.faults[:_FAULTS]))
        if len(comparison.faults) > _FAULTS:
            parts.append(Text(f"and {len(comparison.faults) - _FAULTS} more faults"))
        lines = [
            f"{_node(fault)}: {said}"
            for fault in comparison.faults[:_FAULTS]
            for said in (fault.difference, fault.note)
            if said
        ]
        parts += [Text(line) for line in dict.fromkeys(lines)]  # a node may be in two faults
    parts += _outputs(comparison)
    parts += _worst(comparison)
    parts += _unmatched(comparison)
    parts += [Text(line) for line in comparison.uncompared]
    parts += [Text(f"note: {note}") for note in comparison.notes]
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def as_dict(comparison: "Comparison") -> dict[str, Any]:
    """Returns a comparison in the types of JSON."""
    found: dict[str, Any] = {
        "ok": comparison.ok,
        "model": comparison.model,
        "comparable": comparison.comparable,
        "approximate": comparison.approximate,
        "simulated": comparison.simulated,
        "faults": [value_as_dict(fault) for fault in comparison.faults],
        "outputs": [value_as_dict(value) for value in comparison.outputs],
        "values": [value_as_dict(value) for value in comparison.values],
        "unmatched": [asdict(each) for each in comparison.unmatched],
        "uncompared": comparison.uncompared,
        "notes": comparison.notes,
        "versions": dict(comparison.versions),
        "seconds": dict(comparison.seconds),
    }
    converted: dict[str, Any] = plain(found)
    return converted


def to_json(
    comparison: "Comparison", path: str | os.PathLike[str] | None = None, *, force: bool = False
) -> str:
    """Returns a comparison as JSON; writes it too where a path is given."""
    written = json.dumps(as_dict(comparison), indent=2, allow_nan=False)
    if path is not None:
        check_new("to_json", "path", path, force)
        with written_beside(path) as beside:
            Path(beside).write_text(written + "\n", encoding="utf-8")
    return written


def to_dataframe(comparison: "Comparison") -> "pandas.DataFrame":
    """Returns the values of a comparison as a table of pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_dataframe needs pandas, which is not installed; run `pip install pandas`"
        ) from error
    kinds = {fault.name: fault.kind for fault in comparison.faults}
    rows = [_row(value, kinds.get(value.name, "")) for value in comparison.values]
    return pandas.DataFrame(rows, columns=list(_COLUMNS))


def _row(value: "Value", fault: str) -> list[Any]:
    row = {name: getattr(value, name, None) for name in _COLUMNS}
    of_metrics = {name: getattr(value.metrics, name, None) for name in _OF_METRICS}
    return list((row | of_metrics | {"module": ", ".join(value.module), "fault": fault}).values())


def value_as_dict(value: "Value") -> dict[str, Any]:
    """Returns a value as a dict, with what it computes."""
    computed = {name: getattr(value, name) for name in ("introduced", "inherited", "ok")}
    return asdict(value) | computed


def summary(comparison: "Comparison") -> str:
    """Returns what was found in one line."""
    name = f"{comparison.model}: " if comparison.model else ""
    if not comparison.comparable:
        return f"{name}not comparable"
    count = len(comparison.values)
    values = f"{count:,} value{'s' * (count != 1)} compared"
    if comparison.approximate:
        values += ", paired by shapes and numbers alone"
    if comparison.simulated:
        values += ", bfloat16 simulated"
    if comparison.faults:
        faults = len(comparison.faults)
        return f"{name}{faults:,} fault{'s' * (faults != 1)}; {values}"
    if not comparison.ok:
        return f"{name}no node is at fault, but not every output is right; {values}"
    return f"{name}no fault; {values}"


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        digits = name in ("introduced", "inherited", "difference", "by optimization", "limit")
        justify: Literal["left", "right"] = "right" if digits else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=digits)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _faults(faults: Sequence["Fault"]) -> Table:
    columns = ["node", "module", "op", "introduced", "inherited", "limit", "source"]
    rows = [
        (
            _node(fault),
            "\n".join(fault.module),
            fault.op_type if fault.kind == "nodes" else f"{fault.op_type}\n({fault.kind})",
            apart(fault.metrics),
            apart(fault.arriving),
            number(fault.limit),
            _place(fault.source),
        )
        for fault in faults
    ]
    return _table("Faults", columns, rows)


def _narrow_faults(faults: Sequence["Fault"]) -> Text:
    lines = []
    for fault in faults:
        facts = {
            "op": fault.op_type,
            "kind": "" if fault.kind == "nodes" else fault.kind,
            "module": ", ".join(fault.module),
            "introduced": apart(fault.metrics).replace("\n", ", "),
            "inherited": apart(fault.arriving).replace("\n", ", "),
            "limit": number(fault.limit),
            "source": _place(fault.source),
        }
        lines += ["", f"fault at {_node(fault)}"]
        lines += [f"  {name:<10} {fact}" for name, fact in facts.items() if fact]
    return Text("\n".join([*lines, ""]))


def _outputs(comparison: "Comparison") -> list[RenderableType]:
    """Shows how far the outputs are off, and what the optimization of the session adds."""
    if comparison.ok:
        return [
            Text(
                f"output {output.name}: differs by {apart(output.arriving)}, by optimization "
                f"{apart(output.metrics)} (limit {number(output.limit)})"
            )
            for output in comparison.outputs
        ]
    rows = [
        (
            output.name,
            apart(output.arriving),
            apart(output.metrics),
            number(output.limit),
            "" if output.ok else "above",
        )
        for output in comparison.outputs
    ]
    columns = ["output", "difference", "by optimization", "limit", ""]
    return [_table("Outputs", columns, rows)] if rows else []


def _worst(comparison: "Comparison") -> list[RenderableType]:
    """Shows the values closest to their limits, beside those at fault."""
    near = [value for value in comparison.values if value.ok and value.share > 0]
    near = sorted(near, key=lambda value: value.share, reverse=True)[:_WORST]
    if comparison.ok:
        said = [
            f"closest to its limit: {_node(value)} ({value.op_type}), {value.share:.2g} of it"
            for value in near[:1]
        ]
        return [*map(Text, said)]
    rows = [
        (
            _node(value),
            value.op_type,
            apart(value.metrics),
            apart(value.arriving),
            number(value.limit),
        )
        for value in near
    ]
    columns = ["node", "op", "introduced", "inherited", "limit"]
    return [_table("Closest to their limits", columns, rows)] if rows else []


def _unmatched(comparison: "Comparison") -> list[RenderableType]:
    if not comparison.unmatched:
        return []
    sides = Counter(each.side for each in comparison.unmatched)
    counts = " and ".join(f"{sides[side]:,} of {SIDES[side]}" for side in sorted(sides))
    lines = [f"without partner: {counts}"]
    reasons = Counter((each.side, each.reason) for each in comparison.unmatched)
    # Where all is right, what was looked for in vain does not matter, but what was left out does.
    ordered = [
        f"  {count:,} of {SIDES[side]}: {why}"
        for (side, why), count in reasons.most_common()
        if not comparison.ok or why.startswith("not compared")
    ]
    lines += ordered[:_REASONS]
    if len(ordered) > _REASONS:
        lines.append(f"  and {len(ordered) - _REASONS} more reasons")
    return [Text("\n".join(lines))]


def _node(value: "Value") -> str:
    return value.node or value.name


def _place(source: str) -> str:
    """Shortens the path of a source line to its last two parts."""
    return "/".join(Path(source).parts[-2:])


def apart(metrics: Metrics) -> str:
    """Returns a difference in words, on lines: what disagrees, and its size."""
    said = [metrics.mismatch] if metrics.mismatch else []
    if metrics.disagree:
        special = any((*metrics.nan, *metrics.infinite))
        said.append(f"{metrics.disagree:,} {'NaN or inf' if special else 'differ'}")
    if not said or 0 < metrics.max_abs < math.inf:
        said.append(number(metrics.max_abs))
    return "\n".join(said)


def number(value: float) -> str:
    """Returns a number with the digits that matter."""
    return f"{value:.3g}"
