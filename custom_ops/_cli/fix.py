"""custom-ops fix: mends a model for a release of ONNX Runtime, and changes what is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custom_ops._cli.options import AsJson, Force, Libraries, Model, Target
from custom_ops._cli.output import Usage, end, progress, write
from custom_ops._cli.tensors import dynamic_axes, named

if TYPE_CHECKING:
    from custom_ops.onnx import Fixed


def fix(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write; data in other files goes to FILE.data.",
        ),
    ],
    target: Target = None,
    library: Libraries = None,
    opset: Annotated[int | None, typer.Option(help="The opset of ai.onnx to move to.")] = None,
    ir_version: Annotated[int | None, typer.Option(help="The IR version to write.")] = None,
    rename_input: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A new name of an input; repeatable."),
    ] = None,
    rename_output: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="A new name of an output; repeatable."),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT:AXES",
            help="Sizes to open, for example x:0=N,2=H; refused where one is baked in; repeatable.",
        ),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Take data in other files into the model's file.")
    ] = False,
    external: Annotated[
        bool, typer.Option("--external", help="Put weights into a file beside the model's.")
    ] = False,
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links", help="Read data behind symbolic links, as in caches of models."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run the model before and after, and compare."),
    ] = True,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Mend what a release of ONNX Runtime refuses in a model, and write it to another file.

    What would change the model's meaning is refused, and nothing is written. Exit code 1 also where
    an error is left that cannot be mended.
    """
    inputs = named("--rename-input", rename_input or (), "old=new")
    outputs = named("--rename-output", rename_output or (), "old=new")
    sizes = dynamic_axes(dynamic or ())
    with progress("Fixing and comparing" if verify else "Fixing"):
        import custom_ops.onnx

        try:
            custom_ops.onnx.target(target)
        except ValueError as error:
            raise Usage(str(error)) from error
        fixed = custom_ops.onnx.fix(
            model,
            output,
            target=target,
            libraries=library or (),
            opset=opset,
            ir_version=ir_version,
            rename_inputs=inputs,
            rename_outputs=outputs,
            dynamic=sizes,
            embed=embed,
            external=external,
            follow_links=follow_links,
            verify=verify,
            force=force,
        )
    write(fixed.as_dict(), _shown(fixed), as_json)
    end(fixed.ok)


def _shown(fixed: "Fixed") -> str:
    assert fixed.path is not None
    written = f"{fixed.path} ({fixed.path.stat().st_size:,} bytes)"
    if fixed.data is not None:
        written += f" and {fixed.data} ({fixed.data.stat().st_size:,} bytes)"
    return f"{written} for {fixed.target}\n{fixed}"
