"""Walks through every graph, node and tensor of a model as it is written, however broken it is."""

from collections.abc import Iterator
from typing import TypeAlias

import onnx

# What holds nodes: a graph, the body of an If, Loop or Scan, or a function.
Scope: TypeAlias = onnx.GraphProto | onnx.FunctionProto

DEFAULT_DOMAINS = ("", "ai.onnx")
# Those that onnx defines: its ops, those of machine learning, and previews.
STANDARD_DOMAINS = frozenset(schema.domain for schema in onnx.defs.get_all_schemas())


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs that a node has as attributes."""
    for attribute in node.attribute:
        yield from subgraphs_of(attribute)


def subgraphs_of(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs that are an attribute."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def within(scope: Scope) -> Iterator[Scope]:
    """Yields a scope and all graphs inside it."""
    waiting: list[Scope] = [scope]
    while waiting:
        current = waiting.pop()
        yield current
        for node in current.node:
            waiting.extend(subgraphs(node))


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """Yields the main graph, the functions, and all graphs inside them."""
    yield from within(model.graph)
    for function in model.functions:
        yield from within(function)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor that a model holds: initializers, sparse ones, and attributes."""
    for scope in scopes(model):
        if isinstance(scope, onnx.GraphProto):
            yield from scope.initializer
            for sparse in scope.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                given = list(attribute.sparse_tensors)
                if attribute.HasField("sparse_tensor"):
                    given.append(attribute.sparse_tensor)
                for sparse in given:
                    yield from (sparse.values, sparse.indices)


def domain(name: str) -> str:
    """Returns a domain by its usual name: "ai.onnx" is ""."""
    return "" if name in DEFAULT_DOMAINS else name


def free_name(base: str, taken: set[str]) -> str:
    """Returns a name that is not taken, the given one or one with a number, and takes it."""
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def used(node: onnx.NodeProto) -> tuple[str, ...]:
    """Returns the names of the values that a node uses, itself or in its graphs, in order."""
    names = dict.fromkeys(filter(None, node.input))
    for graph in subgraphs(node):
        names |= _free(graph)
    return tuple(names)


def _free(graph: onnx.GraphProto) -> dict[str, None]:
    """Returns the values outside of a graph that its nodes and outputs use, in order."""
    own = {each.name for each in graph.input}
    own.update(each.name for each in graph.initializer)
    own.update(each.values.name for each in graph.sparse_initializer)
    names: dict[str, None] = {}
    for node in graph.node:
        names |= dict.fromkeys(used(node))
        own.update(node.output)
    names |= dict.fromkeys(each.name for each in graph.output)
    return {name: None for name in names if name and name not in own}
