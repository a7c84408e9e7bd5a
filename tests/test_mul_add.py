"""mul_add: what the generic checks do not ask of it."""

import subprocess
import sys

import pytest
import torch

import custom_ops

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("step", [1, 3], ids=["contiguous", "strided"])
def test_every_half_value_survives(dtype: torch.dtype, step: int) -> None:
    """Contiguous runs are converted by vector instructions, others one by one."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    values = torch.zeros(65536 * step, dtype=torch.int16)
    values[::step] = bits
    halves = values.view(dtype)[::step]
    result = custom_ops.mul_add(halves, torch.full_like(halves, -0.0), alpha=1.0)
    nan = halves.isnan()
    assert torch.equal(result.isnan(), nan)
    assert torch.equal(result[~nan].contiguous().view(torch.int16), bits[~nan])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("step", [1, 3], ids=["contiguous", "strided"])
def test_half_results_round_to_nearest_even(dtype: torch.dtype, step: int) -> None:
    generator = torch.Generator().manual_seed(0)
    count = 200_000
    exponents = torch.randint(-30, 18, (2, count), generator=generator)
    values = torch.randn(2, count * step, generator=generator)[:, ::step] * 2.0**exponents
    a, b = values.to(dtype)
    expected = (2 * a.float() + b.float()).to(dtype)
    torch.testing.assert_close(custom_ops.mul_add(a, b), expected, rtol=0, atol=0, equal_nan=True)


def test_layout_follows_the_first_input() -> None:
    a = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    result = custom_ops.mul_add(a, torch.randn(2, 3, 4, 5))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_alpha_must_be_a_number() -> None:
    with pytest.raises(TypeError, match="mul_add: alpha must be a float, got '2'"):
        custom_ops.mul_add(torch.ones(1), torch.ones(1), alpha="2")  # type: ignore[arg-type]


def test_inputs_must_be_tensors() -> None:
    a = torch.ones(2)
    with pytest.raises(TypeError, match=r"b must be a Tensor, got float; make it a tensor"):
        custom_ops.mul_add(a, 3.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got ndarray; custom_ops.numpy.mul_add takes arrays"):
        custom_ops.mul_add(a.numpy(), a)  # type: ignore[arg-type]


def test_a_refused_call_leaves_autograd_on() -> None:
    a = torch.ones(2)
    with pytest.raises(ValueError, match="must have the shape of a"):
        custom_ops.mul_add(a, torch.ones(3))
    a.requires_grad_()
    assert torch.ops.custom_ops.mul_add(a, a).requires_grad
    with torch._C._AutoDispatchBelowAutograd():
        custom_ops.mul_add(a.detach(), a.detach())
        assert not torch.ops.custom_ops.mul_add(a, a).requires_grad


def test_module() -> None:
    module = custom_ops.MulAdd(alpha=0.5)
    assert repr(module) == "MulAdd(alpha=0.5)"
    assert torch.equal(module(torch.ones(2), torch.ones(2)), torch.full((2,), 1.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
def test_bits_do_not_depend_on_layout(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 10_007, generator=generator).to(dtype)
    apart = torch.stack([a, a], dim=-1)[:, 0], torch.stack([b, b], dim=-1)[:, 0]
    assert torch.equal(custom_ops.mul_add(a, b, 0.3), custom_ops.mul_add(*apart, 0.3))
    for start in range(1, 40):  # where a run starts and ends does not count either
        part = custom_ops.mul_add(a[start:-start], b[start:-start], 0.3)
        assert torch.equal(part, custom_ops.mul_add(a, b, 0.3)[start:-start])


def test_half_subnormals_survive_where_floats_are_flushed() -> None:
    """In a process of its own: the setting belongs to the thread."""
    code = (
        "import torch, custom_ops\n"
        "torch.set_flush_denormal(True)\n"
        "for count in (12, 203):\n"
        "    a = torch.full((count,), 6e-8, dtype=torch.half)\n"
        "    y = custom_ops.mul_add(a, torch.zeros_like(a), 1024.0)\n"
        "    assert bool((y == a[0].double() * 1024).all()), y\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices_must_agree() -> None:
    with pytest.raises(ValueError, match=r"mul_add: b must be on the device of a .cpu., got meta"):
        custom_ops.mul_add(torch.ones(3), torch.ones(3, device="meta"))


class Wrapped(torch.Tensor):
    """A tensor that stands for another one."""

    inner: torch.Tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = (each.inner if isinstance(each, Wrapped) else each for each in args)
        return func(*given, **(kwargs or {}))


def test_a_tensor_that_stands_for_another_keeps_its_gradient() -> None:
    inner = torch.ones(3, requires_grad=True)
    outer = torch.Tensor._make_subclass(Wrapped, inner.detach())
    outer.inner = inner
    custom_ops.mul_add(outer, torch.ones(3)).sum().backward()
    assert inner.grad is not None
    assert inner.grad.tolist() == [2.0, 2.0, 2.0]
