"""The ops in torch: fake, gradient, vmap, autocast, compile, export, refusals."""

import io
import itertools
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import custom_ops

OPS = torch.ops.custom_ops
MUL_ADD = OPS.mul_add.default
DEFORM = OPS.deform_conv2d.default
DEFORM_BACKWARD = OPS._deform_conv2d_backward.default
FORWARD_MODE = "forward-mode derivatives are not implemented; use reverse mode"
SECOND = "deform_conv2d: second derivatives are not implemented"

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def deform_args(
    n: int = 2,
    c: int = 4,
    o: int = 6,
    g: int = 2,
    og: int = 2,
    bias: str = "full",
    mask: str = "full",
    hw: tuple[int, int] = (4, 5),
    dtype: torch.dtype = torch.double,
) -> list[Any]:
    h, w = hw
    rand = torch.rand
    return [
        torch.randn(n, c, h, w, dtype=dtype),
        torch.randn(o, c // g, 2, 3, dtype=dtype),
        torch.randn(n, og * 12, h, w, dtype=dtype),
        {"full": torch.randn(o, dtype=dtype), "one": rand(1, dtype=dtype), "none": None}[bias],
        {
            "full": rand(n, og * 6, h, w, dtype=dtype),
            "one": rand(1, 1, 1, 1, dtype=dtype),
            "none": None,
        }[mask],
    ]


ATTRS = ([1, 1], [1, 1, 0, 1], [1, 1])
VARIANTS = [
    {},
    {"bias": "none", "mask": "none"},
    {"bias": "one", "mask": "one"},
    {"g": 1, "og": 1},
    {"g": 4, "o": 4, "og": 4},
    {"n": 1},
    {"n": 0},
]


def public(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Any = None,
    mask: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    """custom_ops.deform_conv2d with the arguments in the order of the C++ op."""
    return custom_ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def deform(*tensors: Any) -> Tensor:
    return public(*tensors, *ATTRS)


def deform_op(*tensors: Any) -> Tensor:
    return DEFORM(*tensors, *ATTRS)


BOTH_DOORS = pytest.mark.parametrize("f", [deform, deform_op], ids=["call", "torch.ops"])
BOTH_MUL_ADD = pytest.mark.parametrize(
    "f", [custom_ops.mul_add, MUL_ADD], ids=["call", "torch.ops"]
)


def requires(tensors: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [
        t if t is None else t.detach().clone().requires_grad_(f)
        for t, f in zip(tensors, flags, strict=True)
    ]


def all_require(tensors: Sequence[Any]) -> list[Any]:
    return requires(tensors, [True] * len(tensors))


def transposed(t: Tensor | None) -> Tensor | None:
    if t is None or t.dim() < 2:
        return t
    return t.transpose(-1, -2).contiguous().transpose(-1, -2)


# opcheck


@pytest.mark.parametrize(
    "sample",
    [
        lambda: (torch.randn(3, 4), torch.randn(3, 4), 1.5),
        lambda: (torch.randn(3, 4).t(), torch.randn(4, 3)),
        lambda: (torch.randn(4, 1).expand(4, 3), torch.randn(4, 3), -1.0),
        lambda: (torch.randn(0, 3), torch.randn(0, 3)),
        lambda: (torch.randn(()), torch.randn(()), 3.0),
        lambda: tuple(all_require((torch.randn(3), torch.randn(3)))),
    ],
)
def test_opcheck_mul_add(sample: Callable[[], tuple[Any, ...]]) -> None:
    torch.library.opcheck(MUL_ADD, sample())


@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_opcheck_deform(variant: dict[str, Any], strided: bool, grad: bool) -> None:
    args = deform_args(**variant)
    args = [transposed(t) for t in args] if strided else args
    args = all_require(args) if grad else args
    torch.library.opcheck(DEFORM, (*args, *ATTRS))


@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@pytest.mark.parametrize("needs", [[1] * 5, [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0] * 5], ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_opcheck_deform_backward(variant: dict[str, Any], needs: list[int], strided: bool) -> None:
    args = deform_args(**variant)
    needs = [n if a is not None else 0 for n, a in zip(needs, args, strict=True)]
    grad = torch.randn_like(deform(*args))
    args = [transposed(t) for t in (grad, *args)] if strided else [grad, *args]
    torch.library.opcheck(DEFORM_BACKWARD, (*args, *ATTRS, 0, 0, needs))


# gradients


@BOTH_MUL_ADD
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=2))[1:])
def test_gradcheck_mul_add(f: Any, flags: tuple[bool, ...]) -> None:
    args = requires((torch.randn(3, 2).double(), torch.randn(3, 2).double()), flags)
    run = lambda a, b: f(a, b, 1.5)  # noqa: E731
    assert torch.autograd.gradcheck(run, args, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda a, b: run(a.sin(), b * b), args)


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=5))[1:], ids=str)
def test_gradcheck_deform(flags: tuple[bool, ...]) -> None:
    args = requires(deform_args(), flags)
    assert torch.autograd.gradcheck(deform, args, fast_mode=True, check_batched_grad=False)
    deform(*args).sum().backward()
    assert [a.grad is not None for a in args] == list(flags)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradcheck_deform_variants(variant: dict[str, Any]) -> None:
    args = all_require(deform_args(**variant))
    if variant.get("n") == 0:
        deform(*args).sum().backward()
        assert all(a.grad.shape == a.shape for a in args)
    else:
        assert torch.autograd.gradcheck(deform, args, fast_mode=True, check_batched_grad=False)
        assert torch.autograd.gradcheck(
            lambda *a: deform_op(*a), args, fast_mode=True, check_batched_grad=False
        )


