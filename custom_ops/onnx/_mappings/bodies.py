"""What stands inside a node: the subgraphs of If, Loop and Scan, and the bodies of custom nodes."""

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript

from custom_ops.onnx._mappings.inference import Kind
from custom_ops.onnx._mappings.refusal import MappingRefused

_INDEX: Kind = (ir.TensorType(ir.DataType.INT64), ir.Shape([]))
_FLAG: Kind = (ir.TensorType(ir.DataType.BOOL), ir.Shape([]))


def arguments(
    op_type: str, inputs: list[ir.Value | None], attributes: dict[str, Any]
) -> list[Kind]:
    """Returns types and shapes of the arguments of a subgraph's function."""
    if op_type == "Loop":
        return [_INDEX, _FLAG, *(_kept(value) for value in inputs[2:])]
    if op_type == "Scan":
        states = len(inputs) - int(attributes["num_scan_inputs"])
        return [
            *(_kept(value) for value in inputs[:states]),
            *(_without_first_axis(value) for value in inputs[states:]),
        ]
    return []


def carried(
    op_type: str, inputs: list[ir.Value | None], attributes: dict[str, Any]
) -> list[ir.DataType | None]:
    """Returns the element types that the first results of a subgraph's function must have."""
    if op_type == "Loop":
        return [ir.DataType.BOOL, *(v.dtype if v is not None else None for v in inputs[2:])]
    if op_type == "Scan":
        states = len(inputs) - int(attributes["num_scan_inputs"])
        return [v.dtype if v is not None else None for v in inputs[:states]]
    return []


def results(
    op_type: str, graph: ir.Graph, number_of_arguments: int, attributes: dict[str, Any]
) -> list[Kind]:
    """Returns what is known of the outputs of a node with a subgraph."""
    outputs = list(graph.outputs)
    if op_type == "Loop":
        kept = number_of_arguments - 2
        outputs = outputs[1:]
    elif op_type == "Scan":
        kept = number_of_arguments - int(attributes["num_scan_inputs"])
    else:
        # The branches of an If may differ in their sizes.
        return [(v.type, None if v.shape is None else _any_sizes(v.shape)) for v in outputs]
    return [
        *(_kept(value) for value in outputs[:kept]),
        *(
            (v.type, None if v.shape is None else ir.Shape([None, *v.shape]))
            for v in outputs[kept:]
        ),
    ]


def scan_as_loop(op: Any, inputs: Sequence[Any], *, body: Any, num_scan_inputs: int) -> Any:
    """Writes as a Loop what a Scan over first axes does.

    Args:
        op: The ops.
        inputs: The states, then what is scanned.
        body: The function of a step.
        num_scan_inputs: How many are scanned.
    """
    count = len(inputs) - num_scan_inputs
    states, scanned = inputs[:count], inputs[count:]

    def step(i: Any, go_on: Any, *now: Any) -> Any:
        found = body(*now, *(op.Gather(each, i, axis=0) for each in scanned))
        return (go_on, *(found if isinstance(found, (list, tuple)) else [found]))

    return op.Loop(op.Gather(op.Shape(scanned[0]), 0), True, *states, body=step)


def function(
    mapped: str,
    body: onnxscript.OnnxFunction[..., Any],
    domain: str,
    op_type: str,
    *opsets: int,
) -> onnx.FunctionProto:
    """Returns the body of a node, written in the opset of the model.

    Args:
        mapped: The torch op that is mapped, for messages.
        body: The function.
        domain: Domain of the node.
        op_type: Op of the node.
        opsets: Opset of the nodes, and the one that the model gets at last.

    Raises:
        MappingRefused: An op of the body is another one at that opset.
    """
    proto: onnx.FunctionProto = body.to_function_proto()
    if (proto.domain, proto.name) != (domain, op_type):
        raise MappingRefused(
            f"{mapped}: the body of {domain}::{op_type} must be a function of that domain and "
            f"name, got {proto.domain}::{proto.name}"
        )
    for each in proto.opset_import:
        if each.domain not in ("", "ai.onnx"):
            continue
        for opset in opsets:
            changed = _changed(proto.node, each.version, opset) if each.version != opset else None
            if changed is not None:
                raise MappingRefused(
                    f"{mapped}: the ops of {proto.name} must be the same at opset {opset} as at "
                    f"{each.version}, for which it is written, got {changed}; export with "
                    f"opset_version={each.version}, or map with a function of op"
                )
        each.version = opsets[0]
    return proto


def _changed(nodes: Any, written: int, opset: int) -> str | None:
    """Returns an op that is not the same at two opsets."""
    for node in nodes:
        if node.domain in ("", "ai.onnx"):
            try:
                old, new = (onnx.defs.get_schema(node.op_type, v, "") for v in (written, opset))
            except onnx.defs.SchemaError:
                return str(node.op_type)
            used = {a.name for a in node.attribute}
            if new.deprecated or not _compatible(old, new, used):
                return str(node.op_type)
        for attribute in node.attribute:
            inner = _changed(attribute.g.node, written, opset)
            if inner is not None:
                return inner
    return None


def _compatible(old: onnx.defs.OpSchema, new: onnx.defs.OpSchema, used: set[str]) -> bool:
    """Returns whether what an older schema gave a node means the same by a newer one."""
    if old.since_version == new.since_version:
        return True
    if [i.name for i in old.inputs] != [i.name for i in new.inputs[: len(old.inputs)]]:
        return False
    if [o.name for o in old.outputs] != [o.name for o in new.outputs]:
        return False
    if not used <= set(new.attributes):
        return False
    return all(
        name in new.attributes
        and new.attributes[name].default_value.SerializeToString()
        == attribute.default_value.SerializeToString()
        for name, attribute in old.attributes.items()
    )


def _kept(value: ir.Value | None) -> Kind:
    """Returns the type of a value that a loop carries: its sizes may change on the way."""
    if value is None:
        return None, None
    return value.type, None if value.shape is None else _any_sizes(value.shape)


def _any_sizes(shape: ir.Shape) -> ir.Shape:
    return ir.Shape([None] * len(shape))


def _without_first_axis(value: ir.Value | None) -> Kind:
    if value is None:
        return None, None
    return value.type, None if value.shape is None else ir.Shape(list(value.shape)[1:])
