"""Who makes and who uses each value of a model, in the graph, in functions and in subgraphs."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from custom_ops.onnx import _walk

GIVEN = -1  # who makes an input or an initializer


@dataclass
class Frame:
    """The values of one scope.

    Attributes:
        scope: The graph or function.
        function: The function around it, if any.
        outer: The frame of the scope whose node has this graph; None for the model's graph and
            for a function.
        at: Number of that node in its scope.
        made: By name, the number of the node that makes the value, or `GIVEN`.
        needs: Pairs of nodes: who makes, and who uses (itself or by a graph inside it).
        undefined: Nodes with an input that nothing defines, and its name.
        repeated: Names that nodes define again.
        given_twice: Inputs that are there twice.
        initialized_twice: Initializers that are there twice.
        constants: Initializers, and the values of Constant nodes.
    """

    scope: _walk.Scope
    function: onnx.FunctionProto | None
    outer: "Frame | None" = None
    at: int = GIVEN
    made: dict[str, int] = field(default_factory=dict)
    needs: list[tuple[int, int]] = field(default_factory=list)
    undefined: list[tuple[onnx.NodeProto, str]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    given_twice: list[str] = field(default_factory=list)
    initialized_twice: list[str] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """Names of what the scope returns."""
        if isinstance(self.scope, onnx.FunctionProto):
            return list(self.scope.output)
        return [value.name for value in self.scope.output]

    def around(self) -> Iterator[tuple["Frame", int]]:
        """Yields the outer frames, and the number of the node there that has this scope."""
        inner, frame = self, self.outer
        while frame is not None:
            yield frame, inner.at
            inner, frame = frame, frame.outer

    def constant(self, name: str) -> onnx.TensorProto | None:
        """Returns the tensor that a name stands for in this scope, where that is known."""
        for frame, _ in ((self, 0), *self.around()):
            if name in frame.made:
                return frame.constants.get(name)
        return None

    @property
    def sorts_itself(self) -> bool:
        """Whether onnxruntime sorts the nodes: those of the model's graph, and no others."""
        return self.outer is None and self.function is None

    def late(self) -> list[tuple[int, int]]:
        """Returns who makes and who uses, where that comes first."""
        return [(maker, user) for maker, user in self.needs if maker >= user]

    def order(self) -> list[int]:
        """Returns the nodes in an order in which each stands behind those that it uses.

        Those of a cycle, and what uses them, are left out.
        """
        late = self.late()
        if not late:
            return list(range(len(self.scope.node)))
        waiting = [0] * len(self.scope.node)
        users: dict[int, list[int]] = {}
        for maker, user in self.needs:
            waiting[user] += 1
            users.setdefault(maker, []).append(user)
        ready = [index for index, count in enumerate(waiting) if not count]
        heapq.heapify(ready)  # what may stand first as it stands in the file
        order = []
        while ready:
            order.append(heapq.heappop(ready))
            for user in users.get(order[-1], ()):
                waiting[user] -= 1
                if not waiting[user]:
                    heapq.heappush(ready, user)
        return order

    def cycle(self) -> list[int]:
        """Returns nodes that wait for each other, in order; none where the scope can be sorted."""
        waiting = set(range(len(self.scope.node))).difference(self.order())
        if not waiting:
            return []
        maker_of = {user: maker for maker, user in self.needs if {maker, user} <= waiting}
        index = min(waiting)
        path: dict[int, None] = {}
        while index not in path:  # each of these waits for another one of them
            path[index] = None
            index = maker_of[index]
        order = list(path)
        return order[order.index(index) :][::-1]


def frames(model: onnx.ModelProto) -> list[Frame]:
    """Returns the frames of a model: of its graph, its functions, and all graphs inside them."""
    found: list[Frame] = []
    waiting = [Frame(function, function) for function in reversed(model.functions)]
    waiting.append(Frame(model.graph, None))
    while waiting:
        frame = waiting.pop()
        found.append(frame)
        _define(frame)
        for index, node in enumerate(frame.scope.node):
            inside = [Frame(g, frame.function, frame, index) for g in _walk.subgraphs(node)]
            waiting += reversed(inside)
    for frame in found:  # now that all are defined
        for index, node in enumerate(frame.scope.node):
            for name in node.input:
                if name and not _use(frame, index, name):
                    frame.undefined.append((node, name))
    return found


def _define(frame: Frame) -> None:
    scope, made = frame.scope, frame.made
    if isinstance(scope, onnx.FunctionProto):
        inputs, initialized = list(scope.input), []
    else:
        inputs = [value.name for value in scope.input]
        initialized = [tensor.name for tensor in scope.initializer]
        initialized += [tensor.values.name for tensor in scope.sparse_initializer]
        frame.constants.update({tensor.name: tensor for tensor in scope.initializer})
    frame.given_twice += _twice(inputs)
    frame.initialized_twice += _twice(initialized)
    made.update(dict.fromkeys((*inputs, *initialized), GIVEN))
    for index, node in enumerate(scope.node):
        for name in filter(None, node.output):
            if name in made:
                frame.repeated.append(name)
            made.setdefault(name, index)
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    frame.constants[node.output[0]] = attribute.t


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1 and name]


def _use(frame: Frame, index: int, name: str) -> bool:
    for current, user in ((frame, index), *frame.around()):
        if name in current.made:
            maker = current.made[name]
            if maker != GIVEN:
                current.needs.append((maker, user))
            return True
    return False
