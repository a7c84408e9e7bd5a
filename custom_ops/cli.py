"""The command line, `custom-ops`: its commands, and how it ends."""

import inspect as inspect_module
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from custom_ops import __version__
from custom_ops._cli import (
    bench,
    compare,
    convert,
    demo,
    doctor,
    export,
    extract,
    fix,
    info,
    inspect,
    run,
    verify,
)
from custom_ops._cli.output import finish

_EXIT_CODES = (
    "Exit codes: 0 all is well; 1 a check failed, or what was asked for was refused; "
    "2 wrong usage. Errors are one sentence on stderr."
)


def _paragraphs(command: Callable[..., None]) -> str:
    """Returns what a command does, each paragraph in one line: the help breaks lines itself."""
    text = inspect_module.getdoc(command) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


app = typer.Typer(
    name="custom-ops",
    epilog=_EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (
    demo.demo,
    export.export,
    run.run,
    verify.verify,
    compare.compare,
    inspect.inspect,
    doctor.doctor,
    extract.extract,
    fix.fix,
    convert.convert,
    bench.bench,
    info.info,
):
    app.command(help=_paragraphs(command), epilog=_EXIT_CODES)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"custom-ops {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print where an error comes from.")
    ] = False,
) -> None:
    """Take operators from PyTorch to ONNX Runtime."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def execute(arguments: Sequence[str]) -> int:
    """Runs a command line.

    Args:
        arguments: What stands behind ``custom-ops``.

    Returns:
        The exit code.
    """
    return finish(
        lambda: app(list(arguments), prog_name="custom-ops", standalone_mode=False),
        as_json="--json" in arguments,
        traceback="--traceback" in arguments,
    )


def main() -> None:
    """Runs the command line of the process."""
    sys.exit(execute(sys.argv[1:]))
