"""Compares two runs of the benchmarks: what has become slower?

    python benchmarks/compare.py before.json after.json [--threshold 1.1] [--over-bound]

Exit code 1 where anything of ours takes more than the threshold times as long as before. The peers
are shown too: where they have changed as much, the machine has.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from script import show, start

from custom_ops._bench.report import read
from custom_ops._bench.results import Entry, Record
from custom_ops._cli.output import Failure, end

Key = tuple[str, str, str, str, int, str]


def entries(path: Path) -> dict[Key, tuple[Record, Entry]]:
    """Returns the contenders of a run, by op, case, direction, dtype, threads and name."""
    return {
        (r.op, r.case, r.direction, r.dtype, r.threads, e.name): (r, e)
        for r in read(path).records
        for e in r.entries
    }


def ratio(before: tuple[Record, Entry], after: tuple[Record, Entry], over_bound: bool) -> float:
    """Returns how many times as long as before a contender takes."""
    result = after[1].timing.median / before[1].timing.median
    bounds = before[0].bound, after[0].bound
    if over_bound and bounds[0] is not None and bounds[1] is not None:
        result *= bounds[0].median / bounds[1].median
    return result


def main(
    before: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The older run.")],
    after: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The newer run.")],
    threshold: Annotated[float, typer.Option(min=1.0, help="What counts as slower.")] = 1.1,
    over_bound: Annotated[
        bool, typer.Option("--over-bound", help="Compare in units of each run's bound.")
    ] = False,
) -> None:
    """Shows how many times as long as before each contender takes."""
    old, new = entries(before), entries(after)
    common = [key for key in old if key in new]
    if not common:
        raise Failure(f"compare: {after} must have a case in common with {before}, got none")
    table = Table()
    for heading in ("op", "case", "direction", "dtype", "threads", "contender"):
        table.add_column(heading)
    for heading in ("before ms", "after ms", "ratio"):
        table.add_column(heading, justify="right")
    slower = 0
    for key in common:
        change, entry = ratio(old[key], new[key], over_bound), new[key][1]
        is_slower = change > threshold and entry.kind != "peer"
        slower += is_slower
        style = "red" if is_slower else "green" if change < 1 / threshold else "dim"
        milliseconds = (each[key][1].timing.median for each in (old, new))
        cells = (*map(str, key), *(f"{ms:.4g}" for ms in milliseconds))
        table.add_row(*cells, f"{change:.3f}{' SLOWER' * is_slower}", style=style)
    show(table)
    for name, one, other in (("before", old, new), ("after", new, old)):
        if missing := len(one.keys() - other.keys()):
            show(Text(f"{missing} only {name}.", style="dim"))
    show(Text(f"{slower} of {len(common)} slower than {threshold:g} times.", style="bold"))
    end(slower == 0)


if __name__ == "__main__":
    start(main)
