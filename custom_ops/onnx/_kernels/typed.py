"""The nodes of a model with the types of their inputs and outputs, functions inlined."""

from collections import ChainMap
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._kernels.table import Kind, Schema, Table

Types = MutableMapping[str, onnx.TypeProto]
_NAMES = {
    number: onnx.TensorProto.DataType.Name(number).lower()
    for number in onnx.TensorProto.DataType.values()
}
_NAMES[onnx.TensorProto.FLOAT] = "float"
_NUMBERS = {f"tensor({name})": number for number, name in _NAMES.items()}


@dataclass(frozen=True)
class TypedNode:
    """A node and what is known of its values.

    Attributes:
        node: The node.
        inputs: Type of each input; "" where it is left out, None where it is not known.
        outputs: The same of each output.
        types: The types by name, with shapes where they are known.
    """

    node: onnx.NodeProto
    inputs: tuple[Kind, ...]
    outputs: tuple[Kind, ...]
    types: Types

    @property
    def name(self) -> str:
        """What to call the node: its name, else its first output, else its op."""
        outputs = [name for name in self.node.output if name]
        return self.node.name or (outputs[0] if outputs else self.node.op_type)


def kind(type_: onnx.TypeProto | None) -> Kind:
    """Returns a type as the runtime writes it; None where it is not known.

    Example:
        >>> import onnx
        >>> kind(onnx.helper.make_tensor_type_proto(onnx.TensorProto.DOUBLE, None))
        'tensor(double)'
    """
    which = type_.WhichOneof("value") if type_ is not None else None
    if type_ is None or which is None:
        return None
    if which == "tensor_type":
        return _tensor(type_.tensor_type.elem_type)
    if which == "sparse_tensor_type":
        return _tensor(type_.sparse_tensor_type.elem_type)  # the runtime makes it dense
    if which == "map_type":
        return None
    element = kind(
        type_.sequence_type.elem_type if which == "sequence_type" else type_.optional_type.elem_type
    )
    return element and f"{'seq' if which == 'sequence_type' else 'optional'}({element})"


def type_of(kind: Kind) -> onnx.TypeProto | None:
    """Returns the type, without a shape, that the runtime writes so; None where it is not known."""
    if kind in _NUMBERS:
        return onnx.helper.make_tensor_type_proto(_NUMBERS[kind], None)
    element = type_of(kind[4:-1]) if kind and kind.startswith("seq(") else None
    return onnx.helper.make_sequence_type_proto(element) if element is not None else None


def _tensor(element: int) -> Kind:
    return f"tensor({_NAMES[element]})" if element in _NAMES and element else None


def typed(graph: onnx.GraphProto, schema_of: "SchemaOf") -> Iterator[TypedNode]:
    """Yields the nodes of a graph and of its subgraphs.

    Args:
        graph: A graph with the types that onnx has inferred.
        schema_of: The schemas by which types pass through ops that onnx does not know.
    """
    waiting: list[tuple[onnx.GraphProto, Types]] = [(graph, {})]
    while waiting:
        current, outer = waiting.pop()
        types: Types = ChainMap({}, outer) if outer else {}
        _declare(current, types)
        for node in current.node:
            schema = schema_of(node)
            if schema is not None:
                _pass_on(node, schema, types)
            yield TypedNode(node, _kinds(node.input, types), _kinds(node.output, types), types)
            waiting.extend((inner, types) for inner in _walk.subgraphs(node))


class SchemaOf:
    """Finds the schemas of nodes in the table of a release.

    Args:
        table: The table.
        opsets: The version of each domain.
    """

    def __init__(self, table: Table, opsets: dict[str, int]) -> None:
        self.table = table
        self.opsets = opsets

    def __call__(self, node: onnx.NodeProto) -> Schema | None:
        """Returns the schema of a node; None where the release has none at the opset."""
        domain = _walk.domain(node.domain)
        return self.table.schema(domain, node.op_type, self.opsets.get(domain, 0))


def _declare(graph: onnx.GraphProto, types: Types) -> None:
    for value in (*graph.output, *graph.value_info, *graph.input):
        if kind(value.type) is not None:
            types[value.name] = value.type
    dense = [(tensor.name, tensor) for tensor in graph.initializer]
    dense += [(sparse.values.name, sparse.values) for sparse in graph.sparse_initializer]
    for name, tensor in dense:
        types[name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))


def _kinds(names: Iterable[str], types: Types) -> tuple[Kind, ...]:
    return tuple(kind(types.get(name)) if name else "" for name in names)


def _pass_on(node: onnx.NodeProto, schema: Schema, types: Types) -> None:
    """Gives outputs whose type is not known that of an input, where the schema says they agree."""
    if all(not name or kind(types.get(name)) is not None for name in node.output):
        return
    bound = schema.bound(_kinds(node.input, types), ())
    for formal, name in zip(schema.outputs, node.output, strict=False):
        if not name or kind(types.get(name)) is not None:
            continue
        allowed = schema.types.get(formal.type_string, (formal.type_string,))
        found = bound.get(formal.type_string) or (allowed[0] if len(allowed) == 1 else None)
        passed = type_of(found)
        if passed is not None:
            types[name] = passed


def flat(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model with its functions inlined and all types that onnx infers.

    Raises:
        Refused: onnx does not manage.
    """
    (answer,) = _guarded.several([flat_request(model)])
    if isinstance(answer, _guarded.Refused):
        raise answer
    return onnx.load_from_string(answer)


def flat_request(model: onnx.ModelProto) -> tuple[str, onnx.ModelProto]:
    """Returns what `flat` asks of `_guarded.several`.

    The runtime reads a body by the opset of the model, so the bodies get that here: onnx leaves
    functions of another opset where they are.
    """
    if not model.functions:
        return "infer", model
    versions = {_walk.domain(each.domain): each.version for each in model.opset_import}
    copy = _guarded.without_large_weights(model)
    for function in copy.functions:
        for each in function.opset_import:
            each.version = versions.get(_walk.domain(each.domain), each.version)
    return "flatten", copy
