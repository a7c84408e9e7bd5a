"""The bodies of functions in comparisons: what runs, what is paired, how it is named."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper, parser
from typer.testing import CliRunner

import custom_ops.debug
from custom_ops.cli import app
from custom_ops.debug import _bodies, _graph
from custom_ops.onnx._reading import read


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.op = torch.nn.Linear(4, 4), custom_ops.MulAdd()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.op(self.op(y, x), x).relu()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["dynamo", "torchscript"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Net, torch.Tensor, Path]:
    torch.manual_seed(0)
    module, x, path = Net().eval(), torch.randn(2, 4), tmp_path_factory.mktemp("m") / "m.onnx"
    custom_ops.onnx.export(module, x, path, exporter=request.param)
    return module, x, path


def test_our_nodes_are_one_node_unless_asked(exported: tuple[Net, torch.Tensor, Path]) -> None:
    module, x, path = exported
    calls = [node.name for node in onnx.load(path).graph.node if node.op_type == "MulAdd"]
    whole = custom_ops.debug.compare(module, path, x)
    assert whole
    assert not [value.node for value in whole.values if "::" in value.node]
    inside = custom_ops.debug.compare(module, path, x, bodies=True)
    assert inside
    assert [v.name for v in inside.values] == [v.name for v in whole.values]
    assert [v.partner for v in inside.values] == [v.partner for v in whole.values]
    of_body = [v.node.rpartition("/")[0] for v in inside.values if "::" in v.node]
    assert of_body == [f"{call}/custom_ops::MulAdd" for call in calls]
    (note,) = inside.notes
    assert note.startswith("the bodies of functions ran")
    parts = [u for u in inside.unmatched if f"{calls[0]}/custom_ops::MulAdd/" in u.name]
    assert parts
    assert all(part.reason.startswith("is a part of what gives") for part in parts)
    assert parts[0].name in inside.to_json()


def test_a_fault_in_a_body_is_found_where_the_body_runs(
    exported: tuple[Net, torch.Tensor, Path], tmp_path: Path
) -> None:
    module, x, path = exported
    model = onnx.load(path)
    (body,) = [each for each in model.functions if each.name == "MulAdd"]
    (wrong,) = [node for node in body.node if node.op_type == "Add"]
    wrong.op_type = "Sub"
    assert custom_ops.debug.compare(module, model, x)  # the kernel runs, which is right
    found = custom_ops.debug.compare(module, model, x, bodies=True)
    faults = [fault for fault in found.faults if fault.kind == "nodes"]
    assert len(faults) == 2  # as often as it is called
    for fault in faults:
        call, function, name = fault.node.rsplit("/", 2)
        assert call in {node.name for node in model.graph.node}
        assert function == "custom_ops::MulAdd"
        assert name == wrong.name
        assert fault.difference == "op is Sub, not Add"
        assert fault.module[0] == "op"
    (session,) = [fault for fault in found.faults if fault.kind == "optimization"]
    assert session.difference.endswith("or a kernel that runs in the place of a body")
    found.bundle(tmp_path / "fault.zip")
    assert faults[0].node in found.to_json()
    assert faults[0].node.rpartition("/")[2] in str(found)


BLOCKS = """
<ir_version: 10, opset_import: ["": 18, "loc": 1]>
g (float[2, 4] x) => (float[2, 4] y)
<float[4, 4] a_w, float[4] a_b, float[4, 4] b_w, float[4] b_b>
{
    [_a_block] t = loc.block(x, a_w, a_b)
    [_b_block] y = loc.block(t, b_w, b_b)
}
<domain: "loc", opset_import: ["": 18]>
block (x, w, b) => (y) {
    [gemm] linear = Gemm <transB = 1> (x, w, b)
    [tanh] t = Tanh (linear)
    y = Mul (t, t)
}
"""


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = torch.nn.functional.linear(x, self.linear.weight, self.linear.bias).tanh()
        return t * t


@pytest.fixture
def blocks() -> tuple[torch.nn.Module, torch.Tensor, onnx.ModelProto]:
    """A model whose functions are the modules of a network, as older exporters wrote them."""
    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.add_module("a", Block())
    module.add_module("b", Block())
    model = parser.parse_model(BLOCKS)
    del model.graph.initializer[:]
    for name, tensor in module.state_dict().items():
        short = f"{name[0]}_{name.rpartition('.')[2][0]}"
        model.graph.initializer.append(numpy_helper.from_array(tensor.numpy(), short))
    for node in model.graph.node:  # the parser takes no slash in a name
        node.name = node.name.replace("_", "/")
    return module.eval(), torch.randn(2, 4), model


def test_values_inside_find_their_partners(
    blocks: tuple[torch.nn.Module, torch.Tensor, onnx.ModelProto],
) -> None:
    module, x, model = blocks
    assert [v.name for v in custom_ops.debug.compare(module, model, x).values] == ["y"]
    found = custom_ops.debug.compare(module, model, x, bodies=True)
    assert found
    assert {value.name: (value.node, value.partner, value.module) for value in found.values} == {
        "/a/block/loc::block/linear": ("/a/block/loc::block/gemm", "aten.addmm", ("a",)),
        "/a/block/loc::block/t": ("/a/block/loc::block/tanh", "aten.tanh", ("a",)),
        "t": ("/a/block/loc::block/y", "aten.mul", ("a",)),
        "/b/block/loc::block/linear": ("/b/block/loc::block/gemm", "aten.addmm", ("b",)),
        "/b/block/loc::block/t": ("/b/block/loc::block/tanh", "aten.tanh", ("b",)),
        "y": ("/b/block/loc::block/y", "aten.mul", ("b",)),
    }


def test_a_fault_in_one_call_of_a_body(
    blocks: tuple[torch.nn.Module, torch.Tensor, onnx.ModelProto],
) -> None:
    module, x, model = blocks
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "b_w"]
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(array + np.float32(1e-5), "b_w"))
    found = custom_ops.debug.compare(module, model, x, bodies=True)
    assert [fault.name for fault in found.faults] == ["/b/block/loc::block/linear"]


TWISTED = """
<ir_version: 10, opset_import: ["": 18, "loc": 1]>
g (float[2, 3] x, bool c) => (float[2, 3] y, float[2, 3] z, float[2, 3] q, float[2, 3] r)
{
    [one] t = loc.f <k = 2> (x)
    [two] y = loc.f (t)
    z, both = loc.pair (x, y)
    [i] q = If (c) <
        then_branch = a () => (float[2, 3] w) { [one] w = loc.f (x) },
        else_branch = b () => (float[2, 3] w) { w = Relu (x) }>
    n = Constant <value_int = 3> ()
    [l] r = Loop (n, , both) <
        body = lb (int64 i, bool on, float[2, 3] s) => (bool go, float[2, 3] u) {
            [inner] u = loc.f (s)
            go = Identity (on)
        }>
}
<domain: "loc", opset_import: ["": 17, "loc": 1]>
f <k: int = 1> (a) => (b) {
    [c] c = Constant <value_int = @k> ()
    [cc] cf = Cast <to = 1> (c)
    t = Mul (a, cf)
    b = loc.g (t)
}
<domain: "loc", opset_import: ["": 18]>
pair (a, o) => (p, q) { p = Relu (a)  q = Neg (o)  t = Add (p, q) }
<domain: "loc", opset_import: ["": 18, "loc": 1]>
g (a, opt) => (b) {
    zero = Constant <value_float = 0.0> ()
    sum = ReduceSum <keepdims = 0> (a)
    up = Greater (sum, zero)
    b = If (up) <
        then_branch = h () => (w) { t = Sin (a)  w = Neg (t) },
        else_branch = k () => (w) { w = Cos (a) }>
}
"""


@pytest.mark.parametrize("up", [True, False])
def test_whatever_functions_do_the_copy_computes_the_same(up: bool) -> None:
    model = parser.parse_model(TWISTED)
    x = np.abs(np.random.default_rng(0).standard_normal((2, 3))).astype(np.float32)
    feeds = {"x": x if up else -x, "c": np.array(up)}
    graph = _bodies.inlined(_graph.of_document(read(model)))
    assert not graph.proto.functions
    options = [each.SerializeToString() for each in (model, graph.proto)]
    wanted, got = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, feeds)
        for each in options
    )
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a, b)
    names = [name for node in graph.nodes for name in node.proto.output]
    assert len(set(names)) == len(names)
    assert {"one/loc::f/t", "two/loc::f/b/loc::g/sum", "y", "z"} <= set(names)
    found = custom_ops.debug.compare(model, model, feeds, bodies=True)
    assert found
    assert len(found.values) > len(custom_ops.debug.compare(model, model, feeds).values)


@pytest.mark.parametrize("omitted", [1, 2])
def test_a_call_may_omit_outputs(omitted: int) -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "loc": 1]>
        g (float[2] x) => (float[2] y) { kept = loc.f(x)  y = Neg(kept) }
        <domain: "loc", opset_import: ["": 18]>
        f (a) => (b, c, d) { b = Abs(a)  c = Neg(b)  d = Sin(c) }
    """)
    call = model.graph.node[0]
    call.output.append("" if omitted == 2 else "more")
    call.output.append("")
    feeds = {"x": np.float32([1, -2])}
    found = custom_ops.debug.compare(model, model, feeds, bodies=True)
    assert found
    assert {"kept", "y"} <= {value.name for value in found.values}
    graph = _bodies.inlined(_graph.of_document(read(model)))
    names = [name for node in graph.nodes for name in node.proto.output]
    assert all(names)
    assert len(set(names)) == len(names)


