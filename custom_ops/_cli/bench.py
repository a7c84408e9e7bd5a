"""custom-ops bench: times the ops beside what a user would pick instead."""

from typing import TYPE_CHECKING, Annotated

import typer

from custom_ops._cli import completion
from custom_ops._cli.options import AsJson
from custom_ops._cli.output import Usage, end, progress, write
from custom_ops._cli.tensors import chosen

if TYPE_CHECKING:
    from custom_ops.ops._registry import Op
    from custom_ops.ops._samples import Benchmark

DTYPES = ("float32", "float64", "float16", "bfloat16")

Ops = Annotated[
    list[str] | None,
    typer.Option("--op", help="Only this op; repeatable.", autocompletion=completion.ops),
]
Cases = Annotated[
    list[str] | None,
    typer.Option("--case", help="Only this case, or those that fit '3x3-*'; repeatable."),
]
Threads = Annotated[
    list[int] | None,
    typer.Option(min=1, help="Threads of torch and of each session, 2 if left out; repeatable."),
]
Dtype = Annotated[
    str, typer.Option(help=f"Of the tensors: {', '.join(DTYPES)}.", autocompletion=lambda: DTYPES)
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Small cases, if none is named, and few rounds.")
]
Backward = Annotated[
    bool, typer.Option("--backward", help="Time forward and backward together, in torch.")
]

Noisy = Annotated[
    bool, typer.Option("--noisy", help="Give figures even where the machine is too noisy for them.")
]


def bench(
    op: Ops = None,
    case: Cases = None,
    threads: Threads = None,
    dtype: Dtype = "float32",
    quick: Quick = False,
    backward: Backward = False,
    noisy: Noisy = False,
    as_json: AsJson = False,
) -> None:
    """Time the ops beside what a user would pick instead.

    Everybody who computes a case runs in turns, and each result is compared with ours. Exit code
    1 where a result differs, or where the machine is too noisy for the figures of a case.
    """
    chosen("--dtype", dtype, DTYPES)
    with progress("Loading torch and ONNX Runtime") as report:
        from custom_ops._bench import selection
        from custom_ops._bench.report import Report
        from custom_ops._bench.runner import measure_all
        from custom_ops._bench.table import shown

        cases = select(op, case, quick)
        settings = selection.settings_of(
            threads or [2], quick, dtype=dtype, backward=backward, noisy=noisy
        )
        result = Report(selection.facts(settings))
        for outcome in measure_all(cases, settings, report):
            result.add(outcome)
    write({"ok": not result.refused, **result.as_dict()}, shown(result), as_json)
    end(not result.refused)


def select(
    op: list[str] | None, case: list[str] | None, quick: bool
) -> "list[tuple[Op, Benchmark]]":
    """Returns the cases that the options name; see `custom_ops._bench.selection.select`."""
    from custom_ops._bench import selection

    try:
        return selection.select(op or (), case or (), quick)
    except ValueError as error:
        raise Usage(str(error)) from error
