"""The nodes of other producers that are deformable convolutions, and what our op refuses of them.

MMCV writes its nodes in the domain mmcv, MMDeploy in mmdeploy: v1 without a mask, v2 with one
behind the offsets. Both call the stride of the standard op `stride`, its padding, a pair for the
height and the width, `padding`, and so on.
"""

from typing import Any

from custom_ops.ops._registry import ForeignNode

_STANDARD = ("input", "weight", "offset", "bias", "mask")
_RANKS = (4, 4, 4, 1, 4)
_V1 = ("input", "offset", "weight", "bias")
_V2 = ("input", "offset", "mask", "weight", "bias")

# What does not change the result: the images that MMCV takes at once, and a flag that says what
# the inputs say.
_WITHOUT_MEANING = ("im2col_step", "bias")


def _from_standard(given: dict[str, Any]) -> dict[str, Any] | str:
    """Maps the attributes of DeformConv: those of our node, but for what is left out."""
    known = ("strides", "pads", "dilations", "group", "offset_group", "kernel_shape")
    unknown = [name for name in given if name not in known]
    if unknown:
        return f"it must have no attribute {unknown[0]!r}"
    defaults = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}
    values = {**defaults, "group": 1, "offset_group": 1, **given}
    for name, default in defaults.items():
        if len(values[name]) != len(default):
            return f"{name} must have {len(default)} values, got {list(values[name])}"
    values.pop("kernel_shape", None)  # the weight says it
    return _wrong_count(values, "group", "offset_group") or values


def _from_mmcv(given: dict[str, Any]) -> dict[str, Any] | str:
    """Maps the attributes of MMCV's nodes, which are ints or pairs."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "deform_groups": 1}
    unknown = [name for name in given if name not in (*defaults, *_WITHOUT_MEANING)]
    if unknown:
        return f"it must have no attribute {unknown[0]!r}"
    values = {**defaults, **given}
    pairs = {}
    for name in ("stride", "padding", "dilation"):
        value = values[name]
        numbers = [value] if isinstance(value, int) else list(value)
        # MMDeploy writes the padding of v1 as four numbers, which its own kernels take for two:
        # where they differ it is not certain what is meant.
        if len(numbers) not in ((1, 2, 4) if name == "padding" else (1, 2)) or (
            len(numbers) == 4 and len(set(numbers)) > 1
        ):
            return f"{name} must be one number or a pair, got {numbers}"
        pairs[name] = numbers * 2 if len(numbers) == 1 else numbers[:2]
    return _wrong_count(values, "groups", "deform_groups") or {
        "strides": pairs["stride"],
        "pads": pairs["padding"] * 2,
        "dilations": pairs["dilation"],
        "group": values["groups"],
        "offset_group": values["deform_groups"],
    }


def _wrong_count(values: dict[str, Any], *names: str) -> str | None:
    """Says which attribute is no count; our own 0, "from the shapes", others do not have."""
    for name in names:
        if not isinstance(values[name], int) or values[name] < 1:
            return f"{name} must be one number of at least 1, got {values[name]}"
    return None


NODES = (
    ForeignNode("", "DeformConv", _STANDARD, _from_standard),
    *(
        ForeignNode(domain, name, inputs, _from_mmcv)
        for domain in ("mmcv", "mmdeploy")
        for name, inputs in (("MMCVDeformConv2d", _V1), ("MMCVModulatedDeformConv2d", _V2))
    ),
)


def why_not(attributes: dict[str, Any], shapes: list[list[int | None] | None]) -> str | None:
    """Says why the op would refuse a node; see `OnnxOp`. A size that is not known is in order."""
    for name, rank, shape in zip(_STANDARD, _RANKS, shapes, strict=True):
        if shape is not None and len(shape) != rank:
            return f"{name} must have {rank} dimensions, got {len(shape)}"
    for name, least in (("strides", 1), ("dilations", 1), ("pads", 0)):
        numbers = list(attributes.get(name, ()))
        if any(number < least for number in numbers):
            return f"{name} must be at least {least}, got {numbers}"
    known = [shape or [None] * rank for rank, shape in zip(_RANKS, shapes, strict=True)]
    return _channels(attributes.get("group", 0), attributes.get("offset_group", 0), *known)


def _channels(
    groups: int,
    offset_groups: int,
    input: list[int | None],
    weight: list[int | None],
    offset: list[int | None],
    bias: list[int | None],
    mask: list[int | None],
) -> str | None:
    """Checks what the groups say of the channels; an attribute of 0 says nothing."""
    channels, (outputs, group_channels, *kernel) = input[1], weight
    taps = kernel[0] * kernel[1] if kernel[0] and kernel[1] else None
    if groups and channels and group_channels and channels != groups * group_channels:
        return (
            f"the weight must have the {channels} channels of the input divided by group "
            f"({groups}), got {group_channels}"
        )
    if groups and outputs and outputs % groups:
        return f"the {outputs} output channels must be divisible by group ({groups})"
    if offset_groups and channels and channels % offset_groups:
        return f"the {channels} channels must be divisible by offset_group ({offset_groups})"
    for name, given, each, alone in (("offset", offset, 2, False), ("mask", mask, 1, True)):
        wanted = each * offset_groups * taps if taps and offset_groups else None
        if wanted and given[1] not in (None, wanted) and not (alone and given[1] == 1):
            return f"the {name} must have {wanted} channels by offset_group, got {given[1]}"
    if outputs and bias[0] not in (None, 1, outputs):
        return f"the bias must have {outputs} values, got {bias[0]}"
    return None
