"""What makes and what needs each value of a main graph; searches along both, in linear time."""

import functools
from collections.abc import Collection, Iterable, Iterator

import onnx

from custom_ops._errors import UnreadableModel
from custom_ops.onnx import _walk

_SHAPE_OPS = ("Shape", "Size")


class Index:
    """The main graph of a model, by names.

    A node needs its inputs and what the graphs inside it capture: both alike must be there.

    Args:
        graph: The graph; left as it is.

    Raises:
        UnreadableModel: Two nodes make the same value.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.needs = [_walk.used(node) for node in self.nodes]
        self.makes = [tuple(filter(None, node.output)) for node in self.nodes]
        self.initializers = {each.name: each for each in graph.initializer}
        self.sparse = {each.values.name: each for each in graph.sparse_initializer}
        self.inputs = {each.name: each for each in graph.input}
        self.outputs = {each.name: each for each in graph.output}
        self.maker: dict[str, int] = {}
        for i, names in enumerate(self.makes):
            for name in names:
                if self.maker.setdefault(name, i) != i or name in self.inputs:
                    raise UnreadableModel(
                        f"model: each value must be defined once, got {name!r} twice; see "
                        "`custom-ops doctor`"
                    )

    def is_stored(self, name: str) -> bool:
        """Returns whether the model holds the value: as an initializer, sparse or not."""
        return name in self.initializers or name in self.sparse

    def has(self, name: str) -> bool:
        """Returns whether there is such a value in the main graph."""
        return name in self.maker or name in self.inputs or self.is_stored(name)

    def names(self) -> Iterator[str]:
        """Yields the names of all values."""
        yield from dict.fromkeys([*self.inputs, *self.initializers, *self.sparse, *self.maker])

    @functools.cached_property
    def infos(self) -> dict[str, onnx.ValueInfoProto]:
        """What the graph says of the types of its values."""
        infos = (*self.graph.value_info, *self.graph.output, *self.graph.input)
        return {each.name: each for each in infos}

    @functools.cached_property
    def users(self) -> dict[str, list[int]]:
        """The nodes that need a value."""
        users: dict[str, list[int]] = {}
        for i, names in enumerate(self.needs):
            for name in names:
                users.setdefault(name, []).append(i)
        return users

    def behind(
        self, values: Iterable[str], stop: Collection[str], among: Collection[str] | None = None
    ) -> tuple[set[int], list[str]]:
        """Returns the nodes that values follow from, and the values with which the search ended.

        Args:
            values: Where the search begins.
            stop: Names of values that are not searched beyond.
            among: Names of the values that are; others end the search. None for all.

        Returns:
            Indices of nodes; and the values at which the search ended, without those of `stop` and
            initializers.
        """
        nodes: set[int] = set()
        ends: dict[str, None] = {}
        waiting = [name for name in values if name not in stop]
        seen = set(waiting)
        while waiting:
            name = waiting.pop()
            maker = self.maker.get(name) if among is None or name in among else None
            if maker is None:
                if not self.is_stored(name):
                    ends[name] = None
            elif maker not in nodes:
                nodes.add(maker)
                more = [n for n in self.needs[maker] if n not in stop and n not in seen]
                seen.update(more)
                waiting += more
        return nodes, list(ends)

    def ahead(self, values: Iterable[str], numbers: bool = False) -> set[str]:
        """Returns the values that depend on some, not on their types alone.

        Args:
            values: Where the search begins; they are in the result.
            numbers: Whether to leave out what depends on shapes alone, too.
        """
        waiting = list(values)
        seen = set(waiting)
        while waiting:
            name = waiting.pop()
            for i in self.users.get(name, ()):
                node = self.nodes[i]
                if numbers and node.op_type in _SHAPE_OPS:
                    continue
                if node.op_type == "CastLike" and name not in node.input[:1]:
                    continue
                more = [made for made in self.makes[i] if made not in seen]
                seen.update(more)
                waiting += more
        return seen

    @functools.cached_property
    def _sources(self) -> list[str]:
        """The values that are not known beforehand: inputs, and what is made from nothing."""
        inputs = (name for name in self.inputs if not self.is_stored(name))
        return [*inputs, *(name for name in self.users if not self.has(name))]

    @functools.cached_property
    def varying(self) -> set[str]:
        """The values that depend on an input; the others are constants."""
        return self.ahead(self._sources)

    @functools.cached_property
    def data(self) -> set[str]:
        """The values that depend on the numbers of an input, not on its shape alone."""
        return self.ahead(self._sources, numbers=True)
