"""Judges what each region of a model introduces, against what rounding does to its ops."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from custom_ops.debug import _regions
from custom_ops.debug._evidence import Evidence, Op, of_region
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._limit import Limit, cheap
from custom_ops.debug._metrics import Metrics, absent, detail, measure
from custom_ops.debug._result import Fault, Value
from custom_ops.debug._runs import Runs
from custom_ops.debug._ties import tied

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

    def limit(
        self, name: str, expected: Array, metrics: Metrics, factor: float, *, whole: bool
    ) -> Limit:
        """Returns the limit of a value that is above what rounding it once does.

        Args:
            name: Of the value.
            expected: What it should be.
            metrics: How it differs.
            factor: How many times what rounding does is allowed.
            whole: Whether the whole model makes the difference, and not its region alone.
        """


@dataclass(frozen=True)
class Allowed:
    """What a comparison was told to allow, and to tell.

    Attributes:
        factor: How many times what rounding does is allowed.
        tolerance: What is allowed in place of that; None for nothing.
        details: Whether all values get more numbers, not only the first above their limit.
    """

    factor: float
    tolerance: float | None = None
    details: bool = False


@dataclass(frozen=True)
class Judge:
    """Judges the values of a model.

    Attributes:
        graph: The model.
        reference: What it is compared with.
        allowed: What counts as no fault.
        runs: What the model gave; those of `expected` are judged.
    """

    graph: Graph
    reference: Reference
    allowed: Allowed
    runs: Runs

    @functools.cached_property
    def regions(self) -> dict[str, list[Node]]:
        """The nodes between the values that are judged, by the value that they make."""
        return _regions.regions(self.graph, self.runs.expected)

    def values(self) -> Iterator[Value]:
        """Yields every value that has a partner, in the order of the graph."""
        wrong = 0
        for name in sorted(self.regions, key=lambda name: self.graph.producer[name].index):
            expected, introduced = self.runs.expected[name], self.runs.introduced.get(name)
            metrics = (
                absent(expected, f"none: it does not run, {self.runs.failed[name]}")
                if introduced is None
                else measure(expected, introduced)
            )
            arrived = measure(self.runs.right[name], self.runs.arriving[name])
            value = self._value(name, self.regions[name], metrics, arrived, expected)
            wrong += not value.ok
            wanted = self.allowed.details or (not value.ok and wrong <= _DETAILED)
            if wanted and introduced is not None:
                value = replace(value, details=detail(expected, introduced))
            yield value

    def outputs(self) -> Iterator[Value]:
        """Yields the outputs of the session to judge, beside those of no optimization."""
        runs = self.runs
        for name in self.graph.outputs:
            if name in runs.expected and name in runs.plain and name in runs.arriving:
                metrics = measure(runs.arriving[name], runs.plain[name])
                arrived = measure(runs.right[name], runs.plain[name])
                value = self._value(name, [], metrics, arrived, runs.arriving[name])
                yield replace(value, details=detail(runs.arriving[name], runs.plain[name]))

    def evidence(self, name: str) -> Evidence:
        """Returns what proves that a value is wrong."""
        runs = self.runs
        known = {**runs.feeds, **runs.fed}
        expected, ops = runs.expected[name], self.reference.ops(name)
        return of_region(self.graph, self.regions[name], name, known, expected, *ops)

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
        node = self.graph.producer[name]
        allowed = self._limit(name, metrics, wanted, whole=not region)
        if not metrics.within(allowed.value) and region and self._tied(node, name):
            allowed = Limit(metrics.max_abs, "tie", "other places of equal numbers")
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

    def _tied(self, node: Node, name: str) -> bool:
        """Says whether what a node introduces are other places of equal numbers."""
        known = {**self.runs.feeds, **self.runs.fed}
        expected, introduced = self.runs.expected[name], self.runs.introduced.get(name)
        return introduced is not None and tied(node.proto, name, known, expected, introduced)

    def _limit(self, name: str, metrics: Metrics, expected: Array, *, whole: bool) -> Limit:
        """Returns the limit; its terms that cost more are left out where the cheap one suffices."""
        if self.allowed.tolerance is not None:
            return Limit(self.allowed.tolerance, "tolerance")
        exact = expected.dtype.kind in "biuSUO"
        factor = self.allowed.factor
        value = 0.0 if exact else factor * cheap(expected, metrics.largest)
        if metrics.max_abs <= value or metrics.mismatch or (exact and not whole):
            return Limit(value, "exact" if exact else "rounding")
        return self.reference.limit(name, expected, metrics, factor, whole=whole)


def fault(value: Value, kind: str) -> Fault:
    """Returns a value as a fault."""
    return Fault(**vars(value), kind=kind)
