"""What a rule is."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from custom_ops.onnx._doctor.findings import Finding
from custom_ops.onnx._doctor.subject import Subject

# Yields what it finds; the docstring says what the rule asks for. It raises nothing, whatever the
# model is.
Rule: TypeAlias = Callable[[Subject], Iterator[Finding]]
