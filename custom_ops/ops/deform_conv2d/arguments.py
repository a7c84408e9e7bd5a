"""From the public arguments of deform_conv2d to those of its C++ op."""

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
