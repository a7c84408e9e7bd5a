"""Teaches the exporters of torch our ops, and ops of other libraries that mean the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import evaluator
from onnxscript.values import Op as OnnxScriptOp
from onnxscript.values import Opset

from custom_ops.onnx import _marker
from custom_ops.onnx._mappings import dynamo as _dynamo
from custom_ops.onnx._nodes import dtype_name
from custom_ops.ops._body import DOMAIN, VERSION
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._symbolic import current_lowering

# The dynamo exporter writes this opset, then converts the model to the one asked for.
_WRITTEN_OPSET = 18


def translation_table(opset_version: int | None = None) -> dict[Any, Callable[..., Any]]:
    """Returns what ``torch.onnx.export(..., custom_translation_table=)`` takes.

    It maps ``torch.ops.custom_ops.*`` and, where torchvision is imported,
    ``torchvision::deform_conv2d``. The exporter inlines the bodies of the ops; inside
    ``with custom_ops.onnx.lowering("custom")`` it writes the nodes of the domain custom_ops.
    Registered mappings and those of the pack are in it too.

    Args:
        opset_version: That of the export. It matters below 18, which the exporter takes for 18:
            with it mappings use, and are refused by, the opset that the file gets.

    Example:
        >>> import torch, custom_ops
        >>> program = torch.onnx.export(
        ...     custom_ops.MulAdd().eval(), (torch.ones(2), torch.ones(2)),
        ...     dynamo=True, verbose=False,
        ...     custom_translation_table=custom_ops.onnx.translation_table())
        >>> sorted({node.op_type for node in program.model.graph})
        ['Add', 'Mul']
    """
    table: dict[Any, Callable[..., Any]] = {}
    for op in ops().values():
        table[getattr(torch.ops.custom_ops, op.name).default] = _translation(op, None)
        for name, mapping in op.onnx.foreign.items():
            overload = _overload(name)
            if overload is not None:
                table[overload] = _translation(op, mapping)
    table.update(_marker.translations())
    return _dynamo.table(opset_version, table)


def _overload(name: str) -> Any:
    namespace, _, op = name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), op, None)
    return packet.default if packet is not None else None


def _translation(op: Op, mapping: Callable[..., tuple[Any, ...]] | None) -> Callable[..., Any]:
    spec = op.spec
    defaults = [None] * len(spec.inputs) + [a.default for a in spec.attributes]
    names = [given.name for given in (*spec.inputs, *spec.attributes)]

    def translate(*args: Any, **kwargs: Any) -> Any:
        if mapping is not None:
            args, kwargs = mapping(*args, **kwargs), {}
        full = list(args) + defaults[len(args) :]
        for name, value in kwargs.items():
            full[names.index(name)] = value
        tensors, attributes = op.split(tuple(full))
        values = {
            given.onnx_name: list(value) if isinstance(value, (list, tuple)) else value
            for given, value in zip(spec.attributes, attributes, strict=True)
        }
        if current_lowering() == "custom":
            return _node(op)(*tensors, **values)
        opset, dtype = _context(tensors[0])  # an opset below 18 is 18 here
        op.onnx.body.check_opset(op.name, opset, dtype)
        body = op.onnx.body.function(_WRITTEN_OPSET, frozenset([dtype]))
        return body(*(_given(op, i, t, tensors[0]) for i, t in enumerate(tensors)), **values)

    translate.__name__ = op.name
    return translate


def _context(value: Any) -> tuple[int, str]:
    """Returns the opset that the exporter writes now, and the element type of a value."""
    dtype = dtype_name(value.dtype) if value.dtype is not None else "float32"
    return evaluator.default().opset.version, dtype  # type: ignore[attr-defined]


def _given(op: Op, index: int, value: Any, like: Any) -> Any:
    """Returns an input, or its neutral value where it is left out: bodies need every input."""
    if value is not None:
        return value
    neutral, rank = op.spec.inputs[index].neutral
    opset = evaluator.default().opset  # type: ignore[attr-defined]
    filled = np.full([1] * rank, neutral, dtype=np.float32)
    return opset.CastLike(opset.Constant(value=onnx.numpy_helper.from_array(filled)), like)


def _node(op: Op) -> OnnxScriptOp:
    """Returns a function that writes the node of an op."""
    return OnnxScriptOp(Opset(DOMAIN, VERSION), op.spec.onnx_name, schema(op))


def schema(op: Op) -> onnx.defs.OpSchema:
    """Returns the ONNX schema of an op; it is registered nowhere.

    Args:
        op: An op of the registry.
    """
    kinds = {"float32": "float", "float64": "double"}
    parameter, option = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.FormalParameterOption
    types = {
        bool: onnx.defs.OpSchema.AttrType.INT,
        int: onnx.defs.OpSchema.AttrType.INT,
        float: onnx.defs.OpSchema.AttrType.FLOAT,
        str: onnx.defs.OpSchema.AttrType.STRING,
        list: onnx.defs.OpSchema.AttrType.INTS,
    }
    # An input follows the first one, or has one type of its own, as indices have.
    types_of_inputs = [
        "T" if list(dtypes) == op.spec.dtypes else f"tensor({kinds.get(dtypes[0], dtypes[0])})"
        for dtypes in zip(*op.spec.input_dtypes, strict=True)
    ]
    return onnx.defs.OpSchema(
        op.spec.onnx_name,
        DOMAIN,
        VERSION,
        inputs=[
            parameter(i.name, kind, param_option=option.Optional if i.optional else option.Single)
            for i, kind in zip(op.spec.inputs, types_of_inputs, strict=True)
        ],
        outputs=[parameter(name, "T") for name in op.spec.outputs],
        type_constraints=[("T", [f"tensor({kinds.get(d, d)})" for d in op.spec.dtypes], "")],
        attributes=[
            onnx.defs.OpSchema.Attribute(a.onnx_name, types[type(a.default)], required=False)
            for a in op.spec.attributes
        ],
    )
