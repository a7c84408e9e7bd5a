"""custom-ops convert: turns the nodes that mean one of our ops into another form."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from custom_ops._cli import completion
from custom_ops._cli.options import AsJson, Force, Model, Target
from custom_ops._cli.output import Failure, Usage, progress, write
from custom_ops._cli.tensors import arrays, chosen

if TYPE_CHECKING:
    from custom_ops.onnx import Replacement


def convert(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ],
    to: Annotated[
        str,
        typer.Option(
            help="What the nodes become: portable (our nodes with their decomposition), custom "
            "(our nodes alone), decomposed (standard ops), native (the standard op of the same "
            "meaning) or auto (native where the target runs it, else portable).",
            autocompletion=completion.lowerings,
        ),
    ] = "portable",
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="FORM",
            help="Which nodes to turn, besides ours: native (the standard op), decomposed (what "
            "our export has decomposed), or the domain of another library, as mmcv or mmdeploy; "
            "repeatable. All if left out.",
            autocompletion=completion.sources,
        ),
    ] = None,
    target: Target = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE",
            help="An input to compare on, for example x=file.npy; others are drawn.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run both models, where both run, and compare."),
    ] = True,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Turn the nodes that mean one of our ops, whoever wrote them, into the form asked for.

    The file appears only where all has succeeded. Exit code 1 where there is nothing to turn.
    """
    inputs = arrays("--input", given or ())
    with progress("Converting"):
        import custom_ops.onnx
        from custom_ops.onnx._lowering import LOWERINGS
        from custom_ops.onnx._replace import sources

        chosen("--to", to, LOWERINGS)
        for form in source or ():
            chosen("--from", form, sources())
        try:
            custom_ops.onnx.target(target)
        except ValueError as error:
            raise Usage(str(error)) from error
        if output.exists() and not force:
            raise Failure(f"--output must be a new file, got {output}; overwrite it with --force")
        result = custom_ops.onnx.replace(
            model, to, sources=source or None, target=target, verify=verify, inputs=inputs
        )
        if not result:
            raise Failure(
                f"convert: {model} must have a node to turn, got none: {result.notes[-1]}"
            )
        result.save(output, force=force)
    shown = {"ok": True, "path": output, "bytes": output.stat().st_size, **result.as_dict()}
    write(shown, _table(result, f"{output} ({output.stat().st_size:,} bytes)"), as_json)


def _table(result: "Replacement", title: str) -> RenderableType:
    rows = [*result.notes, *([f"proof: {result.proof}"] if result.proof is not None else [])]
    table = Table(title=title, title_justify="left", caption="\n".join(rows))
    table.caption_justify = "left"
    for heading in ("node", "was", "is"):
        table.add_column(heading, overflow="fold")
    for change in result.changes:
        table.add_row(Text(change.node), Text(change.was), Text(change.became))
    return table
