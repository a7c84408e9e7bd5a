"""mul_add: y = alpha * a + b, elementwise."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from custom_ops.ops._batching import align
from custom_ops.ops._body import DOMAIN, VERSION, Body, one_output
from custom_ops.ops._function import OpFunction
from custom_ops.ops._registry import OnnxOp, Op, register
from custom_ops.ops._samples import BadCall, Benchmark, Bound, Sample
from custom_ops.ops._wiring import TorchOp, call


def arguments(a: Any, b: Any, alpha: float = 2.0) -> tuple[Any, ...]:
    """Returns the arguments of the C++ op."""
    if not isinstance(alpha, (int, float)):
        raise TypeError(f"mul_add: alpha must be a float, got {alpha!r}")
    return a, b, float(alpha)


def mul_add(a: Tensor, b: Tensor, alpha: float = 2.0) -> Tensor:
    """Computes ``alpha * a + b``, elementwise.

    Args:
        a: Any shape and strides; float32, float64, float16 or bfloat16.
        b: Of the shape and dtype of `a`.
        alpha: Factor of `a`. In an ONNX file it is a float32.

    Returns:
        A tensor of the shape, dtype and layout of `a`. Half types are computed in float32 and
        rounded once.

    Raises:
        ValueError: `a` and `b` differ in shape or dtype, or the dtype is another.

    Example:
        >>> import torch, custom_ops
        >>> custom_ops.mul_add(torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]))
        tensor([12., 24.])
    """
    return call("mul_add", arguments(a, b, alpha))  # type: ignore[no-any-return]


class MulAddFunction(OpFunction):
    """Gradient of mul_add: alpha times the gradient for a, the gradient itself for b."""

    op_name = "mul_add"

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps alpha."""
        ctx.alpha = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of a and b; in torch ops, so differentiable again."""
        needs_a, needs_b, _ = ctx.needs_input_grad
        return grad * ctx.alpha if needs_a else None, grad if needs_b else None, None


class MulAdd(torch.nn.Module):
    """`mul_add` as a module.

    Args:
        alpha: Factor of the first input.

    Example:
        >>> import torch, custom_ops
        >>> custom_ops.MulAdd(alpha=3.0)(torch.ones(2), torch.ones(2))
        tensor([4., 4.])
    """

    def __init__(self, alpha: float = 2.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Computes ``alpha * a + b``; see `mul_add`."""
        return mul_add(a, b, self.alpha)

    def extra_repr(self) -> str:
        """Shows alpha."""
        return f"alpha={self.alpha}"


def batch(
    size: int, dims: tuple[int | None, ...], a: Tensor, b: Tensor, alpha: float
) -> tuple[Tensor, int]:
    """Runs the op once, the batch dimension where the first batched tensor has it."""
    to = next(dim for dim in dims if dim is not None)
    a, b = align(a, dims[0], to, size), align(b, dims[1], to, size)
    return torch.ops.custom_ops.mul_add.default(a, b, alpha), to


def body(op: Any, compute: int | None) -> Any:
    """Builds the decomposition; see `Body`."""
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset(DOMAIN, VERSION), default_opset=op)
    @one_output
    def MulAdd(a, b, alpha: float = 2.0):  # type: ignore[no-untyped-def]
        if compute:
            x = op.Cast(a, to=compute)
            z = op.Cast(b, to=compute)
        else:
            x = a
            z = b
        y = op.CastLike(op.Constant(value_float=alpha), x) * x + z
        if compute:
            y = op.CastLike(y, a)
        return y

    return MulAdd


def reference(a: Any, b: Any, alpha: float = 2.0) -> Any:
    """Computes mul_add in float64."""
    return alpha * a.astype(np.float64) + b.astype(np.float64)


