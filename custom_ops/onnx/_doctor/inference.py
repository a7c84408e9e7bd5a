"""Types and shapes as onnx infers them from the inputs alone, and where they contradict."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._walk import STANDARD_DOMAINS

Shape: TypeAlias = list[int | str]

_NAME = "node-"
_NODE = re.compile(rf"\(op_type:[^,)]*(?:, node name: (?:{_NAME}(\d+))?[^)]*)?\):\s*")
_KIND = re.compile(r"\[\w+Error\]\s*|Inference error\(s\):\s*")


@dataclass(frozen=True)
class Inference:
    """What onnx infers where it does not believe what a model declares.

    Attributes:
        refusal: The first contradiction; "" where there is none.
        node: The number of its node, among all of the model in order; None where it is not known.
        model: The model with the types and shapes that were inferred, without its large weights.
    """

    refusal: str
    node: int | None
    model: onnx.ModelProto

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the values of the graph that have one, initializers included."""
        graph = self.model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        found = {value.name: shape(value.type) for value in values}
        found |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        return {name: each for name, each in found.items() if each is not None}


def shape(given: onnx.TypeProto) -> Shape | None:
    """Returns a shape, with the names of sizes that are open; None where there is none."""
    if not given.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in given.tensor_type.shape.dim
    ]


def infer_afresh(model: onnx.ModelProto, order: Sequence[int]) -> Inference:
    """Returns what onnx infers from the inputs and the nodes of a model.

    What the model declares of other values is kept only where their op is not onnx's.

    Args:
        model: The model; left as it is.
        order: In which the nodes of its graph can be sorted.

    Raises:
        Refused: onnx crashed, or did not end.
    """
    bare = _guarded.without_large_weights(model)
    bodies = _guarded.functions(model)
    number = 0
    for scope in _walk.scopes(bare):
        foreign = set()
        for node in scope.node:
            node.name = f"{_NAME}{number}"
            number += 1
            domain = _walk.domain(node.domain)
            if domain not in STANDARD_DOMAINS and _guarded.function_key(node) not in bodies:
                foreign.update(node.output)
        kept = [value for value in scope.value_info if value.name in foreign]
        del scope.value_info[:]
        scope.value_info.extend(kept)
        if isinstance(scope, onnx.GraphProto):
            for sparse in scope.sparse_initializer:  # of which onnx infers no dense values
                dense = scope.initializer.add(name=sparse.values.name, dims=sparse.dims)
                dense.data_type = sparse.values.data_type
                dense.data_location = onnx.TensorProto.EXTERNAL
                dense.external_data.add(key="location", value="none")
            del scope.sparse_initializer[:]
            for value in scope.output:
                if value.name not in foreign:
                    value.ClearField("type")
    _reorder(bare.graph, order)
    said, inferred = _guarded.contradiction(bare)
    _reorder(inferred.graph, sorted(range(len(order)), key=order.__getitem__))
    numbers = [int(found) for found in _NODE.findall(said) if found]
    lines = _KIND.sub("", _NODE.sub("", said)).strip().splitlines()
    return Inference(lines[0] if lines else "", numbers[0] if numbers else None, inferred)


def _reorder(graph: onnx.GraphProto, order: Sequence[int]) -> None:
    if list(order) != list(range(len(order))):
        copies = onnx.GraphProto(node=[graph.node[index] for index in order]).node
        del graph.node[:]
        graph.node.extend(copies)
