"""Turns files of results into the tables of docs/performance.md, and draws the roofline.

    python benchmarks/report.py forward.json backward.json memory.json [--roofline roofline.png]

The tables are Markdown, on stdout.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import memory
import roofline as rooflines
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from script import start

from custom_ops._bench import table as tables
from custom_ops._bench.report import Report, read

_WIDTH = 400  # nothing is folded


def markdown(table: Table) -> str:
    """Returns a table as Markdown, with its title as a heading and its caption below."""
    title, caption = table.title, table.caption
    table.title = table.caption = None
    table.box = box.MARKDOWN
    for row in table.rows:
        row.end_section = False  # Markdown has none
    console = Console(width=_WIDTH, no_color=True)
    with console.capture() as capture:
        console.print(table, highlight=False)
    lines = (line.strip() for line in capture.get().splitlines())
    text = "\n".join(line for line in lines if line)
    return "\n\n".join(str(part) for part in (f"### {title}", text, caption) if part)


def facts(given: dict[str, Any]) -> str:
    """Returns what a run ran on, as a sentence."""
    processor = given["processor"]
    packages = ", ".join(f"{name} {number}" for name, number in given["packages"].items() if number)
    commit = (given["commit"] or "none")[:12]
    kernels = given.get("kernels", {}).get("in_use")  # not in the files of older runs
    return (
        f"{processor['name']}, {processor['cores']} cores, torch uses {processor['torch']}"
        f"{f', the kernels {kernels}' if kernels else ''}; "
        f"{packages}; commit {commit}."
    )


def page(path: Path) -> str:
    """Returns the tables of a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if "memory" in content:
        rows = [memory.Row(**row) for row in content["memory"]]
        return "\n\n".join([markdown(memory.shown(rows)), facts(content["facts"])])
    report = read(path)
    parts = [markdown(f(group)) for group in tables.groups(report) for f in _PARTS]
    refused = [refused.sentence for refused in report.refused]
    return "\n\n".join([*parts, *tables.absences(report), *refused, facts(report.facts)])


_PARTS = (tables.summary, tables.cases)


def main(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="What --json has written.")
    ],
    roofline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to draw the roofline.")
    ] = None,
) -> None:
    """Prints the tables of files of results as Markdown."""
    print("\n\n".join(page(file) for file in files))
    if roofline is not None:
        reports: list[Report] = [
            read(file) for file in files if "memory" not in json.loads(file.read_text("utf-8"))
        ]
        rooflines.draw([record for report in reports for record in report.records], roofline)


if __name__ == "__main__":
    start(main)
