"""Writes the nodes of an ONNX function into a TorchScript graph, one standard op after another."""

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
    _add(g, function.node, values, attributes)
    outputs = [values[name] for name in function.output]
    return outputs if len(outputs) > 1 else outputs[0]


def _add(g: Any, nodes: Any, values: dict[str, Any], attributes: dict[str, Any]) -> None:
    for node in nodes:
        inputs = [values[name] if name else none(g) for name in node.input]
        graphs = [a.g for a in node.attribute if a.g.node or a.g.output]
        others = [a for a in node.attribute if not (a.g.node or a.g.output)]
        keywords = dict(_keyword(a, attributes) for a in others)
        if graphs:
            outputs = _add_with_blocks(g, node, graphs, inputs, keywords, values, attributes)
        else:
            outputs = g.op(node.op_type, *inputs, **keywords, outputs=len(node.output))
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        values.update(zip(node.output, listed, strict=True))


def _add_with_blocks(
    g: Any,
    node: Any,
    graphs: list[Any],
    inputs: list[Any],
    keywords: dict[str, Any],
    values: dict[str, Any],
    attributes: dict[str, Any],
) -> Any:
    from torch.onnx._internal.torchscript_exporter import jit_utils, utils

    outputs, contexts, _ = jit_utils.add_op_with_blocks(
        g, node.op_type, *inputs, outputs=len(node.output), n_blocks=len(graphs), **keywords
    )
    for graph, context in zip(graphs, contexts, strict=True):
        inner = dict(values)
        for given in graph.input:
            inner[given.name] = utils._add_input_to_block(context.block)
        _add(context, graph.node, inner, attributes)
        for result in graph.output:
            utils._add_output_to_block(context.block, inner[result.name])
    return outputs


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
    if kind == "TENSOR":
        return f"{attribute.name}_t", torch.from_numpy(onnx.numpy_helper.to_array(value).copy())
    if isinstance(value, bytes):
        value = value.decode()
    return f"{attribute.name}_{kind[0].lower()}", list(value) if kind[-1] == "S" else value
