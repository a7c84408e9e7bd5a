"""What commands write: results on stdout, progress and errors on stderr, and exit codes."""

import contextlib
import json
import sys
import traceback as tracebacks
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from custom_ops._errors import ExportFailed, UnreadableModel, first_line
from custom_ops._plain import plain

FAILED, WRONG_USAGE = 1, 2
_WIDTH = 120  # of tables that go to a file or a pipe
# What is done, how many steps of it are done, of how many.
Report = Callable[[str, int, int], None]


class Failure(Exception):
    """A check that failed, or a request that was refused: one sentence, exit code 1."""

    exit_code = FAILED


class Usage(Failure):
    """A command line that cannot be meant: one sentence, exit code 2."""

    exit_code = WRONG_USAGE


def write(result: dict[str, Any], shown: RenderableType, as_json: bool) -> None:
    """Writes the result of a command to stdout.

    Args:
        result: For machines.
        shown: For people.
        as_json: Which of both to write.
    """
    if as_json:
        print(json.dumps(plain(result), indent=2, allow_nan=False), file=_stdout())
    else:
        is_text = isinstance(shown, str)
        _console(sys.stdout).print(shown, markup=False, highlight=False, soft_wrap=is_text)


def end(ok: bool) -> None:
    """Ends a command with exit code 0 or 1."""
    if not ok:
        raise typer.Exit(FAILED)


def note(text: str) -> None:
    """Writes a line for people to stderr."""
    _console(sys.stderr).print(text, style="dim", markup=False, highlight=False)


@contextlib.contextmanager
def progress(first: str) -> Iterator[Report]:
    """Shows on stderr what is being done: a bar on a terminal, else a line for each new thing.

    Args:
        first: What is done at first.
    """
    console = _console(sys.stderr)
    if not console.is_terminal:
        seen: set[str] = set()

        def report_line(what: str, done: int, of: int) -> None:
            if what not in seen:
                seen.add(what)
                note(f"{what} ...")

        report_line(first, 0, 0)
        yield report_line
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(first, total=None)

        def report(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of or None)

        yield report


def finish(command: Callable[[], Any], *, as_json: bool, traceback: bool) -> int:
    """Runs a command, and turns however it ends into an exit code.

    Args:
        command: Returns an exit code or None, or raises.
        as_json: Whether stdout is for machines: all else that is printed goes to stderr, and an
            error of a command is written as JSON too.
        traceback: Whether errors come with where they arose.

    Returns:
        0 where all is well, 1 where a check failed or a request was refused, 2 for wrong usage.
    """
    machine = contextlib.redirect_stdout(_Redirected(sys.stdout)) if as_json else _nothing()
    with machine, warnings.catch_warnings():
        shown: set[str] = set()
        warnings.showwarning = lambda message, *_, **__: _show_warning(str(message), shown)
        try:
            code = command()
            return code if isinstance(code, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except Exception as error:
            if traceback:
                tracebacks.print_exc()
            code, sentence = _explained(error)
            _console(sys.stderr).print(sentence, markup=False, highlight=False, soft_wrap=True)
            if as_json and code == FAILED:
                write({"ok": False, "error": sentence}, "", as_json=True)
            return code


def _explained(error: Exception) -> tuple[int, str]:
    """Returns the exit code and the sentence of an error."""
    if isinstance(error, Failure):
        return error.exit_code, str(error)
    if hasattr(error, "format_message"):  # of typer, whose command line did not parse
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "custom-ops"
        text = " ".join(error.format_message().split()).removesuffix(".")
        return WRONG_USAGE, f"{command}: {text}; see {command} --help"
    if isinstance(error, UnreadableModel):
        return WRONG_USAGE, " ".join(str(error).split())
    if isinstance(error, (ValueError, FileNotFoundError, ExportFailed)):  # of ours, with the remedy
        return FAILED, " ".join(str(error).split())
    return FAILED, f"{type(error).__name__}: {first_line(error)}; see where with --traceback"


class _Redirected:
    """Stands in for stdout where that is for machines: what anyone prints goes to stderr."""

    def __init__(self, stdout: TextIO) -> None:
        self.stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _stdout() -> TextIO:
    return sys.stdout.stdout if isinstance(sys.stdout, _Redirected) else sys.stdout


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


def _show_warning(message: str, shown: set[str]) -> None:
    """Shows a warning that is not shown yet."""
    if message not in shown:
        shown.add(message)
        note(f"warning: {message}")


def _console(file: TextIO) -> Console:
    console = Console(file=file)
    if not console.is_terminal:
        console.width = _WIDTH
    return console