def test_gradcheck_batched_deform() -> None:
    args = all_require(deform_args(n=1, hw=(2, 3)))
    assert torch.autograd.gradcheck(deform, args, check_batched_grad=True)


@pytest.mark.parametrize("kind", ["expanded", "transposed"])
def test_strange_gradients(kind: str) -> None:
    args = all_require(deform_args())
    out = deform(*args)
    grad = (
        torch.ones((), dtype=torch.double).expand(out.shape)
        if kind == "expanded"
        else torch.randn(out.shape[::-1], dtype=torch.double).permute(3, 2, 1, 0)
    )
    found = torch.autograd.grad(out, args, grad, retain_graph=True)
    expected = torch.autograd.grad(out, args, grad.contiguous())
    torch.testing.assert_close(found, expected)
    a, b = all_require((torch.randn(3), torch.randn(3)))
    custom_ops.mul_add(a, b).sum().backward()
    torch.testing.assert_close(a.grad, torch.full((3,), 2.0))


def test_no_gradient_no_node() -> None:
    args = all_require(deform_args())
    with torch.no_grad():
        assert not deform(*args).requires_grad
        assert not deform_op(*args).requires_grad
    with torch.inference_mode():
        assert deform(*args).is_inference()
    assert deform(*args).grad_fn.name() == "DeformConv2dFunctionBackward"  # type: ignore[union-attr]
    frozen = requires(args, [False] * 5)
    assert not deform(*frozen).requires_grad


def test_gradient_checkpointing() -> None:
    args = all_require(deform_args())
    run = torch.utils.checkpoint.checkpoint
    expected = torch.autograd.grad(deform(*args).sum(), args)
    found = torch.autograd.grad(run(deform, *args, use_reentrant=False).sum(), args)
    torch.testing.assert_close(found, expected)


def test_create_graph_is_harmless_until_used() -> None:
    args = all_require(deform_args())
    grads = torch.autograd.grad(deform(*args).sum(), args, create_graph=True)
    torch.testing.assert_close(grads, torch.autograd.grad(deform(*args).sum(), args))


# torch.func


