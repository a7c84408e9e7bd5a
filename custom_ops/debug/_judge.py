"""Judges what each region of a model introduces, against what rounding does to its ops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from custom_ops.debug import _graph
from custom_ops.debug._float64 import Replay
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._limit import Limit, cheap, limit
from custom_ops.debug._metrics import Metrics, detail, measure
from custom_ops.debug._record import Recording, Ref, Step
from custom_ops.debug._result import Fault, Value

_DETAILED = 50  # values above their limit that get more numbers than the others


@dataclass(frozen=True)
class Judge:
    """Knows what is allowed.

    Attributes:
        graph: The model.
        recording: What torch did.
        of_value: The result of torch that each value is.
        factor: How many times what rounding does is allowed.
        tolerance: What is allowed in place of that; None for nothing.
        details: Whether all values get more numbers, not only the first above their limit.
    """

    graph: Graph
    recording: Recording
    of_value: Mapping[str, Ref]
    factor: float
    tolerance: float | None
    details: bool = False

    def values(
        self,
        expected: Mapping[str, Array],
        arriving: Mapping[str, Array],
        introduced: Mapping[str, Array],
    ) -> Iterator[Value]:
        """Yields every value that has a partner, in the order of the graph.

        Args:
            expected: What torch gives, by the names of the values.
            arriving: What the whole model gives.
            introduced: What the regions give where torch's values are fed to them.
        """
        regions = _graph.regions(self.graph, self.of_value)
        stops = frozenset(self.of_value.values())
        wrong = 0
        for name in sorted(regions, key=lambda name: self.graph.producer[name].index):
            metrics = measure(expected[name], introduced[name])
            arrived = measure(expected[name], arriving[name])
            value = self._value(name, regions[name], stops, metrics, arrived, expected[name])
            wrong += not value.ok
            if self.details or (not value.ok and wrong <= _DETAILED):
                value = replace(value, details=detail(expected[name], introduced[name]))
            yield value

    def outputs(
        self,
        expected: Mapping[str, Array],
        arriving: Mapping[str, Array],
        plain: Mapping[str, Array],
    ) -> Iterator[Value]:
        """Yields the outputs of the session as it was asked for, beside those without optimization.

        Args:
            expected: What torch gives, by the names of the values.
            arriving: What the whole model gives without optimization.
            plain: What the session gives.
        """
        nothing: frozenset[Ref] = frozenset()
        for name in self.graph.outputs:
            if name in self.of_value and name in plain and name in arriving:
                metrics = measure(arriving[name], plain[name])
                arrived = measure(expected[name], plain[name])
                value = self._value(name, [], nothing, metrics, arrived, arriving[name])
                yield replace(value, details=detail(arriving[name], plain[name]))

    def _value(
        self,
        name: str,
        region: list[Node],
        stops: frozenset[Ref],
        metrics: Metrics,
        arriving: Metrics,
        wanted: Array,
    ) -> Value:
        ref = self.of_value[name]
        allowed = self._limit(ref, stops, metrics, wanted)
        node, step = self.graph.producer[name], self.recording.steps[ref.step]
        steps = Replay(self.recording, ref, stops).steps if stops else [step]
        return Value(
            name=name,
            node=node.proto.name,
            op_type=node.proto.op_type,
            nodes=tuple(each.proto.name for each in region if not each.constant),
            module=self._modules(region or [node], steps),
            partner=step.name,
            source=(node.scope.source if node.scope is not None else "") or step.source,
            shape=wanted.shape,
            dtype=str(wanted.dtype),
            metrics=metrics,
            arriving=arriving,
            limit=allowed.value,
            limit_by=allowed.by,
            note=allowed.note,
        )

    def _limit(self, ref: Ref, stops: frozenset[Ref], metrics: Metrics, expected: Array) -> Limit:
        """Returns the limit; its terms that cost more are left out where the cheap one suffices."""
        if self.tolerance is not None:
            return Limit(self.tolerance, "tolerance")
        value = self.factor * cheap(expected, metrics.largest)
        if expected.dtype.kind in "biuSUO":
            return Limit(0.0, "exact")
        if metrics.max_abs <= value or metrics.mismatch:
            return Limit(value, "rounding")
        return limit(
            self.recording,
            ref,
            stops,
            factor=self.factor,
            enough=metrics.max_abs,
        )

    def _modules(self, region: list[Node], steps: Sequence[Step]) -> tuple[str, ...]:
        """Returns the modules that torch's ops and the nodes come from, in the order of torch."""
        paths = [step.path for step in steps if step.depends]
        paths += [
            node.scope.path for node in region if node.scope is not None and not node.constant
        ]
        return tuple(dict.fromkeys(paths))


def fault(value: Value, kind: str) -> Fault:
    """Returns a value as a fault."""
    return Fault(**vars(value), kind=kind)
