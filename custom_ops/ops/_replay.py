"""Writes the nodes of an ONNX function into a TorchScript graph, one standard op after another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def replay(g: Any, function: Any, inputs: list[Any], attributes: dict[str, Any]) -> Any:
    """Adds the nodes of a function to a graph.

    Args:
        g: The exporter's graph context.
        function: An `onnx.FunctionProto`.
        inputs: The values of its inputs.
        attributes: The values of its attributes.

    Returns:
        The value of its output; a list of them, where it has several.
    """
    values = dict(zip(function.input, inputs, strict=True))
    types: dict[str, Any] = {}
    blocks = [a.g for node in function.node for a in node.attribute]
    if any(a.g.node for block in blocks for node in block.node for a in node.attribute):
        # torch would write wrong ranks at the ends of blocks within blocks.
        _globals().onnx_shape_inference = False
    if any(block.node for block in blocks) or not _globals().onnx_shape_inference:
        # Numbers beside float64 would become float32: the types are told instead.
        types.update(_types(function.value_info))
    _add(g, function.node, values, attributes, types)
    outputs = [values[name] for name in function.output]
    return outputs if len(outputs) > 1 else outputs[0]


@contextmanager
def shape_inference_restored() -> Iterator[None]:
    """Turns on again, after the block, what `replay` may turn off for the rest of an export."""
    before = _globals().onnx_shape_inference
    try:
        yield
    finally:
        _globals().onnx_shape_inference = before


def infers_shapes() -> bool:
    """Returns whether the exporter still infers shapes; else it writes those of the example."""
    return bool(_globals().onnx_shape_inference)


def _globals() -> Any:
    from torch.onnx._internal.torchscript_exporter import _globals

    return _globals.GLOBALS


def _types(stated: Any) -> dict[str, Any]:
    """Returns the types of values by name."""
    return {value.name: _type(value) for value in stated if value.type.tensor_type.elem_type}


def _add(
    g: Any, nodes: Any, values: dict[str, Any], attributes: dict[str, Any], types: dict[str, Any]
) -> None:
    for node in nodes:
        inputs = [values[name] if name else none(g) for name in node.input]
        graphs = [a.g for a in node.attribute if a.g.node or a.g.output]
        others = [a for a in node.attribute if not (a.g.node or a.g.output)]
        keywords = dict(_keyword(a, attributes) for a in others)
        if graphs:
            outputs = _add_with_blocks(g, node, graphs, inputs, keywords, values, attributes, types)
        elif node.op_type == "Shape" and keywords:
            outputs = _part_of_shape(g, inputs[0], **keywords)
        else:
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            outputs = g.op(name, *inputs, **keywords, outputs=len(node.output))
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        values.update(zip(node.output, listed, strict=True))
        for name in set(node.output) & types.keys():
            values[name].setType(types[name])


def _add_with_blocks(
    g: Any,
    node: Any,
    graphs: list[Any],
    inputs: list[Any],
    keywords: dict[str, Any],
    values: dict[str, Any],
    attributes: dict[str, Any],
    types: dict[str, Any],
) -> Any:
    from torch.onnx._internal.torchscript_exporter import jit_utils, utils

    outputs, contexts, _ = jit_utils.add_op_with_blocks(
        g, node.op_type, *inputs, outputs=len(node.output), n_blocks=len(graphs), **keywords
    )
    for graph, context in zip(graphs, contexts, strict=True):
        inner = dict(values)
        for given in graph.input:
            value = utils._add_input_to_block(context.block)
            value.setType(_type(given))
            inner[given.name] = value
        told = types | _types(graph.value_info) if types else types
        _add(context, graph.node, inner, attributes, told)
        for result in graph.output:
            utils._add_output_to_block(context.block, inner[result.name])
    return outputs


def _type(given: Any) -> Any:
    """Returns the type that an input of a block states: Loop wants that of its counter."""
    import onnx

    stated = given.type.tensor_type
    result: Any = torch._C.TensorType.get()
    if stated.elem_type:
        number = onnx.helper.tensor_dtype_to_np_dtype(stated.elem_type)
        result = result.with_dtype(getattr(torch, number.name))
    return result.with_sizes([None] * len(stated.shape.dim)) if stated.HasField("shape") else result


def _part_of_shape(g: Any, value: Any, start_i: int = 0, end_i: int = 2**63 - 1) -> Any:
    """Returns some sizes; torch's shape inference takes Shape with a start for all of them."""
    bounds = [g.op("Constant", value_t=torch.tensor([n])) for n in (start_i, end_i, 0)]
    return g.op("Slice", g.op("Shape", value), *bounds)


def none(g: Any) -> Any:
    """Returns an input that is left out."""
    value = g.op("prim::Constant")
    value.setType(torch._C.OptionalType.ofTensor())
    return value


def _keyword(attribute: Any, attributes: dict[str, Any]) -> tuple[str, Any]:
    """Returns an attribute of a node as the exporter takes it: its type is a suffix."""
    import onnx

    if attribute.ref_attr_name:
        value = attributes[attribute.ref_attr_name]
    else:
        value = onnx.helper.get_attribute_value(attribute)
    kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
    if attribute.name.startswith("value_"):  # of a Constant; the exporter knows tensors only
        number = torch.int64 if kind.startswith("INT") else torch.float32
        return "value_t", torch.tensor(value, dtype=number)
    if kind == "TENSOR":
        return f"{attribute.name}_t", torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
    if isinstance(value, bytes):
        value = value.decode()
    return f"{attribute.name}_{kind[0].lower()}", list(value) if kind[-1] == "S" else value