@BOTH_DOORS
def test_func_first_derivatives(f: Any) -> None:
    args = deform_args()
    leaves = all_require(args)
    expected = torch.autograd.grad(f(*leaves).sum(), leaves)
    argnums = tuple(range(5))
    found = torch.func.grad(lambda *a: f(*a).sum(), argnums)(*args)
    torch.testing.assert_close(found, expected)
    value, pull = torch.func.vjp(f, *args)
    torch.testing.assert_close(pull(torch.ones_like(value)), expected)
    jacobian = torch.func.jacrev(f)(*args)
    torch.testing.assert_close(jacobian.sum((0, 1, 2, 3)), expected[0])
    for vectorize in (False, True):
        found = torch.autograd.functional.jacobian(f, tuple(args), vectorize=vectorize)
        torch.testing.assert_close(found[1].sum((0, 1, 2, 3)), expected[1])


@BOTH_MUL_ADD
def test_func_mul_add_twice(f: Any) -> None:
    x = torch.randn(3, dtype=torch.double)
    twice: Any = lambda x: f(x * x, x**3, 3.0).sum()  # noqa: E731
    expected = torch.diag(6 + 6 * x)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(twice))(x), expected)
    torch.testing.assert_close(torch.autograd.functional.hessian(twice, x), expected)
    nested = torch.func.grad(lambda x: torch.func.grad(twice)(x).sum())(x)
    torch.testing.assert_close(nested, expected.diagonal())
    with pytest.raises(NotImplementedError, match=f"mul_add: {FORWARD_MODE}"):
        torch.func.hessian(twice)(x)


FORWARD_WAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "linearize": lambda f, x: torch.func.linearize(f, x),
    "vmap": lambda f, x: torch.func.jvp(torch.vmap(f), (x[None],), (x[None],)),
    "in vmap": lambda f, x: torch.vmap(lambda x: torch.func.jvp(f, (x,), (x,)))(x[None]),
    "functional": lambda f, x: torch.autograd.functional.jacobian(
        f, x, strategy="forward-mode", vectorize=True
    ),
    "requires_grad": lambda f, x: torch.func.jvp(f, (x.requires_grad_(),), (x.detach(),)),
    "no_grad": lambda f, x: torch.no_grad()(lambda: torch.func.jvp(f, (x,), (x,)))(),
    "compiled": lambda f, x: torch.compile(
        lambda x: torch.func.jvp(f, (x,), (x,)), backend="aot_eager"
    )(x),
}


@pytest.mark.parametrize("way", FORWARD_WAYS)
@pytest.mark.parametrize("door", ["call", "torch.ops"])
@pytest.mark.parametrize("op", ["mul_add", "deform_conv2d"])
def test_forward_mode_refused(op: str, door: str, way: str) -> None:
    if op == "mul_add":
        x, f = torch.randn(3), custom_ops.mul_add if door == "call" else MUL_ADD
        run: Any = lambda x: f(x, x, 3.0)  # noqa: E731
    else:
        args = deform_args()
        x, g = args[0], deform if door == "call" else deform_op
        run = lambda x: g(x, *args[1:])  # noqa: E731
    with pytest.raises(Exception, match=f"{op}: {FORWARD_MODE}"):
        FORWARD_WAYS[way](run, x)


@BOTH_MUL_ADD
def test_dual_tensors(f: Any) -> None:
    a, b = torch.randn(3), torch.randn(3)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(a, b)
        with pytest.raises(NotImplementedError, match=FORWARD_MODE):
            f(dual, b)
        with pytest.raises(NotImplementedError, match=FORWARD_MODE):
            f(dual, b.requires_grad_())
        torch.testing.assert_close(f(a, b, 2.0), 2 * a + b)  # no dual in play
        torch.testing.assert_close(f(forward_ad.unpack_dual(dual).primal, b), 2 * a + b)