def samples(generator: torch.Generator) -> Iterator[Sample]:
    """Yields calls that cover every way through the op; see `Sample`."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    yield Sample("plain", (draw(3, 5), draw(3, 5)))
    yield Sample("alpha", (draw(7), draw(7)), {"alpha": -0.5})
    yield Sample("scalar", (draw(), draw()))
    yield Sample("empty", (draw(0, 3), draw(0, 3)))
    yield Sample("transposed", (draw(6, 4).t(), draw(6, 4).t()))
    yield Sample("strided", (draw(6, 8)[::2, 1::3], draw(3, 3)))
    yield Sample("expanded", (draw(1, 5).expand(4, 5), draw(4, 1).expand(4, 5)))
    channels_last = draw(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    yield Sample("channels_last", (channels_last, draw(2, 3, 4, 5)))
    yield Sample("zero_batch", (draw(0, 3, 4, 5), draw(0, 3, 4, 5)))
    yield Sample("parallel", (draw(300, 301), draw(301, 300).t()))


def random_sample(source: random.Random) -> Sample:
    """Returns a call of a shape drawn from `source`; see `Op`."""
    shape = [source.randint(0, 9) for _ in range(source.randint(0, 5))]
    generator = torch.Generator().manual_seed(source.randint(0, 2**31))
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    order = source.sample(range(len(shape)), len(shape))
    strided = a.permute(order).contiguous().permute([order.index(i) for i in range(len(shape))])
    return Sample("random", (strided, b), {"alpha": source.choice([2.0, -1.5, 0.0])})


def bad_calls(generator: torch.Generator) -> Iterator[BadCall]:
    """Yields one call for each rule of the op; see `BadCall`."""
    a = torch.ones(3, 4, dtype=torch.float64)
    yield BadCall(
        Sample("shape", (a, a[:2])), r"mul_add: b must have the shape of a \[3, 4\], got \[2, 4\]"
    )
    yield BadCall(
        Sample("rank", (a, a[0])), r"mul_add: b must have the shape of a \[3, 4\], got \[4\]"
    )
    yield BadCall(
        Sample("dtype", (a.int(), a.int())),
        "mul_add: a must be float32, float64, float16 or bfloat16, got int32",
        kind="dtype",
    )
    yield BadCall(
        Sample("mixed", (a, a.float())),
        r"mul_add: b must have the dtype of a \(float64\), got float32",
        kind="dtype",
    )
    yield BadCall(Sample("missing", (a, None)), "mul_add: b must be given, got None", kind="dtype")


def _benchmark(count: int) -> Benchmark:
    def make(generator: torch.Generator) -> Sample:
        a, b = (torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(2))
        return Sample(name, (a, b))

    name = f"{count}-elements"
    return Benchmark(name, make, dense=count >= 1_000_000, quick=count <= 10_000)


BENCHMARKS = tuple(_benchmark(count) for count in (4, 10_000, 100_000, 1_000_000, 10_000_000))


def bound(a: Tensor, b: Tensor, alpha: float = 2.0) -> Bound:
    """Returns a copy that reads and writes as many bytes: two inputs and one output; see `Op`."""
    source = torch.ones(3 * a.numel() // 2, dtype=a.dtype)
    moved = 3 * a.numel() * a.element_size()
    return Bound("memory copy", source.clone, flops=2 * a.numel(), bytes=moved)


OP = register(
    Op(
        torch=TorchOp("mul_add", MulAddFunction, batch, autocast="promote"),
        onnx=OnnxOp(Body(body, min_opset=15, float64_min_opset=15)),
        public=mul_add,
        arguments=arguments,
        reference=reference,
        samples=samples,
        random_sample=random_sample,
        bad_calls=bad_calls,
        benchmarks=BENCHMARKS,
        bound=bound,
        peers=lambda: {
            "torch.add": lambda a, b, alpha=2.0: torch.add(b, a, alpha=alpha),
            # What a call costs in torch's own op where no binding of its own takes it; and in ours
            # without our Python in front.
            "torch.add by torch.ops": lambda a, b, alpha=2.0: torch.ops.aten.add(b, a, alpha=alpha),
            "ours by torch.ops": torch.ops.custom_ops.mul_add,
        },
        composition=lambda a, b, alpha=2.0: alpha * a + b,
        differentiable_twice=True,
    )
)
