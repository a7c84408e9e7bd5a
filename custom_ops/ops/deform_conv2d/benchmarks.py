"""Calls of deform_conv2d to time, the bound of their time, and what a user would pick instead."""

from typing import Any

import torch
from torch import Tensor

from custom_ops.ops._samples import Benchmark, Bound, Sample
from custom_ops.ops.deform_conv2d.arguments import pair
from custom_ops.ops.deform_conv2d.samples import make


def _case(
    name: str,
    *,
    tag: str = "",
    dense: bool = True,
    quick: bool = False,
    channels_last: bool = False,
    **options: Any,
) -> Benchmark:
    """Makes a case of one image with mask, bias and offsets of 2 pixels, that keeps its size.

    Args:
        name: The kernel, the channels, the outputs where they differ, and the size of the image:
            "3x3-64@56", "7x7-64to256@64".
        tag: What else is special, for the name.
        dense: See `Benchmark`.
        quick: See `Benchmark`.
        channels_last: Whether the input lies in memory so.
        options: Those of `make` that differ.
    """
    kernel_text, _, rest = name.partition("-")
    channels_text, _, size_text = rest.partition("@")
    channels, _, outputs = channels_text.partition("to")
    kernel, size = int(kernel_text.partition("x")[0]), int(size_text)
    defaults = {
        "batch": 1,
        "channels": int(channels),
        "outputs": int(outputs or channels),
        "size": (size, size),
        "kernel": (kernel, kernel),
        "spread": 2.0,
        "padding": options.get("dilation", 1) * (kernel // 2),
    }
    full = f"{name}-{tag}" if tag else name

    def draw(generator: torch.Generator) -> Sample:
        (input, *others), kwargs = make(generator, **{**defaults, **options})
        if channels_last:
            input = input.contiguous(memory_format=torch.channels_last)
        return Sample(full, (input, *others), kwargs)

    return Benchmark(full, draw, dense, quick)


def _other(name: str, tag: str = "", **options: Any) -> Benchmark:
    return _case(name, tag=tag, dense=False, **options)


BENCHMARKS = (
    # The 3 x 3 convolutions of networks like ResNet.
    _case("3x3-64@112"),
    _case("3x3-64@56"),
    _case("3x3-128@56"),
    _case("3x3-128@28"),
    _case("3x3-256@64"),
    _case("3x3-256@32"),
    _case("3x3-256@28"),
    _case("3x3-256@14", quick=True),
    _case("3x3-512@28"),
    _case("3x3-512@14"),
    _case("3x3-512@7"),
    # Where segmentation networks spend their time.
    _case("1x1-64@128"),
    _case("1x1-64to256@64"),
    _case("1x1-128@64"),
    _case("1x1-256@64"),
    _case("1x1-256@32"),
    _case("1x1-256@16", quick=True),
    _case("3x3-64@128"),
    _case("3x3-128@64"),
    _case("3x3-256@16"),
    _case("7x7-64@128"),
    _case("7x7-64to256@64"),
    _case("7x7-128@32"),
    _case("7x7-256@16"),
    _case("1x1-256@32", tag="og8", offset_groups=8),
    _case("3x3-128@64", tag="og8", offset_groups=8),
    _case("3x3-256@32", tag="og4", offset_groups=4),
    _case("7x7-64@64", tag="og2", offset_groups=2),
    # The rest of what the op takes.
    _other("5x5-64@56"),
    _other("5x5-256@16"),
    _other("3x3-64@56", "stride2", stride=2),
    _other("3x3-256@28", "stride2", stride=2),
    _other("3x3-64@56", "dilation2", dilation=2),
    _other("3x3-256@32", "dilation2", dilation=2),
    _other("3x3-64to256@56"),
    _other("3x3-256to64@32"),
    _other("3x3-256to27@32"),
    _other("3x3-3to64@112"),
    _other("7x7-3to64@224", "stride2", stride=2),
    _other("3x3-20@56"),
    _other("3x3-67@56"),
    _other("3x3-128@28", "groups2", groups=2),
    _other("3x3-256@28", "groups4", groups=4),
    _other("3x3-64@56", "depthwise", groups=64),
    _other("3x3-256@28", "depthwise", groups=256),
    _other("3x3-64@56", "og2", offset_groups=2),
    _other("3x3-64@56", "og8", offset_groups=8),
    _other("3x3-64@56", "og64", offset_groups=64),
    _other("3x3-64@56", "batch8", batch=8),
    _other("3x3-256@14", "batch8", batch=8),
    _other("3x3-64@28", "batch32", batch=32),
    _other("3x3-256@14", "batch32", batch=32),
    _other("3x3-64@5", quick=True),
    _other("3x3-256@5"),
    _other("3x3-16@512"),
    _other("3x3-64@512"),
    _other("3x3-64@56", "nomask", mask=False),
    _other("3x3-64@56", "nobias", bias=False),
    _other("3x3-256@32", "nomask-nobias", mask=False, bias=False),
    _other("3x3-64@56", "offsets0", spread=0.0),
    _other("3x3-64@56", "offsets10", spread=10.0),
    _other("3x3-256@32", "offsets0", spread=0.0),
    _other("3x3-256@32", "offsets10", spread=10.0),
    _other("3x3-64@56", "channelslast", channels_last=True),
    _other("3x3-256@32", "channelslast", channels_last=True),
    _other("3x3-64@56", "batch8-channelslast", batch=8, channels_last=True),
)


def peers() -> dict[str, Any]:
    """Returns torchvision's function, where it is installed; see `Op`."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return {}
    return {"torchvision": deform_conv2d}


def composition(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Computes deform_conv2d by `grid_sample`, all taps at once, and `matmul`; see `Op`."""
    images, channels, height, width = input.shape
    outputs, group_channels, kernel_h, kernel_w = weight.shape
    taps, (out_h, out_w) = kernel_h * kernel_w, offset.shape[2:]
    offset_groups, groups = offset.shape[1] // (2 * taps), channels // group_channels

    def start(axis: int, outs: int, kernel: int) -> Tensor:
        """Returns where the taps stand without offsets, [kernel, outs]."""
        step, pad, reach = (pair("", each)[axis] for each in (stride, padding, dilation))
        at = torch.arange(outs) * step - pad + torch.arange(kernel)[:, None] * reach
        return at.to(offset.dtype)

    start_y = start(0, out_h, kernel_h)[:, None, :, None]
    start_x = start(1, out_w, kernel_w)[None, :, None, :]
    shift = offset.reshape(images * offset_groups, kernel_h, kernel_w, 2, out_h, out_w)
    grid = torch.stack(
        [
            (2 * (shift[:, :, :, 1] + start_x) + 1) / width - 1,
            (2 * (shift[:, :, :, 0] + start_y) + 1) / height - 1,
        ],
        dim=-1,
    )
    columns = torch.nn.functional.grid_sample(
        input.reshape(images * offset_groups, channels // offset_groups, height, width),
        grid.reshape(images * offset_groups, taps * out_h, out_w, 2),
        align_corners=False,
    )
    if mask is not None:
        columns = columns * mask.reshape(images * offset_groups, 1, taps * out_h, out_w)
    depth, pixels = group_channels * taps, out_h * out_w
    columns = columns.reshape(images, groups, depth, pixels)
    result = torch.matmul(weight.reshape(groups, outputs // groups, depth), columns)
    result = result.reshape(images, outputs, out_h, out_w)
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def bound(input: Tensor, offset: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Bound:
    """Returns the matrix product behind the convolution, the columns given; see `Op`."""
    outputs, group_channels, kernel_h, kernel_w = weight.shape
    groups, depth = input.shape[1] // group_channels, group_channels * kernel_h * kernel_w
    pixels = input.shape[0] * offset.shape[2] * offset.shape[3]
    left = torch.rand(groups, outputs // groups, depth, dtype=input.dtype)
    right = torch.rand(groups, depth, pixels, dtype=input.dtype)
    given = [t for t in (input, offset, weight, *args, *kwargs.values()) if isinstance(t, Tensor)]
    moved = (sum(t.numel() for t in given) + outputs * pixels) * input.element_size()
    flops = 2 * outputs * depth * pixels
    if groups == 1:
        left, right = left[0], right[0]
        return Bound("torch.mm", lambda: torch.mm(left, right), flops, moved)
    return Bound("torch.bmm", lambda: torch.bmm(left, right), flops, moved)
