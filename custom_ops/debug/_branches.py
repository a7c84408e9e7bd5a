"""Puts the branches that an If takes in its place, so that the values inside can be compared."""

import ast
from collections.abc import Mapping, Sequence

import onnx

from custom_ops.debug import _graph
from custom_ops.debug._copies import with_outputs
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._runs import fetch
from custom_ops.onnx import _walk
from custom_ops.onnx._scopes import NAME_SCOPES

_DEEPEST = 50  # Ifs inside Ifs


def taken(graph: Graph, feeds: Mapping[str, Array], libraries: Sequence[str] = ()) -> Graph:
    """Returns a copy in which each If of the main graph is the branch that it takes.

    The names of nodes stay. The values that a branch gives have the names of those of the If;
    other names inside stay, unless another branch has them too.

    Args:
        graph: The model.
        feeds: Its inputs, which decide.
        libraries: Files of libraries of custom ops.
    """
    for _ in range(_DEEPEST):
        conditions = [n.proto.input[0] for n in graph.nodes if n.proto.op_type == "If"]
        if not conditions:
            break
        session = graph.session(with_outputs(graph, dict.fromkeys(conditions)), libraries)
        values = fetch(session, list(dict.fromkeys(conditions)), feeds)
        graph = _inlined(graph, {name: bool(value.item()) for name, value in values.items()})
    return graph


def _inlined(graph: Graph, values: Mapping[str, bool]) -> Graph:
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    taken_names = {name for node in graph.nodes for name in _walk.used(node.proto)}
    taken_names |= set(graph.producer) | set(graph.initializers)
    del proto.graph.node[:]
    for node in graph.nodes:
        if node.proto.op_type != "If" or node.proto.input[0] not in values:
            proto.graph.node.add().CopyFrom(node.proto)
            continue
        wanted = "then_branch" if values[node.proto.input[0]] else "else_branch"
        branch = onnx.GraphProto()
        branch.CopyFrom(next(a.g for a in node.proto.attribute if a.name == wanted))
        _rename(branch, node.proto, taken_names)
        for inner in branch.node:
            _set_scope(inner, node.proto)
        proto.graph.initializer.extend(branch.initializer)
        proto.graph.node.extend(branch.node)
    return _graph.of_proto(proto, graph.weights, graph.simulated)


def _rename(branch: onnx.GraphProto, node: onnx.NodeProto, taken_names: set[str]) -> None:
    """Gives the results of a branch the names of those of its node, and others free names."""
    names: dict[str, str] = {}
    made = [tensor.name for tensor in branch.initializer]
    made += [name for inner in branch.node for name in inner.output if name]
    by_nodes = {name for inner in branch.node for name in inner.output}
    for result, name in zip(branch.output, node.output, strict=True):
        if name and result.name in by_nodes and result.name not in names:
            names[result.name] = name
        elif name:  # a value from outside, a weight, or one that is given twice
            branch.node.append(onnx.helper.make_node("Identity", [result.name], [name]))
    for name in made:
        if name not in names and name in taken_names:
            names[name] = _walk.free_name(name, taken_names)
        taken_names.add(names.get(name, name))
    for tensor in branch.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    waiting: list[onnx.GraphProto] = [branch]
    while waiting:
        current = waiting.pop()
        for inner in current.node:
            inner.input[:] = [names.get(name, name) for name in inner.input]
            if current is branch:
                inner.output[:] = [names.get(name, name) for name in inner.output]
            waiting.extend(_walk.subgraphs(inner))
        if current is not branch:
            for output in current.output:
                output.name = names.get(output.name, output.name)


def _set_scope(inner: onnx.NodeProto, node: onnx.NodeProto) -> None:
    """Tells a node of a branch the modules around the If, which the exporter leaves out there."""
    around = next((entry.value for entry in node.metadata_props if entry.key == NAME_SCOPES), "")
    if not around:
        return
    outer = ast.literal_eval(around)[:-1]
    for entry in inner.metadata_props:
        if entry.key == NAME_SCOPES:
            own = ast.literal_eval(entry.value)
            if own[: len(outer)] != outer:
                entry.value = repr([*outer, *_module_of_weights(inner, own, outer), *own])


def _module_of_weights(node: onnx.NodeProto, own: Sequence[str], outer: Sequence[str]) -> list[str]:
    """Returns the module whose weights a node uses, where its scope names none."""
    if len(own) > 1:
        return []
    paths = {name.rpartition(".")[0] for name in node.input if name.endswith(".weight")}
    inside = f"{outer[-1]}." if outer and outer[-1] else ""
    return [path for path in paths if path.startswith(inside)][:1]
