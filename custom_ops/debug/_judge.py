"""Judges what each region of a model introduces, against what rounding does to its ops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from custom_ops.debug import _graph
from custom_ops.debug._evidence import Evidence, Op, of_region
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._limit import Limit, cheap
from custom_ops.debug._metrics import Metrics, detail, measure
from custom_ops.debug._result import Fault, Value

_DETAILED = 50  # values above their limit that get more numbers than the others


class Origin(NamedTuple):
    """Where a value comes from: its partner, the torch modules, and the line of the user's code."""

    partner: str
    modules: tuple[str, ...]
    source: str


class Reference(Protocol):
    """What a model is compared with."""

    def origin(self, name: str, region: Sequence[Node]) -> Origin:
        """Returns where a value comes from.

        Args:
            name: Of the value.
            region: The nodes that make it, or the last of them.
        """

    def ops(self, name: str) -> tuple[tuple[Op, ...], int]:
        """Returns the ops of torch that give a value, and which of their results it is."""

    def limit(self, name: str, expected: Array, metrics: Metrics, *, whole: bool) -> Limit:
        """Returns the limit of a value that is above what rounding it once does.

        Args:
            name: Of the value.
            expected: What it should be.
            metrics: How it differs.
            whole: Whether the whole model makes the difference, and not its region alone.
        """


@dataclass(frozen=True)
class Judge:
    """Knows what is allowed.

    Attributes:
        graph: The model.
        reference: What it is compared with.
        cuts: Names of the values that have a partner.
        factor: How many times what rounding does is allowed.
        tolerance: What is allowed in place of that; None for nothing.
        details: Whether all values get more numbers, not only the first above their limit.
    """

    graph: Graph
    reference: Reference
    cuts: frozenset[str]
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
            expected: What the values should be.
            arriving: What the whole model gives.
            introduced: What the regions give where they are fed with what is expected.
        """
        regions = _graph.regions(self.graph, self.cuts)
        wrong = 0
        for name in sorted(regions, key=lambda name: self.graph.producer[name].index):
            metrics = measure(expected[name], introduced[name])
            arrived = measure(expected[name], arriving[name])
            value = self._value(name, regions[name], metrics, arrived, expected[name])
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
        """Yields the outputs of the session to judge, beside those of no optimization.

        Args:
            expected: What the values should be.
            arriving: What the whole model gives without optimization.
            plain: What the session gives.
        """
        for name in self.graph.outputs:
            if name in self.cuts and name in plain and name in arriving:
                metrics = measure(arriving[name], plain[name])
                arrived = measure(expected[name], plain[name])
                value = self._value(name, [], metrics, arrived, arriving[name])
                yield replace(value, details=detail(arriving[name], plain[name]))

    def evidence(self, name: str, known: Mapping[str, Array]) -> Evidence:
        """Returns what proves that a value is wrong.

        Args:
            name: Of the value.
            known: What the inputs of the model and the values that are compared should be.
        """
        region = _graph.regions(self.graph, self.cuts)[name]
        return of_region(self.graph, region, name, known, *self.reference.ops(name))

    def _value(
        self,
        name: str,
        region: list[Node],
        metrics: Metrics,
        arriving: Metrics,
        wanted: Array,
    ) -> Value:
        """Returns a value; where there is no region, the whole model makes the difference."""
        simulated = self.graph.simulated.intersection(n.proto.op_type for n in region)
        notes = ["simulated"] if simulated or (self.graph.simulated and not region) else []
        allowed = self._limit(name, metrics, wanted, whole=not region)
        node = self.graph.producer[name]
        origin = self.reference.origin(name, region or [node])
        return Value(
            name=name,
            node=node.proto.name,
            op_type=node.proto.op_type,
            nodes=tuple(each.proto.name for each in region if not each.constant),
            module=origin.modules,
            partner=origin.partner,
            source=(node.scope.source if node.scope is not None else "") or origin.source,
            shape=wanted.shape,
            dtype=str(wanted.dtype),
            metrics=metrics,
            arriving=arriving,
            limit=allowed.value,
            limit_by=allowed.by,
            note="; ".join(filter(None, (*notes, allowed.note))),
        )

    def _limit(self, name: str, metrics: Metrics, expected: Array, *, whole: bool) -> Limit:
        """Returns the limit; its terms that cost more are left out where the cheap one suffices."""
        if self.tolerance is not None:
            return Limit(self.tolerance, "tolerance")
        if expected.dtype.kind in "biuSUO":
            return Limit(0.0, "exact")
        value = self.factor * cheap(expected, metrics.largest)
        if metrics.max_abs <= value or metrics.mismatch:
            return Limit(value, "rounding")
        return self.reference.limit(name, expected, metrics, whole=whole)


def fault(value: Value, kind: str) -> Fault:
    """Returns a value as a fault."""
    return Fault(**vars(value), kind=kind)
