"""The IR version: what came with each, and which a model can be given."""

from collections.abc import Callable, Iterator

import onnx

from custom_ops.onnx import _walk

LOWEST = 3  # before it files did not say their opsets, and no release reads them

# Element types by the IR version that brought them.
_TYPES = {
    "BFLOAT16": 4,
    "FLOAT8E4M3FN": 9,
    "FLOAT8E4M3FNUZ": 9,
    "FLOAT8E5M2": 9,
    "FLOAT8E5M2FNUZ": 9,
    "UINT4": 10,
    "INT4": 10,
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    "UINT2": 13,
    "INT2": 13,
    "FLOAT6E2M3": 14,
    "FLOAT6E3M2": 14,
}
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def set_version(model: onnx.ModelProto, version: int, tool: str = "fix") -> str:
    """Gives a model another IR version, in place.

    Metadata of nodes and values, which came with version 10, and types inside functions stay:
    who reads an older version ignores them, and loses nothing by it.

    Args:
        model: The model.
        version: The version.
        tool: Who asks, for the sentence of a refusal.

    Returns:
        What was done; "" where the version is right already.

    Raises:
        ValueError: The version is none, or the model uses what came after it.
    """
    newest = int(onnx.IR_VERSION)
    if not LOWEST <= version <= newest:
        raise ValueError(
            f"{tool}: IR version must be {LOWEST} to {newest}, got {version}; "
            + ("a newer onnx may know more" if version > newest else "give one of these")
        )
    hindering = [f"{what} needs {since}" for since, what in features(model) if since > version]
    if hindering:
        more = f" and {len(hindering) - 3} more" if len(hindering) > 3 else ""
        raise ValueError(
            f"{tool}: IR version must be that of everything in use, got {version}, but "
            f"{', '.join(hindering[:3])}{more}; export the model without it"
        )
    old = model.ir_version
    if old == version:
        return ""
    if old < LOWEST and not model.opset_import:  # then it is opset 1, which was not written
        model.opset_import.add(domain="", version=1)
    model.ir_version = version
    return f"IR version {old} to {version}"


def features(model: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    """Yields what a model uses that not every IR version has, with the version that brought it.

    What a reader may ignore without loss is left out.
    """
    for since, find in _FEATURES:
        yield from ((since, what) for what in find(model))
    yield from _types(model)


def _initializers(model: onnx.ModelProto) -> Iterator[str]:
    inputs = {given.name for given in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in inputs:
            yield f"initializer {tensor.name!r}, which is no input,"
            return


def _quantization(model: onnx.ModelProto) -> Iterator[str]:
    if model.graph.quantization_annotation:
        yield "quantization_annotation"


def _sparse(model: onnx.ModelProto) -> Iterator[str]:
    for scope in _walk.scopes(model):
        if isinstance(scope, onnx.GraphProto) and scope.sparse_initializer:
            yield f"sparse initializer {scope.sparse_initializer[0].values.name!r}"
            return
        for node in scope.node:
            if any(a.HasField("sparse_tensor") or a.sparse_tensors for a in node.attribute):
                yield f"sparse tensor of {node.op_type} {node.name!r}"
                return


def _training(model: onnx.ModelProto) -> Iterator[str]:
    if model.training_info:
        yield "training_info"


def _functions(model: onnx.ModelProto) -> Iterator[str]:
    if model.functions:
        yield f"function {model.functions[0].name!r}"


def _defaults(model: onnx.ModelProto) -> Iterator[str]:
    for function in model.functions:
        if function.attribute_proto:
            yield f"default of an attribute of function {function.name!r}"
            return


def _overloads(model: onnx.ModelProto) -> Iterator[str]:
    for function in model.functions:
        if function.overload:
            yield f"overload {function.overload!r} of function {function.name!r}"
            return


def _devices(model: onnx.ModelProto) -> Iterator[str]:
    if getattr(model, "configuration", None):  # onnx 1.18 and later
        yield "configuration of devices"
    for scope in _walk.scopes(model):
        for node in scope.node:
            if getattr(node, "device_configurations", None):
                yield f"device configuration of {node.op_type} {node.name!r}"
                return


_Find = Callable[[onnx.ModelProto], Iterator[str]]
_FEATURES: tuple[tuple[int, _Find], ...] = (
    (4, _initializers),
    (5, _quantization),
    (6, _sparse),
    (7, _training),
    (8, _functions),
    (9, _defaults),
    (10, _overloads),
    (11, _devices),
)


def _types(model: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    numbers = {
        onnx.TensorProto.DataType.Value(name): (since, name)
        for name, since in _TYPES.items()
        if name in onnx.TensorProto.DataType.keys()  # noqa: SIM118  (no dict)
    }
    seen: set[int | str] = set()
    for number, where in _element_types(model):
        if number in numbers and number not in seen:
            seen.add(number)
            since, name = numbers[number]
            yield since, f"{name} of {where!r}"
    for kind, where in _kinds(model):
        since = {"sparse_tensor_type": 8, "optional_type": 8}.get(kind, 0)
        if since and kind not in seen:
            seen.add(kind)
            yield since, f"{kind} of {where!r}"


def _kinds(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    for proto, where in _type_protos(model):
        yield proto.WhichOneof("value") or "", where


def _element_types(model: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    for proto, where in _type_protos(model):
        for kind in ("tensor_type", "sparse_tensor_type"):
            if proto.HasField(kind):
                yield getattr(proto, kind).elem_type, where
    for tensor in _walk.tensors(model):
        yield tensor.data_type, tensor.name
    for scope in _walk.scopes(model):
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES:
                    yield attribute.i, node.name or node.op_type


def _type_protos(model: onnx.ModelProto) -> Iterator[tuple[onnx.TypeProto, str]]:
    """Yields every type of a value, those inside sequences, maps and optionals included."""
    waiting: list[tuple[onnx.TypeProto, str]] = []
    for scope in _walk.scopes(model):
        values = [*scope.value_info]
        if isinstance(scope, onnx.GraphProto):
            values += [*scope.input, *scope.output]
        waiting += [(value.type, value.name) for value in values]
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.HasField("tp"):
                    waiting.append((attribute.tp, node.name or node.op_type))
                waiting += [(each, node.name or node.op_type) for each in attribute.type_protos]
    while waiting:
        proto, where = waiting.pop()
        yield proto, where
        if proto.HasField("sequence_type"):
            waiting.append((proto.sequence_type.elem_type, where))
        elif proto.HasField("optional_type"):
            waiting.append((proto.optional_type.elem_type, where))
        elif proto.HasField("map_type"):
            waiting.append((proto.map_type.value_type, where))
