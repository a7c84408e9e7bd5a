"""Errors that callers may want to tell apart from others, and what errors of others say."""

import re

_SIZE = re.compile(r" *index: \d+ Got: ")  # which axis of an input onnxruntime did not expect
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class UnreadableModel(ValueError):
    """What was given as a model is none, or must not be read: one sentence with the remedy."""


class ExportFailed(RuntimeError):
    """What an exporter does not take, or writes wrongly: one sentence with the remedy.

    What the exporter itself raised, with its own account, is the cause of this error.
    """


def first_line(error: BaseException) -> str:
    """Returns what an error says, without details, but sizes, and without colours."""
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    if not lines:
        return type(error).__name__
    sizes = [" ".join(line.split()) for line in lines[1:] if _SIZE.match(line)]
    return f"{lines[0].rstrip()} {', '.join(sizes)}" if sizes else lines[0]


def root(error: BaseException) -> BaseException:
    """Returns the error that led to this one; exporters wrap it several times."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return error
