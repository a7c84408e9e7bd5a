"""What the scripts of this folder share: how they start, end and show tables."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.console import Console, RenderableType

from custom_ops._cli.output import finish

_WIDTH = 200  # of tables that go to a file or a pipe


def start(main: Callable[..., Any]) -> NoReturn:
    """Runs a script on the arguments of the process; errors are one sentence, or more.

    Exit codes are those of the command line: 0 all is well, 1 a check failed or a request was
    refused, 2 wrong usage. With ``--traceback`` errors come with where they arose.
    """
    sys.exit(run(main, sys.argv[1:]))


def run(main: Callable[..., Any], arguments: list[str]) -> int:
    """Runs a script, and returns its exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    given = [argument for argument in arguments if argument != "--traceback"]
    return finish(
        lambda: app(given, standalone_mode=False),
        as_json=False,
        traceback=len(given) < len(arguments),
    )


def show(what: RenderableType) -> None:
    """Prints tables; wide ones where there is no terminal to fit."""
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(what, highlight=False)
