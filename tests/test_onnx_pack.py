"""The pack of mappings against torch, through both exporters, in the installed ONNX Runtime."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

import custom_ops

pytestmark = pytest.mark.usefixtures("quiet")

nan, inf = math.nan, math.inf
aten, linalg = torch.ops.aten, torch.linalg
OPSET = 18
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.float64: (1e-10, 1e-12)}

Row = tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator, dtype=torch.float64)


_generator = torch.Generator().manual_seed(0)
EDGES = torch.tensor(
    [
        -inf,
        -100,
        -20.5,
        -3.7,
        -2,
        -1.5,
        -1,
        -0.3,
        -1e-06,
        -0.0,
        0,
        1e-07,
        0.2,
        0.5,
        0.99,
        1,
        1.5,
        2,
        2.5,
        3,
        7.1,
        20,
        90,
        inf,
        nan,
    ],
    dtype=torch.float64,
)
PAIRS = torch.cartesian_prod(EDGES, EDGES).T.contiguous()


def elementwise() -> list[Row]:
    names = "asinh acosh atanh sinh cosh expm1 exp2 trunc frac deg2rad rad2deg signbit isposinf"
    names += " isneginf isreal angle sinc erfc erfinv digamma"
    rows: list[Row] = [(name, getattr(torch, name), (EDGES,)) for name in names.split()]
    rows += [("sgn", torch.sgn, (EDGES[:-1],)), ("lgamma", torch.lgamma, (EDGES[1:],))]
    for name in ("entr", "erfcx", "ndtr", "log_ndtr", "ndtri"):
        rows.append((name, getattr(torch.special, name), (EDGES,)))
    for name in [
        "floor_divide",
        "copysign",
        "fmax",
        "fmin",
        "hypot",
        "logaddexp",
        "logaddexp2",
        "xlogy",
    ]:
        rows.append((name, getattr(torch, name), (PAIRS[0], PAIRS[1])))
    for name in ["heaviside", "isclose", "ldexp", "float_power", "xlogy"]:
        rows.append((name, getattr(torch, name), (PAIRS[0], PAIRS[1])))
    positive = EDGES[10:].clone()
    rows += [
        ("xlog1py", torch.special.xlog1py, (PAIRS[0], PAIRS[1])),
        ("mvlgamma", lambda x: torch.mvlgamma(x + 2, 3), (positive,)),
        ("polygamma", lambda x: torch.polygamma(3, x), (positive[:-2],)),
        ("softplus", lambda x: F.softplus(x, 3, 0.2), (EDGES,)),
        ("floor_divide int", lambda x: torch.floor_divide(x, -3), (torch.arange(-7, 8),)),
        ("floor_divide negative", lambda x: x // 2, (torch.arange(-7, 8),)),
    ]
    return rows


def matrices() -> list[Row]:
    a, tall, wide, batch = random(4, 4), random(5, 3), random(3, 5), random(2, 3, 3, 3)
    positive = a @ a.mT + torch.eye(4)
    swapped = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    rows: list[Row] = []
    for x in (a, batch, swapped):
        rows += [
            ("inv", linalg.inv, (x,)),
            ("inv_ex", linalg.inv_ex, (x,)),
            ("det", linalg.det, (x,)),
            ("slogdet", linalg.slogdet, (x,)),
            ("solve", linalg.solve, (x, random(*x.shape[:-1], 2))),
            ("matrix_power", lambda x: linalg.matrix_power(x, -3), (x,)),
            ("matrix_exp", torch.matrix_exp, (x,)),
        ]
    for x in (a, tall, wide, random(2, 5, 3), torch.zeros(3, 2, dtype=torch.float64)):
        rows += [
            ("qr", linalg.qr, (x,)),
            ("qr complete", lambda x: linalg.qr(x, "complete"), (x,)),
            ("geqrf", torch.geqrf, (x,)),
            ("lu", linalg.lu, (x,)),
            ("lu_factor_ex", linalg.lu_factor_ex, (x,)),
        ]
    packed, pivots = linalg.lu_factor(a)
    reflected, tau = torch.geqrf(tall)
    rows += [
        ("solve right", lambda a, b: linalg.solve(a, b, left=False), (a, random(2, 4))),
        ("solve vector", linalg.solve, (a, random(4))),
        ("solve batch", linalg.solve, (batch, random(3, 1))),
        ("cholesky", linalg.cholesky, (positive,)),
        ("cholesky upper", lambda x: linalg.cholesky(x, upper=True), (positive,)),
        ("cholesky_solve", torch.cholesky_solve, (random(4, 2), linalg.cholesky(positive))),
        ("cholesky_inverse", torch.cholesky_inverse, (linalg.cholesky(positive),)),
        ("triangular", lambda a, b: linalg.solve_triangular(a, b, upper=True), (a, random(4, 2))),
        (
            "triangular right",
            lambda a, b: linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True),
            (a, random(2, 4)),
        ),
        ("lu_solve", linalg.lu_solve, (packed, pivots, random(4, 2))),
        (
            "lu_solve adjoint",
            lambda p, i, b: linalg.lu_solve(p, i, b, adjoint=True),
            (packed, pivots, random(4, 2)),
        ),
        ("householder_product", linalg.householder_product, (reflected, tau)),
        ("ormqr", torch.ormqr, (reflected, tau, random(5, 2))),
        ("tensorinv", lambda x: linalg.tensorinv(x, 1), (random(6, 2, 3),)),
        ("tensorsolve", linalg.tensorsolve, (random(2, 3, 6), random(2, 3))),
        ("kron", torch.kron, (random(2, 3), random(4, 1, 2))),
        ("inner", torch.inner, (random(2, 3, 4), random(5, 4))),
        ("addr", torch.addr, (random(1), random(3), random(4))),
        ("bilinear", F.bilinear, (random(2, 3), random(2, 4), random(5, 3, 4), random(5))),
    ]
    return rows


def pools() -> list[Row]:
    image, volume = random(2, 3, 9, 8), random(1, 3, 5, 9, 8)
    kept, places = F.max_pool2d(image[..., :8, :], 2, return_indices=True)
    rows: list[Row] = []
    for size in ((5, 7), (3, 2), (13, 4), (1, 1)):
        rows += [
            (f"average {size}", lambda x, s=size: F.adaptive_avg_pool2d(x, s), (image,)),
            (
                f"max {size}",
                lambda x, s=size: F.adaptive_max_pool2d(x, s, return_indices=True),
                (image,),
            ),
        ]
    for size, padding, ceil in ((3, 1, False), (2, 0, True), (3, 1, True)):
        rows.append(
            (
                f"divisor_override {size}, {padding}, {ceil}",
                lambda x, s=size, p=padding, c=ceil: F.avg_pool2d(
                    x, s, 2, p, c, divisor_override=5
                ),
                (image,),
            )
        )
    rows += [
        ("equal elements", lambda x: F.adaptive_max_pool2d(x, 4, True), (image * 0,)),
        ("average 1d", lambda x: F.adaptive_avg_pool1d(x, 5), (image[0],)),
        ("max 1d", lambda x: F.adaptive_max_pool1d(x, 5, True), (image[0],)),
        ("average 3d", lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4)), (volume,)),
        ("max 3d", lambda x: F.adaptive_max_pool3d(x, (2, 3, 4), True), (volume,)),
        (
            "divisor_override 3d",
            lambda x: F.avg_pool3d(x, 2, 2, 1, True, divisor_override=7),
            (volume,),
        ),
        ("max_unpool2d", lambda x, i: F.max_unpool2d(x, i, 2, output_size=(8, 8)), (kept, places)),
    ]
    return rows


def orders() -> list[Row]:
    x = random(3, 4, 5)
    rough = x.clone()
    rough[1, 2, 3], rough[0, 0, :2] = nan, inf
    whole = torch.tensor([[3, 1, 3, 0], [2, 2, 5, 1]])
    ordered = torch.tensor([[1.0, 2, 2, 5], [0, 1, 7, 9]], dtype=torch.float64)
    wanted = torch.tensor([[2.0, nan, 6], [0, 1, 9]], dtype=torch.float64)
    rows: list[Row] = []
    for dim in (0, -1):
        rows += [
            ("kthvalue", lambda x, d=dim: torch.kthvalue(x, 2, d), (x,)),
            ("median", lambda x, d=dim: torch.median(x, d), (x,)),
            ("nanmedian", lambda x, d=dim: torch.nanmedian(x, d)[0], (rough,)),
            ("cummax", lambda x, d=dim: torch.cummax(x, d), (rough,)),
            ("cummin", lambda x, d=dim: torch.cummin(x, d), (rough,)),
            ("cummax of equals", lambda x, d=dim: torch.cummax(x, d), (whole,)),
            ("quantile", lambda x, d=dim: torch.quantile(x, 0.3, d), (rough,)),
            ("cumprod", lambda x, d=dim: torch.cumprod(x, d), (x,)),
        ]
    for right in (False, True):
        rows += [
            (
                "searchsorted",
                lambda o, v, r=right: torch.searchsorted(o, v, right=r),
                (ordered, wanted),
            ),
            (
                "searchsorted one row",
                lambda o, v, r=right: torch.searchsorted(o, v, right=r),
                (ordered[0], wanted),
            ),
            (
                "bucketize",
                lambda v, o, r=right: torch.bucketize(v, o, right=r),
                (wanted, ordered[0]),
            ),
        ]
    rows += [
        ("median of all", torch.median, (rough,)),
        ("nanmedian of all", torch.nanmedian, (rough,)),
        (
            "quantiles",
            lambda x, q: torch.quantile(x, q, 1, keepdim=True),
            (x, torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)),
        ),
        ("nanquantile", lambda x: torch.nanquantile(x, 0.3), (rough[1],)),
        ("msort", torch.msort, (rough,)),
        ("amax", torch.amax, (rough,)),
        ("amin", lambda x: torch.amin(x, (0, 2), keepdim=True), (rough,)),
        ("aminmax", torch.aminmax, (x,)),
        ("all", torch.all, (whole,)),
        ("any", lambda x: torch.any(x, 1), (whole,)),
        ("logcumsumexp", lambda x: torch.logcumsumexp(x * 50, 1), (x,)),
        ("pairwise_distance", F.pairwise_distance, (x, x[0] + 1)),
        ("pairwise_distance of vectors", F.pairwise_distance, (x[0, 0], x[1, 1])),
    ]
    return rows


def places() -> list[Row]:
    x, source = random(5, 6), random(4, 5)
    index = torch.tensor([[0, 4, 2, 2, 1], [1, 1, 3, 2, 0], [0, 4, 4, 2, 1], [0, 0, 0, 0, 0]])
    reductions = ("prod", "mean", "amin", "amax")
    columns, more = torch.tensor([0, 2, 2]), random(5, 3)
    rows: list[Row] = [
        (
            f"scatter_reduce {reduce}",
            lambda x, i, s, r=reduce: torch.scatter_reduce(x, 0, i, s, r, include_self=False),
            (x, index, source),
        )
        for reduce in ("sum", *reductions)
    ]
    rows += [
        (
            f"index_reduce {reduce}",
            lambda x, i, s, r=reduce: torch.index_reduce(x, 1, i, s, r, include_self=False),
            (x, columns, more),
        )
        for reduce in reductions
    ]
    repeated = torch.tensor([0, 1, 0, -1])
    rows += [
        (
            "index_add",
            lambda x, i, s: torch.index_add(x, 1, i, s, alpha=2),
            (x, torch.tensor([0, 2, 2]), random(5, 3)),
        ),
        (
            "index_put",
            lambda x, i, v: torch.index_put(x, (i,), v, accumulate=True),
            (x, repeated, random(6)),
        ),
        (
            "index_put two",
            lambda x, i, v: torch.index_put(x, (i, i), v, accumulate=True),
            (x, repeated, random(4)),
        ),
        ("put", lambda x, i, s: torch.put(x, i, s, accumulate=True), (x, repeated, random(4))),
        ("masked_select", torch.masked_select, (x, torch.arange(6) > 2)),
        ("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 0), (x[:, :5], index)),
        ("select_scatter", lambda x, s: torch.select_scatter(x, s, 1, -2), (x, random(5))),
        ("slice_scatter", lambda x, s: torch.slice_scatter(x, s, 0, 1, -1, 2), (x, random(2, 6))),
        ("rot90", lambda x: torch.rot90(x, 1, (0, 1)), (x,)),
        ("diag_embed", lambda x: torch.diag_embed(x, -1, 0, 2), (x,)),
        ("diag", lambda x: torch.diag(x, 1), (x,)),
        ("block_diag", torch.block_diag, (random(3), random(2, 2))),
        ("cartesian_prod", torch.cartesian_prod, (random(3), random(2))),
        ("channel_shuffle", lambda x: F.channel_shuffle(x, 3), (random(2, 6, 3, 4),)),
    ]
    return rows


def networks() -> list[Row]:
    """Activations, losses and grids."""
    image, cube, yes = random(2, 2, 3), random(2, 3, 4), (EDGES > 0).double()
    finite, some = EDGES[1:-2], random(3, 4)
    rows: list[Row] = [
        ("logsigmoid", F.logsigmoid, (EDGES,)),
        ("rrelu", lambda x: F.rrelu(x, 0.1, 0.4), (EDGES,)),
        (
            "binary_cross_entropy_with_logits",
            lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
            (finite, yes[1:-2]),
        ),
        (
            "binary_cross_entropy_with_logits, weighted",
            lambda x, y, w, p: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p),
            (some, random(3, 4).sigmoid(), random(3, 4).abs(), random(4).abs()),
        ),
        (
            "multilabel_soft_margin_loss",
            F.multilabel_soft_margin_loss,
            (finite[None], yes[None, 1:-2]),
        ),
    ]
    for aligned in (False, True):
        rows += [
            (
                f"affine_grid {size} {aligned}",
                lambda x, s=size, c=aligned: F.affine_grid(x, s, c),
                (image,),
            )
            for size in ((2, 1, 4, 5), (2, 1, 1, 5))
        ]
        rows.append(
            (
                f"affine_grid of volumes {aligned}",
                lambda x, c=aligned: F.affine_grid(x, (2, 1, 4, 1, 3), c),
                (cube,),
            )
        )
    return rows


def ranges() -> list[Row]:
    """Rows of numbers from tensors; their dtype is the default one."""
    one, nine = torch.tensor(1.25, dtype=torch.float64), torch.tensor(9)
    rows: list[Row] = [
        (
            f"{function.__name__} {steps}",
            lambda a, b, f=function, n=steps: f(a, b, n),
            (one, nine),
        )
        for function in (torch.linspace, torch.logspace)
        for steps in (1, 2, 5)
    ]
    return [
        *rows,
        ("linspace to a number", lambda a: torch.linspace(a, 3, 7, dtype=torch.float64), (one,)),
        ("linspace from a number", lambda a: torch.linspace(3, a, 4), (one,)),
        ("whole", lambda a, b: torch.linspace(b, a, 6, dtype=torch.int64), (one, nine)),
        ("powers", lambda a, b: torch.logspace(a, b, 4, 2, dtype=torch.int64), (one, nine)),
    ]


def untraced() -> list[Row]:
    """What torch.export itself refuses."""
    x = random(3, 5)
    return [("cov", torch.cov, (x,)), ("corrcoef", torch.corrcoef, (x,))]


def distances() -> list[Row]:
    a, b = random(2, 3, 4), random(5, 4)
    query, key, value = random(2, 3, 4), random(2, 6, 4), random(2, 6, 5)
    attend = F.scaled_dot_product_attention
    rows: list[Row] = [
        (f"cdist {p}", lambda a, b, p=p: torch.cdist(a, b, p), (a, b)) for p in (1.0, 2.0, 3.0)
    ]
    rows += [
        ("pdist", F.pdist, (b,)),
        ("attention", attend, (query, key, value)),
        ("causal", lambda q, k, v: attend(q, k, v, is_causal=True), (query, key, value)),
        ("masked", attend, (query, key, value, random(3, 6))),
    ]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    heads = tuple(random(2, 3, size, 4) for size in (3, 6, 6))
    mask = torch.zeros(3, 6, dtype=torch.float64)
    mask[0], mask[1, 2:] = -inf, -inf
    rows += [
        ("flash attention", lambda q, k, v: flash(q, k, v, is_causal=True, scale=0.3), heads),
        (
            "flash attention, masked",
            lambda q, k, v, m: flash(q, k, v, attn_mask=m),
            (*heads, mask),
        ),
    ]
    for mode, padding, aligned in (
        ("bilinear", "zeros", False),
        ("bilinear", "reflection", True),
        ("nearest", "border", False),
    ):
        rows.append(
            (
                f"grid_sample {mode}, {padding}, {aligned}",
                lambda x, g, m=mode, p=padding, c=aligned: F.grid_sample(x, g, m, p, c),
                (random(2, 3, 4, 5, 6), random(2, 3, 4, 2, 3)),
            )
        )
    return rows


def spectra() -> list[Row]:
    """Complex numbers; the dynamo exporter needs no help."""
    x, signal, window = random(5, 6, 7), random(2, 100), random(12)

    def pairs(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args: torch.view_as_real(function(*args).resolve_conj())

    def both(name: str, *args: Any) -> Callable[..., torch.Tensor]:
        function = getattr(torch.fft, name)
        return pairs(lambda x: function(x, *args))

    transforms = {"irfft": torch.fft.irfft, "hfft": torch.fft.hfft}
    rows: list[Row] = []
    for norm in ("backward", "ortho", "forward"):
        for size in (None, 4, 10):
            rows += [
                (f"{name} {size} {norm}", both(name, size, 1, norm), (x,))
                for name in ("fft", "ifft", "rfft", "ihfft")
            ]
            rows += [
                (
                    f"{name} {size} {norm}",
                    lambda x, f=transforms[name], s=size, n=norm: f(x, s, 1, n),
                    (x,),
                )
                for name in transforms
            ]
    rows += [(name, both(name, (3, 10), (1, 2)), (x,)) for name in ("fft2", "rfft2", "ifftn")]
    rows += [
        ("irfftn", torch.fft.irfftn, (x,)),
        ("fftshift", torch.fft.fftshift, (x,)),
        ("ifftshift", torch.fft.ifftshift, (x,)),
        ("stft", pairs(lambda x: torch.stft(x, 10, return_complex=True)), (signal,)),
        (
            "stft with a window",
            pairs(lambda x, w: torch.stft(x, 16, 5, 12, w, normalized=True, return_complex=True)),
            (signal, window),
        ),
        ("there and back", lambda x: torch.fft.irfft(torch.fft.rfft(x), 7).abs(), (x,)),
        ("absolute value", lambda x: torch.fft.rfft(x).abs(), (x,)),
        ("polar", pairs(torch.polar), (x.abs(), x)),
    ]
    return rows


TOPICS = {
    topic.__name__: topic()
    for topic in (
        elementwise,
        matrices,
        pools,
        orders,
        places,
        distances,
        networks,
        ranges,
        spectra,
        untraced,
    )
}


class All(torch.nn.Module):
    """Computes every row of a topic: one export for them all."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, *tensors: torch.Tensor) -> Any:
        outputs, at = [], 0
        for _, function, args in self.rows:
            found = function(*tensors[at : at + len(args)])
            at += len(args)
            outputs += list(found) if isinstance(found, tuple) else [found]
        return tuple(outputs)


