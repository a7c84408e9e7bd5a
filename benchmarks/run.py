"""Times every op beside what a user would pick instead, interleaved in one run, results verified.

    python benchmarks/run.py [--op NAME] [--case '3x3-*'] [--threads 1 --threads 2] [--quick]

Exit code 1 where a result differs from ours, or where the machine was too noisy for a case.
"""

from pathlib import Path
from typing import Annotated

import typer
from script import show, start

from custom_ops._bench import selection
from custom_ops._bench.plot import draw
from custom_ops._bench.report import Report
from custom_ops._bench.runner import measure_all
from custom_ops._bench.table import shown
from custom_ops._cli.bench import DTYPES, Backward, Cases, Dtype, Noisy, Ops, Quick, Threads, select
from custom_ops._cli.output import end, progress
from custom_ops._cli.tensors import chosen


def main(
    op: Ops = None,
    case: Cases = None,
    threads: Threads = None,
    dtype: Dtype = "float32",
    quick: Quick = False,
    backward: Backward = False,
    noisy: Noisy = False,
    python: Annotated[
        bool,
        typer.Option("--python", help="Our Python kernels in every case, not only quick ones."),
    ] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Turns of each contender.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="What one contender may take for a case.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to draw it.")] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Name the cases, and end.")] = False,
) -> None:
    """Times every op beside its peers."""
    chosen("--dtype", dtype, DTYPES)
    cases = select(op, case, quick)
    if list_cases:
        for each, one in cases:
            print(each.name, one.name, *["dense"] * one.dense, *["quick"] * one.quick)
        return
    settings = selection.settings_of(
        threads or [2],
        quick,
        dtype=dtype,
        backward=backward,
        python=python,
        rounds=rounds,
        seconds=seconds,
        noisy=noisy,
    )
    report = Report(selection.facts(settings))
    with progress("Measuring") as tell:
        for outcome in measure_all(cases, settings, tell):
            report.add(outcome)
            if json is not None:  # after each case, as a run may be ended before it is done
                report.write(json)
    show(shown(report))
    if plot is not None:
        draw(report, plot)
    end(not report.refused)


if __name__ == "__main__":
    start(main)
