"""Runs a script in a process of its own, which may crash or hang, and keeps what it said."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        output: What it wrote to stdout, whole or up to its end.
        errors: What it wrote to stderr.
        code: Its exit code; None where it did not end in time.
    """

    output: bytes
    errors: str
    code: int | None

    @property
    def lines(self) -> list[str]:
        """The lines of its output."""
        return self.output.decode(errors="replace").splitlines()

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The objects of JSON among the lines; others are cut off, or printed by a library."""
        found = []
        for line in self.lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [each for each in found if isinstance(each, dict)]


def run(
    arguments: Sequence[str | os.PathLike[str]], given: bytes | dict[str, Any], seconds: float
) -> Ended:
    """Runs Python.

    Args:
        arguments: Those of Python: a script, and what it takes.
        given: What it reads from stdin; a dict as JSON.
        seconds: After which it is ended.
    """
    stdin = json.dumps(given).encode() if isinstance(given, dict) else given
    try:
        done = subprocess.run(
            [sys.executable, *(os.fspath(each) for each in arguments)],
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return Ended(expired.stdout or b"", (expired.stderr or b"").decode(errors="replace"), None)
    return Ended(done.stdout, done.stderr.decode(errors="replace"), done.returncode)
