"""custom-ops extract: cuts a piece out of an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from custom_ops._cli.options import AsJson, Model
from custom_ops._cli.output import progress, write


def extract(
    model: Model,
    output: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A tensor where the piece begins, or a node for the tensors that it reads; "
            "repeatable. If left out: the model's inputs.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A tensor where the piece ends, or a node for the tensors that it makes; "
            "repeatable. If left out: the model's outputs.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cut a piece out of an ONNX file, and write it to another."""
    with progress("Cutting"):
        import custom_ops.onnx

        piece = custom_ops.onnx.extract(model, output, inputs or (), outputs or (), force=force)
    write({"ok": True, **piece.as_dict()}, str(piece), as_json)
