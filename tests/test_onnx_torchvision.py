"""Models of torchvision's deformable convolution, which know nothing of this package."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import custom_ops
from custom_ops.onnx import export, lowering, session, translation_table
from custom_ops.onnx._lowering import LOWERINGS

torchvision = pytest.importorskip("torchvision")


pytestmark = pytest.mark.usefixtures("quiet")


class Foreign(torch.nn.Module):
    """Every kind of call: with and without mask and bias, groups, offset groups; as a function."""

    def __init__(self) -> None:
        super().__init__()
        layer = torchvision.ops.DeformConv2d
        self.head = torch.nn.Conv2d(4, 54, 3, padding=1)
        self.first = layer(4, 8, 3, padding=1, groups=2)
        self.second = layer(8, 6, 3, padding=1, bias=False)
        self.weight = torch.nn.Parameter(torch.randn(6, 6, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        head = self.head(image)
        offset, mask = head[:, :36], head[:, 36:].sigmoid()
        x = torch.relu(self.first(image, offset, mask))
        x = torch.relu(self.second(x, offset[:, :18]))
        return torchvision.ops.deform_conv2d(x, offset[:, :4], self.weight, mask=mask[:, :2])


IMAGE = (torch.randn(2, 4, 6, 5),)
DYNAMIC = ({0: "n", 2: "h", 3: "w"},)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("kind", LOWERINGS)
def test_export(exporter: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert export(
        Foreign().eval(),
        IMAGE,
        path,
        lowering=kind,
        exporter=exporter,
        dynamic_shapes=DYNAMIC,
        verify_args=[(torch.randn(1, 4, 3, 9),), (torch.randn(3, 4, 8, 8),)],
    )
    model = onnx.load(path)
    types = [n.op_type for n in model.graph.node]
    counts = {"native": 0, "decomposed": 0, "auto": 0, "portable": 3, "custom": 3}
    assert types.count("DeformConv2d") == counts[kind]
    assert types.count("DeformConv") == (3 if kind in ("native", "auto") else 0)


@pytest.mark.parametrize("kind", ["portable", "custom", "decomposed"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_plain_export(exporter: str, kind: str, tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", Foreign().eval()
    options: dict[str, Any] = {"dynamo": False, "dynamic_axes": {"image": DYNAMIC[0]}}
    if exporter == "dynamo":
        options = {"dynamo": True, "verbose": False, "dynamic_shapes": DYNAMIC}
        options["custom_translation_table"] = translation_table()
    with torch.no_grad(), lowering(kind):
        torch.onnx.export(model, IMAGE, path, input_names=["image"], **options)
    onnx.checker.check_model(str(path), full_check=True)
    runner = session(path, kernels="native" if kind == "custom" else "none")
    for image in (IMAGE[0], torch.randn(1, 4, 3, 9)):
        with torch.no_grad():
            expected = model(image).numpy()
        actual = runner.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_native_resolves_groups_that_the_exporter_left_open(tmp_path: Path) -> None:
    """Under TorchScript torchvision's function takes the groups from shapes in the graph."""

    class Calls(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(6, 2, 3, 3))
            self.head = torch.nn.Conv2d(4, 36, 1)

        def forward(self, image: Tensor) -> Tensor:
            offset = self.head(image)
            return torchvision.ops.deform_conv2d(image, offset, self.weight, padding=1)

    path = tmp_path / "m.onnx"
    for kind in ("custom", "native"):
        assert export(
            Calls().eval(),
            IMAGE,
            path,
            lowering=kind,
            exporter="torchscript",
            dynamic_shapes=DYNAMIC,
        )
        node = next(n for n in onnx.load(path).graph.node if n.op_type.startswith("DeformConv"))
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if kind == "native":
            assert (values["group"], values["offset_group"]) == (2, 2)


def test_stride_and_dilation_of_torchvision(tmp_path: Path) -> None:
    model = torchvision.ops.DeformConv2d(
        4, 4, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2)
    )
    image = torch.randn(1, 4, 7, 6)
    offset = torch.randn(1, 12, 5, 6)
    for exporter in ("dynamo", "torchscript"):
        assert export(model.eval(), (image, offset), tmp_path / "m.onnx", exporter=exporter)


def test_torchvision_is_optional(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torchvision"] = None
import torch, custom_ops
for exporter in ("dynamo", "torchscript"):
    args = (torch.ones(2), torch.ones(2))
    assert custom_ops.onnx.export(custom_ops.MulAdd().eval(), args, "m.onnx", exporter=exporter)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-800:]


def test_nothing_here_imports_torchvision() -> None:
    code = (
        "import sys, custom_ops, custom_ops.onnx; custom_ops.onnx.translation_table();"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_modules_of_both_agree_in_one_file(tmp_path: Path) -> None:
    """The same layer of each, in one model, shares one body."""

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theirs = torchvision.ops.DeformConv2d(4, 4, 3, padding=1)
            self.ours = custom_ops.DeformConv2d(4, 4, 3, padding=1)
            self.ours.load_state_dict(self.theirs.state_dict())
            self.head = torch.nn.Conv2d(4, 18, 1)

        def forward(self, image: Tensor) -> Tensor:
            offset = self.head(image)
            return self.theirs(image, offset) - self.ours(image, offset)

    for exporter in ("dynamo", "torchscript"):
        path = tmp_path / f"{exporter}.onnx"
        assert export(Both().eval(), IMAGE, path, exporter=exporter)
        model = onnx.load(path)
        assert [f.name for f in model.functions] == ["DeformConv2d"]
        y = session(path).run(None, {"image": IMAGE[0].numpy()})[0]
        np.testing.assert_array_equal(y, 0)
