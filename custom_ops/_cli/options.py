"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from custom_ops._cli import completion
from custom_ops._cli.modules import ARGS_HELP, FACTORY_HELP

AsJson = Annotated[
    bool, typer.Option("--json", help="Write the result as JSON, and nothing else, to stdout.")
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="An ONNX file.", exists=True, dir_okay=False)
]
Factory = Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help=FACTORY_HELP)]
Args = Annotated[list[str] | None, typer.Option("--args", metavar="SIZES", help=ARGS_HELP)]
Kernels = Annotated[
    str,
    typer.Option(
        help="Who runs the nodes of our ops: native (the kernel library), python (the functions "
        "on NumPy arrays) or none (the bodies that the model carries).",
        autocompletion=completion.kernels,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="RELEASE",
        help="The release that will run the file, as onnxruntime==1.20; the one installed if "
        "left out.",
        autocompletion=completion.targets,
    ),
]
Libraries = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="A library of custom ops that the session registers; repeatable."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
