"""Tests of bundles: each reproduces its fault in a process that knows nothing of it."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_debug_compare import Net, born_nan, other_attribute, scaled, transposed

import custom_ops.debug
from custom_ops.debug import Comparison

FAULTS = {each.__name__: each for each in (scaled, other_attribute, transposed, born_nan)}


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 9, 10)
    path = tmp_path_factory.mktemp("net") / "secret_name.onnx"
    custom_ops.onnx.export(net, x, path, verify=False)
    found = {}
    for name, fault in FAULTS.items():
        model = onnx.load(path)
        fault(model)
        found[name] = custom_ops.debug.compare(net, model, x)
    return found


def reproduced(bundle: Path, folder: Path, *, without: str = "") -> tuple[int, str]:
    with zipfile.ZipFile(bundle) as file:
        file.extractall(folder)
    hide = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    code = f"{hide}import runpy; runpy.run_path('reproduce.py')"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_reproduces(
    fault: str, comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons[fault].bundle(tmp_path / "fault.zip")
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "there")
    assert code == 1
    assert "torch gives the expected numbers again, within 0" in text
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "bare", without="torch")
    assert code == 1
    assert "torch is not installed" in text


def test_a_bundle_of_what_is_mended_says_so(
    comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons["other_attribute"].bundle(tmp_path / "fault.zip")
    reproduced(tmp_path / "fault.zip", tmp_path / "there")
    model = onnx.load(tmp_path / "there" / "model.onnx")
    model.graph.node[0].attribute[0].f = 0.5
    onnx.save(model, tmp_path / "there" / "model.onnx")
    run = subprocess.run([sys.executable, "reproduce.py"], cwd=tmp_path / "there", timeout=120)
    assert run.returncode == 0


@pytest.mark.parametrize("fault", ["scaled", "transposed", "born_nan"])
def test_scrambled_weights_keep_the_fault(
    fault: str, comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    found = comparisons[fault]
    found.bundle(tmp_path / "fault.zip", scramble=True)
    assert reproduced(tmp_path / "fault.zip", tmp_path / "there")[0] == 1
    assert found.first_fault is not None
    before = found.evidence[found.first_fault.name].model.graph.initializer
    after = onnx.load(tmp_path / "there" / "model.onnx").graph.initializer
    large = [(a, b) for a, b in zip(before, after, strict=True) if np.prod(a.dims) > 8]
    assert large
    for one, other in large:
        ours, theirs = numpy_helper.to_array(one), numpy_helper.to_array(other)
        assert not np.allclose(ours, theirs)


def test_nothing_of_the_machine_is_inside(
    comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons["scaled"].bundle(tmp_path / "fault.zip")
    with zipfile.ZipFile(tmp_path / "fault.zip") as file:
        everything = b"".join(file.read(name) for name in file.namelist())
        facts = json.loads(file.read("fault.json"))
    for secret in (str(Path.home()), str(Path(__file__).parent), "secret_name", "test_debug"):
        assert secret.encode() not in everything
    assert facts["difference"].startswith("input 1, ")
    assert set(facts["versions"]) == {"torch", "onnx", "onnxruntime"}


def files_of(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_notes_inside_functions_and_subgraphs_are_left_out(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 18, "mine": 1, "custom_ops": 1]>
        g (int64 n, bool c, float[N] x) => (float[N] y) {
            t = mine.Twice(x)
            y = Loop(n, c, t) <body = b (int64 i, bool go, float[N] a) => (bool more, float[N] z) {
                more = Identity(go)
                z = mine.Twice(a)
            }>
        }
        <domain: "mine", opset_import: ["": 18, "mine": 1]> Twice (x) => (y) { y = mine.Add(x, x) }
        <domain: "mine", opset_import: ["": 18]> Add (a, b) => (y) { y = Add(a, b) }
        <domain: "mine", opset_import: ["": 18]> Unused (x) => (y) { y = Neg(x) }
        """
    )
    loop = model.graph.node[1]
    texts = [model.graph, *model.graph.node, *model.functions, loop.attribute[0].g]
    texts += [*loop.attribute[0].g.node, *(n for f in model.functions for n in f.node)]
    texts += [*loop.attribute[0].g.input, loop.attribute[0]]
    for each in texts:
        each.doc_string = "/home/someone/net.py"
        if hasattr(each, "metadata_props"):
            each.metadata_props.add(key="line", value="/home/someone/net.py:7")
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.node[1].attribute[0].g.node[1].input[0] = "t"
    inputs = {"n": np.array(3), "c": np.array(True), "x": np.float32([1, 2])}
    custom_ops.debug.compare(model, wrong, inputs).bundle(tmp_path / "fault.zip")
    everything = files_of(tmp_path / "fault.zip")
    assert b"someone" not in b"".join(everything.values())
    bare = onnx.load_from_string(everything["model.onnx"])
    assert {each.name for each in bare.functions} == {"Twice", "Add"}
    assert reproduced(tmp_path / "fault.zip", tmp_path / "there")[0] == 1


