"""Compares a torch module with its ONNX model, layer by layer, and names the guilty node."""

from custom_ops.debug._bisect import (
    Bisection,
    Runtime,
    bisect,
    differs_from,
    fails_to_load,
    fails_to_run,
    gives_nan,
    slower_than,
)
from custom_ops.debug._compare import compare
from custom_ops.debug._mark_results import Extracted, Mark, MarkReport, Missing, Stripped
from custom_ops.debug._marker import Debugger
from custom_ops.debug._metrics import Details, Element, Metrics
from custom_ops.debug._result import Comparison, Fault, Unmatched, Value

__all__ = [
    "Bisection",
    "Comparison",
    "Debugger",
    "Details",
    "Element",
    "Extracted",
    "Fault",
    "Mark",
    "MarkReport",
    "Metrics",
    "Missing",
    "Runtime",
    "Stripped",
    "Unmatched",
    "Value",
    "bisect",
    "compare",
    "differs_from",
    "fails_to_load",
    "fails_to_run",
    "gives_nan",
    "slower_than",
]
