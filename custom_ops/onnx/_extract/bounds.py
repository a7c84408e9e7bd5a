"""From the names that a user gives, of tensors or of nodes, to the bounds of a piece."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._extract.index import Index


@dataclass(frozen=True)
class Bounds:
    """Where a piece begins and ends.

    Attributes:
        inputs: Names of values, in the order of the piece's inputs.
        outputs: Names of values, in the order of the piece's outputs.
        nodes: Indices of its nodes in the main graph.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: frozenset[int]


def between(
    index: Index, model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]
) -> Bounds:
    """Returns the bounds of what lies between tensors or nodes.

    Args:
        index: The main graph.
        model: The model, in which a name that is not in the main graph is looked for.
        inputs: Names of tensors, or of nodes for what they read; none for the model's inputs.
        outputs: Names of tensors, or of nodes for what they make; none for the model's outputs.

    Raises:
        ValueError: A name is unknown, the outputs need more than the inputs, or nothing lies
            between.
    """
    first = _values(index, model, "inputs", inputs)
    last = _values(index, model, "outputs", outputs) if outputs else list(index.outputs)
    nodes, missing = index.behind(last, set(first))
    if missing and not inputs:
        first = [name for name in index.inputs if name in missing]
        missing = [name for name in missing if name not in index.inputs]
    if missing:
        raise ValueError(_undetermined(index, first, last, missing))
    if not nodes:
        raise ValueError(
            f"extract: a node must lie between inputs and outputs, got none from {_listed(first)} "
            f"to {_listed(last)}; name outputs that the inputs lead to"
        )
    return Bounds(tuple(first), tuple(last), frozenset(nodes))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns the sentence for a name that is not there, with those that look like it."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "see `custom-ops inspect`"
    return f"extract: {what}, got {name!r}; {remedy}"


def _values(index: Index, model: onnx.ModelProto, argument: str, names: Sequence[str]) -> list[str]:
    values: dict[str, None] = {}
    nodes: dict[str, list[int]] = {}
    for i, node in enumerate(index.nodes):
        nodes.setdefault(node.name, []).append(i)
    for name in names:
        found = nodes.get(name, []) if name and not index.has(name) else []
        if name and index.has(name):
            values[name] = None
        elif len(found) > 1:
            raise ValueError(
                f"extract: {argument} must name one node, got {name!r}, which {len(found)} have; "
                "name a tensor"
            )
        elif found:
            values |= dict.fromkeys(
                index.makes[found[0]]
                if argument == "outputs"
                else (n for n in index.needs[found[0]] if n in index.varying)
            )
        else:
            raise ValueError(_absent(index, model, argument, name, nodes))
    return list(values)


def _absent(
    index: Index, model: onnx.ModelProto, argument: str, name: str, nodes: Iterable[str]
) -> str:
    for node in index.nodes:
        for graph in _walk.subgraphs(node):
            for scope in _walk.within(graph):
                if any(
                    name and (name in inner.output or name == inner.name) for inner in scope.node
                ):
                    where = node.name or next(iter(node.output), "")
                    return (
                        f"extract: {argument} must name tensors or nodes of the main graph, got "
                        f"{name!r}, which lies in a graph of the {node.op_type} {where!r}; cut "
                        "round that node"
                    )
    for function in model.functions:
        if any(name and (name in inner.output or name == inner.name) for inner in function.node):
            return (
                f"extract: {argument} must name tensors or nodes of the main graph, got {name!r}, "
                f"which lies in the function {function.name!r}; cut round a node that calls it"
            )
    rule = f"{argument} must name a tensor or a node of the model"
    return unknown(rule, name, [*index.names(), *filter(None, nodes)])


def _undetermined(index: Index, first: list[str], last: list[str], missing: list[str]) -> str:
    nowhere = [name for name in missing if name not in index.inputs]
    if nowhere:
        return (
            f"extract: every value of the piece must be made by a node, got {nowhere[0]!r}, which "
            "nothing makes; see `custom-ops doctor`"
        )
    lacking = [name for name in last if set(index.behind([name], set(first))[1]) & set(missing)]
    return (
        f"extract: outputs must follow from inputs, got {_listed(lacking)} from {_listed(first)} "
        f"without {_listed(missing)}; add to inputs what is missing, or a tensor on the way from it"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "nothing"
