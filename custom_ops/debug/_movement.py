"""Pairs values that are only moved by what they are moved from.

Behind a fault numbers tell nothing, and of several that are moved alike the place in the order may
tell the wrong one; those that are nearly equal may have come in another order.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from custom_ops.debug._candidates import Candidate
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._kinds import fits
from custom_ops.debug._recording import Recording, Ref
from custom_ops.debug._sketch import alike, sketch
from custom_ops.onnx._verify import to_array
from custom_ops.onnx._walk import used

# Runs the nodes that make some values, fed with others; returns the former.
Run = Callable[[Mapping[str, Array], Sequence[str]], Mapping[str, Array]]

Form: TypeAlias = tuple[str, tuple[int, ...]]  # dtype and shape

# What only moves numbers, or chooses some.
_MOVES = frozenset(
    [
        "TopK",
        "ArgMax",
        "ArgMin",
        "Gather",
        "GatherND",
        "GatherElements",
        "Reshape",
        "Transpose",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Flatten",
        "Expand",
    ]
)


@dataclass
class Movement:
    """What is moved in a model, and by torch.

    Attributes:
        graph: The model.
        values: What it makes when it runs, by name.
        recording: What torch did.
        candidates: The results of torch.
        run: Runs some nodes; None for never.
    """

    graph: Graph
    values: Mapping[str, Array]
    recording: Recording
    candidates: Sequence[Candidate]
    run: Run | None
    _found: dict[str, Ref] = field(default_factory=dict)
    _owner: dict[Ref, str] = field(default_factory=dict)

    def mended(self, of_value: Mapping[str, Ref]) -> dict[str, Ref]:
        """Returns the pairs, those of values that are moved as their sources say.

        Args:
            of_value: The pairs as numbers and places say.
        """
        self._found = dict(of_value)
        self._owner = {ref: name for name, ref in of_value.items()}
        readers: dict[Ref, list[Candidate]] = defaultdict(list)
        for candidate in self.candidates:
            for ref in dict.fromkeys(candidate.step.refs):
                readers[ref].append(candidate)
        for sources, ours in self._groups():
            read = {self._found[name] for name in sources if name in self._found}
            if len(read) < len(sources) or all(self._settled(name) for _, name in ours):
                continue
            form = _form(self.values[ours[0][1]])
            names = [name for _, name in ours]
            near = [
                each
                for each in readers[min(read)]
                if read <= set(each.step.refs)
                and each.form == form
                and all(_fit(node, each) for node, _ in ours)
                and (self._owner.get(each.ref) in names or not self._taken(each.ref))
            ]
            if len(near) == len(ours):
                self._take({n: each.ref for n, each in zip(names, near, strict=True)})
            elif near and self.run is not None:
                self._take(self._equal(sources, names, near, self.run))
        return self._found

    def _groups(self) -> Iterator[tuple[frozenset[str], list[tuple[Node, str]]]]:
        """Yields values of one shape that are moved from the same ones, and their nodes."""
        found: dict[tuple[frozenset[str], Form], list[tuple[Node, str]]] = defaultdict(list)
        for node in self.graph.nodes:
            makers = {name: self.graph.producer.get(name) for name in used(node.proto)}
            sources = frozenset(n for n, m in makers.items() if m is not None and not m.constant)
            if node.proto.op_type in _MOVES and sources:
                for name in node.proto.output:
                    if name in self.values:
                        found[sources, _form(self.values[name])].append((node, name))
        for (sources, _), ours in found.items():
            yield sources, ours

    @functools.cached_property
    def _sketches(self) -> dict[Ref, Array]:
        return {each.ref: each.sketch for each in self.candidates}

    def _settled(self, name: str) -> bool:
        """Says whether a value has a partner that nothing speaks against."""
        if name not in self._found:
            return False
        partner = self._sketches.get(self._found[name])
        if partner is None or name in self.graph.outputs:
            return True
        return alike(sketch(self.values[name]), partner)

    def _taken(self, ref: Ref) -> bool:
        return ref in self._owner and self._settled(self._owner[ref])

    def _equal(
        self, sources: Collection[str], names: Sequence[str], near: Sequence[Candidate], run: Run
    ) -> dict[str, Ref]:
        """Returns which results values are: moving is exact, so what torch has shows which."""
        fed = {name: to_array(self.recording.value(self._found[name])) for name in sources}
        typed = {name: array.astype(self.values[name].dtype) for name, array in fed.items()}
        found = {}
        for name, array in run(typed, names).items():
            own = sketch(array)
            same = [each.ref for each in near if np.array_equal(own, each.sketch, equal_nan=True)]
            if len(same) == 1:
                found[name] = same[0]
        return found

    def _take(self, new: Mapping[str, Ref]) -> None:
        """Pairs values, unless that goes against what stands."""
        if any(self._settled(name) and self._found[name] != ref for name, ref in new.items()):
            return
        before = {self._owner[ref] for ref in new.values() if ref in self._owner}
        for name in before.union(new) & self._found.keys():
            del self._owner[self._found.pop(name)]
        self._found |= new
        self._owner |= {ref: name for name, ref in new.items()}


def _form(array: Array) -> Form:
    return str(array.dtype), array.shape


def _fit(node: Node, candidate: Candidate) -> bool:
    proto = node.proto
    return fits(proto.op_type, proto.domain, node.target, candidate.kinds)
