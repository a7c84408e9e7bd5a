"""Marks in modules: what is exported of them, made outputs, compared, and taken out again."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper, parser
from releases import CACHE

import custom_ops
import custom_ops.debug
from custom_ops.debug import Debugger, _marks
from custom_ops.onnx import _marker

pytestmark = pytest.mark.usefixtures("quiet")

EXPORTERS = ("dynamo", "torchscript")
HEADER = '<ir_version: 9, opset_import: ["": 18, "custom_ops.debug": 1]>'


class Net(torch.nn.Module):
    """Marks between Conv and BatchNorm, twice the same name, one that nobody uses, the output."""

    def __init__(self, dbg: Debugger) -> None:
        super().__init__()
        self.dbg = dbg
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.dbg.mark("conv", self.conv(x)))
        self.dbg.mark("unused", x * 5)
        for _ in range(2):
            x = self.dbg.mark("step", torch.tanh(x) + 0.5)
        return self.dbg.mark("result", custom_ops.mul_add(x, x))


IMAGE = torch.arange(2 * 3 * 6 * 7, dtype=torch.float32).reshape(2, 3, 6, 7) / 100


def make() -> tuple[Debugger, Net]:
    torch.manual_seed(0)
    dbg = Debugger()
    return dbg, Net(dbg).eval()


@pytest.fixture(scope="module", params=EXPORTERS)
def exported(request: Any, tmp_path_factory: Any) -> tuple[Debugger, Net, Path]:
    """The network as a file of each exporter, with sizes that may change."""
    dbg, net = make()
    path = tmp_path_factory.mktemp(request.param) / "net.onnx"
    sizes = ({0: "n", 2: "h"},)
    assert custom_ops.onnx.export(net, (IMAGE,), path, exporter=request.param, dynamic_shapes=sizes)
    return dbg, net, path


def markers(path: Path) -> list[str]:
    return [place.name for place in _marks.find(onnx.load(path))]


def run(path: Path | onnx.ModelProto, *arrays: Any, **options: Any) -> dict[str, Any]:
    """Runs a model in onnxruntime; our ops and markers by the bodies that it carries."""
    given = path if isinstance(path, Path) else path.SerializeToString()
    options.setdefault("providers", ["CPUExecutionProvider"])
    runner = onnxruntime.InferenceSession(given, **options)
    feeds = {each.name: array for each, array in zip(runner.get_inputs(), arrays, strict=True)}
    return dict(zip((o.name for o in runner.get_outputs()), runner.run(None, feeds), strict=True))


def parsed(text: str, header: str = HEADER) -> onnx.ModelProto:
    """A model of text with the body of the markers."""
    return custom_ops.onnx.embed(parser.parse_model(header + text))


# In torch


def test_a_mark_is_nothing_outside_of_export() -> None:
    dbg = Debugger()
    x = torch.randn(3, requires_grad=True)
    assert dbg.mark("x", x) is x
    compiled = torch.compile(lambda t: dbg.mark("x", t), fullgraph=True, backend="eager")
    assert compiled(x) is x
    (gradient,) = torch.autograd.grad((dbg.mark("x", x) * 3).sum(), x)
    assert gradient.tolist() == [3, 3, 3]


def test_the_op_of_the_marker_is_one_of_torch() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.custom_ops.mark.default, (x, "x"))
    mapped = torch.func.vmap(lambda t: torch.ops.custom_ops.mark(t, "x"), in_dims=1)(x)
    assert torch.equal(mapped, x.T)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("", torch.ones(1), "^mark: name must be a text without '#', .* got ''$"),
        ("a#1", torch.ones(1), "got 'a#1'$"),
        (3, torch.ones(1), "got 3$"),
        ("a", [torch.ones(1)], "^mark: x must be a tensor, got list; mark each tensor in it$"),
    ],
)
def test_wrong_marks_are_refused(name: Any, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Debugger().mark(name, x)


# Exported


def test_both_exporters_write_markers_that_run(exported: tuple[Debugger, Net, Path]) -> None:
    _, net, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert markers(path) == ["conv", "step", "step", "result"]  # the unused one has vanished
    assert ("custom_ops.debug", "Marker") in {(f.domain, f.name) for f in model.functions}
    for image in (IMAGE, IMAGE[:1, :, :5]):
        (found,) = run(path, image.numpy()).values()
        np.testing.assert_allclose(found, net(image).detach(), rtol=1e-5, atol=1e-5)


def test_a_marker_keeps_the_exporter_from_fusing(exported: tuple[Debugger, Net, Path]) -> None:
    assert "BatchNormalization" in {node.op_type for node in onnx.load(exported[2]).graph.node}


def test_the_oldest_release_takes_markers(exported: tuple[Debugger, Net, Path]) -> None:
    path = exported[2]
    release = custom_ops.onnx.target("onnxruntime==1.17")
    old = path.with_name("old.onnx")
    custom_ops.onnx.set_ir_version(path, release.ir_version, old)
    assert custom_ops.onnx.doctor(old, target="onnxruntime==1.17")
    assert markers(old) == ["conv", "step", "step", "result"]
    python = next(CACHE.glob("python*/1.17/bin/python"), None)
    if python is None:
        pytest.skip("there is no environment of release 1.17; tools/releases.py makes it")
    code = (
        "import numpy, onnxruntime, sys\n"
        "runner = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "print(runner.run(None, {'x': numpy.load(sys.argv[2])})[0].ravel().tolist())\n"
    )
    np.save(path.with_name("x.npy"), IMAGE.numpy())
    command = [str(python), "-c", code, str(old)]
    done = subprocess.run(
        [*command, str(path.with_name("x.npy"))],
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    (now,) = run(path, IMAGE.numpy()).values()
    np.testing.assert_allclose(eval(done.stdout), now.ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lowering", ["custom", "decomposed", "native"])
def test_every_lowering_keeps_markers(lowering: str, tmp_path: Path) -> None:
    _, net = make()
    path = tmp_path / "net.onnx"
    assert custom_ops.onnx.export(net, (IMAGE,), path, exporter="torchscript", lowering=lowering)
    assert markers(path) == ["conv", "step", "step", "result"]


def test_plain_torchscript_export_runs(tmp_path: Path) -> None:
    dbg, net = make()
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (IMAGE,), path, dynamo=False, opset_version=17)
    assert markers(path) == ["conv", "step", "step", "result"]
    (found,) = run(path, IMAGE.numpy()).values()
    np.testing.assert_allclose(found, net(IMAGE).detach(), rtol=1e-5, atol=1e-5)
    assert dbg.extract(path, tmp_path / "watched.onnx").missing[0].name == "unused"


def test_plain_dynamo_export_writes_the_nodes_and_embed_adds_the_body(tmp_path: Path) -> None:
    dbg, net = make()
    path = tmp_path / "net.onnx"
    table = custom_ops.onnx.translation_table()
    torch.onnx.export(
        net, (IMAGE,), path, dynamo=True, verbose=False, custom_translation_table=table
    )
    assert markers(path) == ["conv", "step", "step", "result"]
    (finding,) = [f for f in custom_ops.onnx.doctor(path).findings if f.code == "custom-domain"]
    assert "custom_ops.onnx.embed gives markers their body" in str(finding)
    (found,) = run(custom_ops.onnx.embed(path), IMAGE.numpy()).values()
    np.testing.assert_allclose(found, net(IMAGE).detach(), rtol=1e-5, atol=1e-5)
    dbg.strip(path, tmp_path / "clean.onnx")
    (clean,) = run(tmp_path / "clean.onnx", IMAGE.numpy()).values()
    assert np.array_equal(clean, found)


def test_a_compiled_module_exports_its_marks(tmp_path: Path) -> None:
    dbg, net = make()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert torch.equal(compiled(IMAGE), net(IMAGE))
    path = tmp_path / "net.onnx"
    assert custom_ops.onnx.export(compiled, (IMAGE,), path)
    assert markers(path) == ["conv", "step", "step", "result"]
    report = dbg.run(compiled, path, (IMAGE,))
    assert [mark.name for mark in report.marks] == ["conv", "step", "step#1", "result"]
    assert report


def test_a_strict_export_keeps_marks() -> None:
    _, net = make()
    program = torch.export.export(net, (IMAGE,), strict=True)
    names = [n.args[1] for n in program.graph.nodes if "custom_ops.mark" in str(n.target)]
    assert names == ["conv", "unused", "step", "step", "result"]
    assert torch.equal(program.module()(IMAGE), net(IMAGE))


class Kinds(torch.nn.Module):
    """Marks of several dtypes, of a scalar and of nothing."""

    def __init__(self, dbg: Debugger) -> None:
        super().__init__()
        self.dbg = dbg

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mark = self.dbg.mark
        half = mark("half", x * 2)
        whole = mark("whole", i + 1)
        flag = mark("flag", whole > 2)
        scalar = mark("scalar", half.sum())
        nothing = mark("nothing", half[:0])
        return half + scalar, whole * 2, torch.logical_not(flag), nothing


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_any_dtype_and_shape(exporter: str, tmp_path: Path) -> None:
    dbg = Debugger()
    module = Kinds(dbg).eval()
    args = (torch.tensor([1.0, 2.5, 3.0]).half(), torch.tensor([0, 5, -7]))
    path = tmp_path / "kinds.onnx"
    custom_ops.onnx.export(module, args, path, exporter=exporter)
    report = dbg.run(module, path, args)
    assert report, report
    assert not report.missing
    assert {mark.name: (mark.dtype, mark.shape) for mark in report.marks} == {
        "half": ("float16", (3,)),
        "whole": ("int64", (3,)),
        "flag": ("bool", (3,)),
        "scalar": ("float16", ()),
        "nothing": ("float16", (0,)),
    }


# As outputs


def test_extract_keeps_inputs_and_outputs(exported: tuple[Debugger, Net, Path]) -> None:
    dbg, net, path = exported
    before = onnx.load(path).graph
    watched = path.with_name("watched.onnx")
    found = dbg.extract(path, watched, force=True)
    assert list(found.outputs) == ["conv", "step", "step#1", "result"]
    assert [(each.name, each.reason[:28]) for each in found.missing] == [
        ("unused", "the model has no such marker")
    ]
    assert not found
    after = onnx.load(watched)
    onnx.checker.check_model(after, full_check=True)
    assert after.graph.input == before.input
    assert after.graph.output[: len(before.output)] == before.output
    assert not [f for f in after.functions if f.domain == "custom_ops.debug"]
    x = torch.tanh(net.norm(net.conv(IMAGE))) + 0.5
    outputs = run(watched, IMAGE.numpy())
    wanted = {"conv": net.conv(IMAGE), "step": x, "step#1": torch.tanh(x) + 0.5}
    for name, value in wanted.items():
        np.testing.assert_allclose(outputs[name], value.detach(), rtol=1e-5, atol=1e-5)
    assert np.array_equal(outputs["result"], outputs[before.output[0].name])
    smaller = run(watched, IMAGE[:1, :, :5].numpy())
    assert smaller["conv"].shape == (1, 4, 3, 5)


def test_a_marker_of_any_producer_is_found(tmp_path: Path) -> None:
    model = parsed("""
        g (float[N] x) => (float[N] y) {
            a = Neg(x)
            b = custom_ops.debug.Marker <name = "first"> (a)
            y = Exp(b)
        }""")
    found = Debugger().extract(model, tmp_path / "out.onnx")
    assert found
    assert found.outputs == {"first": "first"}
    assert str(found) == f"{tmp_path / 'out.onnx'}: first"
    outputs = run(tmp_path / "out.onnx", np.float32([1, 2]))
    assert outputs["first"].tolist() == [-1, -2]
    assert _marks.find(model)  # the caller's model is as it was


def test_names_that_the_model_has_already(tmp_path: Path) -> None:
    """Inputs, outputs and weights keep their names; values inside give way."""
    model = parsed("""
        g (float[N] x) => (float[N] y)
        <float[1] w = {3}> {
            a = Neg(x)
            b = custom_ops.debug.Marker <name = "x"> (a)
            c = custom_ops.debug.Marker <name = "w"> (b)
            d = custom_ops.debug.Marker <name = "a"> (c)
            z = Mul(d, w)
            e = custom_ops.debug.Marker <name = "d"> (z)
            f = custom_ops.debug.Marker <name = "f"> (e)
            g = Add(f, a)
            y = custom_ops.debug.Marker <name = "g"> (g)
        }""")
    before = run(model, np.float32([1, 2]))
    found = Debugger().extract(model, tmp_path / "out.onnx")
    assert found.outputs == {
        "x": "x:mark", "w": "w:mark", "a": "a", "d": "d", "f": "f", "g": "g",
    }  # fmt: skip
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    after = run(tmp_path / "out.onnx", np.float32([1, 2]))
    assert list(after) == ["y", "x:mark", "w:mark", "a", "d", "f", "g"]
    for name in ("x:mark", "w:mark", "a"):
        assert after[name].tolist() == [-1, -2]
    for name in ("d", "f"):
        assert after[name].tolist() == [-3, -6]
    assert after["g"].tolist() == after["y"].tolist() == before["y"].tolist() == [-4, -8]


BRANCHES = """
    g (float[2] x) => (float[2] y) {
        zero = Constant <value_float = 0.0> ()
        sum = ReduceSum <keepdims = 0> (x)
        positive = Greater(sum, zero)
        y = If (positive) <
            then_branch = then () => (float[2] p) {
                q = Neg(x)
                p = custom_ops.debug.Marker <name = "inside"> (q)
            },
            else_branch = else () => (float[2] r) {
                r = custom_ops.debug.Marker <name = "inside"> (x)
            }
        >
    }"""


def test_what_lies_in_a_subgraph_is_listed(tmp_path: Path) -> None:
    model = parsed(BRANCHES)
    with pytest.raises(ValueError, match=r"main graph, got inside: it lies in a subgraph of If"):
        Debugger().extract(model, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
    model.graph.node[1].output[0] = "before"
    model.graph.node.insert(
        2,
        onnx.helper.make_node("Marker", ["before"], ["sum"], domain="custom_ops.debug", name="sum"),
    )
    found = Debugger().extract(model, tmp_path / "out.onnx")
    assert found.outputs == {"sum": "sum"}
    assert [each.name for each in found.missing] == ["inside", "inside"]
    for image in ([1, 2], [-1, -2]):
        outputs = run(tmp_path / "out.onnx", np.float32(image))
        assert outputs["sum"] == sum(image)
        assert outputs["y"].tolist() == [-1, -2]


class Branches(torch.nn.Module):
    def __init__(self, dbg: Debugger) -> None:
        super().__init__()
        self.dbg = dbg

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dbg.mark("outside", x + 1)
        mark = self.dbg.mark
        return torch.cond(x.sum() > 0, lambda t: mark("inside", t * 2), lambda t: t - 1, (x,))


def test_torch_cond_keeps_the_marks_of_its_branches(tmp_path: Path) -> None:
    dbg = Debugger()
    module = Branches(dbg).eval()
    path = tmp_path / "cond.onnx"
    assert custom_ops.onnx.export(module, (torch.ones(2),), path)
    assert sorted(markers(path)) == ["inside", "outside"]
    report = dbg.run(module, path, torch.ones(2))
    assert [mark.name for mark in report.marks] == ["outside"]
    assert [each.name for each in report.missing] == ["inside"]
    assert "subgraph of If" in str(report)
    dbg.strip(path, tmp_path / "clean.onnx")
    for values in ([1, 1], [-3, -3]):
        before, after = (run(p, np.float32(values)) for p in (path, tmp_path / "clean.onnx"))
        assert [a.tolist() for a in before.values()] == [a.tolist() for a in after.values()]


# Taken out


def test_strip_computes_the_same_bits(exported: tuple[Debugger, Net, Path]) -> None:
    dbg, _, path = exported
    clean = path.with_name("clean.onnx")
    found = dbg.strip(path, clean, force=True)
    assert found.markers == 4
    assert str(found) == f"{clean}: took out 4 markers"
    before, after = onnx.load(path), onnx.load(clean)
    onnx.checker.check_model(after, full_check=True)
    assert not _marks.find(after)
    assert "custom_ops.debug" not in {each.domain for each in after.opset_import}
    assert "custom_ops.debug" not in {each.domain for each in after.functions}
    assert len(after.graph.node) == len(before.graph.node) - 4
    assert after.graph.output == before.graph.output
    assert list(run(clean, IMAGE.numpy())) == list(run(path, IMAGE.numpy()))
    # Without the markers the session may fuse; what is computed is the same.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    pairs = (run(p, IMAGE.numpy(), sess_options=options) for p in (path, clean))
    one, other = (next(iter(outputs.values())) for outputs in pairs)
    assert np.array_equal(one, other)


def test_run_leaves_the_module_and_the_generator_as_they_were(tmp_path: Path) -> None:
    dbg = Debugger()

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(dbg.mark("norm", self.norm(x))).relu()

    module, x = Counting().eval(), torch.randn(4, 3)
    custom_ops.onnx.export(module, x, tmp_path / "net.onnx")
    module.train()
    torch.manual_seed(0)
    drawn = torch.rand(2)
    torch.manual_seed(0)
    dbg.run(module, tmp_path / "net.onnx", x)
    assert torch.equal(torch.rand(2), drawn)
    assert module.norm.num_batches_tracked == 0
    assert torch.equal(module.norm.running_mean, torch.zeros(3))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("y = custom_ops.debug.Marker <name = 'a'> (x)", ["Identity"]),
        ("a = Neg(x) y = custom_ops.debug.Marker <name = 'a'> (a)", ["Neg"]),
        (
            "a = custom_ops.debug.Marker <name = 'a'> (x)"
            "b = custom_ops.debug.Marker <name = 'a'> (a) y = Neg(b)",
            ["Neg"],
        ),
        (
            "a = Neg(x) b = custom_ops.debug.Marker <name = 'a'> (a)"
            "y = custom_ops.debug.Marker <name = 'a'> (b)",
            ["Neg"],
        ),
        (
            "a = Neg(x) z = custom_ops.debug.Marker <name = 'a'> (a)"
            "y = custom_ops.debug.Marker <name = 'a'> (a)",
            ["Neg", "Identity"],
        ),
    ],
)
def test_strip_at_the_bounds(text: str, left: list[str], tmp_path: Path) -> None:
    result = "float[N] y, float[N] z" if "z =" in text else "float[N] y"
    text = text.replace("'", '"')
    model = parsed(f"g (float[N] x) => ({result}) {{ {text} }}")
    Debugger().strip(model, tmp_path / "out.onnx")
    after = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == left
    before = run(model, np.float32([1, 2]))
    found = run(tmp_path / "out.onnx", np.float32([1, 2]))
    assert list(found) == list(before)
    assert all(np.array_equal(found[name], before[name]) for name in before)


def test_strip_reaches_subgraphs_and_functions(tmp_path: Path) -> None:
    model = parsed(BRANCHES)
    found = Debugger().strip(model, tmp_path / "out.onnx")
    assert found.markers == 2
    for values in ([1, 2], [-1, -2]):
        assert run(tmp_path / "out.onnx", np.float32(values))["y"].tolist() == [-1, -2]
    text = (
        HEADER.replace("]>", ', "mine": 1]>')
        + """
        g (float[N] x) => (float[N] y) { y = mine.Twice(x) }
        <domain: "mine", opset_import: ["": 18, "custom_ops.debug": 1]>
        Twice (x) => (y) { a = Add(x, x) y = custom_ops.debug.Marker <name = "sum"> (a) }
        """
    )
    model = custom_ops.onnx.embed(parser.parse_model(text))
    with pytest.raises(ValueError, match="sum: it lies in the function mine::Twice"):
        Debugger().extract(model, tmp_path / "other.onnx")
    Debugger().strip(model, tmp_path / "out.onnx", force=True)
    after = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert [each.domain for each in after.functions[0].opset_import] == [""]
    assert run(after, np.float32([1, 2]))["y"].tolist() == [2, 4]


# Compared


def test_the_report_names_the_first_mark_that_differs(
    exported: tuple[Debugger, Net, Path],
) -> None:
    dbg, net, path = exported
    report = dbg.run(net, path, (IMAGE[:1],))
    assert report, report
    assert dbg.report() is report
    assert [mark.name for mark in report.marks] == ["conv", "step", "step#1", "result"]
    assert [each.name for each in report.missing] == ["unused"]
    assert report.first is None
    model = onnx.load(path)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    next(a for a in norm.attribute if a.name == "epsilon").f = 0.3
    report = dbg.run(net, model, (IMAGE,))
    assert not report
    assert [mark.ok for mark in report.marks] == [True, False, False, False]
    assert report.first is not None
    assert report.first.name == "step"
    assert report.first.metrics.max_abs > 0.01
    assert report.as_dict()["first"] == "step"
    assert "step (float32[2, 4, 4, 5]): DIFFERS (largest difference 0." in str(report)


def test_repeats_compare_only_where_they_are_as_many(tmp_path: Path) -> None:
    model = parsed("""
        g (float[N] x) => (float[N] y) {
            a = Neg(x)
            b = custom_ops.debug.Marker <name = "step"> (a)
            c = Neg(b)
            y = custom_ops.debug.Marker <name = "last"> (c)
        }""")
    dbg = Debugger()

    class Steps(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(2):
                x = dbg.mark("step", -x)
            return dbg.mark("last", x)

    report = dbg.run(Steps(), model, torch.ones(3))
    assert report
    assert [mark.name for mark in report.marks] == ["last"]
    assert [str(each) for each in report.missing] == [
        "step: torch comes by it 2x, the model has it 1x, which does not tell what belongs together"
    ]


def test_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    dbg = Debugger()
    with pytest.raises(ValueError, match=r"^report: there must be a run to report on, got none"):
        dbg.report()

    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dbg.mark("x", x)
            raise KeyError("broken")

    with pytest.raises(KeyError):
        dbg.run(Broken(), tmp_path / "none.onnx", torch.ones(1))
    x = torch.ones(1)
    assert dbg.mark("x", x) is x
    model = parsed("""
        g (float[N] x, float[N] z) => (float[N] y) {
            a = custom_ops.debug.Marker <name = "a"> (x)
            y = Add(a, z)
        }""")
    with pytest.raises(ValueError, match=r"^run: model must have the inputs x, got x, z; pass"):
        dbg.run(Identity(dbg), model, torch.ones(1))


class Identity(torch.nn.Module):
    def __init__(self, dbg: Debugger) -> None:
        super().__init__()
        self.dbg = dbg

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Changes its input in place after a mark, which must not see it."""
        y = self.dbg.mark("a", x)
        return y.add_(1)


