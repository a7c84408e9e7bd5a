"""custom-ops compare: names the layer at which a model differs from its module, or from another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from custom_ops._cli.modules import find
from custom_ops._cli.options import Args, AsJson, Force, Libraries, Model
from custom_ops._cli.output import Failure, Usage, end, note, progress, write
from custom_ops._errors import UnreadableModel, first_line

if TYPE_CHECKING:
    import torch

    from custom_ops.debug import Comparison


def compare(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="What is right: a torch module as MODULE:FACTORY (see `custom-ops export "
            "--help`), or another ONNX file.",
        ),
    ],
    model: Model,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Inputs as a .npz file, by the names of the model's inputs; those of the factory, "
            "or random ones, if left out.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    args: Args = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="The largest difference allowed, in place of what rounding explains."),
    ] = None,
    limit: Annotated[
        float, typer.Option(help="How many times what rounding explains is allowed.")
    ] = 8.0,
    simulate: Annotated[
        bool,
        typer.Option(
            help="Run nodes in bfloat16 that onnxruntime has no kernel for in float32, with "
            "rounded results; else such models are not comparable."
        ),
    ] = False,
    bodies: Annotated[
        bool,
        typer.Option(
            "--bodies",
            help="Look inside the functions of the model, the bodies of our nodes among them.",
        ),
    ] = False,
    library: Libraries = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page that needs no other file.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a zip that reproduces the first fault, where there is one."
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare a model, layer by layer, with its torch module or with another model.

    Names the nodes that compute something else, apart from those that only pass it on.
    """
    with progress("Reading") as report:
        given = _by_name(model, inputs) if inputs is not None else None
        options: dict[str, Any] = {
            "tolerance": tolerance,
            "limit": limit,
            "libraries": library or (),
            "simulate": simulate,
            "bodies": bodies,
        }
        is_file = Path(reference).is_file()
        if not is_file and ":" not in reference:
            raise Usage(f"REFERENCE must be MODULE:FACTORY or an ONNX file, got {reference!r}")
        if args and (given is not None or is_file):
            raise Usage("--args must be for a torch module without --inputs, got both, or a file")
        source = None if is_file else find(reference, args or (), _tensors(given))
        report("Comparing", 0, 0)
        from custom_ops import debug

        try:
            if source is None:
                found = debug.compare(reference, model, given or _drawn(model), **options)
            else:
                found = debug.compare(source.module, model, source.args, **options)
        except UnreadableModel:
            raise
        except Exception as error:
            raise Failure(
                first_line(error)
                if str(error).startswith("compare: ")
                else f"compare: both must run on the inputs, got {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
    _write_files(found, html, bundle, force=force)
    write(found.as_dict(), str(found), as_json)
    end(found.ok)


def _write_files(
    found: "Comparison", html: Path | None, bundle: Path | None, *, force: bool
) -> None:
    if html is not None:
        found.to_html(html, force=force)
        note(f"{html} has the values, the modules and the faults")
    if bundle is not None and found.faults:
        found.bundle(bundle, force=force)
        note(f"{bundle} reproduces the first fault")
    elif bundle is not None:
        note(f"{bundle} is not written: there is no fault")


def _by_name(model: Path, file: Path) -> dict[str, Any]:
    """Returns the arrays of a file in the order of the model's inputs, where it has their names."""
    import numpy as np

    from custom_ops.onnx._reading import read

    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (AttributeError, OSError, ValueError) as error:
        raise Usage(
            f"--inputs must be a .npz file of arrays, got {str(file)!r}: {first_line(error)}"
        ) from error
    names = [each.name for each in read(model).proto.graph.input]
    return {n: found[n] for n in names if n in found} if set(names) <= set(found) else found


def _tensors(given: dict[str, Any] | None) -> "list[torch.Tensor] | None":
    import torch

    return None if given is None else [torch.from_numpy(array) for array in given.values()]


def _drawn(model: Path) -> dict[str, Any]:
    """Returns random inputs of a model."""
    from custom_ops.onnx._proof import Undrawable, feeds, required
    from custom_ops.onnx._reading import read

    drawn = required(read(model).proto)
    try:
        first = next(iter(feeds(drawn)))
    except Undrawable as reason:
        raise Usage(f"--inputs must be given, since {reason}") from reason
    return {value.name: array for value, array in zip(drawn, first.arrays, strict=True)}
