"""Tables of a run: each case in milliseconds and ratios, then geometric means and worst cases."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._bench.report import Report
from custom_ops._bench.results import Entry, Record
from custom_ops._bench.summary import RATIOS, Summary, summarise
from custom_ops._bench.timing import Timing

_CAPTION = (
    "Milliseconds, medians; ± half the range between the quartiles. In brackets: {ours}the others "
    "over ours in the same runtime{peak}."
)

_WORST = "Geometric means; in brackets the case that speaks most against us."


def shown(report: Report) -> RenderableType:
    """Returns the tables of a run, and why figures are missing."""
    parts: list[RenderableType] = []
    for group in groups(report):
        parts += [cases(group), summary(group)]
    parts += [Text(note, style="dim") for note in absences(report)]
    parts += [Text(refused.sentence, style="red") for refused in report.refused]
    return Group(*parts)


def groups(report: Report) -> list[list[Record]]:
    """Returns the records by op, direction, dtype and threads."""
    found: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in report.records:
        key = (record.op, record.direction, record.dtype, record.threads)
        found.setdefault(key, []).append(record)
    return list(found.values())


def title_of(records: list[Record]) -> str:
    """Returns what the records of a group have in common."""
    one = records[0]
    threads = f"{one.threads} thread{'' if one.threads == 1 else 's'}"
    return f"{one.op}, {one.direction}, {one.dtype}, {threads}"


def cases(records: list[Record]) -> Table:
    """Returns the cases of a group, those that are dense first."""
    title = title_of(records)
    names = list(dict.fromkeys(entry.name for record in records for entry in record.entries))
    bounds = " / ".join(dict.fromkeys(record.bound_name or "" for record in records))
    peak = "; % of FMA peak" if any(record.peak for record in records) else ""
    caption = _CAPTION.format(ours="ours over the bound, " * bool(bounds), peak=peak)
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("case", no_wrap=True)
    for name in (*filter(None, [bounds]), *names):
        table.add_column(name, justify="right", overflow="fold")
    dense = None
    for record in sorted(records, key=lambda record: not record.dense):
        if dense is not None and dense != record.dense:
            table.add_section()
        dense = record.dense
        by_name = {entry.name: entry for entry in record.entries}
        bound = [_times(record.bound)] if record.bound is not None else ["-"] * bool(bounds)
        cells = (_cell(record, by_name[name]) if name in by_name else "-" for name in names)
        table.add_row(record.case, *bound, *cells)
    return table


def _cell(record: Record, entry: Entry) -> str:
    ratio = record.over_bound(entry) if entry.kind == "kernel" else record.over_ours(entry)
    text = _times(entry.timing)
    if ratio is not None:
        text += f" ({ratio:.2f})"
    share = record.share_of_peak(entry)
    if share is not None and entry.kind == "kernel":
        text += f" {share:.0%}"
    return text


def _times(timing: Timing) -> str:
    return f"{timing.median:.3g} ±{timing.spread / 2:.0%}"


def summary(records: list[Record]) -> Table:
    """Returns what a group sums up to."""
    title, lines = f"{title_of(records)}: summary", summarise(records)
    table = Table(title=title, title_justify="left", caption=_WORST, caption_justify="left")
    table.add_column("cases")
    table.add_column("contender")
    by_row: dict[tuple[bool, int, str], dict[str, Summary]] = {}
    for line in lines:
        by_row.setdefault((line.dense, line.cases, line.name), {})[line.ratio] = line
    ratios = [ratio for ratio in RATIOS if any(ratio in row for row in by_row.values())]
    for ratio in ratios:
        table.add_column(ratio, justify="right")
    previous = None
    for (dense, cases, name), row in by_row.items():
        if previous is not None and previous != dense:
            table.add_section()
        previous = dense
        cells = (_sum(row[ratio]) if ratio in row else "-" for ratio in ratios)
        table.add_row(f"{cases} {'dense' if dense else 'other'}", name, *cells)
    return table


def _sum(line: Summary) -> str:
    return rf"{line.mean:.2f} \[{line.worst:.2f} {line.worst_case}]"


def absences(report: Report) -> list[str]:
    """Returns who did not compute what, and why."""
    reasons: dict[tuple[str, str], int] = {}
    for record in report.records:
        for name, reason in record.absent.items():
            reasons[name, reason] = reasons.get((name, reason), 0) + 1
    return [f"{name} is missing in {n} cases: {why}" for (name, why), n in reasons.items()]