def names(rows: list[Row], tensors: tuple[torch.Tensor, ...]) -> list[str]:
    """Returns the name of the row of each output."""
    found, at = [], 0
    for name, function, args in rows:
        outputs = function(*tensors[at : at + len(args)])
        at += len(args)
        found += [name] * (len(outputs) if isinstance(outputs, tuple) else 1)
    return found


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("topic", list(TOPICS))
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_agrees_with_torch(topic: str, exporter: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if exporter == "dynamo" and topic in ("untraced", "spectra"):
        pytest.skip("torch.export does not take it, or the exporter needs no help")
    if exporter == "dynamo" and dtype == torch.float64:
        pytest.skip("the same functions as in float32; seconds each")
    rows = TOPICS[topic]
    tensors = tuple(
        t.to(dtype) if t.is_floating_point() else t for _, _, args in rows for t in args
    )
    module, path = All(rows).eval(), str(tmp_path / "m.onnx")
    if exporter == "dynamo":
        table = custom_ops.onnx.translation_table(opset_version=OPSET)
        torch.onnx.export(
            module,
            tensors,
            path,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            custom_translation_table=table,
        )
    else:
        inputs = [f"input_{i}" for i in range(len(tensors))]
        with custom_ops.onnx.install_mappings():
            torch.onnx.export(
                module, tensors, path, dynamo=False, opset_version=OPSET, input_names=inputs
            )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = [value.name for value in session.get_inputs()]
    feeds = dict(zip(given, (t.numpy() for t in tensors), strict=True))
    rtol, atol = TOLERANCES[dtype]
    for name, value, right in zip(
        names(rows, tensors), session.run(None, feeds), module(*tensors), strict=True
    ):
        assert value.shape == tuple(right.shape), name
        np.testing.assert_allclose(value, right.numpy(), rtol, atol, err_msg=name, strict=True)


# One rounding to 16 bits of results that differ by less than that before it: a unit in the last
# place, and below the normal numbers their distance.
HALF_RTOL, HALF_ATOL = 2.0**-10, 2.0**-24


def in_half(rows: list[Row]) -> list[Row]:
    """Returns the rows that torch itself computes in float16."""
    kept = []
    for name, function, args in rows:
        halves = tuple(t.half() if t.is_floating_point() else t for t in args)
        try:
            function(*halves)
        except (RuntimeError, NotImplementedError):
            continue
        kept.append((name, function, halves))
    return kept


def outputs_of(function: Callable[..., Any], args: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    found = function(*args)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("topic", list(TOPICS))
def test_float16_agrees_with_torch(topic: str, tmp_path: Path) -> None:
    """As near to the numbers of float64 as torch in float16 is, but for one rounding."""
    rows = in_half(TOPICS[topic])
    assert rows
    tensors, path = tuple(t for _, _, args in rows for t in args), str(tmp_path / "m.onnx")
    with custom_ops.onnx.install_mappings():
        inputs = [f"input_{i}" for i in range(len(tensors))]
        torch.onnx.export(
            All(rows).eval(), tensors, path, dynamo=False, opset_version=OPSET, input_names=inputs
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()}
    feeds = {f"input_{i}": t.numpy() for i, t in enumerate(tensors) if f"input_{i}" in given}
    found = iter(session.run(None, feeds))
    for name, function, args in rows:
        wide = tuple(t.double() if t.is_floating_point() else t for t in args)
        exact = outputs_of(function, wide)
        for half, right in zip(outputs_of(function, args), exact, strict=True):
            check_half(name, next(found), half.numpy(), right.numpy())


def check_half(name: str, found: Any, half: Any, exact: Any) -> None:
    assert (found.dtype, found.shape) == (half.dtype, half.shape), name
    if half.dtype.kind != "f":
        np.testing.assert_array_equal(found, half, err_msg=name)
        return
    with np.errstate(all="ignore"):
        exact = np.asarray(exact, np.float64)
        room = HALF_RTOL * np.abs(exact) + HALF_ATOL + np.abs(half.astype(np.float64) - exact)
        near = np.abs(found.astype(np.float64) - exact) <= room
        same = (found == half) | (found == exact.astype(half.dtype))
    both = np.isnan(found) & np.isnan(half)
    bad = ~(both | same | (np.isfinite(found) & np.isfinite(room) & near))
    assert not bad.any(), f"{name}: {found[bad][:5]}, torch {half[bad][:5]}, exact {exact[bad][:5]}"


def test_trigamma_is_exact_where_torch_is_not(tmp_path: Path) -> None:
    class Trigamma(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.polygamma(1, x)

    path = str(tmp_path / "m.onnx")
    x = torch.tensor([1, 0.5, -0.5], dtype=torch.float64)
    with custom_ops.onnx.install_mappings():
        torch.onnx.export(Trigamma(), (x,), path, dynamo=False, opset_version=OPSET)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    square = math.pi**2
    np.testing.assert_allclose(found, [square / 6, square / 2, square / 2 + 4], rtol=1e-13)


def exported(function: Callable[..., Any], *args: torch.Tensor) -> None:
    with custom_ops.onnx.install_mappings():
        module = All([("", function, args)])
        torch.onnx.export(module, args, io.BytesIO(), dynamo=False, opset_version=OPSET)


def test_refuses_what_would_take_pairs_for_numbers() -> None:
    x = random(3, 4).float()
    with pytest.raises(ValueError, match=r"aten::mul: its numbers must be real"):
        exported(lambda x: torch.view_as_real(torch.fft.rfft(x) * 2), x)
    with pytest.raises(ValueError, match=r"aten::sinh: its numbers must be real"):
        exported(lambda x: torch.view_as_real(torch.fft.rfft(x).sinh()), x)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("function", [linalg.svd, linalg.eigh, linalg.pinv])
def test_refuses_with_the_reason(
    function: Callable[..., Any], exporter: str, tmp_path: Path
) -> None:
    module, path = All([("", function, (random(3, 3).float(),))]), tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"^aten::linalg_\w+: [^\n]*iterative[^\n]*register_map"):
        custom_ops.onnx.export(module, module.rows[0][2], path, exporter=exporter)
    assert not path.exists()


@pytest.mark.parametrize("size", [100, 1000])
def test_spectra_of_dynamo_are_as_exact_as_those_of_torch(size: int, tmp_path: Path) -> None:
    """The runtime's transform in float32 is 500 times less exact where a size is no power of 2."""

    class Spectra(torch.nn.Module):
        def forward(self, x: torch.Tensor, window: torch.Tensor) -> Any:
            short = torch.stft(x, size, size // 4, window=window, return_complex=True)
            return torch.view_as_real(short), torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))

    x, window, path = random(2, 3 * size), torch.hann_window(size).double(), tmp_path / "m.onnx"
    narrow = x.float(), window.float()
    custom_ops.onnx.export(Spectra().eval(), narrow, path, exporter="dynamo")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feeds = {name: value.numpy() for name, value in zip(names, narrow, strict=True)}
    wide = Spectra()(*(value.double() for value in narrow))
    for found, right in zip(session.run(None, feeds), wide, strict=True):
        worst = np.abs(found - right.numpy()).max() / np.abs(right.numpy()).max()
        assert worst < 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_gaussian_nll_loss(exporter: str, tmp_path: Path) -> None:
    x, target, variance = random(3, 4).float(), random(3, 4).float(), torch.tensor([0.5, 0, 2])
    for i, arguments in enumerate(({}, {"full": True, "reduction": "none"}, {"reduction": "sum"})):
        module, path = torch.nn.GaussianNLLLoss(**arguments).eval(), tmp_path / f"{i}.onnx"
        custom_ops.onnx.export(module, (x, target, variance), path, exporter=exporter)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        tensors = (value.numpy() for value in (x, target, variance))
        (found,) = session.run(None, dict(zip(names, tensors, strict=True)))
        np.testing.assert_allclose(found, module(x, target, variance), 1e-5)
