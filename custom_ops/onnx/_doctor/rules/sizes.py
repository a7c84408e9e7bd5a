"""Sizes that onnx's inference does not compare, and that refuse to run."""

import math
from collections.abc import Iterator, Sequence

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor import data
from custom_ops.onnx._doctor.edges import Frame
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.inference import Shape
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.sized import sized
from custom_ops.onnx._doctor.subject import Subject


def node_sizes(subject: Subject) -> Iterator[Finding]:
    """The channels of Conv and Gemm fit their weights, and Reshape keeps the number of elements."""
    seen: set[int] = set()
    for each in sized(subject):
        node = each.node
        if node.domain not in _walk.DEFAULT_DOMAINS or len(node.input) < 2:
            continue
        inputs = [each.shapes.get(name) for name in node.input[:2]]
        attributes = {given.name: given.i for given in node.attribute}
        wanted, got = _sizes(subject, each.frame, node, inputs, attributes)
        if got and id(each.located.node) not in seen:
            seen.add(id(each.located.node))
            when = ", where this branch runs" if each.chosen else ""
            yield Finding(
                Severity.WARNING if each.chosen else Severity.ERROR,
                "node-sizes",
                each.located.name,
                f"{node.op_type} must have {wanted}{when}, got {got}",
                "look at the shapes with custom-ops inspect --graph, and export again",
            )


def _sizes(
    subject: Subject,
    frame: Frame,
    node: onnx.NodeProto,
    inputs: Sequence[Shape | None],
    attributes: dict[str, int],
) -> tuple[str, str]:
    """Returns what must be and what is; "" where all is well or not known."""
    data_shape, other = inputs
    if not data_shape:
        return "", ""
    if node.op_type == "Reshape":
        return _reshape(subject, frame, node, data_shape, attributes)
    if not other or len(other) < 2 or len(data_shape) < 2:
        return "", ""
    if node.op_type in ("Conv", "ConvTranspose"):
        groups = attributes.get("group", 1) if node.op_type == "Conv" else 1
        have, need = data_shape[1], other[1 if node.op_type == "Conv" else 0]
        if isinstance(have, int) and isinstance(need, int) and have != need * groups:
            return f"{need * groups} channels by its weight {other}", f"{have} of {data_shape}"
    if node.op_type == "Gemm" and len(data_shape) == len(other) == 2:
        have = data_shape[0 if attributes.get("transA") else 1]
        need = other[1 if attributes.get("transB") else 0]
        if isinstance(have, int) and isinstance(need, int) and have != need:
            return f"{need} columns by its weight {other}", f"{have} of {data_shape}"
    return "", ""


def _reshape(
    subject: Subject, frame: Frame, node: onnx.NodeProto, given: Shape, attributes: dict[str, int]
) -> tuple[str, str]:
    tensor = frame.constant(node.input[1])
    if tensor is None or not all(isinstance(size, int) for size in given):
        return "", ""
    target = [int(size) for piece in data.pieces(subject, tensor) for size in piece]
    if len(target) != math.prod(tensor.dims) or attributes.get("allowzero"):
        return "", ""  # which cannot be read
    sizes = [
        given[axis] if size == 0 and axis < len(given) else size for axis, size in enumerate(target)
    ]
    have = math.prod(int(size) for size in given)
    fixed = math.prod(int(size) for size in sizes if size != -1)
    fits = fixed == have if -1 not in sizes else fixed != 0 and have % fixed == 0
    return ("", "") if fits else (f"as many elements as {given}, {have}", f"the shape {target}")


RULES: tuple[Rule, ...] = (node_sizes,)
