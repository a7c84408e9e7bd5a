"""masked_moments: mean and spread over the steps of sequences of different lengths.

An op that lives outside the library: test_build.py builds it in through CUSTOM_OPS_EXTRA. It has
what mul_add and deform_conv2d have not: two outputs, an integer input, and attributes of every
kind.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from custom_ops.ops._batching import align
from custom_ops.ops._body import DOMAIN, VERSION, Body
from custom_ops.ops._function import OpFunction
from custom_ops.ops._registry import OnnxOp, Op, register
from custom_ops.ops._samples import BadCall, Benchmark, Sample
from custom_ops.ops._wiring import TorchOp, call


def arguments(
    x: Any,
    lengths: Any,
    scale: Any = None,
    trim: Sequence[int] = (0, 0),
    correction: int = 0,
    eps: float = 1e-5,
    center: bool = True,
    kind: str = "variance",
) -> tuple[Any, ...]:
    """Returns the arguments of the C++ op."""
    return x, lengths, scale, list(trim), correction, eps, center, kind


def masked_moments(
    x: Tensor, lengths: Tensor, scale: Tensor | None = None, **attributes: Any
) -> tuple[Tensor, Tensor]:
    """Computes the mean and the spread of ``scale * x`` over the steps of each sequence.

    Args:
        x: ``[N, T, C]``, any strides.
        lengths: ``[N]``, int64: how many steps each sequence has.
        scale: ``[C]``, or ``[1]`` for one value; 1 if left out.
        **attributes: ``trim``, steps left out at the start and at the end; ``correction``,
            subtracted from the count that divides the squares; ``eps``, added under the root;
            ``center``, whether the spread is about the mean or about 0; ``kind``, "variance" or
            "deviation".

    Returns:
        Mean and spread, ``[N, C]`` each.
    """
    return call("masked_moments", arguments(x, lengths, scale, **attributes))  # type: ignore[no-any-return]


def _mask(x: Tensor, lengths: Tensor, trim: Sequence[int]) -> Tensor:
    """Returns which steps count, ``[N, T, 1]``."""
    step = torch.arange(x.shape[1], device=x.device)
    last = lengths.clamp(max=x.shape[1]) - trim[1]
    return ((step >= trim[0]) & (step < last[:, None]))[:, :, None]


class MaskedMomentsFunction(OpFunction):
    """Gradient of masked_moments, in torch ops."""

    op_name = "masked_moments"

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps the tensors and the attributes."""
        x, lengths, scale, *ctx.attributes = inputs
        ctx.save_for_backward(x, lengths, scale, output[1])

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_spread: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """Returns the gradients of x and scale."""
        x, lengths, scale, spread = ctx.saved_tensors
        trim, correction, _, center, kind = ctx.attributes
        mask = _mask(x, lengths, trim)
        count = mask.sum(1, keepdim=True).clamp(min=1).to(x.dtype)
        scaled = torch.where(mask, x if scale is None else x * scale, 0)
        origin = scaled.sum(1, keepdim=True) / count if center else 0
        if kind == "deviation":
            grad_spread = grad_spread / (2 * spread)
        slope = 2 * (scaled - origin) / (count - correction).clamp(min=1)
        grad = grad_mean[:, None] / count + grad_spread[:, None] * slope
        grad = torch.where(mask, grad, 0)
        grad_scale = None
        if scale is not None and ctx.needs_input_grad[2]:
            grad_scale = (grad * torch.where(mask, x, 0)).sum((0, 1))
            grad_scale = grad_scale.sum(0, keepdim=True) if scale.numel() == 1 else grad_scale
        grad_x = grad if scale is None else grad * scale
        return grad_x, None, grad_scale, None, None, None, None, None


