"""A picture of a run: how long each contender takes, in units of the bound."""

from pathlib import Path
from typing import Any

from custom_ops._bench.report import Report
from custom_ops._bench.results import Record


def pyplot() -> Any:
    """Returns matplotlib's pyplot, set to draw into files.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ValueError(
            "--plot needs matplotlib, got none; run `pip install 'custom-ops[plot]'`"
        ) from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def draw(report: Report, path: Path) -> None:
    """Draws a run: a panel for each op, direction, dtype and number of threads.

    Args:
        report: The run.
        path: The picture to write; its suffix says which format.
    """
    plt = pyplot()
    groups: dict[str, list[Record]] = {}
    for record in report.records:
        if record.bound is not None:
            title = f"{record.op}, {record.direction}, {record.dtype}, {record.threads} threads"
            groups.setdefault(title, []).append(record)
    if not groups:
        return
    rows = sum(len(records) for records in groups.values())
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, 2 * len(groups) + 0.24 * rows),
        squeeze=False,
        height_ratios=[len(records) + 3 for records in groups.values()],
    )
    for (title, records), (axis,) in zip(groups.items(), axes, strict=True):
        _panel(axis, title, sorted(records, key=lambda record: not record.dense))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axis: Any, title: str, records: list[Record]) -> None:
    names = dict.fromkeys(entry.name for record in records for entry in record.entries)
    for marker, name in zip("osD^vPX*<>", names, strict=False):
        points = [
            (record.over_bound(entry), row)
            for row, record in enumerate(records)
            for entry in record.entries
            if entry.name == name
        ]
        axis.plot(*zip(*points, strict=True), marker, label=name, markersize=5, alpha=0.8)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_yticks(range(len(records)), [record.case for record in records], fontsize=7)
    axis.set_ylim(len(records) - 0.5, -0.5)
    axis.grid(axis="x", which="both", linewidth=0.3)
    bounds = " / ".join(dict.fromkeys(record.bound_name or "" for record in records))
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(f"times {bounds}", fontsize=8)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
