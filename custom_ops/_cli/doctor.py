"""custom-ops doctor: says what a release of ONNX Runtime will refuse in a model."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._cli.options import AsJson, Model
from custom_ops._cli.output import Usage, end, progress, write

if TYPE_CHECKING:
    from custom_ops.onnx import Report

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def doctor(
    model: Model,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="RELEASE", help="As onnxruntime==1.20; the one installed if left out."
        ),
    ] = None,
    library: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="A library of custom ops that the session registers; repeatable."
        ),
    ] = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Open a session too, in another process; the target must be installed."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a release of ONNX Runtime will refuse in a model, and what is a trap in it.

    Exit code 1 where there is an error, 2 where the file is no model.
    """
    with progress("Examining"):
        import custom_ops.onnx

        try:
            custom_ops.onnx.target(target)
        except ValueError as error:
            raise Usage(str(error)) from error
        report = custom_ops.onnx.doctor(model, target, library or (), run=run)
    write(report.as_dict(), _shown(report), as_json)
    end(report.ok)


def _shown(report: "Report") -> RenderableType:
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
    return table
