"""custom-ops demo: a network with our ops, trained, exported and run in every way."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from custom_ops._cli.options import AsJson
from custom_ops._cli.output import end, progress, write

if TYPE_CHECKING:
    from custom_ops.demo import Result
    from custom_ops.demo.lowerings import Row


def demo(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="A folder for the models and the page.")
    ] = Path("custom_ops_demo"),
    threads: Annotated[
        int,
        typer.Option(min=1, help="Threads of torch and of each session, in the timing."),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Train a small network, export it and run it in every way, and write a page about it.

    The network straightens pictures that are seen through moving water, on data drawn on the
    spot. It goes through both exporters and every lowering, and each file runs in ONNX Runtime
    with each kind of kernels. Exit code 0 only where all agree with torch and the loss fell.
    """
    with progress("Loading torch and ONNX Runtime") as report:
        from custom_ops.demo import run

        result = run(output, threads, report)
    write(result.as_dict(), _shown(result), as_json)
    end(bool(result))


def _shown(result: "Result") -> Group:
    loss, twin = result.training.loss, result.training.ordinary
    fell = "it fell" if loss.fell else "it did NOT fall to half"
    lines = [
        f"Loss {loss.first:.4f} at first, {loss.last:.4f} at last: {fell}. On new pictures "
        f"{loss.unseen:.4f}; an ordinary convolution has {twin.unseen:.4f}.",
    ]
    verdict = (
        "All agree with torch."
        if result
        else "NOT as it should be: see the rows that differ, fail or are refused, and the loss."
    )
    models = result.comparison.files[0].parent if result.comparison.files else "no models"
    notes: dict[str, list[str]] = {}
    for row in result.comparison.rows:
        if row.note:
            notes.setdefault(f"{row.verdict}: {row.note}", []).append(_way(row))
    after = [
        *(f"{', '.join(ways)} {reason}" for reason, ways in notes.items()),
        f"{verdict} {result.seconds:.0f} s in all.",
        f"Models  {models}",
        f"Page    {result.page}",
    ]
    return Group(
        Text("\n".join(lines)),
        _table(result),
        Text("\n".join(after), style="" if result else "red"),
    )


def _way(row: "Row") -> str:
    return " ".join(filter(None, (row.lowering, row.exporter, row.kernels)))


def _table(result: "Result") -> Table:
    comparison = result.comparison
    threads = f"{comparison.threads} thread{'' if comparison.threads == 1 else 's'}"
    table = Table(
        caption=f"Difference: the largest over {len(comparison.sizes)} sizes. Milliseconds: median "
        f"of {comparison.rounds} interleaved runs on {'x'.join(map(str, comparison.sizes[0]))}, "
        f"{threads} each for torch and ONNX Runtime.",
        caption_justify="left",
    )
    for heading in ("lowering", "exporter", "kernels", "result"):
        table.add_column(heading)
    for heading in ("difference", "ms", "torch ms"):
        table.add_column(heading, justify="right")
    exporter = None
    for row in comparison.rows:
        if exporter not in (None, row.exporter):
            table.add_section()
        exporter = row.exporter
        style = "green" if row.verdict == "equal" else "dim" if row.passed else "bold red"
        ran = row.difference is not None and row.milliseconds is not None
        table.add_row(
            row.lowering,
            row.exporter,
            row.kernels or ("standard ops" if ran else "-"),
            Text(row.verdict, style=style),
            f"{row.difference:.1e}" if ran else "-",
            f"{row.milliseconds:.2f}" if ran else "-",
            f"{comparison.torch_milliseconds:.2f}" if ran else "-",
        )
    return table
