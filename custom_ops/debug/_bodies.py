"""Puts the bodies of a model's functions in the place of their calls, to see the values inside."""

from collections import deque
from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassError, PreconditionError
from onnx_ir.passes.common import InlinePass

from custom_ops.debug import _graph
from custom_ops.debug._graph import Graph
from custom_ops.debug._kinds import snake
from custom_ops.onnx import _walk
from custom_ops.onnx._scopes import NAME_SCOPES


def inlined(graph: Graph) -> Graph:
    """Returns a copy in which the body of each function stands where it is called.

    What a call gives keeps its name. Nodes and values inside are named by the call, the function
    and themselves: "conv1/custom_ops::DeformConv2d/n42".

    Args:
        graph: The model.

    Raises:
        ValueError: A function calls itself, or takes graphs.
    """
    if not graph.proto.functions:
        return graph
    model = ir.from_proto(graph.proto)
    bodies = dict(model.functions)
    for node, known in zip(model.graph, graph.nodes, strict=True):
        if known.scope is not None and node.op_identifier() in bodies:
            paths = [module.path for module in known.scope.modules]
            node.metadata_props.setdefault(NAME_SCOPES, repr([*paths, _name(node)]))
    try:
        InlinePass().requires(model)
        _give_each_call_a_body(model, bodies)
        InlinePass()(model)
    except (PassError, PreconditionError, ValueError) as error:
        reason = error.__cause__ or error
        raise ValueError(f"compare: bodies must be of functions to inline, got {reason}") from error
    flat = ir.to_proto(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    for field in (proto.functions, proto.graph.node, proto.opset_import):
        del field[:]
    proto.graph.node.extend(flat.graph.node)
    proto.opset_import.extend(flat.opset_import)
    return _graph.of_proto(proto, graph.weights, graph.simulated)


def _give_each_call_a_body(
    model: ir.Model, bodies: dict[ir.OperatorIdentifier, ir.Function]
) -> None:
    """Gives each call a function of its own, whose names and notes tell the call."""
    model.functions.clear()
    labels: set[str] = set()
    waiting = deque(_calls(model.graph, bodies))
    while waiting:
        call = waiting.popleft()
        key = call.op_identifier()
        body = ir.serde.deserialize_function(ir.serde.serialize_function(bodies[key]))
        op = "::".join(filter(None, (call.domain, call.op_type)))
        label = _walk.free_name(f"{_name(call)}/{op}", labels)
        # The runtime reads a body by the opset of the model.
        body.opset_imports.update(
            {d: v for d, v in model.opset_imports.items() if d in body.opset_imports}
        )
        waiting.extend(_calls(body.graph, bodies))
        _name_by(body, label)
        # What the call omits needs a name too: the pass gives it to what the body makes there.
        call.resize_outputs(max(len(call.outputs), len(body.outputs)))
        for given, made in zip(call.outputs, body.outputs, strict=False):
            given.name = given.name or made.name
        result = call.metadata_props.pop(_graph.RESULT, snake(op.replace("::", ".")))
        for value in body.outputs:
            maker = value.producer()
            if maker is not None:
                maker.metadata_props[_graph.RESULT] = result
        call.overload = body.overload = f"call {len(labels)}"
        model.functions[body.identifier()] = body


def _name_by(body: ir.Function, label: str) -> None:
    """Puts a label before all names inside a function, and into the notes of its nodes."""
    values: dict[int, ir.Value] = {}
    waiting = [(body.graph, label)]
    while waiting:
        graph, around = waiting.pop()
        for node in graph:
            node.name = f"{around}/{_name(node)}"
            node.metadata_props[_graph.FUNCTION] = label
            values |= {id(value): value for value in node.outputs if value.name}
            for inner in _graphs(node):
                waiting.append((inner, node.name))
                given = (*inner.inputs, *inner.initializers.values())
                values |= {id(value): value for value in given}
    for value in values.values():
        value.name = f"{label}/{value.name}"


def _calls(graph: ir.Graph, bodies: dict[ir.OperatorIdentifier, ir.Function]) -> Iterator[ir.Node]:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_identifier() in bodies:
            yield node


def _graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _name(node: ir.Node) -> str:
    """Returns the name of a node, or else that of the first value that it makes."""
    names = [node.name, *(value.name for value in node.outputs)]
    return next(filter(None, names), node.op_type)