SECOND_WAYS: dict[str, Callable[[Any, Tensor], Any]] = {
    "double backward": lambda f, x: torch.autograd.grad(
        torch.autograd.grad(f(x), x, create_graph=True)[0].sum(), x
    ),
    "backward twice": lambda f, x: (
        f(x).backward(create_graph=True),
        x.grad.sum().backward(),  # type: ignore[union-attr]
    ),
    "grad(grad)": lambda f, x: torch.func.grad(lambda x: torch.func.grad(f)(x).sum())(x),
    "jacrev(jacrev)": lambda f, x: torch.func.jacrev(torch.func.jacrev(f))(x),
    "grad(jacrev)": lambda f, x: torch.func.grad(lambda x: torch.func.jacrev(f)(x).sum())(x),
    "functional.hessian": lambda f, x: torch.autograd.functional.hessian(f, x),
    "functional.hessian vectorized": lambda f, x: torch.autograd.functional.hessian(
        f, x, vectorize=True
    ),
    "functional.hvp": lambda f, x: torch.autograd.functional.hvp(f, x, x.detach()),
    "functional.jvp": lambda f, x: torch.autograd.functional.jvp(f, x, x.detach()),
    "vmap(grad(grad))": lambda f, x: torch.vmap(
        torch.func.grad(lambda x: torch.func.grad(f)(x).sum())
    )(x.detach()[None]),
    "grad(vmap(grad))": lambda f, x: torch.func.grad(
        lambda x: torch.vmap(torch.func.grad(f))(x).sum()
    )(x.detach()[None]),
    "grad outside, autograd inside": lambda f, x: torch.autograd.grad(
        torch.func.grad(f)(x).sum(), x
    ),
    "grad in compile": lambda f, x: torch.compile(
        torch.func.grad(lambda x: torch.func.grad(f)(x).sum()), backend="aot_eager"
    )(x.detach()),
    "compiled forward": lambda f, x: torch.autograd.grad(
        torch.autograd.grad(torch.compile(f, backend="aot_eager")(x), x, create_graph=True)[
            0
        ].sum(),
        x,
    ),
}


@pytest.mark.parametrize("way", SECOND_WAYS)
@pytest.mark.parametrize("position", range(5))
@BOTH_DOORS
def test_second_derivatives_refused(f: Any, position: int, way: str) -> None:
    args = deform_args(n=1, hw=(2, 3))
    x = args[position].requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return f(*args[:position], x, *args[position + 1 :]).pow(2).sum()

    expected = SECOND
    if way == "compiled forward":  # torch's own refusal comes first
        expected = "does not currently support double backward|" + SECOND
    with pytest.raises(Exception, match=expected):
        SECOND_WAYS[way](loss, x)


@BOTH_DOORS
def test_hessian_is_refused(f: Any) -> None:
    args = deform_args(n=1, hw=(2, 3))
    with pytest.raises(NotImplementedError, match=r"deform_conv2d: .* are not implemented"):
        torch.func.hessian(lambda x: f(x, *args[1:]).sum())(args[0])


def test_forward_over_backward_op_is_refused() -> None:
    # The private op sees the tangent first where only the incoming gradient has one.
    args = deform_args(n=1, hw=(2, 3))
    out, pull = torch.func.vjp(deform, *args)
    with pytest.raises(NotImplementedError, match=SECOND):
        torch.func.jvp(pull, (out,), (out,))


# vmap


def batched(tensors: Sequence[Any], dims: Sequence[int | None], size: int = 3) -> list[Any]:
    """Returns tensors with a batch dimension at each of dims, filled with random numbers."""
    result = []
    for t, d in zip(tensors, dims, strict=True):
        if t is None or d is None:
            result.append(t)
        else:
            result.append(torch.rand_like(torch.stack([t] * size)).movedim(0, d).contiguous())
    return result


