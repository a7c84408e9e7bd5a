"""A network beyond toys: backbone, windowed attention, decoder of deformable convolutions."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import custom_ops
from custom_ops.onnx import export, lowering, session, translation_table

torchvision = pytest.importorskip("torchvision")

WINDOW = 4


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message=".*shape inference of custom_ops")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


class WindowAttention(torch.nn.Module):
    """Attention within windows of 4 x 4, with a learnt bias as its mask."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = torch.nn.Linear(channels, 3 * channels)
        self.bias = torch.nn.Parameter(torch.randn(heads, WINDOW**2, WINDOW**2))
        self.out = torch.nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows, columns = h // WINDOW, w // WINDOW
        x = x.reshape(n, c, rows, WINDOW, columns, WINDOW).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(n * rows * columns, WINDOW**2, c)
        qkv = self.qkv(x).reshape(-1, WINDOW**2, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias[None])
        y = y.transpose(1, 2).reshape(-1, WINDOW**2, c)
        y = self.out(x + y).reshape(n, rows, columns, WINDOW, WINDOW, c)
        return y.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


class Decoder(torch.nn.Module):
    """A deformable convolution that learns its offsets and mask."""

    def __init__(self, channels: int, kernel: int, foreign: bool) -> None:
        super().__init__()
        self.taps = kernel**2
        self.head = torch.nn.Conv2d(channels, 3 * self.taps, 3, padding=1)
        torch.nn.init.normal_(self.head.bias)
        layer = torchvision.ops.DeformConv2d if foreign else custom_ops.DeformConv2d
        self.conv = layer(channels, channels, kernel, padding=kernel // 2)
        self.norm = torch.nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.head(x).split([2 * self.taps, self.taps], 1)
        return custom_ops.mul_add(self.norm(self.conv(x, offset, mask.sigmoid())), x, alpha=0.5)


class Network(torch.nn.Module):
    """A backbone's features at 1/8, attention, decoders with kernels 1, 3 and 7, and a head."""

    def __init__(self, backbone: str, foreign: bool = False) -> None:
        super().__init__()
        if backbone == "resnet":
            resnet = torchvision.models.resnet18(weights=None)
            self.features = torch.nn.Sequential(*list(resnet.children())[:6])
            channels = 128
        else:
            swin = torchvision.models.swin_transformer.SwinTransformer(
                [4, 4], 16, [1, 1], [2, 2], [4, 4], stochastic_depth_prob=0.0
            )
            self.features = torch.nn.Sequential(swin.features, swin.permute)
            channels = 32
        self.reduce = torch.nn.Conv2d(channels, 16, 1)
        self.attention = WindowAttention(16)
        self.decoders = torch.nn.Sequential(*(Decoder(16, k, foreign) for k in (1, 3, 7)))
        self.head = torch.nn.Conv2d(16, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.attention(self.reduce(self.features(image)))
        x = self.head(self.decoders(x))
        return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


IMAGE = (torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)),)
OTHERS = [(torch.randn(n, 3, h, w),) for n, h, w in ((1, 96, 64), (3, 32, 64))]
H, W = (torch.export.Dim(name, min=1, max=8) for name in ("h", "w"))
DYNAMIC = ({0: torch.export.Dim("n", min=1, max=8), 2: 32 * H, 3: 32 * W},)


def network(backbone: str, foreign: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(backbone, foreign).eval()


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("backbone", "kind", "foreign"),
    [
        ("resnet", "portable", False),
        ("resnet", "custom", True),
        ("resnet", "decomposed", False),
        ("resnet", "native", True),
        ("resnet", "auto", False),
        ("swin", "portable", False),
    ],
)
def test_export(exporter: str, backbone: str, kind: str, foreign: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    result = export(
        network(backbone, foreign),
        IMAGE,
        path,
        lowering=kind,
        exporter=exporter,
        dynamic_shapes=DYNAMIC,
        verify_args=OTHERS,
    )
    assert result
    assert len(result.checks) == 3
    assert all(check.difference is not None for check in result.checks)
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("kind", ["portable", "custom", "decomposed"])
def test_plain_export(exporter: str, kind: str, tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", network("resnet")
    model.requires_grad_(False)  # see custom_ops.onnx._exporters._tracing
    options: dict[str, Any] = {"dynamo": False}
    options["dynamic_axes"] = {"image": {0: "n", 2: "h", 3: "w"}}
    if exporter == "dynamo":
        options = {"dynamo": True, "verbose": False, "dynamic_shapes": DYNAMIC}
        options["custom_translation_table"] = translation_table()
    with torch.no_grad(), lowering(kind):
        torch.onnx.export(model, IMAGE, path, input_names=["image"], **options)
    onnx.checker.check_model(str(path), full_check=True)
    runner = session(path, kernels="native" if kind == "custom" else "none")
    for image in (IMAGE[0], OTHERS[0][0]):
        with torch.no_grad():
            expected = model(image).numpy()
        actual = runner.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_python_kernels(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", network("resnet")
    export(model, IMAGE, path, exporter="torchscript", verify=False)
    with torch.no_grad():
        expected = model(*IMAGE).numpy()
    actual = session(path, kernels="python").run(None, {"image": IMAGE[0].numpy()})[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
