"""The nodes between values of a model."""

from collections.abc import Collection, Iterator, Sequence

from custom_ops.debug._graph import Graph, Node
from custom_ops.onnx._walk import used


def regions(graph: Graph, cuts: Collection[str]) -> dict[str, list[Node]]:
    """Returns for each cut the nodes between the cuts before it and it, in order."""
    found: dict[str, list[Node]] = {}
    for cut in cuts:
        if cut not in graph.producer:
            continue
        inside: dict[int, Node] = {}
        waiting = [graph.producer[cut]]
        while waiting:
            node = waiting.pop()
            if node.index in inside:
                continue
            inside[node.index] = node
            outside = [name for name in used(node.proto) if name not in cuts]
            waiting += [graph.producer[name] for name in outside if name in graph.producer]
        found[cut] = [inside[i] for i in sorted(inside)]
    return found


def inputs_of(region: Sequence[Node]) -> Iterator[str]:
    """Yields the values that a region takes from outside."""
    made = {name for node in region for name in node.proto.output}
    for name in dict.fromkeys(name for node in region for name in sorted(used(node.proto))):
        if name not in made:
            yield name