def test_what_is_overwritten_is_recorded_before(tmp_path: Path) -> None:
    model = parsed("""
        g (float[N] x) => (float[N] y) {
            a = custom_ops.debug.Marker <name = "a"> (x)
            y = Neg(a)
        }""")
    dbg, x = Debugger(), torch.ones(2)
    assert dbg.run(Identity(dbg), model, x)
    assert x.tolist() == [1, 1]


# Files


@pytest.mark.parametrize("tool", [Debugger.extract, Debugger.strip])
def test_files_are_not_overwritten(tool: Callable[..., Any], tmp_path: Path) -> None:
    text = 'g (float[N] x) => (float[N] y) { y = custom_ops.debug.Marker <name = "a"> (x) }'
    path = tmp_path / "out.onnx"
    path.write_text("mine")
    with pytest.raises(ValueError, match="output must be a new file"):
        tool(Debugger(), parsed(text), path)
    assert path.read_text() == "mine"
    tool(Debugger(), parsed(text), path, force=True)
    assert onnx.load(path).graph.name == "g"
    (tmp_path / "junk.onnx").write_bytes(b"\xff" * 9)
    with pytest.raises(custom_ops.onnx.UnreadableModel):
        tool(Debugger(), tmp_path / "junk.onnx", tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


def test_weights_in_other_files_go_along(tmp_path: Path) -> None:
    model = parsed(
        """
        g (float[1024] x) => (float[1024] y) {
            a = Mul(x, w)
            b = custom_ops.debug.Marker <name = "product"> (a)
            y = Neg(b)
        }""".replace("{\n", "<float[1] w = {2}> {\n", 1)
    )
    weight = np.arange(1024, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    folder = tmp_path / "given"
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin")
    found = Debugger().extract(folder / "m.onnx", tmp_path / "out.onnx")
    assert found.data == tmp_path / "out.onnx.data"
    stripped = Debugger().strip(folder / "m.onnx", tmp_path / "clean.onnx")
    (folder / "w.bin").unlink()
    ones = np.ones(1024, np.float32)
    assert np.array_equal(run(tmp_path / "out.onnx", ones)["product"], weight)
    assert np.array_equal(run(tmp_path / "clean.onnx", ones)["y"], -weight)
    assert stripped.as_dict()["data"] == str(tmp_path / "clean.onnx.data")


def test_the_body_is_written_for_every_opset() -> None:
    for opset in (9, 13, 18, 25):
        proto = _marker.function(opset).to_function_proto()
        assert [(each.domain, each.version) for each in proto.opset_import] == [("", opset)]
        assert [node.op_type for node in proto.node] == ["Identity"]