def looped(f: Any, tensors: Sequence[Any], dims: Sequence[int | None], size: int = 3) -> Any:
    results = [
        f(
            *(
                t if d is None or t is None else t.select(d, i)
                for t, d in zip(tensors, dims, strict=True)
            )
        )
        for i in range(size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(r) for r in zip(*results, strict=True))
    return torch.stack(results)


def quiet_vmap(f: Any, dims: Any, **kwargs: Any) -> Any:
    """As torch.vmap, and fails on a warning or a loop over the batch."""

    def run(*args: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return torch.vmap(f, dims, **kwargs)(*args)

    return run


@BOTH_MUL_ADD
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 2), (1, 0), (2, 1), (-1, 0)])
def test_vmap_mul_add(f: Any, dims: tuple[int | None, int | None]) -> None:
    args = batched((torch.randn(3, 4), torch.randn(3, 4)), dims)
    run = lambda a, b: f(a, b, 3.0)  # noqa: E731
    torch.testing.assert_close(quiet_vmap(run, dims)(*args), looped(run, args, dims))
    for out_dim in (1, -1):
        found = quiet_vmap(run, dims, out_dims=out_dim)(*args)
        torch.testing.assert_close(found, looped(run, args, dims).movedim(0, out_dim))


@BOTH_DOORS
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_vmap_deform(f: Any, variant: dict[str, Any], seed: int) -> None:
    rng = random.Random(seed)
    args = deform_args(**variant)
    for which in itertools.product([False, True], repeat=5):
        dims = [
            rng.randrange(-t.dim() - 1, t.dim() + 1) if w and t is not None else None
            for w, t in zip(which, args, strict=True)
        ]
        if any(d is not None for d in dims):
            inputs = batched(args, dims)
            found = quiet_vmap(f, tuple(dims))(*inputs)
            torch.testing.assert_close(found, looped(f, inputs, dims))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("needs", [[1] * 5, [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], ids=str)
def test_vmap_deform_backward(variant: dict[str, Any], needs: list[int]) -> None:
    rng = random.Random(1)
    args = deform_args(**variant)
    needs = [n if a is not None else 0 for n, a in zip(needs, args, strict=True)]
    args = [torch.randn_like(deform(*args)), *args]

    def run(*a: Any) -> Any:
        return DEFORM_BACKWARD(*a, *ATTRS, 0, 0, needs)

    def explicit(*a: Any) -> Any:
        groups = args[1].shape[1] // args[2].shape[1]
        return DEFORM_BACKWARD(*a, *ATTRS, groups, args[3].shape[1] // 12, needs)

    for which in itertools.product([False, True], repeat=6):
        dims = [
            rng.randrange(t.dim() + 1) if w and t is not None else None
            for w, t in zip(which, args, strict=True)
        ]
        if any(d is not None for d in dims):
            inputs = batched(args, dims)
            found = quiet_vmap(run, tuple(dims))(*inputs)
            torch.testing.assert_close(found, looped(run, inputs, dims))
            torch.testing.assert_close(quiet_vmap(explicit, tuple(dims))(*inputs), found)


@BOTH_DOORS
def test_vmap_nested(f: Any) -> None:
    args = deform_args()
    outer, inner = (0, None, 1, None, 0), (1, 0, None, None, 1)
    inputs = batched(batched(args, inner, 2), outer, 3)
    found = quiet_vmap(quiet_vmap(f, inner), outer)(*inputs)
    expected = looped(lambda *a: looped(f, a, inner, 2), inputs, outer, 3)
    torch.testing.assert_close(found, expected)
    a, b = torch.randn(2, 3, 4), torch.randn(2, 5)
    inner_vmap = torch.vmap(custom_ops.mul_add, (0, None))  # one batch in a only, the other in both
    with pytest.raises(ValueError, match=r"^mul_add: "):
        torch.vmap(inner_vmap)(a, b)
    torch.testing.assert_close(torch.vmap(inner_vmap)(a, b[:, :4]), 2 * a + b[:, None, :4])


@BOTH_DOORS
@pytest.mark.parametrize("variant", VARIANTS[:5], ids=str)
def test_vmap_per_sample_gradients(f: Any, variant: dict[str, Any]) -> None:
    args = deform_args(**variant)
    dims = tuple(0 if i in (0, 2, 4) and a is not None else None for i, a in enumerate(args))
    inputs = batched(args, dims)
    argnums = tuple(i for i, a in enumerate(args) if a is not None)
    grad = torch.func.grad(lambda *a: f(*a).pow(2).sum(), argnums)
    found = quiet_vmap(grad, dims)(*inputs)
    torch.testing.assert_close(found, looped(grad, inputs, dims))

    def by_autograd(*a: Any) -> Any:
        leaves = all_require(a)
        wanted = [leaves[i] for i in argnums]
        return torch.autograd.grad(f(*leaves).pow(2).sum(), wanted)

    torch.testing.assert_close(found, looped(by_autograd, inputs, dims))
    total = torch.func.grad(lambda *a: torch.vmap(f, dims)(*a).pow(2).sum(), argnums)(*inputs)
    torch.testing.assert_close(total[1], found[1].sum(0))
    leaves = all_require(inputs)
    quiet_vmap(f, dims)(*leaves).pow(2).sum().backward()
    torch.testing.assert_close(leaves[1].grad, total[1])


@BOTH_DOORS
def test_vmap_of_an_ensemble(f: Any) -> None:
    args = deform_args()
    dims = (None, 0, None, 0, None)
    inputs = batched(args, dims)
    found = torch.func.jacrev(lambda w: quiet_vmap(f, dims)(inputs[0], w, *inputs[2:]).sum())(
        inputs[1]
    )
    expected = torch.func.grad(lambda w: looped(f, (inputs[0], w, *inputs[2:]), dims).sum())(
        inputs[1]
    )
    torch.testing.assert_close(found, expected)


class Count(TorchDispatchMode):
    """Counts the calls of our ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "custom_ops":
            self.calls.append(func.__name__)
        return func(*args, **kwargs or {})


@BOTH_DOORS
def test_vmap_does_not_loop(f: Any) -> None:
    args = deform_args()
    dims = (0, None, 0, None, None)
    inputs = batched(args, dims)
    with Count() as count:
        torch.vmap(f, dims)(*inputs)
        torch.vmap(torch.func.grad(lambda *a: f(*a).sum(), (0, 1, 3)), dims)(*inputs)
        torch.vmap(custom_ops.mul_add)(args[0], args[0])
    forward, backward = "deform_conv2d.default", "_deform_conv2d_backward.default"
    assert count.calls == [forward, forward, backward, "mul_add.default"]


def test_vmap_errors_are_ours() -> None:
    args = deform_args()
    args[2] = args[2][:, :-1]
    with pytest.raises(ValueError, match=r"^deform_conv2d: "):
        torch.vmap(deform, (0, None, None, None, None))(args[0][None], *args[1:])
    with pytest.raises(ValueError, match=r"^mul_add: "):
        torch.vmap(custom_ops.mul_add)(torch.randn(2, 3), torch.randn(2, 4))


# autocast


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@BOTH_DOORS
def test_autocast_lowers(f: Any, dtype: torch.dtype) -> None:
    args = all_require(deform_args(dtype=torch.float32))
    with torch.autocast("cpu", dtype=dtype):
        out = f(*args)
        assert out.dtype == dtype
        inside = torch.autograd.grad(out.sum(), args, retain_graph=True)
        found = torch.func.grad(lambda x: f(x, *args[1:]).sum())(args[0])
        stacked = torch.vmap(f, (0, None, None, None, None))(args[0][None], *args[1:])
        mixed = f(args[0].to(dtype), *args[1:])
        assert mixed.dtype == stacked.dtype == dtype
    grads = torch.autograd.grad(out.sum(), args)
    assert all(g.dtype == torch.float32 for g in (*grads, *inside, found))
    torch.testing.assert_close(grads, inside)
    torch.testing.assert_close(found, grads[0])
    lower = [a.detach().to(dtype) for a in args]
    torch.testing.assert_close(out, f(*lower))
    with torch.autocast("cpu", enabled=False):
        assert f(*args).dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        assert f(*deform_args(dtype=torch.double)).dtype == torch.double


@BOTH_MUL_ADD
def test_autocast_promotes(f: Any) -> None:
    a, b = torch.randn(3), torch.randn(3)
    half, bf = b.half(), b.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert f(a, b).dtype == torch.float32
        assert f(a, bf).dtype == torch.float32
        assert f(bf, bf).dtype == torch.bfloat16
        assert f(half, bf).dtype == torch.float32
        assert f(a.double(), b.double()).dtype == torch.double
        x = bf.clone().requires_grad_()
        f(x, a, 3.0).sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype"):
        f(a, bf)


def test_autocast_cuda_is_registered() -> None:
    for op in ("mul_add", "deform_conv2d"):
        for key in ("AutocastCPU", "AutocastCUDA"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"custom_ops::{op}", key)


def test_autocast_under_compile() -> None:
    args = all_require(deform_args(dtype=torch.float32))

    def f(*a: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return deform(*a)

    out = torch.compile(f, fullgraph=True, backend="aot_eager")(*args)
    torch.testing.assert_close(out, f(*args))
    grads = torch.autograd.grad(out.sum(), args)
    torch.testing.assert_close(grads, torch.autograd.grad(f(*args).sum(), args))


# fake, meta, compile, export


def test_meta_and_fake() -> None:
    args = [a.to("meta") for a in deform_args()]
    out = deform(*args)
    assert out.device.type == "meta"
    assert out.shape == (2, 6, 4, 5)
    leaves = all_require(args)
    deform(*leaves).sum().backward()
    assert leaves[1].grad is not None
    assert leaves[1].grad.shape == leaves[1].shape
    assert torch.vmap(deform, (0, None, None, None, None))(args[0][None], *args[1:]).shape[0] == 1
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) for a in deform_args()]
        out = deform(*fakes)
        assert out.shape == (2, 6, 4, 5)
        assert out.device.type == "cpu"
        assert custom_ops.mul_add(fakes[0], fakes[0]).shape == fakes[0].shape
        with pytest.raises(ValueError, match=r"^deform_conv2d: "):
            public(*fakes[:2], fakes[2][..., 1:])
    with pytest.raises(ValueError, match=r"^deform_conv2d: "):
        public(*args[:2], args[2][..., 1:])


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("door", ["call", "torch.ops"])
def test_compile_dynamic(door: str, backend: str) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    f = deform if door == "call" else deform_op
    m = custom_ops.mul_add if door == "call" else MUL_ADD

    def model(*a: Any) -> Tensor:
        y = f(*a)
        return m(y, y.relu(), 3.0)

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for n, hw in ((5, (9, 11)), (3, (6, 7)), (7, (19, 8))):
        args = all_require(deform_args(n=n, hw=hw))
        out = compiled(*args)
        torch.testing.assert_close(out, model(*args))
        grads = torch.autograd.grad(out.sum(), args)
        torch.testing.assert_close(grads, torch.autograd.grad(model(*args).sum(), args))
    assert counter.frame_count == 1


def test_compile_partial_gradients() -> None:
    for flags in ([True, False, False, False, False], [False, True, False, True, False]):
        torch._dynamo.reset()
        args = requires(deform_args(), flags)
        wanted = [a for a in args if a.requires_grad]
        out = torch.compile(deform, fullgraph=True, backend="aot_eager")(*args)
        grads = torch.autograd.grad(out.sum(), wanted)
        torch.testing.assert_close(grads, torch.autograd.grad(deform(*args).sum(), wanted))


def test_compiled_autograd() -> None:
    args = all_require(deform_args())
    loss = custom_ops.mul_add(deform(*args), deform(*args)).sum()
    expected = torch.autograd.grad(loss, args, retain_graph=True)
    compiler = torch.compile(backend="aot_eager", fullgraph=True)
    with torch._dynamo.compiled_autograd._enable(compiler):
        loss.backward()
    torch.testing.assert_close([a.grad for a in args], list(expected))


def test_compile_of_a_gradient_that_requires_grad() -> None:
    # torch.compile differentiates whatever requires grad at once, so what is harmless in eager
    # (a second derivative that nobody asks for) is refused; detached, it compiles.
    args = deform_args()
    grad = torch.func.grad(lambda x: deform(x, *args[1:]).sum())
    compiled = torch.compile(grad, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(args[0]), grad(args[0]))
    leaf = args[0].clone().requires_grad_()
    torch.testing.assert_close(grad(leaf), grad(args[0]))
    with pytest.raises(Exception, match=SECOND):
        compiled(leaf)
    with torch.no_grad():
        torch.testing.assert_close(compiled(leaf), grad(args[0]))


def test_functionalize_and_make_fx() -> None:
    args = deform_args()
    torch.testing.assert_close(torch.func.functionalize(deform)(*args), deform(*args))
    per_sample = torch.vmap(
        torch.func.grad(lambda *a: deform(*a).sum()), (0, None, None, None, None)
    )
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(per_sample, tracing_mode=mode)(args[0][None], *args[1:]).graph
        targets = {node.target for node in graph.nodes}
        assert DEFORM_BACKWARD in targets


@pytest.mark.parametrize("door", ["call", "torch.ops"])
def test_compile_transforms(door: str) -> None:
    f = deform if door == "call" else deform_op
    args = deform_args()
    dims = (0, None, 0, None, None)
    inputs = batched(args, dims)
    for run in (
        torch.vmap(f, dims),
        torch.vmap(torch.func.grad(lambda *a: f(*a).pow(2).sum(), (0, 1)), dims),
    ):
        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), run(*inputs))


class Model(torch.nn.Module):
    def forward(self, *args: Any) -> Tensor:
        y = deform(*args)
        return custom_ops.mul_add(y, y)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
def test_export_dynamic(strict: bool, grad: bool) -> None:
    args = tuple(deform_args())
    args = tuple(all_require(args)) if grad else args
    n, h, w = (torch.export.Dim(name, min=2, max=100) for name in "nhw")
    spatial = {0: n, 2: h, 3: w}
    program = torch.export.export(
        Model(),
        args,
        dynamic_shapes={"args": (spatial, None, spatial, None, spatial)},
        strict=strict,
    )
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [DEFORM, MUL_ADD]
    decomposed = program.run_decompositions()
    targets = [node.target for node in decomposed.graph.nodes if node.op == "call_function"]
    assert targets == [DEFORM, MUL_ADD]
    other = deform_args(n=3, hw=(7, 6))
    torch.testing.assert_close(program.module()(*other), Model()(*other))
    torch.testing.assert_close(decomposed.module()(*other), Model()(*other))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.export.load(buffer).module()(*other), Model()(*other))


def test_exported_program_trains_and_vmaps() -> None:
    args = deform_args()
    module = torch.export.export(Model(), tuple(args)).module()
    leaves = all_require(args)
    found = torch.autograd.grad(module(*leaves).sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(Model()(*leaves).sum(), leaves))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
def test_torchscript_trace(grad: bool) -> None:
    args = all_require(deform_args()) if grad else deform_args()
    traced = torch.jit.trace(lambda *a: deform(*a), tuple(args))
    assert "custom_ops::deform_conv2d" in str(traced.graph)
    assert "PythonOp" not in str(traced.graph)
    torch.testing.assert_close(traced(*args), deform(*args))
    if grad:
        found = torch.autograd.grad(traced(*args).sum(), args)
        torch.testing.assert_close(found, torch.autograd.grad(deform(*args).sum(), args))


def test_against_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    args = deform_args()
    args[1] = torch.randn(6, 2, 3, 3, dtype=torch.double)
    args[2] = torch.randn(2, 36, 4, 5, dtype=torch.double)
    args[4] = torch.rand(2, 18, 4, 5, dtype=torch.double)
    found = public(*args, padding=(1, 1, 1, 1))
    expected = torchvision.ops.deform_conv2d(
        args[0], args[2], args[1], args[3], padding=1, mask=args[4]
    )
    torch.testing.assert_close(found, expected)
