"""Searches for the smallest part of a model that still shows what a predicate sees."""

from custom_ops.debug._bisect.predicates import (
    differs_from,
    fails_to_load,
    fails_to_run,
    gives_nan,
    slower_than,
)
from custom_ops.debug._bisect.result import Bisection
from custom_ops.debug._bisect.runtime import Runtime
from custom_ops.debug._bisect.smallest import bisect

__all__ = [
    "Bisection",
    "Runtime",
    "bisect",
    "differs_from",
    "fails_to_load",
    "fails_to_run",
    "gives_nan",
    "slower_than",
]
