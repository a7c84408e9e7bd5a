"""Bodies against kernels: sizes, borders, calls that share a body, memory."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import check, deform_feeds, deform_model, parse, run

from custom_ops.onnx import embed, lower, session


def both(model: onnx.ModelProto, feeds: dict[str, Any], **tolerance: float) -> None:
    """Compares the kernel with the body, attached and inlined."""
    expected = run(model, feeds, "native")
    tolerance = tolerance or {"rtol": 1e-4, "atol": 1e-5}
    for lowering in ("portable", "decomposed"):
        lowered = check(lower(model, lowering))
        np.testing.assert_allclose(run(lowered, feeds, "none"), expected, **tolerance)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_dynamic_sizes(kind: str) -> None:
    embedded = check(embed(deform_model(kind=kind)))
    body, kernel = session(embedded, kernels="none"), session(embedded)
    for n, size in ((1, (3, 3)), (2, (6, 5)), (0, (6, 5)), (3, (5, 9))):
        feeds = deform_feeds(n, size=size, dtype="f4" if kind == "float" else "f8")
        np.testing.assert_allclose(
            body.run(None, feeds)[0], kernel.run(None, feeds)[0], rtol=1e-4, atol=1e-5
        )


def test_borders() -> None:
    """Positions on, just inside and just outside each border, and far away or none at all."""
    edge = np.float32([-1.5, -1, -0.999, -0.5, 0, 3, 3.5, 3.999, 4, 4.5])
    odd = np.float32([np.nan, np.inf, -np.inf, 1e20, -1e20, 2**31, -(2**31), 2**63, 1e-40, 2.5])
    for values in (edge, odd):
        rows, columns = np.meshgrid(values, values, indexing="ij")
        # 1 x 1 kernel: the offset moves output pixel (i, j) to a place of our choice.
        i, j = np.meshgrid(np.arange(10), np.arange(10), indexing="ij")
        offset = np.stack([rows - i, columns - j])[None].astype(np.float32)
        x = np.random.default_rng(0).standard_normal((1, 1, 10, 10)).astype(np.float32)
        weight = np.ones((1, 1, 1, 1), np.float32)
        x[:, :, 4:], x[:, :, :, 4:] = 100, 100  # what must not be seen beyond
        feeds = {"x": x, "weight": weight, "offset": offset}
        both(deform_model(bias=False, mask=False), feeds, rtol=1e-4, atol=1e-3)


def test_infinite_pixels_stay_where_they_are() -> None:
    feeds = deform_feeds(bias=False, mask=False)
    feeds["offset"][:] = 0
    feeds["x"][0, 0, 0, 0] = np.inf
    expected = run(deform_model(bias=False, mask=False), feeds, "native")
    actual = run(embed(deform_model(bias=False, mask=False)), feeds, "none")
    np.testing.assert_array_equal(np.isfinite(actual[1]), np.isfinite(expected[1]))
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-4, atol=1e-5)


def test_calls_with_and_without_share_a_body() -> None:
    model = parse("""
        g (float[n, 4, h, w] x, float[4, 4, 1, 1] weight, float[n, 2, h, w] offset, float[4] bias,
           float[n, 1, h, w] mask) => (float[n, 4, h, w] y) {
            p = custom_ops.DeformConv2d (x, weight, offset, bias, mask)
            q = custom_ops.DeformConv2d (p, weight, offset, bias)
            r = custom_ops.DeformConv2d (q, weight, offset, , mask)
            s = custom_ops.DeformConv2d (r, weight, offset)
            y = custom_ops.MulAdd <alpha = 0.5> (s, x)
        }""")
    draw = np.random.default_rng(0).standard_normal
    feeds = {
        "x": draw((2, 4, 5, 6), np.float32),
        "weight": draw((4, 4, 1, 1), np.float32),
        "offset": draw((2, 2, 5, 6), np.float32),
        "bias": draw(4, np.float32),
        "mask": draw((2, 1, 5, 6), np.float32),
    }
    both(model, feeds, rtol=1e-3, atol=1e-4)


def test_types_share_a_body() -> None:
    """float16 is computed in float32 there, and float64 stays float64."""
    model = parse("""
        g (double[N] a) => (double[N] y, double[N] z) {
            p = Cast <to = 10> (a)
            q = custom_ops.MulAdd <alpha = 1.0> (p, p)
            y = Cast <to = 11> (q)
            z = custom_ops.MulAdd (a, a)
        }""")
    a = np.array([1 / 3, 1e-300])
    y, z = session(check(embed(model)), kernels="none").run(None, {"a": a})
    np.testing.assert_array_equal(z, 3 * a)
    np.testing.assert_array_equal(y, 2 * np.float16(a).astype("f8"))


PEAK = """
    import sys
    import numpy as np, onnx, custom_ops
    sys.path.insert(0, {tests!r})
    from onnx_models import deform_model

    def status(name):
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    n, c, size, k = 1, 64, 128, 7
    feeds = {{"x": np.ones((n, c, size, size), "f4"), "weight": np.ones((c, c, k, k), "f4"),
             "offset": np.ones((n, 2 * k * k, size, size), "f4"), "bias": np.ones(c, "f4"),
             "mask": np.ones((n, k * k, size, size), "f4")}}
    model = deform_model(attributes="<pads = [3, 3, 3, 3]>")
    runner = custom_ops.onnx.session(
        custom_ops.onnx.lower(model, "{lowering}") if {inline} else custom_ops.onnx.embed(model),
        kernels="none")
    small = {{k: v[..., :8, :8] if v.ndim == 4 and k != "weight" else v for k, v in feeds.items()}}
    runner.run(None, small)
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    before = status("VmRSS")
    y = runner.run(None, feeds)[0]
    print(status("VmHWM") - before - y.nbytes / 2**20)
"""


@pytest.mark.parametrize("lowering", ["portable", "decomposed"])
def test_memory_of_the_body(lowering: str) -> None:
    """A 7 x 7 kernel over 64 channels of 128 x 128; all taps at once would take 857 MiB."""
    code = textwrap.dedent(PEAK).format(
        tests=str(Path(__file__).parent), lowering=lowering, inline=lowering == "decomposed"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    extra = float(done.stdout)
    assert 1 < extra < 64, f"{extra} MiB beyond its tensors"
