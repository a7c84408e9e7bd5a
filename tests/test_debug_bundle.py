"""Tests of bundles: each reproduces its fault in a process that knows nothing of it."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from test_debug_compare import Net, born_nan, other_attribute, scaled, transposed
from torch.utils import _pytree as pytree

import custom_ops.debug
from custom_ops.debug import Comparison, _difference
from custom_ops.debug._weights import Weight, put_in_other_places, tells

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
    assert all_are_others(found, tmp_path / "there")


def all_are_others(found: Comparison, folder: Path) -> int:
    """Says how many weights are in a bundle, all of them others, with what they bring about."""
    assert found.first_fault is not None
    evidence = found.evidence[found.first_fault.name]
    pairs = [
        (numpy_helper.to_array(one), numpy_helper.to_array(other))
        for one, other in zip(
            evidence.model.graph.initializer,
            onnx.load(folder / "model.onnx").graph.initializer,
            strict=True,
        )
    ]
    ops = torch.load(folder / "torch_ops.pt", weights_only=True)
    leaves = pytree.tree_leaves([list(evidence.ops), ops])
    tensors = [leaf.numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]
    pairs += zip(tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :], strict=True)
    fed = [*evidence.feeds.values()]
    weights = [
        (one, other)
        for one, other in pairs
        if one.dtype.kind == "f"
        and np.unique(one).size > 1
        and not any(np.array_equal(one, each) for each in fed)
    ]
    for one, other in weights:
        assert one.shape == other.shape
        assert not np.allclose(one, other)
    facts = json.loads((folder / "fault.json").read_text())
    arrays = np.load(folder / "arrays.npz")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = custom_ops.onnx.session(folder / "model.onnx", sess_options=options)
    feeds = {name: arrays[f"input_{i}"] for i, name in enumerate(facts["inputs"])}
    (actual,) = session.run(None, feeds)
    apart = np.nan_to_num(np.abs(actual - arrays["expected"]))
    assert float(facts["introduced"]) == pytest.approx(float(apart.max()), rel=1e-6)
    assert apart.max() > facts["limit"] or np.isnan(actual).any()
    readme = (folder / "README.md").read_text()
    assert f"is off by {facts['introduced']:.3g}; " in readme
    assert ": " not in facts["difference"], "a number of a weight"
    return len(weights)


class Memory(torch.nn.Module):
    """An LSTM alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


