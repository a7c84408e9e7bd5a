"""Calls of deform_conv2d for tests, bad calls with their sentences, and a reference in NumPy."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from custom_ops.ops._samples import BadCall, Sample
from custom_ops.ops.deform_conv2d.arguments import pair


def reference(
    input: np.ndarray[Any, Any],
    offset: np.ndarray[Any, Any],
    weight: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    mask: np.ndarray[Any, Any] | None = None,
) -> np.ndarray[Any, Any]:
    """Computes deform_conv2d in float64, tap by tap, straight from its definition."""
    images, channels, height, width = input.shape
    outputs, group_channels, kernel_h, kernel_w = weight.shape
    (stride_h, stride_w), (pad_h, pad_w), (step_h, step_w) = (
        pair("stride", stride),
        pair("padding", padding),
        pair("dilation", dilation),
    )
    out_h, out_w = offset.shape[2:]
    taps, groups = kernel_h * kernel_w, channels // group_channels
    offset_groups = offset.shape[1] // (2 * taps)
    shift = offset.astype(np.float64).reshape(images, offset_groups, taps, 2, out_h, out_w)
    gate = np.ones((images, offset_groups, taps, out_h, out_w))
    if mask is not None and mask.size == 1:
        gate = gate * mask.astype(np.float64).reshape(())
    elif mask is not None:
        gate = mask.astype(np.float64).reshape(gate.shape)
    padded = np.zeros((images, channels, height + 2, width + 2))
    padded[:, :, 1:-1, 1:-1] = input

    columns = np.zeros((images, channels, taps, out_h, out_w))
    for n in range(images):
        for channel in range(channels):
            group = channel // (channels // offset_groups)
            for tap in range(taps):
                rows = np.arange(out_h)[:, None] * stride_h - pad_h + tap // kernel_w * step_h
                cols = np.arange(out_w)[None, :] * stride_w - pad_w + tap % kernel_w * step_w
                y, x = rows + shift[n, group, tap, 0], cols + shift[n, group, tap, 1]
                inside = (y >= -1) & (y < height) & (x >= -1) & (x < width)
                y, x = np.where(inside, y, 0.0), np.where(inside, x, 0.0)
                top, left = np.floor(y).astype(int), np.floor(x).astype(int)
                down, right = y - top, x - left
                plane = padded[n, channel]
                value = (
                    (1 - down) * (1 - right) * plane[top + 1, left + 1]
                    + (1 - down) * right * plane[top + 1, left + 2]
                    + down * (1 - right) * plane[top + 2, left + 1]
                    + down * right * plane[top + 2, left + 2]
                )
                columns[n, channel, tap] = np.where(inside, value * gate[n, group, tap], 0.0)
    columns = columns.reshape(images, groups, group_channels * taps, out_h * out_w)
    kernel = weight.astype(np.float64).reshape(groups, outputs // groups, group_channels * taps)
    products = np.einsum("gok,ngkp->ngop", kernel, columns)
    result: np.ndarray[Any, Any] = products.reshape(images, outputs, out_h, out_w)
    return result if bias is None else result + bias.astype(np.float64).reshape(1, -1, 1, 1)


def make(
    generator: torch.Generator,
    *,
    batch: int = 2,
    channels: int = 4,
    outputs: int = 6,
    size: tuple[int, int] = (7, 5),
    kernel: tuple[int, int] = (3, 3),
    groups: int = 1,
    offset_groups: int = 1,
    spread: float = 1.5,
    bias: bool = True,
    mask: bool = True,
    **attributes: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Makes the arguments of a call, in float64; offsets have the standard deviation `spread`."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    stride, padding, dilation = (
        pair(name, attributes.get(name, default))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    out = [
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    taps = offset_groups * kernel[0] * kernel[1]
    args = (
        draw(batch, channels, *size),
        draw(batch, 2 * taps, *out) * spread,
        draw(outputs, channels // groups, *kernel),
    )
    kwargs = dict(attributes)
    if bias:
        kwargs["bias"] = draw(outputs)
    if mask:
        kwargs["mask"] = draw(batch, taps, *out).sigmoid()
    return args, kwargs


def samples(generator: torch.Generator) -> Iterator[Sample]:
    """Yields calls that cover every way through the op; see `Sample`."""
    cases: dict[str, dict[str, Any]] = {
        "plain": {},
        "padded": {"padding": 1},
        "without_mask": {"padding": 1, "mask": False},
        "without_bias": {"padding": 1, "bias": False},
        "without_both": {"padding": 1, "bias": False, "mask": False},
        "stride_dilation": {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)},
        "groups": {"groups": 2, "padding": 1},
        "offset_groups": {"offset_groups": 2, "padding": 1},
        "depthwise": {"groups": 4, "outputs": 8, "offset_groups": 4, "padding": 1},
        "groups_across": {"groups": 2, "offset_groups": 4, "channels": 8, "padding": 1},
        "one_by_one": {"kernel": (1, 1)},
        "one_pixel": {"size": (1, 1), "kernel": (1, 1), "batch": 1},
        "odd_sizes": {"channels": 3, "outputs": 5, "size": (9, 11), "kernel": (3, 2)},
        "wide": {"size": (5, 40), "padding": 1},  # more pixels than a tile
        "zero_batch": {"batch": 0, "padding": 1},
        "no_outputs": {"outputs": 0, "padding": 1},
        "far_offsets": {"spread": 30.0, "padding": 1},
    }
    for name, options in cases.items():
        yield Sample(name, *make(generator, **options))

    args, kwargs = make(generator, padding=1)
    yield Sample(
        "channels_last", (args[0].contiguous(memory_format=torch.channels_last), *args[1:]), kwargs
    )
    strided = Sample("strided", args, kwargs).map(_strided)
    yield strided
    one = {**kwargs, "bias": kwargs["bias"][:1], "mask": kwargs["mask"][:1, :1, :1, :1]}
    yield Sample("one_element_bias_and_mask", args, one)
    whole = (args[0], torch.zeros_like(args[1]), args[2])
    yield Sample("zero_offsets", whole, kwargs)
    broken = args[1].clone()
    broken[0, 0], broken[0, 3], broken[0, 5], broken[0, 8] = (
        float("nan"),
        float("inf"),
        -float("inf"),
        1e20,
    )
    yield Sample("non_finite_offsets", (args[0], broken, args[2]), kwargs)


def random_sample(source: random.Random) -> Sample:
    """Returns a call with sizes and attributes drawn from `source`; see `Op`."""
    kernel = (source.randint(1, 4), source.randint(1, 4))
    dilation = (source.randint(1, 2), source.randint(1, 2))
    padding = (source.randint(0, 2), source.randint(0, 2))
    least = [dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i] for i in range(2)]
    groups, offset_groups = source.choice([1, 2, 4]), source.choice([1, 2, 4])
    args, kwargs = make(
        torch.Generator().manual_seed(source.randint(0, 2**31)),
        batch=source.randint(0, 3),
        channels=4 * source.randint(1, 3),
        outputs=groups * source.randint(1, 3),
        size=(max(1, least[0]) + source.randint(0, 12), max(1, least[1]) + source.randint(0, 12)),
        kernel=kernel,
        groups=groups,
        offset_groups=offset_groups,
        spread=source.choice([0.0, 1.0, 5.0]),
        bias=source.random() < 0.5,
        mask=source.random() < 0.5,
        stride=(source.randint(1, 3), source.randint(1, 3)),
        padding=padding,
        dilation=dilation,
    )
    return Sample("random", args, kwargs)


def is_smooth_at(sample: Sample) -> bool:
    """Returns whether no sample lies on a whole number or out of sight, where slopes jump."""
    return sample.name not in ("zero_offsets", "non_finite_offsets")


def _strided(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the same values with gaps between them, in another order in memory."""
    if tensor.dim() != 4:
        return torch.stack([tensor, tensor], dim=-1)[..., 0]
    gaps = torch.stack([tensor.transpose(2, 3), tensor.transpose(2, 3)], dim=-1)
    return gaps.contiguous()[..., 0].transpose(2, 3)


