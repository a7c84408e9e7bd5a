"""Types and shapes as onnx infers them from the inputs alone, and where they contradict."""

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
class Contradiction:
    """What onnx says of a node whose types or shapes do not fit.

    Attributes:
        node: The number of the node, among all of the model in order.
        said: What does not fit.
    """

    node: int
    said: str


@dataclass(frozen=True)
class Inference:
    """What onnx infers where it does not believe what a model declares.

    Attributes:
        contradictions: In the order of the nodes, each node once.
        model: The model with the types and shapes that were inferred, without its large weights.
    """

    contradictions: tuple[Contradiction, ...]
    model: onnx.ModelProto


def number(name: str) -> int | None:
    """Returns the number of the node that has a name in a model of `afresh`, inlined or not."""
    digits = re.match(rf"{_NAME}(\d+)", name)
    return int(digits[1]) if digits else None


def shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Returns the shapes of the values of a graph that have one, initializers included."""
    found = {
        value.name: shape(value.type) for value in (*graph.input, *graph.value_info, *graph.output)
    }
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


def afresh(model: onnx.ModelProto, order: Sequence[int]) -> onnx.ModelProto:
    """Returns a model from which onnx infers by the inputs and the nodes alone.

    What the model declares of other values is kept only where their op is not onnx's. The nodes
    are called by their numbers.

    Args:
        model: The model; left as it is.
        order: In which the nodes of its graph can be sorted.
    """
    bare = _guarded.without_large_weights(model)
    bodies = _guarded.functions(model)
    count = 0
    for scope in _walk.scopes(bare):
        foreign = set()
        for node in scope.node:
            node.name = f"{_NAME}{count}"
            count += 1
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
    return bare


def read(answer: bytes, order: Sequence[int]) -> Inference:
    """Reads what "contradictions" of `_guarded.several` answers to `afresh`."""
    said, inferred = _guarded.contradictions(answer)
    _reorder(inferred.graph, sorted(range(len(order)), key=order.__getitem__))
    found: dict[int, str] = {}
    for line in said.splitlines():
        numbers = [int(each) for each in _NODE.findall(line) if each]
        text = _KIND.sub("", _NODE.sub("", line)).strip()
        if text and numbers:
            found.setdefault(numbers[-1], text)  # the innermost
    return Inference(tuple(Contradiction(*item) for item in sorted(found.items())), inferred)


def _reorder(graph: onnx.GraphProto, order: Sequence[int]) -> None:
    if list(order) != list(range(len(order))):
        copies = onnx.GraphProto(node=[graph.node[index] for index in order]).node
        del graph.node[:]
        graph.node.extend(copies)
