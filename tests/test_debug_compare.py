"""Tests of `custom_ops.debug.compare` on real exports, with faults put into the files."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import custom_ops
import custom_ops.debug
from custom_ops.onnx._export import EXPORTERS


class Net(torch.nn.Module):
    """Merged and unmerged normalisations, in-place ops, a module called twice, a view, our op."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(8)
        self.act = torch.nn.ReLU(inplace=True)
        self.block = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1), torch.nn.GroupNorm(2, 8))
        self.add = custom_ops.MulAdd(0.5)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.act(self.bn(self.conv(x)))
        y = self.block(self.block(x))
        y = self.add(x, y)
        pooled = y.mean((2, 3))
        return {"logits": self.head(pooled).softmax(1), "features": y.flatten(1)}


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(2, 3, 9, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=EXPORTERS)
def path(request: pytest.FixtureRequest, net: Net, x: torch.Tensor, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("net") / "net.onnx"
    custom_ops.onnx.export(net, x, path, exporter=request.param, verify=False)
    return path


def test_a_right_model(net: Net, x: torch.Tensor, path: Path) -> None:
    found = custom_ops.debug.compare(net, path, x)
    assert found.ok
    assert found
    assert found.faults == ()
    assert found.first_fault is None
    assert not found.approximate
    assert all(each.reason.startswith("is a part of what gives ") for each in found.unmatched)
    pairs = [(value.module, value.partner) for value in found.values]
    assert pairs[0] == (("conv", "bn"), "aten.native_batch_norm")
    assert (("add",), "custom_ops.mul_add") in pairs
    assert pairs.count((("block.0",), "aten.convolution")) == 2
    assert pairs.count((("block.1",), "aten.native_group_norm")) == 2


def node_of(model: onnx.ModelProto, op_type: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == op_type)


def weight(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> str:
    """Changes a weight of one node alone."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    own = numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name + ".own")
    model.graph.initializer.append(own)
    return own.name


def scaled(model: onnx.ModelProto) -> onnx.NodeProto:
    node = node_of(model, "Conv")
    node.input[1] = weight(model, node.input[1], lambda w: w * np.float32(1.01))
    return node


def other_attribute(model: onnx.ModelProto) -> onnx.NodeProto:
    node = node_of(model, "MulAdd")
    node.attribute[0].f = 0.501
    return node


def transposed(model: onnx.ModelProto) -> onnx.NodeProto:
    node = node_of(model, "Gemm")
    node.input[1] = weight(model, node.input[1], lambda w: w[::-1].copy())
    return node


def born_nan(model: onnx.ModelProto) -> onnx.NodeProto:
    node = node_of(model, "Gemm")

    def broken(bias: Any) -> Any:
        bias[1] = np.nan
        return bias

    node.input[2] = weight(model, node.input[2], broken)
    return node


DIFFERENCES = {
    "scaled": "input 1, ",
    "other_attribute": "attribute alpha is 0.501, not 0.5",
    "transposed": "input 1, ",
    "born_nan": "input 2, ",
}


@pytest.mark.parametrize("fault", [scaled, other_attribute, transposed, born_nan])
def test_a_fault_is_found_at_its_node(
    fault: Callable[[onnx.ModelProto], onnx.NodeProto], net: Net, x: torch.Tensor, path: Path
) -> None:
    model = onnx.load(path)
    node = fault(model)
    found = custom_ops.debug.compare(net, model, x)
    assert not found
    (guilty,) = found.faults
    assert found.first_fault is guilty
    assert (guilty.node, guilty.name) == (node.name, node.output[0])
    assert guilty.node in guilty.nodes
    assert guilty.difference.startswith(DIFFERENCES[fault.__name__])
    assert guilty.details is not None
    # What comes after only inherits it.
    after = [v for v in found.values if v.inherited and v.inherited > v.limit and v.ok]
    assert after or fault is born_nan


def test_two_faults(net: Net, x: torch.Tensor, path: Path) -> None:
    model = onnx.load(path)
    nodes = [scaled(model).name, transposed(model).name]
    assert [f.node for f in custom_ops.debug.compare(net, model, x).faults] == nodes


def test_the_tolerance_replaces_the_limits(net: Net, x: torch.Tensor, path: Path) -> None:
    model = onnx.load(path)
    scaled(model)
    assert custom_ops.debug.compare(net, model, x, tolerance=10.0)
    assert not custom_ops.debug.compare(net, path, x, tolerance=0.0)


def test_wrong_arguments(net: Net, x: torch.Tensor, path: Path) -> None:
    with pytest.raises(ValueError, match=r"^compare: module must be a torch\.nn\.Module, or "):
        custom_ops.debug.compare(3, path, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^compare: args must be a dict of arrays by the names "):
        custom_ops.debug.compare(path, path, x)
    with pytest.raises(ValueError, match=r"^compare: args must hold the inputs x, got y, z"):
        custom_ops.debug.compare(path, path, {"y": x.numpy(), "z": x.numpy()})
    with pytest.raises(
        ValueError, match=r"^compare: model must have the inputs input1, input2, got x; "
    ):
        custom_ops.debug.compare(torch.nn.Bilinear(2, 2, 2), path, (x, x))
    with pytest.raises(ValueError, match=r"^compare: args must hold tensors for the inputs x, "):
        custom_ops.debug.compare(net, path, x.numpy())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^compare: module must run on args, got .*; pass the "):
        custom_ops.debug.compare(net, path, x.double())
    with pytest.raises(ValueError, match=r"^compare: model must run on args, got .*; pass inputs "):
        custom_ops.debug.compare(net, path, x[:, :, :5])


def test_a_module_in_training_mode_is_told_of(net: Net, x: torch.Tensor, path: Path) -> None:
    found = custom_ops.debug.compare(copy.deepcopy(net).train(), path, x, explain=False)
    assert not found
    assert any(note.startswith("the module is in training mode") for note in found.notes)
    assert not custom_ops.debug.compare(net, path, x).notes


def test_a_default_that_is_written_out_is_no_difference(
    net: Net, x: torch.Tensor, path: Path
) -> None:
    model = onnx.load(path)
    node = next(each for each in model.graph.node if each.op_type == "Conv")
    kept = [each for each in node.attribute if each.name not in ("auto_pad", "group")]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("auto_pad", "NOTSET")])
    node.input[1] = weight(model, node.input[1], lambda array: array * 2)
    fault = custom_ops.debug.compare(net, model, x).first_fault
    assert fault is not None
    assert fault.node == node.name
    assert fault.difference.startswith("input 1, ")


def test_the_culprit_inside_a_region(net: Net, x: torch.Tensor, path: Path) -> None:
    model = onnx.load(path)
    node = node_of(model, "InstanceNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-1
    fault = custom_ops.debug.compare(net, model, x).first_fault
    assert fault is not None
    assert (fault.node, fault.op_type) == (node.name, "InstanceNormalization")
    assert fault.name != node.output[0]  # the value that torch has is that of the whole GroupNorm
    assert fault.module == ("block.1",)
    assert fault.difference == "attribute epsilon is 0.1, not 1e-05"


def test_a_constant_of_no_dimensions(tmp_path: Path) -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() * 0.123456

    module, x = Scaled().eval(), torch.randn(4, generator=torch.Generator().manual_seed(0))
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter="torchscript", verify=False)
    model = onnx.load(tmp_path / "m.onnx")
    node = node_of(model, "Mul")
    number = next(each for each in model.graph.node if each.output[0] == node.input[1])
    number.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(0.12, np.float32)))
    fault = custom_ops.debug.compare(module, model, x).first_fault
    assert fault is not None
    assert "differs in 1 of 1 numbers: 0.1199999" in fault.difference


def test_swapped_operands(tmp_path: Path) -> None:
    class Difference(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x.exp() - y.tanh()).relu()

    inputs = torch.randn(4, 5), torch.randn(4, 5)
    custom_ops.onnx.export(Difference().eval(), inputs, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    node = node_of(model, "Sub")
    node.input[:] = node.input[::-1]
    (fault,) = custom_ops.debug.compare(Difference(), model, inputs).faults
    assert (fault.node, fault.difference) == (node.name, "its inputs are in another order")


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).relu()

        def bright(y: torch.Tensor) -> torch.Tensor:
            return self.conv(y).sigmoid() * 2

        def dark(y: torch.Tensor) -> torch.Tensor:
            return self.conv(y.tanh()) + 1

        return torch.cond(y.mean() > 0.5, bright, dark, (y,)).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("scale", [0.1, 10.0], ids=["else", "then"])
def test_the_branch_that_is_taken(scale: float, tmp_path: Path) -> None:
    module, x = Branches().eval(), scale * torch.randn(1, 3, 8, 8).abs()
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx")
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert found
    inside = ["aten.sigmoid", "aten.mul"] if scale > 1 else ["aten.tanh", "aten.add"]
    assert set(inside) <= {value.partner for value in found.values}
    model = onnx.load(tmp_path / "m.onnx")
    which = "then_branch" if scale > 1 else "else_branch"
    (branch,) = (a.g for a in node_of(model, "If").attribute if a.name == which)
    node = next(node for node in branch.node if node.op_type == "Conv")
    node.input[1] = weight(model, node.input[1], lambda w: w * np.float32(1.1))
    (fault,) = custom_ops.debug.compare(module, model, x).faults
    assert fault.node == node.name
    assert fault.difference.startswith("input 1, ")


# two models


def test_two_models(x: torch.Tensor, path: Path) -> None:
    feeds = {"x": x.numpy()}
    found = custom_ops.debug.compare(path, path, feeds)
    assert found
    assert found.unmatched == ()
    assert {value.introduced for value in found.values} == {0.0}
    model = onnx.load(path)
    names = [scaled(model).name, transposed(model).name]
    found = custom_ops.debug.compare(path, model, feeds)
    assert [fault.node for fault in found.faults] == names
    assert found.faults[1].module == ("head",)
    assert all(fault.difference.startswith("input 1, ") for fault in found.faults)


def test_half_beside_single_precision(net: Net, x: torch.Tensor, tmp_path: Path) -> None:
    single, half = tmp_path / "single.onnx", tmp_path / "half.onnx"
    custom_ops.onnx.export(net, x, single, verify=False)
    custom_ops.onnx.export(copy.deepcopy(net).half(), x.half(), half, verify=False)
    feeds = {"x": x.numpy()}
    found = custom_ops.debug.compare(single, half, feeds)
    assert found
    assert len(found.values) > 10
    model = onnx.load(half)
    node = other_attribute(model)
    model.graph.node[list(model.graph.node).index(node)].attribute[0].f = 0.6
    (fault,) = custom_ops.debug.compare(single, model, feeds).faults
    assert fault.node == node.name


def test_optimized_beside_not(x: torch.Tensor, path: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    custom_ops.onnx.session(path, sess_options=options)
    found = custom_ops.debug.compare(path, tmp_path / "optimized.onnx", {"x": x.numpy()})
    assert found
    assert found.values


def test_a_session_that_gives_something_else(
    net: Net, x: torch.Tensor, path: Path, tmp_path: Path
) -> None:
    model = onnx.load(path)
    scaled(model)
    other = custom_ops.onnx.session(model)
    found = custom_ops.debug.compare(net, path, x, session=other)
    assert {fault.kind for fault in found.faults} == {"optimization"}
    assert "the session's other options" in found.faults[0].difference
    assert not found


def test_an_optimization_that_changes_the_result() -> None:
    """ONNX Runtime puts the scale into the weight, and what overflows before does not after."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
          <float[1, 1, 1, 1] w = {1e30}, float[1] s = {1e-20}, float[1] b = {0}, float[1] m = {0},
           float[1] v = {1}> {
          [first] r = Relu (x)
          [conv] c = Conv (r, w)
          [norm] n = BatchNormalization (c, s, b, m, v)
          [last] y = Neg (n)
        }""")
    (fault,) = custom_ops.debug.compare(
        model, model, {"x": np.full((1, 1, 4, 4), 1e10, np.float32)}
    ).faults
    assert (fault.kind, fault.name, fault.node) == ("optimization", "y", "conv")
    assert fault.difference.startswith("optimization level basic merges it with what follows")
