"""deform_conv2d: deformable convolution, v1 and v2. This file registers what the others define."""

from typing import Any

from custom_ops.ops._body import Body
from custom_ops.ops._registry import Native, OnnxOp, Op, register
from custom_ops.ops._wiring import TorchOp, register_torch
from custom_ops.ops.deform_conv2d.acceleration import accelerate_torchvision
from custom_ops.ops.deform_conv2d.arguments import arguments, from_torchvision
from custom_ops.ops.deform_conv2d.benchmarks import BENCHMARKS, bound, composition, peers
from custom_ops.ops.deform_conv2d.body import body
from custom_ops.ops.deform_conv2d.conversion import convert
from custom_ops.ops.deform_conv2d.function import (
    DeformConv2dBackwardFunction,
    DeformConv2dFunction,
    backward_batch,
    batch,
    deform_conv2d,
)
from custom_ops.ops.deform_conv2d.module import DeformConv2d
from custom_ops.ops.deform_conv2d.nodes import NODES, why_not
from custom_ops.ops.deform_conv2d.samples import (
    bad_calls,
    is_smooth_at,
    random_sample,
    reference,
    samples,
)

__all__ = ["OP", "DeformConv2d", "accelerate_torchvision", "convert", "deform_conv2d"]


def _native_attributes(shapes: list[list[int | None] | None]) -> dict[str, Any] | str:
    """Gives the groups, which DeformConv does not take from the shapes; see `Native`."""
    input, weight, offset, bias, mask = shapes
    known = [shape[axis] if shape else None for shape, axis in ((input, 1), (offset, 1))]
    sizes = [*known, *(weight or [None])]
    if any(size is None for size in sizes):
        return "the model does not tell the numbers of channels that the groups follow from"
    channels, offsets, outputs, group_channels, kernel_h, kernel_w = (int(s or 0) for s in sizes)
    if outputs == 0:
        return "the weight has no output channels, and the runtime refuses that"
    if bias == [1] and outputs != 1:
        return "its bias is one value for all channels"
    if mask == [1, 1, 1, 1] and offsets != 2:
        return "its mask is one value for all places"
    return {
        "group": channels // group_channels,
        "offset_group": offsets // (2 * kernel_h * kernel_w),
    }


register_torch(TorchOp("_deform_conv2d_backward", DeformConv2dBackwardFunction, backward_batch))
OP = register(
    Op(
        torch=TorchOp("deform_conv2d", DeformConv2dFunction, batch, autocast="lower"),
        onnx=OnnxOp(
            Body(body, min_opset=16, float64_min_opset=20),
            native=Native("DeformConv", _native_attributes),
            foreign={"torchvision::deform_conv2d": from_torchvision},
            nodes=NODES,
            why_not=why_not,
        ),
        public=deform_conv2d,
        arguments=arguments,
        reference=reference,
        samples=samples,
        random_sample=random_sample,
        is_smooth_at=is_smooth_at,
        bad_calls=bad_calls,
        benchmarks=BENCHMARKS,
        bound=bound,
        peers=peers,
        composition=composition,
        constants=("weight", "bias"),
    )
)
