"""The frame of our pages: one HTML file each, that loads nothing and fits a phone."""

import html
import os
import string
from importlib import resources

from custom_ops.onnx._model import check_new, written_beside


def frame(title: str, content: str) -> str:
    """Returns a page.

    Args:
        title: What the window is called, as plain text.
        content: HTML: the style that the page has besides, its `main` and its scripts.
    """
    template = resources.files(__package__ or "").joinpath("frame.html").read_text("utf-8")
    return string.Template(template).substitute(title=html.escape(title), content=content.strip())


def write(tool: str, path: str | os.PathLike[str], page: str, force: bool) -> None:
    """Writes a page, and overwrites nothing unless told.

    Args:
        tool: Who writes, for errors.
        path: Where to.
        page: The page.
        force: Whether a file that is there may go.

    Raises:
        ValueError: The path is a folder, or exists and `force` is not given.
    """
    check_new(tool, "the page", path, force)
    with written_beside(path) as file:
        file.write_text(page, "utf-8", errors="replace")
