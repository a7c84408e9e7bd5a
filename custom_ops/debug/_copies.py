"""Copies of a model with other outputs, or cut apart."""

from collections.abc import Iterable, Mapping, Sequence

import onnx

from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._regions import regions
from custom_ops.onnx import _walk
from custom_ops.onnx._walk import used


def with_outputs(graph: Graph, names: Iterable[str]) -> onnx.ModelProto:
    """Returns a copy whose outputs are some of its values, of types that the runtime finds."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.proto)
    _set_outputs(copy, names, graph)
    return copy


def cut_apart(
    graph: Graph, cuts: Mapping[str, Array], outputs: Sequence[str], *, alone: bool = False
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Returns a copy in which some values come from outside wherever they are used.

    Args:
        graph: The model.
        cuts: The values, and an array of their type.
        outputs: The values to give, as the nodes make them.
        alone: Whether only the nodes that these need stay.

    Returns:
        The copy, and the name of the input of each value that is cut. Only those in use are there.
    """
    taken = {name for node in graph.nodes for name in used(node.proto)} | set(graph.producer)
    fed = {name: _walk.free_name(f"{name}/fed", taken) for name in cuts}
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.proto)
    if alone:
        _keep(copy.graph, regions(graph, {*cuts, *outputs}), outputs)
    in_use: set[str] = set()
    for node in copy.graph.node:
        in_use |= _renamed(node, fed)
    names = {value: name for value, name in fed.items() if name in in_use}
    for value, name in names.items():
        array = cuts[value]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    _set_outputs(copy, outputs, graph)
    return copy, names


def _keep(
    graph: onnx.GraphProto, pieces: Mapping[str, Sequence[Node]], outputs: Iterable[str]
) -> None:
    """Takes away the nodes that no output needs, and the weights that no node reads then."""
    needed = {name for each in outputs for node in pieces[each] for name in node.proto.output}
    nodes = [node for node in graph.node if not needed.isdisjoint(node.output)]
    read = {name for node in nodes for name in used(node)}
    weights = [each for each in graph.initializer if each.name in read]
    for field, kept in ((graph.node, nodes), (graph.initializer, weights)):
        copies = [type(each).FromString(each.SerializeToString()) for each in kept]
        del field[:]
        field.extend(copies)


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> set[str]:
    """Renames what a node uses, inside its graphs too; returns the new names in use."""
    found: set[str] = set()
    waiting: list[onnx.NodeProto] = [node]
    while waiting:
        current = waiting.pop()
        for i, name in enumerate(current.input):
            if name in names:
                current.input[i] = names[name]
                found.add(names[name])
        for graph in _walk.subgraphs(current):
            waiting.extend(graph.node)
            for output in graph.output:
                if output.name in names:  # a branch that gives a value from outside
                    inner = f"{output.name}/given"
                    graph.node.append(
                        onnx.helper.make_node("Identity", [names[output.name]], [inner])
                    )
                    found.add(names[output.name])
                    output.name = inner
    return found


def _set_outputs(model: onnx.ModelProto, names: Iterable[str], graph: Graph) -> None:
    del model.graph.output[:]
    del model.graph.value_info[:]  # shapes that the exporter noted may be wrong of what is fed
    known = {value.name: value for value in graph.proto.graph.output}
    for name in names:
        output = model.graph.output.add(name=name)
        if name in known and known[name].type.WhichOneof("value") != "tensor_type":
            output.CopyFrom(known[name])
    named: set[str] = set()
    for node in model.graph.node:  # a branch may have the names of nodes around it
        if node.name in named:
            node.ClearField("name")
        named.add(node.name)
