"""A model that is one node of an op, made from the arguments of a call."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from custom_ops.ops._registry import Op

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
}
OPSET = 20


def dtype_name(tensor: torch.Tensor) -> str:
    """Returns "float32" and its like."""
    return str(tensor.dtype).removeprefix("torch.")


def single_node(
    op: Op,
    arguments: tuple[Any, ...],
    dynamic: bool = False,
    opset: int = OPSET,
    constant: Collection[str] = (),
) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """Makes the model and what to feed it.

    Half types are fed and fetched as float32, with casts around the node: not every runtime takes
    them from Python.

    Args:
        op: The op.
        arguments: The arguments of its C++ side; tensors in torch.
        dynamic: Whether the model leaves all sizes open.
        opset: The model's opset.
        constant: Names of inputs that the model holds, as it does the weights of a network.
    """
    tensors, attributes = op.split(arguments)
    nodes, inputs, held, names, feeds = [], [], [], [], {}
    for given, tensor in zip(op.spec.inputs, tensors, strict=True):
        if tensor is None:
            names.append("")
            continue
        kind = dtype_name(tensor)
        half = kind in ("float16", "bfloat16")
        outer = "float32" if half else kind
        array = tensor.to(getattr(torch, outer)).contiguous().numpy()
        if given.name in constant:
            held.append(onnx.numpy_helper.from_array(array, given.name))
        else:
            shape = [f"{given.name}{i}" if dynamic else size for i, size in enumerate(array.shape)]
            inputs.append(helper.make_tensor_value_info(given.name, ELEMENT_TYPES[outer], shape))
            feeds[given.name] = array
        names.append(f"{given.name}_half" if half else given.name)
        if half:
            nodes.append(
                helper.make_node("Cast", [given.name], [names[-1]], to=ELEMENT_TYPES[kind])
            )
    while not names[-1]:
        names.pop()
    written: dict[str, Any] = {
        given.onnx_name: int(value) if isinstance(value, bool) else value
        for given, value in zip(op.spec.attributes, attributes, strict=True)
        if not (isinstance(value, Sequence) and len(value) == 0)
    }
    kind = dtype_name(tensors[0])
    half = kind in ("float16", "bfloat16")
    results = [f"{name}_half" if half else name for name in op.spec.outputs]
    nodes.append(
        helper.make_node(op.spec.onnx_name, names, results, domain="custom_ops", **written)
    )
    outputs = []
    for name, result in zip(op.spec.outputs, results, strict=True):
        outer = "float32" if half else kind
        outputs.append(helper.make_tensor_value_info(name, ELEMENT_TYPES[outer], None))
        if half:
            nodes.append(helper.make_node("Cast", [result], [name], to=TensorProto.FLOAT))
    model = helper.make_model(
        helper.make_graph(nodes, op.name, inputs, outputs, held),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("custom_ops", 1)],
        ir_version=9,
    )
    return model, feeds
