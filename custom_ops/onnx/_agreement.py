"""Runs two models that are to compute the same on the same inputs, and compares the outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime

from custom_ops.onnx._drawing import draw
from custom_ops.onnx._reading import ModelLike
from custom_ops.onnx._session import session
from custom_ops.onnx._verify import compare_arrays, first_line, run


@dataclass(frozen=True)
class Agreement:
    """How two models compare; true unless they differ.

    Attributes:
        compared: Whether both ran.
        differs: Whether an output differs by more than the tolerance of its dtype.
        difference: The largest absolute difference; None where nothing was compared.
        sizes: The shapes of the inputs.
        note: What differs, or why nothing was compared.
    """

    compared: bool
    differs: bool = False
    difference: float | None = None
    sizes: str = ""
    note: str = ""

    def __bool__(self) -> bool:
        return not self.differs

    def __str__(self) -> str:
        if not self.compared:
            return f"not compared: {self.note}"
        if self.differs:
            return f"{self.sizes}: DIFFERS, {self.note}"
        return f"{self.sizes}: equal (largest difference {self.difference:.3g})"

    def as_dict(self) -> dict[str, Any]:
        """Returns the outcome in the types of JSON."""
        return asdict(self)


def agreement(
    before: ModelLike,
    after: ModelLike,
    kernels: Sequence[str],
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Agreement:
    """Runs a model before and after a change.

    Args:
        before: The model; the kernel library runs its nodes of ours.
        after: The changed model.
        kernels: Who runs our nodes in it, one after the other; see `session`.
        inputs: Arrays by the names of inputs; the others are drawn.
    """
    try:
        first = _session(before, "native")
    except Exception as error:
        return Agreement(False, note=f"the original does not load: {first_line(error)}")
    try:
        feeds = draw(first.get_inputs(), arrays=inputs)
        wanted = run(first, feeds)
    except Exception as error:
        return Agreement(False, note=f"the original does not run: {first_line(error)}")
    sizes = ", ".join(str(list(array.shape)) for array in feeds.values())
    largest = 0.0
    for kind in kernels:
        try:
            actual = run(_session(after, kind), feeds)
        except Exception as error:
            note = f"the new one raises: {first_line(error)}"
            return Agreement(True, True, None, sizes, note)
        check = compare_arrays(sizes, *_numeric(wanted, actual))
        if not check.passed:
            if not _repeats(first, feeds, wanted):
                return Agreement(False, note="the original gives other numbers each time")
            return Agreement(True, True, check.difference, sizes, check.note)
        largest = max(largest, check.difference or 0.0)
    return Agreement(True, False, largest, sizes)


def _session(model: ModelLike, kernels: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised too
    return session(model, kernels=kernels, sess_options=options)


def _numeric(wanted: Sequence[Any], actual: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the outputs that can be compared: no sequence, map or text."""
    if len(wanted) != len(actual):
        return list(wanted), list(actual)
    kept = [i for i, want in enumerate(wanted) if _is_numeric(want)]
    return [wanted[i] for i in kept], [actual[i] for i in kept]


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufV"


def _repeats(
    runner: onnxruntime.InferenceSession, feeds: Mapping[str, Any], wanted: Sequence[Any]
) -> bool:
    again = run(runner, feeds)
    pairs = zip(wanted, again, strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs if _is_numeric(a))
