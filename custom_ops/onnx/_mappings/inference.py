"""Types and shapes of what one node computes, by onnx's own inference."""

import onnx
import onnx_ir as ir

Kind = tuple[ir.TypeProtocol | None, ir.Shape | None]


def outputs_of(
    schema: onnx.defs.OpSchema, node: ir.Node, opset: int, bound: dict[str, ir.DataType]
) -> list[Kind]:
    """Returns what is known of the outputs of a node.

    Args:
        schema: The schema of its op.
        node: The node.
        opset: The opset that it is written in.
        bound: Element types of the schema's type parameters, by the inputs.
    """
    inferred = _inferred(schema, node, opset)
    return [
        inferred[i] if i < len(inferred) else (_by_schema(schema, i, bound), None)
        for i in range(len(node.outputs))
    ]


def _inferred(schema: onnx.defs.OpSchema, node: ir.Node, opset: int) -> list[Kind]:
    """Returns the types that onnx infers; none where it does not."""
    proto = onnx.NodeProto(op_type=node.op_type)
    types, data = {}, {}
    for i, value in enumerate(node.inputs):
        proto.input.append(f"i{i}" if value is not None else "")
        if value is None:
            continue
        kind = type_proto(value)
        if kind is None:
            return []
        types[f"i{i}"] = kind
        if value.const_value is not None and value.const_value.size <= 64:
            data[f"i{i}"] = ir.serde.serialize_tensor(value.const_value)
    proto.output.extend(f"o{i}" for i in range(len(node.outputs)))
    proto.attribute.extend(ir.serde.serialize_attribute(a) for a in node.attributes.values())
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
        )
    except Exception:  # onnx raises of several classes; what it cannot infer stays unknown
        return []
    kinds: list[Kind] = []
    for name in proto.output:
        if name not in found:
            return kinds
        kinds.append(
            (
                ir.serde.deserialize_type_proto_for_type(found[name]),
                ir.serde.deserialize_type_proto_for_shape(found[name]),
            )
        )
    return kinds


def type_proto(value: ir.Value) -> onnx.TypeProto | None:
    """Returns the type and shape of a value as a message; None where the type is not known."""
    if value.type is None:
        return None
    proto = onnx.TypeProto()
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _by_schema(
    schema: onnx.defs.OpSchema, index: int, bound: dict[str, ir.DataType]
) -> ir.TypeProtocol | None:
    formal = schema.outputs[min(index, len(schema.outputs) - 1)]
    if formal.type_str in bound:
        return ir.TensorType(bound[formal.type_str])
    if len(formal.types) == 1:
        proto_name = next(iter(formal.types)).removeprefix("tensor(").removesuffix(")")
        name = {"float": "FLOAT", "double": "DOUBLE"}.get(proto_name, proto_name.upper())
        if name in ir.DataType.__members__:
            return ir.TensorType(ir.DataType[name])
    return None
