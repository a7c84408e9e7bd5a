"""Asks a predicate about submodels: once about each, within limits."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from custom_ops._errors import first_line
from custom_ops.debug._bisect.submodels import Submodels
from custom_ops.debug._bisect.values import Values, inputs_file
from custom_ops.onnx._extract.bounds import Bounds


class Stopped(Exception):
    """A limit is reached."""


class Trials:
    """What a predicate says of submodels.

    Args:
        submodels: The model.
        predicate: Called with the file of a submodel.
        folder: Where submodels are written, each for the time of its call.
        limit: Most calls.
        seconds: Time after which no call begins; None for no limit.

    Attributes:
        values: What the submodels are fed with; None where the predicate needs nothing.
        calls: How often the predicate was called.
        unresolved: How many submodels had no answer.
        reason: Why the first of them had none.
        best: The smallest submodel of which it was true.
    """

    def __init__(
        self,
        submodels: Submodels,
        predicate: Callable[[Path], Any],
        folder: Path,
        limit: int,
        seconds: float | None,
    ) -> None:
        self.submodels = submodels
        self.values: Values | None = None
        self.calls = 0
        self.unresolved = 0
        self.reason = ""
        self.best: Bounds | None = None
        self._predicate = predicate
        self._folder = folder
        self._limit = limit
        self._end = None if seconds is None else time.monotonic() + seconds
        self._seconds = seconds
        self._known: dict[Bounds, bool] = {}

    def nodes(self, nodes: Sequence[int]) -> Sequence[int] | None:
        """Returns nodes, with those that belong to them, if the predicate is true of them."""
        closed = self.submodels.closed(nodes)
        return closed if self.shows(self.submodels.bounds(closed)) else None

    def outputs(self, outputs: Sequence[str]) -> Sequence[str] | None:
        """Returns outputs if the predicate is true of the best submodel with these alone.

        No node is left without use by that.
        """
        assert self.best is not None
        kept = set(outputs)
        named = [name for name in self.best.outputs if name in kept]
        bounds = self.submodels.with_outputs(self.best, named)
        return named if bounds is not None and self.shows(bounds) else None

    def shows(self, bounds: Bounds) -> bool:
        """Returns whether the predicate is true of a submodel.

        Raises:
            Stopped: A limit is reached.
        """
        if bounds not in self._known:
            self._known[bounds] = bool(bounds.outputs) and self._ask(bounds)
            if self._known[bounds]:
                self.best = bounds
        return self._known[bounds]

    def _ask(self, bounds: Bounds) -> bool:
        if self.calls >= self._limit:
            raise Stopped(f"the limit of {self._limit:,} calls")
        if self._end is not None and time.monotonic() > self._end:
            raise Stopped(f"the limit of {self._seconds:g} seconds")
        file = self._folder / f"submodel-{self.calls + 1}.onnx"
        if self.values is not None:
            refusal = self.values.write(bounds.inputs, inputs_file(file))
            if refusal:
                return self._without_answer(refusal)
        self.submodels.write(bounds, file)
        self.calls += 1
        try:
            answer = self._predicate(file)
        except Exception as error:
            return self._without_answer(first_line(error) or type(error).__name__)
        finally:
            file.unlink(missing_ok=True)
            inputs_file(file).unlink(missing_ok=True)
        return (
            self._without_answer("the predicate returned None") if answer is None else bool(answer)
        )

    def _without_answer(self, reason: str) -> bool:
        self.unresolved += 1
        self.reason = self.reason or reason
        return False
