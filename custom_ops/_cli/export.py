"""custom-ops export: from a torch module to an ONNX file."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from custom_ops._cli import completion
from custom_ops._cli.modules import Found, find
from custom_ops._cli.options import Args, AsJson, Factory, Target
from custom_ops._cli.output import Usage, progress, write
from custom_ops._cli.tensors import chosen, dynamic_axes


def export(
    factory: Factory,
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.onnx", help="The file to write; one that is there is replaced."
        ),
    ],
    args: Args = None,
    lowering: Annotated[
        str,
        typer.Option(
            help="What becomes of our ops: portable (nodes that carry their decomposition), custom "
            "(nodes that need our library), decomposed (standard ops), native (the standard op of "
            "the same meaning) or auto (native where the target runs it, else portable).",
            autocompletion=completion.lowerings,
        ),
    ] = "portable",
    exporter: Annotated[
        str,
        typer.Option(
            help="The exporter of torch: dynamo or torchscript.",
            autocompletion=completion.exporters,
        ),
    ] = "dynamo",
    opset: Annotated[int | None, typer.Option(help="The opset to write.")] = None,
    target: Target = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT:AXES",
            help="Sizes that may change, for example x:0=N,2=H; once for each input. "
            "They replace the factory's.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Run the file and compare it with torch."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Export a torch module to ONNX, and check that ONNX Runtime computes the same.

    The file appears only where all has succeeded.
    """
    axes = dynamic_axes(dynamic or ())
    with progress("Loading the module") as report:
        import custom_ops.onnx
        from custom_ops.onnx._exporters import EXPORTERS
        from custom_ops.onnx._lowering import LOWERINGS

        chosen("--lowering", lowering, LOWERINGS)
        chosen("--exporter", exporter, tuple(EXPORTERS))
        if target is not None:
            custom_ops.onnx.target(target)
        found = find(factory, args or ())
        report("Exporting and comparing" if verify else "Exporting", 0, 0)
        verification = custom_ops.onnx.export(
            found.module,
            found.args,
            output,
            lowering=lowering,
            exporter=exporter,
            opset_version=opset,
            target=target,
            dynamic_shapes=_by_name(axes, found) if axes else found.dynamic_shapes,
            verify=verify,
        )
    written = f"{output} ({output.stat().st_size:,} bytes)"
    checked = "" if verification is None else f"\n{verification}"
    result = {
        "ok": True,
        "path": output,
        "bytes": output.stat().st_size,
        "checks": None if verification is None else [vars(c) for c in verification.checks],
    }
    write(result, f"{written}{checked}", as_json)


def _by_name(axes: dict[str, dict[int, str]], found: Found) -> dict[str, Any]:
    names = list(inspect.signature(found.module.forward).parameters)[: len(found.args)]
    for name in axes:
        if name not in names:
            raise Usage(f"--dynamic must name an input ({', '.join(names)}), got {name!r}")
    return {name: axes.get(name) for name in names}
