"""custom-ops extract: cuts a piece out of an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from custom_ops._cli.modules import find
from custom_ops._cli.options import Args, AsJson, Force, Model
from custom_ops._cli.output import Usage, end, progress, write
from custom_ops._cli.tensors import save_arrays


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
    module: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Instead of both: a torch module, for example layer3.0, in a model that torch has "
            "exported. Modules that were merged, as a Conv with its BatchNorm, are one piece.",
        ),
    ] = None,
    call: Annotated[
        int | None, typer.Option(min=0, help="Which call of the module, where there are several.")
    ] = None,
    torch_model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODULE:FACTORY",
            help="The torch model that was exported: the piece is run on what the module is given "
            "there, and compared with what it returns.",
        ),
    ] = None,
    args: Args = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --model: a folder for what the module is given and returns, as "
            "inputs/NAME.npy and outputs/NAME.npy.",
        ),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read weights behind symbolic links.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Cut a piece out of an ONNX file, and write it to another.

    With --model exit code 1 where the piece differs from torch.
    """
    for option, given in (("--args", args), ("--samples", samples)):
        if given and torch_model is None:
            raise Usage(f"{option} must come with --model, got none; give MODULE:FACTORY")
    with progress("Cutting"):
        import custom_ops.onnx

        found = find(torch_model, args or ()) if torch_model is not None else None
        piece = custom_ops.onnx.extract(
            *(model, output, inputs or (), outputs or ()),
            module=module,
            call=call,
            torch_module=found.module if found is not None else None,
            args=found.args if found is not None else None,
            follow_links=follow_links,
            force=force,
        )
    saved: dict[str, dict[str, str]] = {}
    if samples is not None and piece.sample is not None:
        for kind, arrays in (("inputs", piece.sample.inputs), ("outputs", piece.sample.outputs)):
            saved[kind] = save_arrays(samples / kind, list(arrays), list(arrays.values()))
    listed = "".join(f"\n  {kind:<8} {', '.join(f.values())}" for kind, f in saved.items())
    result = {"ok": bool(piece), **piece.as_dict(), "samples": saved or None}
    write(result, f"{piece}{listed}", as_json)
    end(bool(piece))