def first_number(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Adds one to the first number of a weight."""
    (tensor,) = (t for t in model.graph.initializer if tuple(t.dims) == shape)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def other_epsilon(model: onnx.ModelProto, _: tuple[int, ...]) -> None:
    (node,) = (node for node in model.graph.node if node.op_type == "InstanceNormalization")
    node.attribute[0].f = 1e-2


def group_norm() -> torch.nn.Module:
    norm = torch.nn.GroupNorm(2, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


SCRAMBLED: dict[str, tuple[Any, tuple[int, ...], Any, tuple[int, ...], int]] = {
    "other shape": (group_norm, (1, 8, 6, 6), other_epsilon, (), 4),
    "parts of several": (Memory, (3, 2, 5), first_number, (1, 16, 5), 7),
    "other axes": (lambda: torch.nn.Linear(5, 4), (3, 2, 5), first_number, (5, 4), 4),
}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", SCRAMBLED)
def test_every_weight_is_scrambled(name: str, exporter: str, tmp_path: Path) -> None:
    make, sizes, change, shape, weights = SCRAMBLED[name]
    torch.manual_seed(0)
    module, x = make().eval(), torch.randn(sizes)
    custom_ops.onnx.export(module, x, tmp_path / "net.onnx", exporter=exporter)
    model = onnx.load(tmp_path / "net.onnx")
    change(model, shape)
    found = custom_ops.debug.compare(module, model, x)
    found.bundle(tmp_path / "fault.zip", scramble=True)
    zipfile.ZipFile(tmp_path / "fault.zip").extractall(tmp_path / "there")
    assert all_are_others(found, tmp_path / "there") == weights
    found.bundle(tmp_path / "other.zip", scramble=True)
    once, again = (files_of(tmp_path / name)["model.onnx"] for name in ("fault.zip", "other.zip"))
    assert once != again, "what is known of the order puts the weights back"


def test_merged_weights_are_not_scrambled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    module.eval()[1].running_var.uniform_(0.1, 0.3)
    x = torch.randn(1, 3, 8, 8)
    custom_ops.onnx.export(module, x, tmp_path / "net.onnx", exporter="torchscript")
    model = onnx.load(tmp_path / "net.onnx")
    first_number(model, (4, 3, 3, 3))
    found = custom_ops.debug.compare(module, model, x)
    with pytest.raises(ValueError, match=r"^bundle: scramble must find each weight both in the mo"):
        found.bundle(tmp_path / "fault.zip", scramble=True)
    assert not (tmp_path / "fault.zip").exists()


def weights(*arrays: Any) -> list[Weight]:
    return [Weight("the model", np.float32(array)) for array in arrays]


def test_a_number_of_its_own_is_another_on_both_sides() -> None:
    ours, theirs = weights([0.25], [[0.25]], [0.5]), weights(0.25)
    put_in_other_places(ours, theirs)
    assert theirs[0].after is not None
    assert theirs[0].after.shape == ()
    new = theirs[0].after
    assert new != np.float32(0.25)
    assert [each.after for each in ours] == [[new], [[new]], [0.5]]  # 0.5 is none of torch's


def test_what_a_fault_did_to_a_number_moves_with_it() -> None:
    torchs = np.random.default_rng(0).normal(size=(4, 6))
    ours, theirs = weights(torchs.T.reshape(2, 3, 4) * 1.1), weights(torchs)
    put_in_other_places(ours, theirs)
    assert ours[0].after is not None
    assert theirs[0].after is not None
    before, after = theirs[0].before, theirs[0].after
    assert not np.array_equal(before, after)
    assert np.array_equal(np.sort(before.flat), np.sort(after.flat))
    assert np.allclose(ours[0].after.reshape(6, 4).T, after * 1.1)


@pytest.mark.parametrize("side", [0, 1])
def test_a_weight_without_partner_is_refused(side: int) -> None:
    both = weights([1, 2, 3]), weights([3, 2, 1])
    both[side].extend(weights([5, 6, 7, 8]))
    with pytest.raises(ValueError, match=r"got float32\[4\] in the model alone, as where weights"):
        put_in_other_places(*both)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ([0.5], True),
        ([1, 2], True),
        ([0, 0], False),
        ([1, 1], False),
        ([0, 1], True),
        ([0, -np.inf], False),
        ([0, -1e9], False),
        ([], False),
    ],
)
def test_what_tells_of_weights(array: Any, expected: bool) -> None:
    assert tells(np.float32(array)) == expected


def test_whole_numbers_of_8_bits_are_weights() -> None:
    assert tells(np.int8([3, -4]))
    assert not tells(np.int64([3, -4]))
    assert not tells(np.int8([3, 3]))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (np.float32([0.5, 2]), np.float32([0.5, 3]), "differs in 1 of 2 numbers"),
        (np.float32(7), np.float32(3), "differs in 1 of 1 numbers"),
        (np.float32([7]), np.float32([3, 4]), "is float32[1], not float32[2]"),
    ],
)
def test_a_difference_without_numbers(one: Any, other: Any, said: str) -> None:
    how = f"input 1, 'w: 3', {_difference.apart(one, other)}"
    assert _difference.without_numbers(how) == f"input 1, 'w: 3', {said}"
    texts = [_difference.text(numpy_helper.from_array(each)) for each in (one, other)]
    how = f"attribute weight is {texts[0]}, not {texts[1]}"
    assert _difference.without_numbers(how) == "attribute weight is another one"
    how = f"attribute value_floats is {one.reshape(-1).tolist()}, not {other.reshape(-1).tolist()}"
    assert _difference.without_numbers(how) == "attribute value_floats is another one"
    inside = "inside of it, loop: inside of it, n: 4: "
    for name in ("value", "weight"):
        how = f"{inside}attribute {name} is {texts[0]}, not {texts[1]}"
        assert _difference.without_numbers(how) == f"{inside}attribute {name} is another one"
    how = f"{inside}attribute epsilon is 1e-05, not 0.001"
    assert _difference.without_numbers(how) == how
    assert _difference.without_numbers("attribute epsilon is 1e-05, not 0.001").endswith("0.001")


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


def test_a_type_that_numpy_does_not_write(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["": 18]>
        g (float[3, 3] x) => (float[3, 3] y) {
            b = Cast <to = 16> (x) t = Transpose <perm = [1, 0]> (b) y = Cast <to = 1> (t)
        }
        """
    )
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.node[1].attribute[0].ints[:] = [0, 1]
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    found = custom_ops.debug.compare(model, wrong, {"x": x})
    with pytest.raises(
        ValueError, match=r"^bundle: fault must be of types .*, got bfloat16 of 'b'; "
    ):
        found.bundle(tmp_path / "fault.zip")


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
