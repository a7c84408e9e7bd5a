"""custom-ops doctor: says what a release of ONNX Runtime will refuse in a model."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._cli.modules import find
from custom_ops._cli.options import Args, AsJson, Libraries, Target
from custom_ops._cli.output import Usage, end, progress, write
from custom_ops._cli.tensors import draw

if TYPE_CHECKING:
    from custom_ops.onnx import Conversion, Report

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="An ONNX file.", exists=True, dir_okay=False),
    ] = None,
    target: Target = None,
    library: Libraries = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Open a session too, in another process; the target must be installed."
        ),
    ] = False,
    torch: Annotated[
        str | None,
        typer.Option(
            metavar="OP", help="Instead of a file: does this op of torch convert? As aten::asinh."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FACTORY", help="Instead of a file: does this module convert?"),
    ] = None,
    args: Args = None,
    as_json: AsJson = False,
) -> None:
    """Say what a release of ONNX Runtime will refuse in a model, and what is a trap in it.

    With --torch or --model: whether an op or a module of torch converts, exporter by exporter.
    Exit code 1 where there is an error or no exporter is right, 2 where the file is no model.
    """
    if sum(each is not None for each in (file, torch, model)) != 1:
        raise Usage("doctor must get one of MODEL, --torch and --model; name a file to examine")
    if file is None:
        _conversion(torch, model, args or [], as_json)
        return
    with progress("Examining"):
        import custom_ops.onnx

        try:
            custom_ops.onnx.target(target)
        except ValueError as error:
            raise Usage(str(error)) from error
        report = custom_ops.onnx.doctor(file, target, library or (), run=run)
    named = f" --target {target}" if target is not None else ""
    mend = f"custom-ops fix {shlex.quote(str(file))} --output FIXED.onnx{named}"
    write(report.as_dict(), _shown(report, mend), as_json)
    end(report.ok)


def _conversion(op: str | None, model: str | None, args: list[str], as_json: bool) -> None:
    """Answers whether an op or a module converts."""
    with progress("Exporting"):
        import torch

        import custom_ops.onnx

        if model is not None:
            found = find(model, args)
            answer = custom_ops.onnx.convertible(found.module, found.args)
        else:
            assert op is not None
            try:
                answer = custom_ops.onnx.convertible(
                    op, draw(args, torch.float32) if args else None
                )
            except ValueError as error:
                raise Usage(str(error)) from error
    write(answer.as_dict(), _table(answer), as_json)
    end(bool(answer))


def _table(answer: "Conversion") -> RenderableType:
    heading, *_ = str(answer).splitlines()
    if not answer.trials:
        return f"{heading}\n{answer.remedy}"
    table = Table(title=heading, title_justify="left", caption=answer.remedy or None)
    for name in ("exporter", "mappings", "result", "why", "known from"):
        table.add_column(name, overflow="fold")
    for trial in answer.trials:
        style = "green" if trial.status == "right" else "bold red"
        mapped = "custom_ops" if trial.mapped else "none"
        table.add_row(
            trial.exporter, mapped, Text(trial.status, style), Text(trial.why), trial.source
        )
    return table


def _shown(report: "Report", mend: str) -> RenderableType:
    heading, *_ = str(report).splitlines()
    if not report.findings:
        return heading
    table = Table(title=heading, title_justify="left", show_lines=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("rule", no_wrap=True)
    for heading in ("where", "what is wrong, and what to do"):
        table.add_column(heading, overflow="fold")
    for finding in report.findings:
        remedy = f"{finding.remedy}{' (fixable)' if finding.fixable else ''}"
        table.add_row(
            Text(str(finding.severity), style=_STYLES[str(finding.severity)]),
            finding.code,
            Text(finding.where),
            Group(Text(finding.sentence), Text(remedy, style="italic")),
        )
    if any(finding.fixable for finding in report.findings):
        return Group(table, Text(f"What is fixable is mended by: {mend}", overflow="fold"))
    return table