def bad_calls(generator: torch.Generator) -> Iterator[BadCall]:
    """Yields one call for each rule of the op; see `BadCall`."""
    (input, offset, weight), kwargs = make(generator, padding=1)
    bias, mask = kwargs["bias"], kwargs["mask"]

    def bad(
        name: str, sentence: str, *changed: Any, kind: str = "shape", **options: Any
    ) -> BadCall:
        args = (*changed, *(input, offset, weight)[len(changed) :])
        args = tuple(
            options.pop(key, arg)
            for key, arg in zip(("input", "offset", "weight"), args, strict=True)
        )
        return BadCall(
            Sample(name, args, {**kwargs, **options}), f"deform_conv2d: {sentence}", kind
        )

    yield bad("rank_of_input", r"input must have 4 dimensions .*, got \[4, 7, 5\]", input[0])
    yield bad(
        "rank_of_weight", r"weight must have 4 dimensions .*, got \[4, 3, 3\]", weight=weight[0]
    )
    yield bad(
        "rank_of_offset", r"offset must have 4 dimensions .*, got \[18, 7, 5\]", offset=offset[0]
    )
    yield bad("stride", r"stride must have 2 values of at least 1, got \[0, 1\]", stride=(0, 1))
    yield bad("padding", r"padding must have 2 or 4 values of at least 0, got \[-1, ", padding=-1)
    yield bad(
        "dilation", r"dilation must have 2 values of at least 1, got \[1, 0\]", dilation=(1, 0)
    )
    yield bad(
        "empty_kernel", r"weight must have a kernel of at least 1 x 1 .*", weight=weight[:, :, :0]
    )
    yield bad(
        "input_channels",
        r"weight must have input channels that divide the 4 of input, got \[6, 3, 3, 3\]",
        weight=weight[:, :3],
    )
    yield bad(
        "output_channels",
        r"weight must have output channels that the 2 groups divide, got \[5, 2, 3, 3\]",
        weight=weight[:5, :2],
    )
    yield bad(
        "offset_channels",
        r"offset must have channels that are a multiple of .* = 18, got \[2, 17, 7, 5\]",
        offset=offset[:, :17],
    )
    many = offset.repeat(1, 3, 1, 1)
    yield bad(
        "offset_groups",
        r"offset must have offset groups that divide the 4 channels of input",
        offset=many,
    )
    yield bad(
        "too_small",
        r"input must, with its padding, be at least as large as the dilated kernel",
        padding=0,
        dilation=4,
    )
    yield bad(
        "offset_shape",
        r"offset must have shape \[2, 18, 7, 5\], got \[2, 18, 6, 5\]",
        offset=offset[:, :, :6],
    )
    yield bad(
        "offset_batch",
        r"offset must have shape \[2, 18, 7, 5\], got \[1, 18, 7, 5\]",
        offset=offset[:1],
    )
    yield bad("bias_shape", r"bias must have shape \[6\], got \[5\]", bias=bias[:5])
    yield bad("bias_rank", r"bias must have shape \[6\], got \[6, 1\]", bias=bias[:, None])
    yield bad(
        "mask_shape", r"mask must have shape \[2, 9, 7, 5\], got \[2, 8, 7, 5\]", mask=mask[:, :8]
    )
    yield bad(
        "dtype_of_input",
        r"input must be float32, float64, float16 or bfloat16, got int64",
        input.long(),
        kind="dtype",
    )
    yield bad(
        "dtype_of_weight",
        r"weight must have the dtype of input \(float64\), got float32",
        weight=weight.float(),
        kind="dtype",
    )
    yield bad(
        "dtype_of_mask",
        r"mask must have the dtype of input \(float64\), got float32",
        mask=mask.float(),
        kind="dtype",
    )
    yield bad("missing_offset", r"offset must be given, got None", offset=None, kind="dtype")
