"""deform_conv2d as a torch function: the call, its gradient, its batching rules."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from custom_ops.ops._batching import align
from custom_ops.ops._function import OpFunction, no_gradient
from custom_ops.ops._wiring import call
from custom_ops.ops.deform_conv2d.arguments import arguments

Dims: TypeAlias = tuple[int | None, ...]
Ints: TypeAlias = Sequence[int]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution, v1 and (with `mask`) v2.

    Each tap of the kernel samples the input at its usual place moved by an offset of its own,
    bilinearly, and multiplies by its mask: equation 1 of "Deformable ConvNets v2"
    (https://arxiv.org/abs/1811.11168). The arguments and their meaning are those of
    `torchvision.ops.deform_conv2d`. A sample at a NaN, infinite or far-away position counts 0
    and has zero gradients. The number of groups and of offset groups follows from the shapes.

    Args:
        input: ``[N, C, H, W]``, any strides; float32, float64, float16 or bfloat16.
        offset: ``[N, 2 * offset_groups * kernel_h * kernel_w, H', W']``, in pixels: for each
            offset group and tap first the vertical, then the horizontal offset.
        weight: ``[O, C / groups, kernel_h, kernel_w]``.
        bias: ``[O]``, or ``[1]`` for one value everywhere.
        stride: Pixels between the output's samples, vertical and horizontal.
        padding: Zeros around the input, vertical and horizontal.
        dilation: Pixels between the kernel's taps, vertical and horizontal.
        mask: ``[N, offset_groups * kernel_h * kernel_w, H', W']``, or ``[1, 1, 1, 1]`` for one
            value everywhere; 1 if left out.

    Returns:
        ``[N, O, H', W']``, contiguous, of the dtype of `input`. Half types are computed in
        float32 and rounded once.

    Raises:
        ValueError: A shape, a dtype or an attribute breaks a rule.
        NotImplementedError: Second derivatives or forward-mode derivatives are asked for.

    Example:
        >>> import torch, custom_ops
        >>> input, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
        >>> offset = torch.zeros(1, 18, 2, 2)
        >>> custom_ops.deform_conv2d(input, offset, weight)
        tensor([[[[9., 9.],
                  [9., 9.]]]])
    """
    result: Tensor = call(
        "deform_conv2d",
        arguments(input, offset, weight, bias, stride, padding, dilation, mask),
    )
    return result


class DeformConv2dFunction(OpFunction):
    """Gradient of deform_conv2d: one call of the private op, told which parts are needed."""

    op_name = "deform_conv2d"

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps the tensors and the attributes."""
        ctx.save_for_backward(*inputs[:5])
        ctx.attributes = inputs[5:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients that are needed."""
        needs = ctx.needs_input_grad[:5]
        flags = [int(needed) for needed in needs]
        args = (grad, *ctx.saved_tensors, *ctx.attributes, flags)
        grads = call("_deform_conv2d_backward", args)
        needed = (g if n else None for g, n in zip(grads, needs, strict=True))
        return *needed, *(None for _ in ctx.attributes)


DeformConv2dBackwardFunction = no_gradient(
    "_deform_conv2d_backward",
    "deform_conv2d: second derivatives are not implemented; differentiate it once (without "
    "create_graph=True or nested torch.func transforms)",
)


def batch(size: int, dims: Dims, *args: Any) -> tuple[Tensor, int]:
    """Runs the op once: the batch is part of N or, where weight or bias has it, of groups."""
    op = torch.ops.custom_ops.deform_conv2d.default
    tensors = _batch_first(size, dims, args[:5])
    if dims[1] is not None or dims[3] is not None:
        output = op(*_fold_into_groups(size, *tensors, *args[5:]))
        return output.unflatten(1, (size, tensors[1].shape[1])), 1
    input, _, offset, _, mask = tensors
    if mask is not None:
        mask = _whole_mask(mask, offset).flatten(0, 1)
    output = op(input.flatten(0, 1), args[1], offset.flatten(0, 1), args[3], mask, *args[5:])
    return output.unflatten(0, (size, input.shape[1])), 0


def backward_batch(size: int, dims: Dims, *args: Any) -> tuple[Any, Any]:
    """Runs the op once, the batch part of groups, and splits each gradient."""
    op = torch.ops.custom_ops._deform_conv2d_backward.default
    needs = args[-1]
    grad, *tensors = _batch_first(size, dims, args[:6])
    folded = _fold_into_groups(size, *tensors, *args[6:-1])
    grads = op(grad.transpose(0, 1).flatten(1, 2), *folded, needs)

    def split(grad: Tensor, tensor: Tensor, at: int) -> Tensor:
        grad = grad.unflatten(at, (size, -1)).movedim(at, 0)
        return grad.sum_to_size(tensor.shape)  # where one element was expanded

    return (
        tuple(
            split(g, t, at) if needed else g
            for g, t, at, needed in zip(grads, tensors, _GROUPED_AT, needs, strict=True)
        ),
        tuple(0 if needed else None for needed in needs),
    )


# The dimension of input, weight, offset, bias and mask that runs over the groups.
_GROUPED_AT = (1, 0, 1, 0, 1)


def _batch_first(size: int, dims: Dims, tensors: Sequence[Tensor | None]) -> list[Any]:
    return [t if t is None else align(t, d, 0, size) for t, d in zip(tensors, dims, strict=False)]


def _fold_into_groups(
    size: int,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    offset_groups: int,
) -> tuple[Any, ...]:
    """Returns the arguments of one call that treats each sample as groups of its own."""
    if bias is not None and bias.shape[1:] == (1,):
        bias = bias.expand(-1, weight.shape[1])
    if mask is not None:
        mask = _whole_mask(mask, offset)
    folded = (
        t if t is None else t.movedim(0, at).flatten(at, at + 1)
        for t, at in zip((input, weight, offset, bias, mask), _GROUPED_AT, strict=True)
    )
    # 0 stays 0: taken from the shapes.
    return *folded, stride, padding, dilation, groups * size, offset_groups * size


def _whole_mask(mask: Tensor, offset: Tensor) -> Tensor:
    """Returns a one-element mask in full; both tensors have the batch dimension first."""
    if mask.shape[1:] != (1, 1, 1, 1):
        return mask
    samples, channels, *size = offset.shape[1:]
    return mask.expand(-1, samples, channels // 2, *size)
