"""From the arguments of deform_conv2d, and of torchvision's op, to those of its C++ op."""

from collections.abc import Sequence
from typing import Any


def pair(name: str, value: int | Sequence[int]) -> list[int]:
    """Returns a vertical and a horizontal value: one int serves both."""
    values = [value, value] if isinstance(value, int) else value
    try:
        result = [int(v) for v in values]
    except (TypeError, ValueError):
        result = None
    if result is None or any(r != v for r, v in zip(result, values, strict=True)):
        raise TypeError(f"deform_conv2d: {name} must be an int or a pair of ints, got {value!r}")
    return result


def arguments(
    input: Any,
    offset: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    mask: Any = None,
) -> tuple[Any, ...]:
    """Returns the tensors and the attributes of the C++ op, in its order."""
    pads = pair("padding", padding)
    return (
        input,
        weight,
        offset,
        bias,
        mask,
        pair("stride", stride),
        pads + pads if len(pads) == 2 else pads,
        pair("dilation", dilation),
        0,  # groups and offset groups: taken from the shapes
        0,
    )


def from_torchvision(
    input: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: Any,
    stride_w: Any,
    pad_h: Any,
    pad_w: Any,
    dilation_h: Any,
    dilation_w: Any,
    groups: Any,
    offset_groups: Any,
    use_mask: Any,
) -> tuple[Any, ...]:
    """Maps the arguments of ``torch.ops.torchvision.deform_conv2d`` to those of the C++ op."""
    return (
        input,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        [stride_h, stride_w],
        [pad_h, pad_w, pad_h, pad_w],
        [dilation_h, dilation_w],
        groups,
        offset_groups,
    )
