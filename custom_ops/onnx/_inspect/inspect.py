"""Looks at a model as it is written, however broken it is."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from custom_ops.onnx import _external, _guarded, _walk
from custom_ops.onnx._inspect import modules
from custom_ops.onnx._inspect.inspection import Function, Inspection, Node, Op, Value, Weights
from custom_ops.onnx._nodes import dtype_name
from custom_ops.onnx._reading import ModelLike, read
from custom_ops.onnx._scopes import Scope, scopes


@dataclass(frozen=True)
class _Placed:
    """A node with where it stands, and where it comes from."""

    node: onnx.NodeProto
    within: str
    scope: Scope | None


def inspect(model: ModelLike) -> Inspection:
    """Looks at what is in a model. No session is opened, no external data is loaded.

    Args:
        model: Path or ModelProto.

    Raises:
        UnreadableModel: The file is no model.
        FileNotFoundError: There is no such file.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18]>
        ...     g (float[N] x) => (float[N] y) <float w = {2}> { t = Mul(x, w) y = Relu(t) }
        ... ''')
        >>> print(custom_ops.onnx.inspect(model))
        g
        IR version  9
        opsets      ai.onnx 18
        producer    not named
        nodes       2, 0 subgraphs
        functions   0
        weights     1, 1 numbers, 4 bytes
        input       x: float32[N]
        output      y: float32[N]
        ops         1 Mul, 1 Relu
    """
    document = read(model)
    proto, graph = document.proto, document.proto.graph
    placed = list(_placed(graph, "", None))
    bodies = {
        key: list(_placed(body, _called(*key), None))
        for key, body in _guarded.functions(proto).items()
    }
    everything = [*placed, *(each for body in bodies.values() for each in body)]
    sizes = {
        name: size
        for scope in _walk.within(graph)
        for name, tensors in _tensors(scope).items()
        for size in [_size(tensors)]
    }
    uses = [(_op(each.node), each.node.input, each.scope) for each in placed]
    given = set(_tensors(graph))
    known = {
        value.name: _value(value)
        for scope in _walk.within(graph)
        if isinstance(scope, onnx.GraphProto)
        for values in (scope.value_info, scope.input, scope.output)
        for value in values
    }
    return Inspection(
        model=document.name,
        ir_version=proto.ir_version,
        opsets=tuple((_walk.domain(each.domain), each.version) for each in proto.opset_import),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        doc=proto.doc_string,
        inputs=tuple(_value(each) for each in graph.input if each.name not in given),
        outputs=tuple(_value(each) for each in graph.output),
        ops=_ops(placed, everything[len(placed) :]),
        subgraphs=sum(1 for _ in _walk.scopes(proto)) - 1 - len(proto.functions),
        functions=_functions(proto, bodies, everything),
        weights=_weights(proto, {name for each in everything for name in each.node.input}),
        metadata={
            entry.key: entry.value for each in (proto, graph) for entry in each.metadata_props
        },
        modules=modules.tree(uses, sizes),
        nodes=tuple(
            _node(each, known if i < len(placed) else {}) for i, each in enumerate(everything)
        ),
    )


def _placed(top: _walk.Scope, within: str, outer: Scope | None) -> Iterator[_Placed]:
    """Yields the nodes of a graph or function, those of subgraphs behind the node that has them."""
    waiting = [_scoped(top, within, outer)]
    while waiting:
        placed = next(waiting[-1], None)
        if placed is None:
            waiting.pop()
            continue
        yield placed
        if not placed.node.attribute:
            continue
        name = placed.node.name or next(iter(placed.node.output), "") or placed.node.op_type
        where = f"{placed.within}/{name}" if placed.within else name
        inner = [
            _scoped(graph, f"{where}/{attribute.name}", placed.scope)
            for attribute in placed.node.attribute
            for graph in _walk.subgraphs_of(attribute)
        ]
        waiting.extend(reversed(inner))


def _scoped(graph: _walk.Scope, within: str, outer: Scope | None) -> Iterator[_Placed]:
    for node, scope in zip(graph.node, scopes(graph.node, _tensors(graph)), strict=True):
        yield _Placed(node, within, scope if scope is not None else outer)


def _op(node: onnx.NodeProto) -> str:
    domain = _walk.domain(node.domain)
    return f"{domain}::{node.op_type}" if domain else node.op_type


def _called(domain: str, name: str, overload: str) -> str:
    return "::".join(filter(None, (domain, name, overload)))


def _node(placed: _Placed, known: Mapping[str, Value]) -> Node:
    node, scope = placed.node, placed.scope
    return Node(
        placed.within,
        node.name,
        _op(node),
        tuple(node.input),
        tuple(node.output),
        scope.path if scope is not None else None,
        scope.call if scope is not None else 0,
        scope.source if scope is not None else "",
        tuple(known[name].form if name in known else "" for name in node.output),
    )


def _ops(graph: Iterable[_Placed], functions: Iterable[_Placed]) -> tuple[Op, ...]:
    def counted(nodes: Iterable[_Placed]) -> Counter[tuple[str, str]]:
        return Counter((_walk.domain(each.node.domain), each.node.op_type) for each in nodes)

    here, inside = counted(graph), counted(functions)
    ops = [Op(*key, here[key], inside[key]) for key in {**here, **inside}]
    return tuple(sorted(ops, key=lambda op: (-op.count - op.in_functions, op.domain, op.name)))


def _functions(
    model: onnx.ModelProto,
    bodies: Mapping[_guarded.FunctionKey, Sequence[_Placed]],
    everything: Iterable[_Placed],
) -> tuple[Function, ...]:
    calls = Counter(_guarded.function_key(each.node) for each in everything)
    return tuple(
        Function(
            _walk.domain(each.domain),
            each.name,
            each.overload,
            tuple(each.input),
            tuple(each.output),
            len(bodies[key]),
            calls[key],
        )
        for key, each in _guarded.functions(model).items()
    )


def _tensors(scope: _walk.Scope) -> dict[str, list[onnx.TensorProto]]:
    """Returns the initializers of a graph by name; a sparse one has two tensors."""
    if isinstance(scope, onnx.FunctionProto):
        return {}
    sparse = {each.values.name: [each.values, each.indices] for each in scope.sparse_initializer}
    return {**{each.name: [each] for each in scope.initializer}, **sparse}


def _size(tensors: Sequence[onnx.TensorProto]) -> modules.Size:
    """Returns numbers and bytes of an initializer; of text, the bytes of that."""
    elements = math.prod(max(size, 0) for size in tensors[0].dims)
    return elements, sum(
        _external.data_bytes(each) or sum(map(len, each.string_data)) for each in tensors
    )


def _weights(model: onnx.ModelProto, used: set[str]) -> Weights:
    graphs = [each for each in _walk.scopes(model) if isinstance(each, onnx.GraphProto)]
    used = used | {output.name for graph in graphs for output in graph.output}
    held = [(name, tensors) for graph in graphs for name, tensors in _tensors(graph).items()]
    sizes = [_size(tensors) for _, tensors in held]
    outside = [
        (size, tensors)
        for size, (_, tensors) in zip(sizes, held, strict=True)
        if any(each.data_location == onnx.TensorProto.EXTERNAL for each in tensors)
    ]
    by_type: Counter[str] = Counter()
    for (_, size), (_, tensors) in zip(sizes, held, strict=True):
        by_type[_dtype(tensors[0].data_type)] += size
    files = (entry.location for entry in _external.entries(model))
    return Weights(
        count=len(held),
        elements=sum(elements for elements, _ in sizes),
        bytes=sum(size for _, size in sizes),
        external=len(outside),
        external_bytes=sum(size for (_, size), _ in outside),
        files=tuple(dict.fromkeys(files)),
        unused=sum(name not in used for name, _ in held),
        bytes_by_type=dict(by_type.most_common()),
    )


def _value(value: onnx.ValueInfoProto) -> Value:
    kind, tensor = _type(value.type)
    if tensor is None or not tensor.HasField("shape"):
        return Value(value.name, kind, None)
    sizes = (
        each.dim_value if each.HasField("dim_value") else each.dim_param or None
        for each in tensor.shape.dim
    )
    return Value(value.name, kind, tuple(sizes))


def _type(
    given: onnx.TypeProto,
) -> tuple[str, onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor | None]:
    """Returns what a type is called, and what has its shape, if it is one of tensors."""
    which = given.WhichOneof("value")
    if which == "tensor_type":
        return _dtype(given.tensor_type.elem_type), given.tensor_type
    if which == "sparse_tensor_type":
        return f"sparse({_dtype(given.sparse_tensor_type.elem_type)})", given.sparse_tensor_type
    if which in ("sequence_type", "optional_type"):
        inner, tensor = _type(getattr(given, which).elem_type)
        return f"{which.removesuffix('_type')}({inner})", tensor
    if which == "map_type":
        value, tensor = _type(given.map_type.value_type)
        return f"map({_dtype(given.map_type.key_type)}, {value})", tensor
    return "", None


def _dtype(number: int) -> str:
    try:
        return dtype_name(ir.DataType(number))
    except ValueError:
        return f"type {number}"
