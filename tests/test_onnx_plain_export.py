"""Plain torch.onnx.export of our ops, through both exporters, by symbolic and translation table."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_net import DYNAMIC, IMAGE, domains, mul_add_args, net, plain
from torch import Tensor

import custom_ops
from custom_ops.onnx import lowering, session
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.ops.deform_conv2d.function import DeformConv2dFunction
from custom_ops.ops.mul_add import MulAddFunction

BOTH = pytest.mark.parametrize("exporter", list(EXPORTERS))


pytestmark = pytest.mark.usefixtures("quiet")


def agrees(path: Path, model: torch.nn.Module, args: Any, kernels: str) -> None:
    with torch.no_grad():
        expected = model(*args).numpy()
    runner = session(path, kernels=kernels)
    names = [given.name for given in runner.get_inputs()]
    feeds = {name: arg.numpy() for name, arg in zip(names, args, strict=True)}
    np.testing.assert_allclose(runner.run(None, feeds)[0], expected, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("kind", ["portable", "custom", "decomposed"])
def test_plain_export(exporter: str, kind: str, tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", net()
    dynamic: dict[str, Any] = {"dynamic_shapes": DYNAMIC}
    if exporter == "torchscript":
        dynamic = {"dynamic_axes": {"image": DYNAMIC[0]}, "input_names": ["image"]}
    with lowering(kind):
        plain(model, IMAGE, path, exporter, **dynamic)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    inlined = kind == "decomposed" or (kind == "portable" and exporter == "dynamo")
    assert ("custom_ops" in domains(written)) == (not inlined)
    has_bodies = kind == "portable" and exporter == "torchscript"
    assert {f.name for f in written.functions} == (
        {"DeformConv2d", "MulAdd"} if has_bodies else set()
    )
    for args in (IMAGE, (torch.randn(1, 3, 4, 9),), (torch.randn(0, 3, 4, 9),)):
        for kernels in ("native",) if kind == "custom" else ("native", "none"):
            agrees(path, model, args, kernels)


@BOTH
@pytest.mark.parametrize("kind", ["portable", "custom", "decomposed"])
@pytest.mark.parametrize("opset", [18, 20, 23])
def test_plain_export_at_opsets(exporter: str, kind: str, opset: int, tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", net()
    with lowering(kind):
        plain(model, IMAGE, path, exporter, opset_version=opset)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert {i.domain: i.version for i in written.opset_import}[""] == opset
    agrees(path, model, IMAGE, "native" if kind == "custom" else "none")


@BOTH
def test_plain_export_refuses_opsets_that_a_body_cannot_have(exporter: str, tmp_path: Path) -> None:
    model, args = net(torch.float64), (IMAGE[0].double(),)
    with pytest.raises(Exception, match="deform_conv2d") as caught:
        plain(model, args, tmp_path / "m.onnx", exporter, opset_version=18)
    chain, error = [], caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__  # type: ignore[assignment]
    assert any("opset_version must be at least 20 for its body in float64" in s for s in chain)


@pytest.mark.parametrize("kind", ["portable", "custom", "decomposed"])
def test_functions_called_directly(kind: str, tmp_path: Path) -> None:
    class Calls(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
            attributes = ([1, 1], [1, 1, 1, 1], [1, 1], 0, 0)
            y = DeformConv2dFunction.apply(x, weight, offset, None, None, *attributes)
            return MulAddFunction.apply(y, x, 0.5)

    args = (torch.randn(2, 4, 5, 6), torch.randn(4, 2, 3, 3), torch.randn(2, 18, 5, 6))
    path = tmp_path / "m.onnx"
    names = ["x", "weight", "offset"]
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("x", "offset")}
    with lowering(kind):
        plain(Calls(), args, path, "torchscript", input_names=names, dynamic_axes=axes)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for n, h, w in ((2, 5, 6), (1, 3, 4)):
        args = (torch.randn(n, 4, h, w), args[1], torch.randn(n, 18, h, w))
        agrees(path, Calls(), args, "native" if kind == "custom" else "none")


def test_a_body_does_not_stay_behind(tmp_path: Path) -> None:
    """The exporter keeps the functions of one export for the next, of another opset."""
    args, path = mul_add_args(2, 3), tmp_path / "m.onnx"
    for kind, opset, bodies in (("portable", 18, [18]), ("custom", 20, []), ("portable", 20, [20])):
        with lowering(kind):
            plain(custom_ops.MulAdd(), args, path, "torchscript", opset_version=opset)
        functions = onnx.load(path).functions
        assert [i.version for f in functions for i in f.opset_import if i.domain == ""] == bodies


def test_types_share_a_body_in_torchscript(tmp_path: Path) -> None:
    class Mixed(torch.nn.Module):
        def forward(self, a: Tensor) -> tuple[Tensor, Tensor]:
            half, b = a.half(), a * 1e-300
            return custom_ops.mul_add(half, half, 1.0).double(), custom_ops.mul_add(b, b)

    a = torch.tensor([1 / 3, 3.0], dtype=torch.float64)
    plain(Mixed(), (a,), tmp_path / "m.onnx", "torchscript")
    runner = session(tmp_path / "m.onnx", kernels="none")
    y, z = runner.run(None, {runner.get_inputs()[0].name: a.numpy()})
    np.testing.assert_array_equal(z, 3 * (a * 1e-300).numpy())
    np.testing.assert_array_equal(y, (2 * a.half()).double().numpy())


def test_unknown_lowerings() -> None:
    with (
        pytest.raises(ValueError, match=r"lowering: name must be one of .*, got 'native'; custom"),
        lowering("native"),
    ):
        pass


def test_plain_export_needs_no_import_of_ours(tmp_path: Path) -> None:
    """`import custom_ops` alone tells the TorchScript exporter of the ops."""
    code = """
import torch, custom_ops
args = (torch.ones(2), torch.ones(2))
torch.onnx.export(custom_ops.MulAdd().eval(), args, "m.onnx", dynamo=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert onnx.load(tmp_path / "m.onnx").functions[0].name == "MulAdd"
