"""A comparison to look at: a page of HTML, a short form for notebooks, and a picture."""

from custom_ops.debug._page.brief import brief
from custom_ops.debug._page.page import build
from custom_ops.debug._page.plot import plot

__all__ = ["brief", "build", "plot"]
