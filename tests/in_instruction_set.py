"""Computes calls with the instruction set in use: python in_instruction_set.py FILE."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from custom_ops import _library
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._samples import Sample
from custom_ops.ops.deform_conv2d.arguments import pair
from custom_ops.ops.deform_conv2d.samples import make

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
THREADS = (1, 2, 3, 7)

# Calls of deform_conv2d that end inside of vectors, blocks, chunks and tiles; see `make`.
AWKWARD: dict[str, dict[str, Any]] = {
    "many_chunks": {"channels": 320, "outputs": 24, "size": (9, 8)},
    "many_outputs": {"channels": 40, "outputs": 300, "size": (6, 6), "batch": 1},
    "odd_channels": {"channels": 67, "outputs": 20, "size": (17, 23)},
    "three_channels": {"channels": 3, "outputs": 20, "size": (33, 31), "stride": 2},
    "few_outputs": {"channels": 20, "outputs": 3, "size": (40, 37), "batch": 1},
    "two_groups": {"channels": 96, "outputs": 48, "size": (15, 13), "kernel": (5, 5), "groups": 2},
    "four_groups": {
        "channels": 48,
        "outputs": 96,
        "size": (14, 14),
        "groups": 4,
        "offset_groups": 8,
    },
    "groups_of_three": {"channels": 12, "outputs": 20, "size": (13, 9), "groups": 4},
    "depthwise": {"channels": 40, "outputs": 40, "size": (19, 18), "groups": 40},
    "odd_depthwise": {"channels": 67, "outputs": 67, "size": (12, 12), "groups": 67},
    "multiplier": {"channels": 40, "outputs": 80, "size": (19, 19), "groups": 40},
    "grouped_depthwise": {
        "channels": 72,
        "outputs": 72,
        "size": (12, 12),
        "kernel": (5, 5),
        "groups": 72,
        "offset_groups": 8,
    },
    "two_offset_groups": {
        "channels": 64,
        "outputs": 32,
        "size": (20, 20),
        "kernel": (7, 7),
        "offset_groups": 2,
        "batch": 1,
    },
    "offset_group_each": {"channels": 32, "outputs": 16, "size": (21, 19), "offset_groups": 32},
    "one_by_one": {"channels": 256, "outputs": 96, "size": (9, 9), "kernel": (1, 1)},
    "two_by_two": {"channels": 40, "outputs": 17, "size": (10, 16), "kernel": (2, 2)},
    "eleven": {"channels": 8, "outputs": 8, "size": (10, 12), "kernel": (11, 11)},
    "one_row": {"channels": 5, "outputs": 33, "size": (1, 230), "kernel": (1, 9)},
    "dilation": {"channels": 20, "outputs": 40, "size": (30, 31), "dilation": 2},
    "stride_dilation": {
        "channels": 35,
        "outputs": 9,
        "size": (30, 22),
        "stride": (2, 1),
        "dilation": (1, 2),
    },
    "batch": {
        "channels": 64,
        "outputs": 64,
        "size": (7, 7),
        "batch": 8,
        "mask": False,
        "bias": False,
    },
    "three_pixels": {"channels": 128, "outputs": 32, "size": (3, 3), "batch": 8},
    "large": {"channels": 64, "outputs": 16, "size": (150, 150), "batch": 1},
    "large_plane": {"channels": 1, "outputs": 1, "size": (149, 150), "batch": 1},
    "no_mask": {"channels": 36, "outputs": 18, "size": (14, 15), "mask": False},
    "no_bias": {"channels": 36, "outputs": 18, "size": (14, 15), "bias": False},
    "no_offsets": {"channels": 64, "outputs": 64, "size": (16, 16), "spread": 0.0, "batch": 1},
    "far_offsets": {"channels": 64, "outputs": 64, "size": (5, 6), "spread": 10.0},
    "channels_last": {"channels": 128, "outputs": 48, "size": (14, 13)},
    "strided": {"channels": 36, "outputs": 20, "size": (13, 18)},
    "strided_depthwise": {"channels": 36, "outputs": 36, "size": (13, 18), "groups": 36},
    "expanded": {"channels": 36, "outputs": 20, "size": (13, 18)},
    "one_element_mask_and_bias": {"channels": 40, "outputs": 24, "size": (16, 15)},
    "lost_offsets": {"channels": 67, "outputs": 24, "size": (20, 20)},
    "infinite_pixels": {"channels": 67, "outputs": 24, "size": (11, 12), "batch": 1},
    "infinite_depthwise_pixels": {"channels": 45, "outputs": 45, "size": (11, 12), "groups": 45},
}


def awkward(name: str) -> Sample:
    """Returns one of the calls, in float64, with padding that keeps the size where it can."""
    given = dict(AWKWARD[name])
    kernel, dilation = given.get("kernel", (3, 3)), pair("dilation", given.get("dilation", 1))
    padding = tuple(dilation[i] * (kernel[i] - 1) // 2 for i in range(2))
    generator = torch.Generator().manual_seed(sorted(AWKWARD).index(name))
    options = {"spread": 2.0, "padding": padding, **given}
    (input, offset, weight), kwargs = make(generator, **options)
    sample = Sample(name, (input, offset, weight), kwargs)
    if name == "channels_last":
        last = input.contiguous(memory_format=torch.channels_last)
        sample = Sample(name, (last, offset, weight), kwargs)
    elif name.startswith("strided"):
        sample = sample.map(strided)
    elif (
        name == "expanded"
    ):  # one image for all, one offset for all pixels, one weight for all taps
        args = (
            input[:1].expand_as(input),
            offset[..., :1].expand_as(offset),
            weight[..., :1].expand_as(weight),
        )
        mask = kwargs["mask"]
        sample = Sample(name, args, {**kwargs, "mask": mask[:, :, :1].expand_as(mask)})
    elif name == "one_element_mask_and_bias":
        one = {"bias": kwargs["bias"][:1], "mask": kwargs["mask"][:1, :1, :1, :1]}
        sample = Sample(name, (input, offset, weight), {**kwargs, **one})
    elif name == "lost_offsets":
        for i, lost in enumerate([float("nan"), float("inf"), -float("inf"), 1e20, -3e38]):
            offset[:, i::18, i::5, ::3] = lost
            offset[:, 9 + i :: 18, ::4, i::6] = lost
    elif name.startswith("infinite"):
        input[:, ::7, 3, 4], input[:, ::5, 7, 8] = float("inf"), -float("inf")
        input[:, -1, 0, 0], input[:, 0, -1, -1] = float("inf"), float("nan")
    return sample


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """Returns the same values with gaps between them, in another order in memory."""
    order = list(reversed(range(tensor.dim())))
    turned = tensor.permute(order)
    return torch.stack([turned, turned], dim=-1).contiguous()[..., 0].permute(order)


def to_dtype(sample: Sample, dtype: torch.dtype) -> Sample:
    """Returns the call with its floating tensors in another dtype; layouts stay."""

    def changed(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        if 0 in tensor.stride():  # an expanded one becomes a full one else
            shape = tuple(slice(None) if stride else slice(1) for stride in tensor.stride())
            return tensor[shape].to(dtype).expand_as(tensor)
        return tensor.to(dtype)

    return sample.map(changed)


def computed(function: Any, sample: Sample) -> list[torch.Tensor]:
    """Returns the outputs of a call, and the gradients of its floating tensors."""
    leaves: list[torch.Tensor] = []

    def leaf(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            leaves.append(tensor.detach().requires_grad_())
            return leaves[-1]
        return tensor

    changed = sample.map(leaf)
    results = function(*changed.args, **changed.kwargs)
    outputs = list(results) if isinstance(results, (list, tuple)) else [results]
    generator = torch.Generator().manual_seed(0)
    slopes = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    if sample.name.startswith("strided"):
        slopes = [strided(slope) for slope in slopes]
    gradients = torch.autograd.grad(outputs, leaves, slopes)
    return [*(output.detach() for output in outputs), *gradients]


def calls() -> Iterator[tuple[str, Op, Sample]]:
    """Yields every call of every op, in float64, with its name."""
    for op in ops().values():
        for sample in op.samples(torch.Generator().manual_seed(0)):
            yield f"{op.name}-{sample.name}", op, sample
    for name in AWKWARD:
        yield f"awkward-{name}", ops()["deform_conv2d"], awkward(name)


def bits(tensors: list[torch.Tensor]) -> list[bytes]:
    """Returns the tensors as bytes, by which NaN equals itself."""
    return [t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors]


def main(path: str) -> None:
    """Writes the results of every call, and the calls whose bits depend on the threads."""
    results: dict[str, np.ndarray[Any, Any]] = {}
    unequal = []
    for name, op, sample in calls():
        for dtype_name, dtype in DTYPES.items():
            torch.set_num_threads(2)
            changed = to_dtype(sample, dtype)
            tensors = computed(op.public, changed)
            for i, tensor in enumerate(tensors):
                wide = tensor if tensor.dtype == torch.float64 else tensor.float()
                results[f"{name}/{dtype_name}/{i}"] = wide.numpy()
            if not name.startswith("awkward") or dtype_name not in ("float32", "float16"):
                continue
            for threads in THREADS:
                torch.set_num_threads(threads)
                if bits(computed(op.public, changed)) != bits(tensors):
                    unequal.append(f"{name} with {threads} threads")
    in_use = np.array(_library.core().instruction_set())
    np.savez(path, in_use=in_use, unequal=np.array(unequal, dtype=str), **results)


if __name__ == "__main__":
    main(sys.argv[1])
