"""Traps: what runs and is probably not meant."""

from collections.abc import Iterator

import numpy as np
import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor import data, inference
from custom_ops.onnx._doctor.edges import Frame
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules import values
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.sized import Shapes, sized
from custom_ops.onnx._doctor.subject import Subject

_INT32 = np.iinfo(np.int32)
_SHARED = 8  # numbers; onnxruntime makes one constant of equal ones up to that size
_DOUBLE, _FLOAT = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT


def float64_left(subject: Subject) -> Iterator[Finding]:
    """A model whose inputs are float32 computes nothing in float64."""
    graph = subject.model.graph
    ends = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    if _FLOAT not in ends or _DOUBLE in ends or subject.inference is None:
        return
    names = []
    for scope in _walk.within(subject.inference.model.graph):
        typed = {
            value.name: value.type.tensor_type.elem_type
            for value in (*scope.value_info, *scope.output)
        }
        for node in scope.node:
            made = [name for name in node.output if typed.get(name) == _DOUBLE]
            names += made[:1] if node.op_type != "Constant" else []
    if names:
        yield Finding(
            Severity.NOTE,
            "float64-left",
            names[0],
            f"a float32 model must compute in float32, got {len(names)} values in float64: "
            f"{values.shown(names)}",
            "write Python's numbers as float32 tensors before the export, or cast sooner",
        )


def int_overflow(subject: Subject) -> Iterator[Finding]:
    """A constant that is cast to int32 fits there."""
    for frame, node in _nodes(subject, "Cast"):
        to = next((each.i for each in node.attribute if each.name == "to"), 0)
        tensor = frame.constant(node.input[0]) if node.input else None
        if to != onnx.TensorProto.INT32 or tensor is None:
            continue
        if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.UINT32):
            continue
        outside = [
            int(piece[index])
            for piece in data.pieces(subject, tensor)
            for index in np.flatnonzero((piece < _INT32.min) | (piece > _INT32.max))[:1]
        ]
        if outside:
            yield Finding(
                Severity.NOTE,
                "int-overflow",
                values.called(frame, node),
                f"constant {node.input[0]!r} must fit where it is cast to int32, got {outside[0]}, "
                f"which becomes {np.array(outside[0]).astype(np.int32)}",
                "keep it in int64, or limit it",
            )


def fixed_batch(subject: Subject) -> Iterator[Finding]:
    """No size is baked in where an input leaves it open."""
    given = [inference.shape(each.type) or () for each in subject.model.graph.input]
    open_sizes = {size for each in given for size in each if isinstance(size, str)}
    seen: set[int] = set()
    for each in sized(subject) if open_sizes else ():
        got = _baked(subject, each.frame, each.node, each.shapes, open_sizes)
        if got and id(each.located.node) not in seen:
            seen.add(id(each.located.node))
            yield Finding(
                Severity.NOTE,
                "fixed-batch",
                each.located.name,
                f"{each.node.op_type} must take every size that the inputs leave open, got {got}",
                "compute with x.shape[0] or -1 in the torch module, not with a number",
            )


def training_mode(subject: Subject) -> Iterator[Finding]:
    """BatchNormalization and Dropout are in inference mode."""
    for frame, node in _nodes(subject, "BatchNormalization", "Dropout"):
        flags = {each.name: each.i for each in node.attribute}
        shared = False
        if node.op_type == "BatchNormalization":
            opset = subject.opset("", frame.function) or 0
            training = bool(flags.get("training_mode")) or (opset < 14 and any(node.output[1:]))
            shared = training and _overwrites(subject, frame, node)
        else:
            tensor = frame.constant(node.input[2]) if len(node.input) > 2 else None
            numbers = data.pieces(subject, tensor) if tensor is not None else ()
            training = any(bool(piece.any()) for piece in numbers)
        if training:
            wrong = "; onnxruntime writes its statistics over a scale or bias of the same numbers"
            yield Finding(
                Severity.ERROR if shared else Severity.NOTE,
                "training-mode",
                values.called(frame, node),
                f"{node.op_type} must be in inference mode, got training mode{wrong * shared}",
                "call model.eval() before the export",
            )


def _overwrites(subject: Subject, frame: Frame, node: onnx.NodeProto) -> bool:
    """Returns whether the new statistics of a BatchNormalization go where its scale or bias is.

    onnxruntime writes them in place where nothing asks for them, and first makes one constant of
    those that are equal and small.
    """
    outputs = set(node.output[1:3]) & set(frame.outputs)
    if outputs or len(node.input) != 5:
        return False
    tensors = [frame.constant(name) for name in node.input[1:]]
    for index in (2, 3):
        for other in (0, 1):
            one, two = tensors[index], tensors[other]
            if one is None or two is None:
                continue
            if one is two:
                return True
            if list(one.dims) == list(two.dims) and 0 < np.prod(one.dims) <= _SHARED:
                pairs = zip(data.pieces(subject, one), data.pieces(subject, two), strict=False)
                if all(np.array_equal(a, b) for a, b in pairs):
                    return True
    return False


def _nodes(subject: Subject, *op_types: str) -> Iterator[tuple[Frame, onnx.NodeProto]]:
    for frame in subject.frames:
        for node in frame.scope.node:
            if node.op_type in op_types and node.domain in _walk.DEFAULT_DOMAINS:
                yield frame, node


def _baked(
    subject: Subject,
    frame: Frame,
    node: onnx.NodeProto,
    shapes: Shapes,
    open_sizes: set[str],
) -> str:
    """Returns the size that a node has baked in; "" if none."""
    inputs = [shapes.get(name, []) for name in node.input]
    batches = {shape[0] for shape in inputs if shape} & open_sizes
    if node.op_type == "Reshape" and len(inputs) == 2 and inputs[0]:
        tensor = frame.constant(node.input[1])
        wanted = [int(s) for p in data.pieces(subject, tensor) for s in p] if tensor else []
        varies = any(size in open_sizes for size in inputs[0])
        merged = inputs[0][0] in open_sizes and len(inputs[0]) > 1 and wanted[:1] > [0]
        if wanted and varies and (merged or min(wanted) > 0) and 0 not in wanted:
            return f"the shape {wanted} for {inputs[0]}"
    if node.op_type == "Concat":
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        fixed = [shape[0] for shape in inputs if shape and isinstance(shape[0], int)]
        if axis and axis != -len(inputs[0]) and batches and fixed:
            return f"{fixed[0]} beside {min(map(str, batches))}"
    if node.op_type in ("LSTM", "GRU", "RNN") and len(inputs[0]) == 3:
        for name in node.input[5:7]:
            tensor = frame.constant(name) if name else None
            if tensor is not None and len(tensor.dims) == 3 and inputs[0][1] in open_sizes:
                return f"an initial state for {tensor.dims[1]} beside {inputs[0][1]}"
    return ""


RULES: tuple[Rule, ...] = (float64_left, int_overflow, fixed_batch, training_mode)
