"""What the changes of the standard's ops mean, from opset 11 to 28, as far as schemas do not tell.

Read from the standard, op by op: a change that is not listed here adds attributes whose defaults
mean what the op meant before, optional inputs and outputs, or element types.
"""

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper

from custom_ops.onnx._fix.context import Context, Hindered

# (op, opset of the change): what else must hold for a node to mean the same before and after.
Step = Callable[[onnx.NodeProto, bool, Context], None]


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            if attribute.ref_attr_name:
                raise Hindered(f"its {name} is an attribute of the function around it")
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _remove(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    if len(kept) < len(node.attribute):
        copies = [onnx.AttributeProto.FromString(each.SerializeToString()) for each in kept]
        del node.attribute[:]
        node.attribute.extend(copies)


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    _remove(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def _only_below(name: str, default: str, added: tuple[str, ...]) -> Step:
    """A value of an attribute that came with the change."""

    def check(node: onnx.NodeProto, up: bool, _: Context) -> None:
        value = _attribute(node, name, default)
        if not up and value in added:
            raise Hindered(f"its {name} {value!r} came later")

    return check


def _windows(node: onnx.NodeProto, up: bool, context: Context) -> None:
    """Since 22 a window that would start in the padding behind is left out, with ceil_mode."""
    if not _attribute(node, "ceil_mode", 0):
        return
    kernel = _attribute(node, "kernel_shape")
    ones = [1] * len(kernel)
    strides, dilations = _attribute(node, "strides", ones), _attribute(node, "dilations", ones)
    behind = _attribute(node, "pads", [0] * 2 * len(kernel))[len(kernel) :]
    automatic = _attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    for size, stride, dilation, pad in zip(kernel, strides, dilations, behind, strict=False):
        if automatic or pad + stride > (size - 1) * dilation + 1:
            raise Hindered("with ceil_mode, windows that start in the padding count before 22")


def _modulus(node: onnx.NodeProto, up: bool, context: Context) -> None:
    kinds = {f"tensor({name})" for name in ("float", "double", "float16", "bfloat16")}
    if not up and not _attribute(node, "fmod", 0):
        types = context.types(node, node.input[0])
        if not types or types & kinds:
            raise Hindered("fmod=0 on floating point came at 28")


def _attention(node: onnx.NodeProto, up: bool, context: Context) -> None:
    if len(node.output) > 3 and node.output[3]:
        raise Hindered("its output qk_matmul_output changed")


def _per_axis(node: onnx.NodeProto, up: bool, context: Context) -> None:
    if not up and context.rank(node.input[1]) != 0:
        raise Hindered("quantization along an axis came at 13")


def _other_groups(node: onnx.NodeProto, up: bool, context: Context) -> None:
    raise Hindered("scale and bias changed from one per group to one per channel at 21")


CHECKS: Mapping[tuple[str, int], Step] = {
    ("Attention", 24): _attention,
    ("Attention", 25): _attention,
    ("AveragePool", 22): _windows,
    ("DequantizeLinear", 13): _per_axis,
    ("GroupNormalization", 21): _other_groups,
    ("MaxPool", 22): _windows,
    ("Mod", 28): _modulus,
    ("Pad", 19): _only_below("mode", "constant", ("wrap",)),
    ("QuantizeLinear", 13): _per_axis,
    ("Resize", 19): _only_below(
        "coordinate_transformation_mode", "half_pixel", ("half_pixel_symmetric",)
    ),
    ("ScatterElements", 18): _only_below("reduction", "none", ("max", "min")),
    ("ScatterND", 18): _only_below("reduction", "none", ("max", "min")),
}


# Changes that a node follows by being written in another way.


def _axes(name: str, required: bool = False) -> Step:
    """A list of numbers that was an attribute and became the second input."""

    def rewrite(node: onnx.NodeProto, up: bool, context: Context) -> None:
        if up:
            numbers = _attribute(node, name)
            _remove(node, name)
            if numbers is not None and len(numbers):
                del node.input[1:]
                node.input.append(context.new_constant(node, numbers, name))
            return
        given = len(node.input) > 1 and node.input[1]
        # Without axes this asks for nothing to be reduced, which came with the input.
        if _attribute(node, "noop_with_empty_axes", 0):
            raise Hindered("its noop_with_empty_axes came with the change")
        _remove(node, "noop_with_empty_axes")
        numbers = context.constant(node.input[1]) if given else None
        if given and not numbers:
            raise Hindered(f"its {name} must be constant to be an attribute")
        del node.input[1:]
        if numbers:
            _set(node, name, numbers)
        elif required:
            raise Hindered(f"its {name} must be given")

    return rewrite


def _split_count(node: onnx.NodeProto, up: bool, context: Context) -> None:
    sizes = len(node.input) > 1 and node.input[1]
    if up and not sizes:
        # Equal parts; where the size cannot be divided the older opset refuses to run.
        _set(node, "num_outputs", len(node.output))
    elif not up and _attribute(node, "num_outputs") is not None:
        raise Hindered("its num_outputs, which allows a smaller last part, came at 18")


def _along(node: onnx.NodeProto, up: bool, context: Context) -> None:
    """Before 13 all axes from this one on were taken together, and the default was 1."""
    rank = context.rank(node.input[0])
    axis = _attribute(node, "axis", 1 if up else -1)
    last = axis == -1 or (rank is not None and axis == rank - 1)
    if not last:
        raise Hindered("axes before the last mean something else before 13")
    _set(node, "axis", axis)


def _grid(node: onnx.NodeProto, up: bool, context: Context) -> None:
    if not up and context.rank(node.input[0]) != 4:
        raise Hindered("it takes 4 axes alone before 20")
    names = {"bilinear": "linear", "bicubic": "cubic"}
    if not up:
        names = {new: old for old, new in names.items()}
    mode = _attribute(node, "mode")
    if mode is not None:
        _set(node, "mode", names.get(mode, mode))


def _aligned(node: onnx.NodeProto, up: bool, context: Context) -> None:
    """Before 16 there was one way only, which is no longer the default."""
    name = "coordinate_transformation_mode"
    if up:
        _set(node, name, "output_half_pixel")
    elif _attribute(node, name, "half_pixel") != "output_half_pixel":
        raise Hindered(f"its {name} came at 16")
    else:
        _remove(node, name)


def _transform(node: onnx.NodeProto, up: bool, context: Context) -> None:
    """The axis, an attribute with the default 1, became the third input, with the default -2."""
    if up:
        axis = _attribute(node, "axis", 1)
        _remove(node, "axis")
        node.input.extend([""] * (2 - len(node.input)))
        node.input.append(context.new_scalar(node, axis, "axis"))
        return
    numbers = context.constant(node.input[2]) if len(node.input) > 2 else [-2]
    if not numbers:
        raise Hindered("its axis must be constant to be an attribute")
    del node.input[2:]
    _set(node, "axis", numbers[0])


def _normalization(node: onnx.NodeProto, up: bool, context: Context) -> None:
    if len([name for name in node.output if name]) > 1 or _attribute(node, "training_mode", 0):
        raise Hindered("it is in training mode")
    _remove(node, "training_mode")


def _dropout(node: onnx.NodeProto, up: bool, context: Context) -> None:
    """Outside training, which is all that sessions do, the ratio does nothing."""
    if len(node.output) > 1 and node.output[1]:
        raise Hindered("its mask changed at 12")
    if len(node.input) > 2 and node.input[2]:
        raise Hindered("its training_mode came at 12")
    del node.input[1:]
    for name in ("ratio", "seed"):
        _remove(node, name)


_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
)

REWRITES: Mapping[tuple[str, int], Step] = {
    **{(op, 18): _axes("axes") for op in _REDUCTIONS},
    ("BatchNormalization", 14): _normalization,
    ("DFT", 20): _transform,
    ("Dropout", 12): _dropout,
    ("GridSample", 20): _grid,
    ("Hardmax", 13): _along,
    ("LogSoftmax", 13): _along,
    ("ReduceSum", 13): _axes("axes"),
    ("RoiAlign", 16): _aligned,
    ("Softmax", 13): _along,
    ("Split", 13): _axes("split"),
    ("Split", 18): _split_count,
    ("Squeeze", 13): _axes("axes"),
    ("Unsqueeze", 13): _axes("axes", required=True),
}