def test_our_ops_are_found_wherever_they_are(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        g (int64 n, bool c, float[2] x) => (float[2] y) {
            y = Loop(n, c, x) <body = b (int64 i, bool go, float[2] a) => (bool more, float[2] z) {
                more = Identity(go)
                z = custom_ops.MulAdd <alpha = 0.5> (a, a)
            }>
        }
        """
    )
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.node[0].attribute[0].g.node[1].attribute[0].f = 2
    inputs = {"n": np.array(2), "c": np.array(True), "x": np.float32([1, 2])}
    custom_ops.debug.compare(model, wrong, inputs).bundle(tmp_path / "fault.zip")
    assert reproduced(tmp_path / "fault.zip", tmp_path / "there")[0] == 1


def test_small_weights_in_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["": 18]>
        g (float[4] x, bool c) => (float[4] y) {
            y = If(c) <
                then_branch = t () => (float[4] p) {
                    v = Constant <value = float[4] {1, 2, 3, 4}> () p = Mul(x, v)
                },
                else_branch = e () => (float[4] q) { q = Add(x, w) }
            >
        }
        """
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, 2, 3, 4]), "w"))
    constant = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
    constant.raw_data = numpy_helper.to_array(constant).tobytes()
    constant.ClearField("float_data")
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    onnx.external_data_helper.convert_model_to_external_data(
        apart, location="secret.bin", size_threshold=0, convert_attribute=True
    )
    onnx.save(apart, path)
    monkeypatch.chdir(tmp_path)  # where the data is not
    branch = model.graph.node[0].attribute[0].g.node[1]
    branch.op_type = "Div"
    inputs = {"x": np.float32([1, 2, 3, 4]), "c": np.array(True)}
    custom_ops.debug.compare(model, path, inputs).bundle(tmp_path / "fault.zip")
    assert b"secret" not in b"".join(files_of(tmp_path / "fault.zip").values())
    assert reproduced(tmp_path / "fault.zip", tmp_path / "there")[0] == 1


class Ordered(torch.nn.Module):
    """An op that is told an order in memory, on a part of a tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :1] * 2).clone(memory_format=torch.channels_last).exp()


def test_an_op_is_told_an_order_in_memory(tmp_path: Path) -> None:
    module, x = Ordered().eval(), torch.randn(1, 400, 5, 5)
    custom_ops.onnx.export(module, x, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    (node,) = (node for node in model.graph.node if node.op_type == "Mul")
    node.op_type = "Add"
    custom_ops.debug.compare(module, model, x).bundle(tmp_path / "fault.zip")
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "there")
    assert (code, "torch gives the expected numbers again, within 0" in text) == (1, True)
    assert len(files_of(tmp_path / "fault.zip")["torch_ops.pt"]) < x.nbytes


def test_no_verdict_is_no_fault(comparisons: dict[str, Comparison], tmp_path: Path) -> None:
    comparisons["scaled"].bundle(tmp_path / "fault.zip")
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "bare", without="onnxruntime")
    assert (code, text.splitlines()[-1]) == (
        2,
        "no verdict: ModuleNotFoundError: import of onnxruntime halted; None in sys.modules",
    )
    (tmp_path / "bare" / "model.onnx").write_bytes(b"no model")
    run = subprocess.run(
        [sys.executable, "reproduce.py"],
        cwd=tmp_path / "bare",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stderr) == (2, "")
    assert run.stdout.splitlines()[-1].startswith("no verdict: InvalidProtobuf: ")


def test_torch_cannot_compute_it_again(comparisons: dict[str, Comparison], tmp_path: Path) -> None:
    comparisons["scaled"].bundle(tmp_path / "fault.zip")
    folder = tmp_path / "there"
    reproduced(tmp_path / "fault.zip", folder)
    torch.save([{"op": "aten::no_such_op.", "args": (), "kwargs": {}}], folder / "torch_ops.pt")
    run = subprocess.run(
        [sys.executable, "reproduce.py"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert "torch does not give the expected numbers again: AttributeError: " in run.stdout


def test_an_optimization_is_no_region(comparisons: dict[str, Comparison], tmp_path: Path) -> None:
    found = comparisons["scaled"]
    (fault,) = found.faults
    both = replace(found, faults=(fault, replace(fault, kind="optimization")))
    both.bundle(tmp_path / "fault.zip", fault.name)
    with pytest.raises(ValueError, match=r"^bundle: fault must be of kind 'nodes', got .*; report"):
        both.bundle(tmp_path / "other.zip", 1)
    assert not (tmp_path / "other.zip").exists()


def test_wrong_arguments(comparisons: dict[str, Comparison], tmp_path: Path) -> None:
    found = comparisons["scaled"]
    with pytest.raises(ValueError, match=r"^bundle: fault must be one of the faults, got 7; they"):
        found.bundle(tmp_path / "fault.zip", 7)
    found.bundle(tmp_path / "fault.zip")
    with pytest.raises(ValueError, match=r"^bundle: path must be a new file, got "):
        found.bundle(tmp_path / "fault.zip")
    found.bundle(tmp_path / "fault.zip", force=True)
    for force in (False, True):
        with pytest.raises(ValueError, match=r"^bundle: path must be a file, got .*, a folder; "):
            found.bundle(tmp_path, force=force)
