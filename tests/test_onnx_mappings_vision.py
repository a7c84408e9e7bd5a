"""torchvision's ops on regions through both exporters; tools/regions.py runs them in releases."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from custom_ops.onnx import export

pytest.importorskip("torchvision")

from onnx_regions import SIZES, Calls, calls, functions

pytestmark = pytest.mark.usefixtures("quiet")
BOTH = pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])


def exported(
    name: str, path: Path, exporter: str, opset: int, dtype: torch.dtype = torch.float32
) -> set[str]:
    """Exports, compares at several sizes in onnxruntime, and returns the ops."""
    first, *others = [(images.to(dtype), rois.to(dtype)) for images, rois in calls()]
    options: dict[str, Any] = {"dynamic_shapes": SIZES, "verify_args": others}
    net = Calls(functions()[name]).eval()
    assert export(net, first, path, exporter=exporter, opset_version=opset, **options)
    model = onnx.load(path)
    assert {each.domain: each.version for each in model.opset_import}[""] == opset
    return {node.op_type for node in model.graph.node}


@BOTH
@pytest.mark.parametrize("name", functions())
@pytest.mark.parametrize("opset", [16, 23])
def test_an_op(exporter: str, name: str, opset: int, tmp_path: Path) -> None:
    types = exported(name, tmp_path / "m.onnx", exporter, opset)
    kernels = {"roi_align": "RoiAlign", "roi_align aligned": "RoiAlign", "roi_pool": "MaxRoiPool"}
    if name in kernels:
        assert (kernels[name] in types) == (opset < 22)
        assert ("Loop" in types) == (opset >= 22)


@pytest.mark.parametrize("name", [name for name in functions() if "roi" in name])
def test_float64(name: str, tmp_path: Path) -> None:
    exported(name, tmp_path / "m.onnx", "torchscript", 20, torch.float64)


@BOTH
@pytest.mark.parametrize("opset", [18, 22])
def test_float16(exporter: str, opset: int, tmp_path: Path) -> None:
    """Beside torch in float32: its own half types put samples beside where they belong."""
    path, function = tmp_path / "m.onnx", functions()["roi_align"]
    images, rois = (each.half() for each in calls()[0])
    net = Calls(function).eval()
    export(net, (images, rois), path, exporter=exporter, opset_version=opset, verify=False)
    feeds = {"images": images.numpy(), "rois": rois.numpy()}
    (found,) = onnxruntime.InferenceSession(path).run(None, feeds)
    assert found.dtype == np.float16
    expected = function(images.float(), rois.float()).numpy()
    np.testing.assert_allclose(found, expected, rtol=2**-11, atol=2**-11)


@BOTH
def test_before_opset_16(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match="roi_align: aligned must be False at opset 15, got True"):
        exported("roi_align aligned", path, exporter, 15)
    sentence = "ps_roi_align: opset_version must be at least 16 for its mapping, got 15"
    with pytest.raises(ValueError, match=sentence):
        exported("ps_roi_align", path, exporter, 15)
    assert not list(tmp_path.iterdir())


def test_what_torchvision_does_before_opset_16(tmp_path: Path) -> None:
    for name, op in (("roi_align", "RoiAlign"), ("roi_pool", "MaxRoiPool")):
        assert op in exported(name, tmp_path / "m.onnx", "torchscript", 15)


def test_torchvision_imported_later(tmp_path: Path) -> None:
    """It registers functions for the TorchScript exporter, which must not take ours away."""
    code = (
        "import torch, custom_ops.onnx\n"
        "custom_ops.onnx.install_mappings()\n"
        "import torchvision\n"
        "layer = torchvision.ops.RoIAlign(2, 1.0, 2, aligned=True)\n"
        "args = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 1, 1, 5, 5]])\n"
        "torch.onnx.export(layer, args, 'm.onnx', opset_version=22, dynamo=False)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    types = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "Loop" in types
    assert "RoiAlign" not in types
