"""What is known of the values of a model while patterns are looked for."""

import contextlib
import graphlib
from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from custom_ops.onnx import _guarded, _walk

_UNKNOWN = "custom_ops.unknown"  # a domain that no inference knows
Known = dict[ir.Value, tuple[ir.TypeProtocol | None, ir.Shape | None]]


def same_shape(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Returns whether two values certainly have the same shape, for the condition of a rule.

    Args:
        first: A value that a pattern has matched.
        second: Another.

    Returns:
        True where each size is the same number, or has the same name in the file; a name stands
        for one size throughout a model.

    Example:
        >>> import onnx_ir as ir
        >>> from custom_ops.onnx import same_shape
        >>> x, y = (ir.Value(shape=ir.Shape(["N", 3])) for _ in range(2))
        >>> same_shape(x, y), same_shape(x, ir.Value(shape=ir.Shape([None, 3])))
        (True, False)
    """
    if first is None or second is None or first.shape is None or second.shape is None:
        return False
    names = [
        [dim if isinstance(dim, int) else dim.value for dim in shape]
        for shape in (first.shape, second.shape)
    ]
    return None not in names[0] and names[0] == names[1]


def scalar(value: ir.Value | None) -> float | None:
    """Returns the number that a value certainly is, for the condition of a rule.

    Args:
        value: A value that a pattern has matched.

    Returns:
        The number; None where the value is no constant, has axes, or is a default that whoever
        runs the model may replace.

    Example:
        >>> import numpy, onnx_ir as ir
        >>> from custom_ops.onnx import scalar
        >>> scalar(ir.Value(const_value=ir.tensor(numpy.float32(2))))
        2.0
    """
    if value is None or value.is_graph_input():
        return None
    try:
        tensor = ir.convenience.get_const_tensor(value)
    except (TypeError, ValueError):  # a broken Constant
        return None
    if tensor is None or len(tensor.shape) != 0 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(tensor.numpy().item())


@contextlib.contextmanager
def known(model: ir.Model) -> Iterator[Known]:
    """Gives the values of a model all types and shapes that onnx infers, inside the block.

    Yields:
        What each value had before, and has again afterwards; a value that takes the place of
        another is to be entered.
    """
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    before: Known = {
        value: (value.type, value.shape) for graph in graphs for value in _values(graph)
    }
    try:
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        _infer_functions(model)
        yield before
    finally:
        for value, (kind, shape) in before.items():
            value.type, value.shape = kind, shape


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
        for inner in subgraphs(node):
            yield from _values(inner)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yields the graphs that a node has as attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _infer_functions(model: ir.Model) -> None:
    """Infers inside functions, for inputs that are as in every call.

    Callers come first. Where calls differ in a size, it is unknown, but has a name: two sizes that
    are the same in each call are the same.
    """
    calls: dict[ir.OperatorIdentifier, list[ir.Node]] = {key: [] for key in model.functions}
    callers: dict[ir.OperatorIdentifier, set[ir.OperatorIdentifier]] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_identifier() in calls:
            calls[node.op_identifier()].append(node)
    for key, function in model.functions.items():
        for node in function.all_nodes():
            if node.op_identifier() in calls:
                calls[node.op_identifier()].append(node)
                callers.setdefault(node.op_identifier(), set()).add(key)
    order = graphlib.TopologicalSorter({key: callers.get(key, ()) for key in calls})
    for key in order.static_order():
        if calls[key]:
            _infer_function(model, model.functions[key], calls[key])


def _infer_function(model: ir.Model, function: ir.Function, calls: Sequence[ir.Node]) -> None:
    names: dict[tuple[object, ...], str] = {}
    for i, value in enumerate(function.inputs):
        given = [call.inputs[i] if i < len(call.inputs) else None for call in calls]
        kinds = {each.dtype for each in given if each is not None and each.dtype is not None}
        shapes = [each.shape if each is not None else None for each in given]
        if len(kinds) == 1:
            value.type = ir.TensorType(kinds.pop())
        if all(shape is not None for shape in shapes):
            value.shape = _merged([shape for shape in shapes if shape is not None], names)
    with contextlib.suppress(_guarded.Refused):
        inferred = _guarded.infer_shapes(_as_model(model, function))
        _annotate(function.graph, ir.serde.deserialize_model(inferred).graph)


def _merged(shapes: Sequence[ir.Shape], names: dict[tuple[object, ...], str]) -> ir.Shape | None:
    if len({len(shape) for shape in shapes}) != 1:
        return None
    sizes: list[int | str | None] = []
    for dims in zip(*shapes, strict=True):
        key = tuple(dim if isinstance(dim, int) else dim.value for dim in dims)
        if None in key:
            sizes.append(None)
        elif len(set(key)) == 1 and isinstance(key[0], int):
            sizes.append(key[0])
        else:
            sizes.append(names.setdefault(key, f"call_size_{len(names)}"))
    return ir.Shape(sizes)


def _as_model(model: ir.Model, function: ir.Function) -> onnx.ModelProto:
    """Returns a model of a function's nodes; those with attributes of the call are unknown."""
    proto = ir.serde.serialize_function(function)
    inputs = [ir.serde.serialize_value(value) for value in function.inputs]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output]
    nodes = list(proto.node)
    for node in nodes:
        _hide_references(node)
    graph = onnx.helper.make_graph(nodes, function.name, inputs, outputs)
    imports = [*proto.opset_import]
    imports += [
        onnx.helper.make_opsetid(domain, version)
        for domain, version in model.opset_imports.items()
        if domain not in {each.domain for each in imports}
    ]
    whole = onnx.helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    others = [each for each in model.functions.values() if each is not function]
    whole.functions.extend(ir.serde.serialize_function(each) for each in others)
    return whole


def _hide_references(node: onnx.NodeProto) -> bool:
    inner = [_hide_references(each) for graph in _walk.subgraphs(node) for each in list(graph.node)]
    hidden = any(inner) or any(attribute.ref_attr_name for attribute in node.attribute)
    if hidden:
        node.domain = _UNKNOWN
    return hidden


def _annotate(graph: ir.Graph, inferred: ir.Graph) -> None:
    by_name = {value.name: value for value in _values_of_scope(inferred)}
    for value in _values_of_scope(graph):
        found = by_name.get(value.name)
        if found is not None:
            value.type = value.type or found.type
            value.shape = value.shape or found.shape
    for node, other in zip(graph, inferred, strict=True):
        for one, two in zip(subgraphs(node), subgraphs(other), strict=False):
            _annotate(one, two)


def _values_of_scope(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