def batch(
    size: int,
    dims: tuple[int | None, ...],
    x: Tensor,
    lengths: Tensor,
    scale: Tensor | None,
    *attributes: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Runs the op once, on sequences of the whole batch; a batch of scales goes into x."""
    x, lengths = align(x, dims[0], 0, size), align(lengths, dims[1], 0, size)
    if scale is not None and dims[2] is not None:
        x, scale = x * align(scale, dims[2], 0, size)[:, None, None], None
    op = torch.ops.custom_ops.masked_moments.default
    mean, spread = op(x.flatten(0, 1), lengths.flatten(0, 1), scale, *attributes)
    shape = (*x.shape[:2], x.shape[3])
    return (mean.reshape(shape), spread.reshape(shape)), (0, 0)


def body(op: Any, compute: int | None) -> Any:
    """Builds the decomposition; see `Body`."""
    from onnxscript import FLOAT, script
    from onnxscript.values import Opset

    def two_outputs(function: Any) -> Any:
        function.__annotations__["return"] = tuple[FLOAT, FLOAT]
        return function

    @script(Opset(DOMAIN, VERSION), default_opset=op)
    @two_outputs
    def MaskedMoments(  # type: ignore[no-untyped-def]
        x,
        lengths,
        scale,
        trim: Sequence[int] = (0, 0),
        correction: int = 0,
        eps: float = 1e-5,
        center: int = 1,
        kind: str = "variance",
    ):
        if compute:
            values = op.Cast(x, to=compute)
            factor = op.Cast(scale, to=compute)
        else:
            values = x
            factor = scale
        steps = op.Shape(x, start=1, end=2)
        bounds = op.Constant(value_ints=trim)
        step = op.Unsqueeze(op.Range(0, op.Squeeze(steps), 1), 0)
        last = op.Unsqueeze(op.Min(lengths, steps) - op.Gather(bounds, [1]), 1)
        mask = op.And(op.GreaterOrEqual(step, op.Gather(bounds, [0])), op.Less(step, last))
        mask = op.Unsqueeze(mask, 2)
        zero = op.CastLike(0, values)
        one = op.CastLike(1, values)
        count = op.Max(op.ReduceSum(op.CastLike(mask, values), [1], keepdims=1), one)
        scaled = op.Where(mask, values * factor, zero)
        mean = op.ReduceSum(scaled, [1], keepdims=1) / count
        centered = op.Cast(op.Constant(value_int=center), to=9)
        distance = op.Where(mask, scaled - op.Where(centered, mean, zero), zero)
        squares = op.ReduceSum(distance * distance, [1], keepdims=1)
        divisor = op.Max(count - op.CastLike(op.Constant(value_int=correction), values), one)
        spread = squares / divisor
        root = op.Sqrt(spread + op.CastLike(op.Constant(value_float=eps), values))
        is_root = op.Equal(op.Constant(value_string=kind), op.Constant(value_string="deviation"))
        spread = op.Squeeze(op.Where(is_root, root, spread), [1])
        mean = op.Squeeze(mean, [1])
        if compute:
            mean = op.CastLike(mean, x)
            spread = op.CastLike(spread, x)
        return mean, spread

    return MaskedMoments


def reference(
    x: Any,
    lengths: Any,
    scale: Any = None,
    trim: Sequence[int] = (0, 0),
    correction: int = 0,
    eps: float = 1e-5,
    center: bool = True,
    kind: str = "variance",
) -> Any:
    """Computes masked_moments in float64, one sequence after another."""
    mean, spread = np.zeros((2, x.shape[0], x.shape[2]))
    for n, length in enumerate(lengths):
        kept = x[n, trim[0] : max(min(int(length), x.shape[1]) - trim[1], 0)].astype(np.float64)
        kept = kept if scale is None else kept * scale
        count = max(len(kept), 1)
        mean[n] = kept.sum(0) / count
        origin = mean[n] if center else 0.0
        spread[n] = ((kept - origin) ** 2).sum(0) / max(count - correction, 1)
    return mean, np.sqrt(spread + eps) if kind == "deviation" else spread


def _make(
    generator: torch.Generator, batch: int = 3, steps: int = 6, channels: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch, steps, channels, generator=generator, dtype=torch.float64)
    lengths = torch.randint(0, steps + 2, (batch,), generator=generator)
    return x, lengths, torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5


def samples(generator: torch.Generator) -> Iterator[Sample]:
    """Yields calls that cover every way through the op; see `Sample`."""
    x, lengths, scale = _make(generator)
    yield Sample("plain", (x, lengths))
    yield Sample("scaled", (x, lengths, scale))
    yield Sample("one_scale", (x, lengths, scale[:1]))
    yield Sample("trimmed", (x, lengths, scale), {"trim": (1, 2)})
    yield Sample("deviation", (x, lengths), {"kind": "deviation", "eps": 0.25})
    yield Sample("about_zero", (x, lengths, scale), {"center": False, "correction": 1})
    yield Sample("transposed", (x.permute(2, 0, 1).contiguous().permute(1, 2, 0), lengths))
    yield Sample("strided", (x[::2, :, ::2], lengths[::2], scale[::2]))
    yield Sample("zero_batch", (x[:0], lengths[:0], scale))
    yield Sample("no_steps", (x[:, :0], lengths, scale))
    yield Sample("parallel", _make(generator, 40, 3, 33))


def random_sample(source: random.Random) -> Sample:
    """Returns a call of sizes drawn from `source`; see `Op`."""
    generator = torch.Generator().manual_seed(source.randint(0, 2**31))
    x, lengths, scale = _make(generator, source.randint(0, 5), *source.choices(range(1, 9), k=2))
    given = (x, lengths, scale) if source.random() < 0.5 else (x, lengths)
    kind = source.choice(["variance", "deviation"])
    return Sample("random", given, {"kind": kind, "trim": (source.randint(0, 3), 0)})


def bad_calls(generator: torch.Generator) -> Iterator[BadCall]:
    """Yields one call for each rule of the op; see `BadCall`."""
    x, lengths, scale = _make(generator)

    def bad(name: str, sentence: str, *args: Any, rule: str = "shape", **options: Any) -> BadCall:
        return BadCall(Sample(name, args, options), f"masked_moments: {sentence}", kind=rule)

    yield bad("rank", r"x must have 3 dimensions \[N, T, C\], got \[6, 4\]", x[0], lengths)
    yield bad("lengths", r"lengths must have shape \[3\], got \[2\]", x, lengths[:2])
    yield bad("scale", r"scale must have shape \[4\], got \[3\]; or \[1\]", x, lengths, scale[:3])
    trim = r"trim must have 2 values of at least 0, got "
    yield bad("trim", trim + r"\[1, -1\]", x, lengths, trim=(1, -1))
    yield bad("trim_length", trim + r"\[1\]", x, lengths, trim=(1,))
    yield bad("correction", "correction must be at least 0, got -1", x, lengths, correction=-1)
    yield bad("kind_of", "kind must be variance or deviation, got range", x, lengths, kind="range")
    yield bad("int32", "lengths must be int64, got int32", x, lengths.int(), rule="dtype")
    mixed = r"scale must have the dtype of x \(float64\), got float32"
    yield bad("mixed", mixed, x, lengths, scale.float(), rule="dtype")
    yield bad("missing", "lengths must be given, got None", x, None, rule="dtype")


BENCHMARKS = tuple(
    Benchmark(
        f"{channels}-channels",
        lambda generator, channels=channels: Sample("", _make(generator, 16, 128, channels)),
        quick=channels == 8,
    )
    for channels in (8, 64)
)

OP = register(
    Op(
        torch=TorchOp("masked_moments", MaskedMomentsFunction, batch, autocast="promote"),
        onnx=OnnxOp(Body(body, min_opset=19, float64_min_opset=19)),
        public=masked_moments,
        arguments=arguments,
        reference=reference,
        samples=samples,
        random_sample=random_sample,
        bad_calls=bad_calls,
        benchmarks=BENCHMARKS,
        differentiable_twice=True,
    )
)