def test_a_function_that_calls_itself_is_refused() -> None:
    model = parser.parse_model(TWISTED)
    (body,) = [each for each in model.functions if each.name == "g"]
    body.node.insert(0, helper.make_node("f", ["a"], ["again"], domain="loc"))
    feeds = {"x": np.ones((2, 3), np.float32), "c": np.array(True)}
    with pytest.raises(ValueError, match="compare: bodies must be of functions to inline, got"):
        custom_ops.debug.compare(model, model, feeds, bodies=True)


def test_a_node_without_body_stays_and_is_told_of() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        g (float[2] a, float[2] b) => (float[2] y) { y = custom_ops.MulAdd(a, b) }
    """)
    feeds = {name: np.ones(2, np.float32) for name in "ab"}
    found = custom_ops.debug.compare(model, model, feeds, bodies=True)
    assert found
    assert found.notes == (
        "no body to look into: MulAdd; custom_ops.onnx.embed adds it to the file",
    )
    assert (
        custom_ops.debug.compare(
            custom_ops.onnx.embed(model), custom_ops.onnx.embed(model), feeds, bodies=True
        ).unmatched
        == ()
    )


def test_on_the_command_line(
    blocks: tuple[torch.nn.Module, torch.Tensor, onnx.ModelProto], tmp_path: Path
) -> None:
    _, _, model = blocks
    onnx.save(model, tmp_path / "m.onnx")
    command = ["compare", str(tmp_path / "m.onnx"), str(tmp_path / "m.onnx"), "--json"]
    whole, inside = (
        json.loads(CliRunner().invoke(app, [*command, *more]).stdout)["values"]
        for more in ([], ["--bodies"])
    )
    assert [value["name"] for value in whole] == ["t", "y"]
    assert "/a/block/loc::block/linear" in [value["name"] for value in inside]
    assert len(inside) == 6


def test_a_fault_in_the_loop_of_our_body(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = custom_ops.DeformConv2d(4, 4, 3, padding=1).eval(), torch.randn(1, 4, 8, 8)
    offset = torch.randn(1, 18, 8, 8)
    custom_ops.onnx.export(module, (x, offset), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    (body,) = model.functions
    (loop,) = [node for node in body.node if node.op_type == "Loop"]
    (graph,) = [each.g for each in loop.attribute if each.HasField("g")]
    wrong = [node for node in graph.node if node.op_type == "Add"][-1]
    wrong.op_type = "Sub"
    assert custom_ops.debug.compare(module, model, (x, offset))
    found = custom_ops.debug.compare(module, model, (x, offset), bodies=True)
    fault = found.first_fault
    assert fault is not None
    assert fault.op_type == "Loop"
    assert fault.node.endswith(f"/custom_ops::DeformConv2d/{loop.name}")
    assert fault.difference == f"inside of it, {fault.node}/{wrong.name}: op is Sub, not Add"
