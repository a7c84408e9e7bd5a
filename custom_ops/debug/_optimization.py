"""Narrows down which optimization of a session changes an output: the level, and the node."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from custom_ops.debug._copies import with_outputs
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._metrics import measure
from custom_ops.debug._result import Fault
from custom_ops.debug._runs import fetch
from custom_ops.onnx._running import LEVELS


@dataclass(frozen=True)
class Search:
    """Looks for what changes an output.

    Attributes:
        graph: The model.
        feeds: Its inputs.
        libraries: Files of further libraries of custom ops.
        providers: Those of the session to judge; None for those of our own.
        right: What the model gives without optimization.
    """

    graph: Graph
    feeds: Mapping[str, Array]
    libraries: Sequence[str]
    providers: Sequence[str] | None
    right: Mapping[str, Array]

    def narrowed(self, fault: Fault) -> Fault:
        """Returns a fault with the first node whose result, kept as an output, mends it.

        `difference` says at which level it appears; the node stays the one that makes the output
        where no single result mends it.
        """
        weakest_first = [name for name in reversed(LEVELS) if name != "disabled"]
        level = next((each for each in weakest_first if self._wrong(fault, each, ())), None)
        if level is None:
            other = "no level of optimization alone: the session's other options"
            if any(node.function for node in self.graph.nodes):
                other += ", or a kernel that runs in the place of a body"
            return replace(fault, difference=other)
        values = [
            value
            for node in self.graph.nodes
            if not node.constant
            for value in node.proto.output
            if value and value not in self.graph.outputs
        ]
        kept = _smallest(values, lambda some: not self._wrong(fault, level, some))
        if not kept:
            return replace(fault, difference=f"optimization level {level}")
        node = self.graph.producer[kept[0]].proto
        return replace(
            fault,
            node=node.name,
            op_type=node.op_type,
            nodes=tuple(self.graph.producer[each].proto.name for each in kept),
            difference=f"optimization level {level} merges it with what follows; as an output it "
            "is right",
        )

    def _wrong(self, fault: Fault, level: str, kept: Sequence[str]) -> bool:
        proto = with_outputs(self.graph, [*self.graph.outputs, *kept])
        session = self.graph.session(proto, self.libraries, self.providers, level)
        found = measure(
            self.right[fault.name], fetch(session, [fault.name], self.feeds)[fault.name]
        )
        return not found.within(fault.limit)


def _smallest(values: Sequence[str], mends: Callable[[Sequence[str]], bool]) -> Sequence[str]:
    """Returns a half of a half of the values, as long as one half mends; () if all do not."""
    if not values or not mends(values):
        return ()
    while len(values) > 1:
        middle = len(values) // 2
        halves = [half for half in (values[:middle], values[middle:]) if mends(half)]
        if not halves:
            break
        values = halves[0]
    return values
