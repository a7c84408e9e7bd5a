"""The markers of a model as it is written: found, turned into outputs, taken out."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._marker import ATTRIBUTE, DOMAIN, OP

_OPSET = 18  # of the standard ops, where a model with nothing but custom nodes imports none


@dataclass(frozen=True)
class Place:
    """A marker of a model.

    Attributes:
        name: What it is called by in the file.
        node: The node.
        inside: What it lies in, for a sentence; "" for the main graph.
    """

    name: str
    node: onnx.NodeProto
    inside: str = ""


def find(model: onnx.ModelProto) -> list[Place]:
    """Returns the markers of a model in the order of the file, those of the main graph first."""
    places = [Place(_name(n), n) for n in model.graph.node if is_marker(n)]
    places += _inner(model.graph)
    for function in model.functions:
        inside = f"the function {function.domain}::{function.name}"
        places += [Place(_name(n), n, inside) for n in function.node if is_marker(n)]
        places += _inner(function)
    return places


def is_marker(node: onnx.NodeProto) -> bool:
    """Returns whether a node is a marker that can be read."""
    return (node.domain, node.op_type) == (DOMAIN, OP) and len(node.input) == len(node.output) == 1


def numbered(names: Sequence[str]) -> list[str]:
    """Returns names of which each is there once: a repeat of `name` is `name#1`."""
    counts: Counter[str] = Counter()
    result: list[str] = []
    for name in names:
        count = counts[name]
        counts[name] += 1
        result.append(f"{name}#{count}" if count else name)
    return result


def as_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """Turns the markers of the main graph into outputs, in place; what is an output stays one.

    Returns:
        The outputs by the names of the marks, repeats numbered. They are the same, but for a mark
        with the name of an input, an output or an initializer of the model.
    """
    graph = model.graph
    nodes = [node for node in graph.node if is_marker(node)]
    marks = dict(
        zip((n.output[0] for n in nodes), numbered([_name(n) for n in nodes]), strict=True)
    )
    outputs, renames = _names(graph, marks)
    for node in nodes:
        _make_identity(node)
    kinds = _kinds(model, marks)
    rename(graph, renames)
    stay = {each.name for each in graph.output}
    for value, mark in marks.items():
        output = outputs[mark]
        if value in stay and value != output:
            graph.node.append(onnx.helper.make_node("Identity", [value], [output], name=output))
        if output not in stay:
            kinds[value].name = output
            graph.output.append(kinds[value])
    if nodes and not any(_walk.domain(each.domain) == "" for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("", _OPSET))
    return outputs


def _names(graph: onnx.GraphProto, marks: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the outputs by the marks, and new names of values by their old ones.

    Args:
        graph: The graph.
        marks: The marks by the values of the markers.
    """
    fixed = {each.name for each in (*graph.input, *graph.output)}
    values: set[str] = set()
    for scope in _walk.within(graph):
        values |= {name for node in scope.node for name in node.output}
        if isinstance(scope, onnx.GraphProto):
            values |= {each.name for each in scope.input}
            fixed |= {each.name for each in scope.initializer}
            fixed |= {each.values.name for each in scope.sparse_initializer}
    taken = fixed | values | {*marks.values()}
    outputs, renames = {}, {}
    for value, mark in marks.items():
        outputs[mark] = mark
        if mark != value and mark in fixed:
            outputs[mark] = _fresh(f"{mark}:mark", taken)
        elif mark != value and mark in values:
            renames[mark] = _fresh(mark, taken)
    renames |= {value: outputs[mark] for value, mark in marks.items() if value not in fixed}
    return outputs, renames


def strip(model: onnx.ModelProto) -> int:
    """Takes the markers out of a model, in place, with their body and the import of their domain.

    Returns:
        How many there were.
    """
    count = sum(_strip(scope) for scope in _walk.scopes(model))
    _delete(model.functions, lambda each: (each.domain, each.name) == (DOMAIN, OP))
    rest = {node.domain for scope in _walk.scopes(model) for node in scope.node}
    if DOMAIN not in rest:  # a node that is no marker as we write it is left
        for imports in (model.opset_import, *(each.opset_import for each in model.functions)):
            _delete(imports, lambda each: each.domain == DOMAIN)
    return count


