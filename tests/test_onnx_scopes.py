"""Where nodes come from, by both exporters of torch, and what is made of names of other origin."""

import itertools
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from work import calls

from custom_ops.onnx import _scopes
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.onnx._scopes import Scope

pytestmark = pytest.mark.usefixtures("quiet")


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.act = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.act(self.conv(x)) + x)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(Block(), torch.nn.Sequential(Block()))
        self.many = torch.nn.ModuleDict({"first": torch.nn.Conv2d(3, 3, 1)})
        self.shared = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid())
        self.fc = torch.nn.Linear(4, 4)
        self.fc_1 = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.many["first"](self.layer(x)).mean((1, 2))
        x = self.shared(self.shared(x))
        return self.fc_1(self.fc(self.fc(x)))


EXPECTED = {  # the modules of all nodes that are no constants, with the call of each of them
    "layer.0.conv": [(0, 0, 0, 0)],
    "layer.0.act": [(0, 0, 0, 0), (0, 0, 0, 1)],
    "layer.0": [(0, 0, 0)],
    "layer.1.0.conv": [(0, 0, 0, 0, 0)],
    "layer.1.0.act": [(0, 0, 0, 0, 0), (0, 0, 0, 0, 1)],
    "layer.1.0": [(0, 0, 0, 0)],
    "many.first": [(0, 0)],
    "": [(0,)],
    "shared.0": [(0, 0, 0), (0, 1, 1)],
    "shared.1": [(0, 0, 0), (0, 1, 1)],
    "fc": [(0, 0), (0, 1)],
    "fc_1": [(0, 0)],
}


@pytest.fixture(scope="module", params=EXPORTERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scopes") / f"{request.param}.onnx"
    arguments = {"dynamo": True} if request.param == "dynamo" else {"dynamo": False}
    torch.onnx.export(Net().eval(), (torch.ones(1, 3, 4, 4),), path, verbose=False, **arguments)
    return path


def found(path: Path) -> list[tuple[onnx.NodeProto, Scope | None]]:
    graph = onnx.load(path).graph
    weights = [each.name for each in graph.initializer]
    return list(zip(graph.node, _scopes.scopes(graph.node, weights), strict=True))


def test_modules_and_calls(exported: Path) -> None:
    calls: dict[str, list[tuple[int, ...]]] = {}
    for node, scope in found(exported):
        if node.op_type != "Constant" and not (node.op_type == "Identity" and scope is None):
            assert scope is not None, node.name
            paths = [module.path for module in scope.modules]
            assert paths[0] == ""
            assert all(a == "" or b.startswith(f"{a}.") for a, b in itertools.pairwise(paths))
            numbers = tuple(module.call for module in scope.modules)
            if numbers not in calls.setdefault(scope.path, []):
                calls[scope.path].append(numbers)
            assert scope.call == numbers[-1]
    assert calls == EXPECTED


def test_a_message_and_a_graph_tell_the_same(exported: Path) -> None:
    graph = ir.load(exported).graph
    weights = list(graph.initializers)
    assert _scopes.scopes(graph, weights) == [scope for _, scope in found(exported)]


def test_classes_and_lines_by_dynamo(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    torch.onnx.export(Net().eval(), (torch.ones(1, 3, 4, 4),), path, dynamo=True, verbose=False)
    relu = next(node for node in onnx.load(path).graph.node if node.op_type == "Relu")
    assert _scopes.module_path(relu) == "layer.0.act"
    assert _scopes.class_names(relu)[1:] == (
        "torch.nn.modules.container.Sequential",
        f"{__name__}.Block",
        "torch.nn.modules.activation.ReLU",
    )
    file, _, line = _scopes.source_line(relu).rpartition(":")
    assert file == __file__
    assert "self.act(self.conv" in Path(file).read_text().splitlines()[int(line) - 1]


def test_lines_by_verbose_torchscript(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    torch.onnx.export(Net().eval(), (torch.ones(1, 3, 4, 4),), path, dynamo=False, verbose=True)
    relu = next(node for node in onnx.load(path).graph.node if node.op_type == "Relu")
    assert _scopes.class_names(relu) == ()
    file, _, line = _scopes.source_line(relu).rpartition(":")
    assert file == __file__
    assert "self.act(self.conv" in Path(file).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("", {}),
        ("model/conv/Conv2D", {}),
        ("/a" * 100_000, {}),
        ("n", {"name_scopes": "no list"}),
        ("n", {"name_scopes": "[" * 100_000}),
        ("n", {"name_scopes": "[1, 2]"}),
        ("n", {"name_scopes": "[]"}),
        ("n", {"name_scopes": "['only_the_node']"}),
        ("n", {"name_scopes": "('', 'a', 'b')"}),
        ("n", {"name_scopes": repr(["a"] * 10_000)}),
    ],
)
def test_nodes_that_come_from_nowhere(name: str, metadata: dict[str, str]) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name)
    for key, value in metadata.items():
        node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    assert _scopes.scopes([node]) == [None]
    assert _scopes.module_path(node) is None
    assert _scopes.class_names(node) == ()
    assert _scopes.source_line(node) == ""


def test_nodes_without_a_stack_of_modules_are_of_the_whole_model() -> None:
    node = helper.make_node("Shape", ["x"], ["y"])
    scopes = ["_empty_nn_module_stack_from_metadata_hook", "sym_size_int"]
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scopes))
    assert _scopes.module_path(node) == ""


def test_work_is_linear() -> None:
    def work(count: int) -> int:
        nodes = [
            helper.make_node("Relu", ["x"], ["y"], f"/layers/layers.{i // 7}/act_{i}/Relu")
            for i in range(count)
        ]
        names = [f"layers.{i}.weight" for i in range(count)]
        return calls(lambda: _scopes.scopes(nodes, names))

    work(100)
    assert work(8_000) < 9 * work(1_000)
