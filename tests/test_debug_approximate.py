"""Tests of `custom_ops.debug.compare` on files that note no modules, as other tools save them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import custom_ops.debug

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        x = (x + self.first(x)).relu()
        x = torch.nn.functional.max_pool2d(x + self.second(x), 2)
        x = self.head(x)
        return x.softmax(1), torch.matmul(x.unsqueeze(2) * 0.5, x.unsqueeze(1))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def optimized(net: Net, x: torch.Tensor, folder: Path, level: str) -> onnx.ModelProto:
    """The model as ONNX Runtime saves it, without names of nodes and notes."""
    custom_ops.onnx.export(net, x, folder / "net.onnx", verify=False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "saved.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "net.onnx", options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "saved.onnx")
    for i, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"n{i}", ""
        del node.metadata_props[:]
    return model


@pytest.fixture(scope="module", params=LEVELS)
def saved(
    request: pytest.FixtureRequest,
    net: Net,
    x: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> onnx.ModelProto:
    return optimized(net, x, tmp_path_factory.mktemp("saved"), request.param)


def test_a_right_model(net: Net, x: torch.Tensor, saved: onnx.ModelProto) -> None:
    found = custom_ops.debug.compare(net, saved, x)
    assert found.ok
    assert found.approximate
    unpaired = [each for each in found.unmatched if each.side == "model"]
    assert len(found.values) >= 15
    assert len(unpaired) <= 1
    assert {each.name for each in saved.graph.output} <= {each.name for each in found.values}


def test_normalisation_that_changes_next_to_nothing(x: torch.Tensor, tmp_path: Path) -> None:
    """A BatchNorm that has seen no data hardly differs from the Conv before it."""
    torch.manual_seed(0)
    net = Net().eval()
    assert custom_ops.debug.compare(net, optimized(net, x, tmp_path, LEVELS[1]), x)


def test_each_weight(net: Net, x: torch.Tensor, saved: onnx.ModelProto) -> None:
    """Every fault is in the first region that is blamed, and no node before it is."""
    weights = [t for t in saved.graph.initializer if len(t.dims) >= 2 and t.data_type == 1]
    assert len(weights) == 7
    alone = 0
    for weight in weights:
        model = onnx.ModelProto()
        model.CopyFrom(saved)
        (tensor,) = (each for each in model.graph.initializer if each.name == weight.name)
        wrong = numpy_helper.to_array(tensor) * np.float32(1.05)
        tensor.CopyFrom(numpy_helper.from_array(wrong, weight.name))
        (guilty,) = (node.name for node in saved.graph.node if weight.name in node.input)
        faults = custom_ops.debug.compare(net, model, x, explain=False).faults
        assert all(guilty in fault.nodes for fault in faults), weight.name
        assert faults
        alone += len(faults) == 1 and len(faults[0].nodes) <= 3
    assert alone >= 6


def test_beside_the_model_as_it_was(
    net: Net, x: torch.Tensor, saved: onnx.ModelProto, tmp_path: Path
) -> None:
    custom_ops.onnx.export(net, x, tmp_path / "net.onnx", verify=False)
    (name,) = (each.name for each in onnx.load(tmp_path / "net.onnx").graph.input)
    found = custom_ops.debug.compare(tmp_path / "net.onnx", saved, {name: x.numpy()})
    assert found.ok
    assert len(found.values) >= 15
    node = next(each for each in saved.graph.node if each.op_type in ("Gemm", "FusedGemm"))
    model = onnx.ModelProto()
    model.CopyFrom(saved)
    (tensor,) = (each for each in model.graph.initializer if each.name == node.input[1])
    wrong = numpy_helper.to_array(tensor) * np.float32(1.05)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    faults = custom_ops.debug.compare(tmp_path / "net.onnx", model, {name: x.numpy()}).faults
    assert faults
    assert node.name in faults[0].nodes
