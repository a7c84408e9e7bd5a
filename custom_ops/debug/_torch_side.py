"""The module as the reference: where its results come from, and how far rounding takes them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from custom_ops.debug._evidence import Op, plain_ops
from custom_ops.debug._float64 import Replay
from custom_ops.debug._graph import Array, Node
from custom_ops.debug._judge import Origin
from custom_ops.debug._limit import Limit, limit
from custom_ops.debug._metrics import Metrics
from custom_ops.debug._recording import Recording, Ref


@dataclass(frozen=True)
class TorchSide:
    """What torch did.

    Attributes:
        recording: The ops and their results.
        of_value: The result that each value of the model is.
    """

    recording: Recording
    of_value: Mapping[str, Ref]

    @functools.cached_property
    def stops(self) -> frozenset[Ref]:
        """The results that have a partner, at which the ops before each end."""
        return frozenset(self.of_value.values())

    def origin(self, name: str, region: Sequence[Node]) -> Origin:
        """Returns where a value comes from; the modules in the order of torch."""
        ref = self.of_value[name]
        step = self.recording.steps[ref.step]
        steps = Replay(self.recording, ref, self.stops).steps
        paths = [each.path for each in steps if each.depends]
        scopes = (node.scope for node in region if not node.constant)
        paths += [scope.path for scope in scopes if scope is not None]
        return Origin(step.name, tuple(dict.fromkeys(paths)), step.source)

    def limit(
        self, name: str, expected: Array, metrics: Metrics, factor: float, *, whole: bool
    ) -> Limit:
        """Returns the limit by the ops of torch, run again in float64."""
        return limit(
            self.recording,
            self.of_value[name],
            frozenset() if whole else self.stops,
            factor=factor,
            enough=metrics.max_abs,
            choosing=whole,
        )

    def ops(self, name: str) -> tuple[tuple[Op, ...], int]:
        """Returns the ops of torch that give a value, and which of their results it is."""
        ref = self.of_value[name]
        steps = Replay(self.recording, ref, self.stops).steps
        return plain_ops(self.recording, steps), ref.output
