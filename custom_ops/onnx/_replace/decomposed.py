"""Finds the bodies that our lowering inlined, by their tags, and puts the nodes back.

The tag says which op, with which attributes; that is believed only where the nodes are, one by one,
those of the body that such a node has at the opset of the model.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx import _nodes, _origin
from custom_ops.onnx._lowering import inline
from custom_ops.onnx._origin import Origin
from custom_ops.onnx._replace.rules import WAS
from custom_ops.onnx._replace.shapes import subgraphs
from custom_ops.ops._body import DOMAIN, VERSION
from custom_ops.ops._registry import Op, by_onnx_name

_TYPES = {
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.DOUBLE,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}


def to_ours(model: ir.Model) -> list[str]:
    """Puts our nodes in the place of their bodies.

    Args:
        model: Changed in place.

    Returns:
        Sentences on the bodies that were left.
    """
    left = _origin.tags(model)
    for root, origin in list(_origin.tagged_results(model)):
        op = by_onnx_name(origin.op)
        found = _match(root, op, origin, _nodes.opset_of(model)) if op is not None else None
        if op is not None and found is not None:
            _restore(root, op, origin, *found)
            left.discard((origin.op, origin.call))
            model.opset_imports[DOMAIN] = VERSION
    return [
        f"the nodes tagged as call {call} of {op} are no longer the body of {op} (an optimizer or "
        "another opset), and are left as they are"
        for op, call in sorted(left)
    ]


_Matched = tuple[list[ir.Value | None], list[ir.Node]]


def _match(root: ir.Node, op: Op, origin: Origin, opset: int) -> _Matched | None:
    """Returns the inputs of the node that a body belongs to, and the nodes of the body."""
    try:
        expected = _expected(op, origin, opset)
    except Exception:  # a tag of other hands may ask for anything
        return None
    (result,) = expected.outputs
    matcher = _Matcher(list(expected.inputs))
    if not matcher.values(result, root.outputs[result.index() or 0]):
        return None
    return [matcher.bound.get(value) for value in expected.inputs], list(matcher.nodes.values())


def _expected(op: Op, origin: Origin, opset: int) -> ir.Graph:
    """Returns the body that the tag speaks of, as the lowering writes it."""
    kind = _TYPES[origin.dtype]
    inputs = [
        ir.Value(name=given.name, type=ir.TensorType(kind), shape=None) for given in op.spec.inputs
    ]
    node = ir.node(op.spec.onnx_name, inputs, dict(origin.attributes), domain=DOMAIN)
    node.outputs[0].name = "result"
    graph = ir.Graph(
        inputs,
        list(node.outputs),
        nodes=[node],
        opset_imports={"": opset, DOMAIN: VERSION},
        name="expected",
    )
    model = ir.Model(graph, ir_version=10)
    function = op.onnx.body.function(opset, frozenset(origin.dtypes))
    body = ir.serde.deserialize_function(function.to_function_proto())
    model.functions[body.identifier()] = body
    inline(model, {node: origin.dtype})
    return model.graph


class _Matcher:
    """Compares two graphs from a result backwards.

    Attributes:
        bound: The value that stands for each input of the first graph.
        nodes: The node that stands for each node of the first graph.
    """

    def __init__(self, inputs: list[ir.Value]) -> None:
        self._inputs = set(inputs)
        self.bound: dict[ir.Value, ir.Value | None] = {}
        self.nodes: dict[ir.Node, ir.Node] = {}

    def values(self, expected: ir.Value | None, actual: ir.Value | None) -> bool:
        """Returns whether two values are computed in the same way."""
        if expected is None or actual is None:
            return expected is actual
        if expected in self.bound:
            return self.bound[expected] is actual
        producer, other = expected.producer(), actual.producer()
        if expected in self._inputs:
            self.bound[expected] = actual
            return True
        if producer is None or other is None or expected.index() != actual.index():
            return False
        return self._nodes(producer, other)

    def _nodes(self, expected: ir.Node, actual: ir.Node) -> bool:
        if expected in self.nodes:
            return self.nodes[expected] is actual
        if expected.op_identifier() != actual.op_identifier():
            return False
        if len(expected.inputs) != len(actual.inputs):
            return False
        self.nodes[expected] = actual
        return all(map(self.values, expected.inputs, actual.inputs)) and self._attributes(
            expected, actual
        )

    def _attributes(self, expected: ir.Node, actual: ir.Node) -> bool:
        if set(expected.attributes) != set(actual.attributes):
            return False
        return all(
            self._attribute(each, actual.attributes[name])
            for name, each in expected.attributes.items()
        )

    def _attribute(self, expected: ir.Attr, actual: ir.Attr) -> bool:
        if expected.type != actual.type or actual.is_ref():
            return False
        if expected.type == ir.AttributeType.GRAPH:
            return self._graphs(expected.as_graph(), actual.as_graph())
        if expected.type == ir.AttributeType.TENSOR:
            return _same_tensor(expected.as_tensor(), actual.as_tensor())
        return bool(_plain(expected.value) == _plain(actual.value))

    def _graphs(self, expected: ir.Graph, actual: ir.Graph) -> bool:
        if len(expected.inputs) != len(actual.inputs):
            return False
        if len(expected.outputs) != len(actual.outputs) or actual.initializers:
            return False
        self.bound.update(zip(expected.inputs, actual.inputs, strict=True))
        return all(map(self.values, expected.outputs, actual.outputs))


def _same_tensor(expected: ir.TensorProtocol, actual: ir.TensorProtocol) -> bool:
    return (
        expected.dtype == actual.dtype
        and list(expected.shape) == list(actual.shape)
        and np.array_equal(expected.numpy(), actual.numpy())
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _restore(
    root: ir.Node, op: Op, origin: Origin, inputs: list[ir.Value | None], body: list[ir.Node]
) -> None:
    graph = root.graph
    assert graph is not None
    metadata = {key: each for key, each in root.metadata_props.items() if key != _origin.KEY}
    node = ir.node(
        op.spec.onnx_name,
        inputs,
        dict(origin.attributes),
        domain=DOMAIN,
        name=origin.name or None,
        metadata_props=metadata,
    )
    graph.insert_after(root, node)
    for old, new in zip(root.outputs, node.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        new.metadata_props.update(old.metadata_props)
    ir.convenience.replace_all_uses_with(root.outputs, node.outputs, replace_graph_outputs=True)
    node.meta[WAS] = f"decomposed {origin.op}"
    _remove(root, set(body))


def _remove(root: ir.Node, body: set[ir.Node]) -> None:
    """Removes what only the removed root has used; another node may share, say, a constant."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        used = any(output.uses() or output.is_graph_output() for output in node.outputs)
        if used or node not in body:
            continue
        body.discard(node)
        inner = [n for graph in subgraphs(node) for n in ir.traversal.RecursiveGraphIterator(graph)]
        for each in (node, *inner):  # what stands inside a Loop uses values around it
            waiting += [p for p in (v.producer() for v in each.inputs if v) if p is not None]
            for i in range(len(each.inputs)):
                each.replace_input_with(i, None)
        if node.graph is not None:
            node.graph.remove(node)
