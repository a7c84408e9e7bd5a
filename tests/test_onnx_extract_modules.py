"""Cutting torch modules out of what both exporters write, compared with torch."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_pieces import parsed, run
from work import calls

import custom_ops
from custom_ops.onnx import Extraction, extract
from custom_ops.onnx._exporters import EXPORTERS

pytestmark = pytest.mark.usefixtures("quiet")


class Block(torch.nn.Module):
    """Calls its modules twice, and writes into their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(3)
        self.relu = torch.nn.ReLU(inplace=True)
        self.fc = torch.nn.Linear(8, 5)
        self.drop = torch.nn.Dropout()
        self.add = custom_ops.MulAdd(alpha=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn(self.conv(x)))
        z = self.relu(self.add(y, x))
        return self.drop(self.fc(z)).reshape(x.shape[0], -1)


class Both(torch.nn.Module):
    def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left + right, "difference": (left - right).exp(), "same": left}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(Block(), torch.nn.Identity())
        self.twin = Block()
        self.both = Both()
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.body(x), self.twin(x)
        found = self.both(left=a, right=b)
        y = found["sum"][:, :8].reshape(x.shape[0], 2, 4) + found["difference"][:, :4].unsqueeze(1)
        return self.attention(y, y, y)[0]


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module in evaluation mode, with the statistics of some training."""
    for each in module.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(each.running_mean)
            torch.nn.init.uniform_(each.running_var, 0.5, 2)
            torch.nn.init.uniform_(each.weight, 0.5, 2)
    return module.eval()


@dataclass(frozen=True)
class Case:
    module: torch.nn.Module
    args: tuple[torch.Tensor, ...]
    path: Path
    exporter: str

    def cut(self, to: Path, module: str, call: int | None = None) -> Extraction:
        piece = extract(
            *(self.path, to / "p.onnx"),
            module=module,
            call=call,
            torch_module=self.module,
            args=self.args,
            force=True,
        )
        onnx.checker.check_model(str(piece.path), full_check=True)
        assert piece, piece
        assert piece.sample is not None
        (verdict,) = str(piece).splitlines()[-1:]
        assert verdict.startswith("  sample   ")
        assert "equal" in verdict
        return piece


def exported(module: torch.nn.Module, x: torch.Tensor, exporter: str, folder: Path) -> Case:
    path = folder / f"{exporter}.onnx"
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # TorchScript has no translation of it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        custom_ops.onnx.export(
            module, (x,), path, exporter=exporter, dynamic_shapes=({0: "N"},), verify=False
        )
    torch.backends.mha.set_fastpath_enabled(fast)
    return Case(module, (x,), path, exporter)


@pytest.fixture(scope="module", params=EXPORTERS)
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("net")
    return exported(trained(Net()), torch.randn(2, 3, 8, 8), request.param, folder)


@pytest.fixture(scope="module", params=EXPORTERS)
def resnet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("resnet")
    torchvision = pytest.importorskip("torchvision")
    module = trained(torchvision.models.resnet18(weights=None))
    return exported(module, torch.randn(2, 3, 64, 64), request.param, folder)


@pytest.mark.parametrize(
    ("module", "merged"),
    [
        ("layer3.0", ()),
        ("layer2", ()),
        ("avgpool", ()),
        ("fc", ()),
        ("layer1.0.conv1", ("layer1.0.conv1", "layer1.0.bn1")),
        ("layer1.0.bn1", ("layer1.0.conv1", "layer1.0.bn1")),
        ("layer2.0.downsample.1", ("layer2.0.downsample.0", "layer2.0.downsample.1")),
        ("layer2.0.downsample", ()),
        ("bn1", ("conv1", "bn1")),
    ],
)
def test_resnet(resnet: Case, module: str, merged: tuple[str, ...], tmp_path: Path) -> None:
    piece = resnet.cut(tmp_path, module)
    assert (piece.module, piece.call, piece.calls) == (module, 0, 1)
    assert piece.merged == merged
    assert piece.sample is not None
    assert piece.sample.from_model == ()
    assert len(piece.inputs) == len(piece.outputs) == 1
    if merged:
        assert piece.nodes == 1
        assert piece.sample.module == merged[-1]
        assert f"merged   {', '.join(merged)}: one piece" in str(piece)


@pytest.mark.parametrize(
    "module", ["body", "body.0", "twin", "both", "attention", "twin.fc", "twin.add", "body.0.bn"]
)
def test_every_kind_of_module(net: Case, module: str, tmp_path: Path) -> None:
    piece = net.cut(tmp_path, module)
    assert piece.sample is not None
    assert piece.sample.from_model == ()
    assert len(piece.inputs) == (2 if module in ("both", "twin.add") else 1)
    expected = {name: array.shape for name, array in piece.sample.outputs.items()}
    actual = run(piece.path, None, piece.sample.inputs)
    assert [array.shape for array in actual] == list(expected.values())


def test_calls_of_a_module(net: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of the 2 calls of 'twin\.relu', got none; give 0 to 1"):
        net.cut(tmp_path, "twin.relu")
    with pytest.raises(ValueError, match=r"of the 2 calls of 'twin\.relu', got 2"):
        net.cut(tmp_path, "twin.relu", 2)
    with pytest.raises(ValueError, match=r"the only call of 'twin\.fc', got -1; give 0"):
        net.cut(tmp_path, "twin.fc", -1)
    first, second = (net.cut(tmp_path, "twin.relu", call) for call in (0, 1))
    assert (second.call, second.calls) == (1, 2)
    assert "twin.relu, call 1 of 0 to 1" in str(second)
    assert first.outputs != second.outputs
    assert os.listdir(tmp_path) == ["p.onnx"]


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("twin.drop", "module must have nodes in the model, got 'twin.drop', which has none: .*"),
        ("body.1", "must have nodes in the model, got 'body.1'.*; cut 'body'"),
        ("attention.out_proj", "nodes of its own, got .* whose weights 'attention' uses; cut that"),
        ("twin.conw", "must be one of torch_module, got 'twin.conw'; did you mean 'twin.conv'"),
    ],
)
def test_modules_that_cannot_be_cut(net: Case, module: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        net.cut(tmp_path, module)
    assert os.listdir(tmp_path) == []


def test_merged_modules_without_the_torch_module(resnet: Case, tmp_path: Path) -> None:
    where = (resnet.path, tmp_path / "p.onnx")
    if resnet.exporter == "dynamo":  # the names of weights tell
        for module in ("layer1.0.conv1", "layer1.0.bn1"):
            piece = extract(*where, module=module, force=True)
            assert piece.merged == ("layer1.0.conv1", "layer1.0.bn1")
    else:
        piece = extract(*where, module="layer1.0.conv1")
        assert piece.merged == ()
        assert "it may hold the BatchNorm behind it too" in piece.notes[0]
        with pytest.raises(ValueError, match=r"for a BatchNorm, the Conv .*'layer1\.0\.conv1'"):
            extract(*where, module="layer1.0.bn1", force=True)
    with pytest.raises(ValueError, match=r"got 'layer1\.7\.bn1'; did you mean 'layer1\.1"):
        extract(*where, module="layer1.7.bn1", force=True)
    with pytest.raises(ValueError, match=r"got 'layer7', which has none \(did you mean 'layer\d'"):
        extract(*where, module="layer7", force=True)


def test_another_torch_module_differs(resnet: Case, tmp_path: Path) -> None:
    torch.manual_seed(1)
    torchvision = pytest.importorskip("torchvision")
    other = trained(torchvision.models.resnet18(weights=None))
    piece = extract(
        *(resnet.path, tmp_path / "p.onnx"), module="fc", torch_module=other, args=resnet.args
    )
    assert not piece
    assert "DIFFERS" in str(piece)
    assert piece.as_dict()["sample"]["passed"] is False
    assert piece.sample is not None
    assert piece.sample.from_model == piece.inputs  # not what this module is given


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"module": "twin", "inputs": ["x"]}, "must be given, got both"),
        ({"inputs": ["x"], "call": 1}, "call must come with module"),
        ({"inputs": ["x"], "torch_module": Both()}, "torch_module must come with module"),
        ({"module": "twin", "args": ()}, "args must come with torch_module"),
        ({"module": "twin", "args": torch.ones(1), "torch_module": Both()}, "must be a tuple"),
        ({"module": "twin", "args": (1,), "torch_module": Net()}, "what torch_module takes, got"),
    ],
)
def test_arguments_that_do_not_go_together(
    net: Case, arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        extract(net.path, tmp_path / "p.onnx", **arguments)
    assert os.listdir(tmp_path) == []


def test_a_model_without_modules(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a model without torch modules; export it"):
        extract(parsed("g (float[N] x) => (float[N] y) { y = Exp(x) }"), tmp_path / "p", module="a")


def test_the_torch_model_stays_as_it_is(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(), torch.nn.Linear(2, 2))
    case = exported(module.eval(), torch.ones(1, 2), "dynamo", tmp_path)
    module.train()
    case.cut(tmp_path, "2")
    assert all(each.training for each in module.modules())
    assert not any(each._forward_hooks for each in module.modules())


def chain(count: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node(
            "Relu", [f"v{i}"], [f"v{i + 1}"], f"/layers/layers.{i // 10}/Relu_{i % 10}"
        )
        for i in range(count)
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["N"]) for name in ("v0", f"v{count}")]
    infos = [helper.make_tensor_value_info(f"v{i}", 1, ["N"]) for i in range(1, count)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], value_info=infos)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("by", [{"inputs": ["v100"], "outputs": ["v900"]}, {"module": "layers.9"}])
def test_work_is_linear(by: dict[str, Any], tmp_path: Path) -> None:
    def cut(model: onnx.ModelProto) -> None:
        assert extract(model, tmp_path / "p.onnx", force=True, **by).nodes in (10, 800)

    few, many = chain(1_000), chain(8_000)
    cut(few)
    assert calls(lambda: cut(many)) < 9 * calls(lambda: cut(few))


def test_a_shared_size_stays_within(tmp_path: Path) -> None:
    """A size of another module's making is computed in the piece where it is of the same shape."""
    model = parsed("""g (float[N, 4] x) => (float[M, 2] z)
        <float[N, 4] y, int64[2] s, int64[1] h, int64[2] r, float[M, 2] p> {
        [size] two = Constant <value = int64[1] {2}> ()
        ["/a/Relu"] y = Relu(x)
        ["/a/Shape"] h = Shape <start = 0, end = 1> (y)
        ["/a/Double"] d = Mul(h, two)
        ["/a/Concat"] r = Concat <axis = 0> (d, two)
        ["/b/Exp"] e = Exp(y)
        ["/b/Reshape"] z = Reshape(e, r)
        }""")
    piece = extract(model, tmp_path / "p.onnx", module="b")
    assert (piece.inputs, piece.outputs, piece.nodes) == (("y",), ("z",), 6)
    y = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_allclose(run(piece.path, None, {"y": y})[0], np.exp(y).reshape(6, 2), 1e-5)
    before = extract(model, tmp_path / "q.onnx", module="a")
    assert (before.outputs, before.nodes) == (("y",), 1)