def rename(scope: _walk.Scope, names: dict[str, str]) -> None:
    """Renames values of a scope, inside it too; in place. What is said of old values goes."""
    if not names:
        return
    for each in _walk.within(scope):
        for node in each.node:
            for fields in (node.input, node.output):
                for i, name in enumerate(fields):
                    if name in names:
                        fields[i] = names[name]
        said = [info for info in each.value_info if info.name not in names]
        del each.value_info[:]
        each.value_info.extend(said)
        if isinstance(each, onnx.GraphProto):
            for value in (*each.input, *each.output):
                value.name = names.get(value.name, value.name)
            for annotation in each.quantization_annotation:
                name = annotation.tensor_name
                annotation.tensor_name = names.get(name, name)


def _strip(scope: _walk.Scope) -> int:
    """Takes the markers out of one scope; those of the graphs inside it stay."""
    markers = [node for node in scope.node if is_marker(node)]
    if not markers:
        return 0
    outputs = {each if isinstance(each, str) else each.name for each in scope.output}
    made = {name for node in scope.node if not is_marker(node) for name in node.output}
    names: dict[str, str] = {}
    for node in markers:
        source, value = _last(names, node.input[0]), node.output[0]
        if value not in outputs:
            names[value] = source
        elif source in made and source not in outputs:
            names[source] = value  # the node that makes it makes the output
        else:
            _make_identity(node)
    _delete(scope.node, is_marker)
    rename(scope, {name: _last(names, name) for name in names})
    return len(markers)


def _make_identity(node: onnx.NodeProto) -> None:
    node.op_type, node.domain, node.overload = "Identity", "", ""
    del node.attribute[:]


def _delete(messages: Any, unwanted: Callable[[Any], bool]) -> None:
    """Deletes some of the messages of a field."""
    for i in reversed([i for i, each in enumerate(messages) if unwanted(each)]):
        del messages[i]


def _last(names: dict[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


def _kinds(model: onnx.ModelProto, marks: dict[str, str]) -> dict[str, onnx.ValueInfoProto]:
    """Returns what is known of the values of markers, which are Identity already."""
    known = _said(model.graph, marks)
    if len(known) < len(marks):
        with contextlib.suppress(_guarded.Refused):  # runtimes infer the types of outputs too
            known = _said(_guarded.infer_shapes(model).graph, marks) | known
    return {value: known.get(value, onnx.ValueInfoProto()) for value in marks}


def _said(graph: onnx.GraphProto, names: Iterable[str]) -> dict[str, onnx.ValueInfoProto]:
    infos = {each.name: each for each in (*graph.value_info, *graph.output)}
    found = {name: infos[name] for name in names if name in infos}
    copies = {}
    for name, info in found.items():
        if info.type.tensor_type.elem_type:
            copies[name] = onnx.ValueInfoProto()
            copies[name].CopyFrom(info)
    return copies


def _inner(scope: _walk.Scope) -> Iterator[Place]:
    """Yields the markers of the graphs inside a scope."""
    for outer in _walk.within(scope):
        for node in outer.node:
            for graph in _walk.subgraphs(node):
                label = f"{node.op_type} {node.name or next(iter(node.output), '')!r}"
                for each in graph.node:
                    if is_marker(each):
                        yield Place(_name(each), each, f"a subgraph of {label}")


def _name(node: onnx.NodeProto) -> str:
    """Returns the name of a mark; one without a name is called by its value."""
    found = next((a.s for a in node.attribute if a.name == ATTRIBUTE), b"")
    return found.decode(errors="replace") or node.output[0]


def _fresh(name: str, taken: set[str]) -> str:
    """Returns a name that no value has, and takes it."""
    candidates = itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1)))
    found = next(each for each in candidates if each not in taken)
    taken.add(found)
    return found
