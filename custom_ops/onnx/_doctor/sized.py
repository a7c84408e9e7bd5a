"""Every node with the shapes of its values: of the graph, of those inside, and of functions."""

from collections import ChainMap
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor import inference
from custom_ops.onnx._doctor.edges import Frame, frames
from custom_ops.onnx._doctor.inference import Shape
from custom_ops.onnx._doctor.subject import Located, Subject

Shapes = MutableMapping[str, Shape]


@dataclass(frozen=True)
class Sized:
    """A node and the shapes that inference finds.

    Attributes:
        located: The node as the model has it.
        node: The same; one of a function with the values of one of its calls.
        frame: Where its values are made.
        shapes: By name, of the values that have one.
        chosen: Whether it stands in a branch of an If, which may never run.
    """

    located: Located
    node: onnx.NodeProto
    frame: Frame
    shapes: Shapes
    chosen: bool


def sized(subject: Subject) -> Iterator[Sized]:
    """Yields the nodes of a model; those of a function for each of its calls."""
    if subject.inference is None:
        return
    given = list(_walk.within(subject.model.graph))
    inferred = dict(zip(map(id, given), _walk.within(subject.inference.model.graph), strict=True))
    for frame, shapes, chosen in _graphs(subject.frames, inferred):
        for node in frame.scope.node:
            yield Sized(Located(node, frame.scope, None), node, frame, shapes, chosen)
    if subject.inlined is None:
        return
    located = list(subject.nodes())
    flat = list(_walk.within(subject.inlined.graph))
    for frame, shapes, chosen in _graphs(
        frames(subject.inlined), {id(each): each for each in flat}
    ):
        for node in frame.scope.node:
            number = inference.number(node.name)
            if number is not None and located[number].function is not None:
                yield Sized(located[number], node, frame, shapes, chosen)


def _graphs(
    given: list[Frame], inferred: dict[int, _walk.Scope]
) -> Iterator[tuple[Frame, Shapes, bool]]:
    """Yields the graph and those inside it, with the shapes of their values."""
    around: dict[int, tuple[ChainMap[str, Shape], bool]] = {}
    for frame in given:  # the outer ones first
        graph = inferred.get(id(frame.scope))
        if not isinstance(graph, onnx.GraphProto):
            continue
        outer, chosen = ChainMap[str, Shape](), False
        if frame.outer is not None:
            outer, chosen = around[id(frame.outer)]
            chosen = chosen or frame.outer.scope.node[frame.at].op_type == "If"
        shapes = outer.new_child(inference.shapes(graph))
        around[id(frame)] = shapes, chosen
        yield frame, shapes, chosen
