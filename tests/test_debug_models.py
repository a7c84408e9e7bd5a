"""Tests of `custom_ops.debug.compare` on two models: what is rounding, and what it cannot hide."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

import custom_ops
import custom_ops.debug
from custom_ops.debug import _alignment
from custom_ops.debug._graph import Graph
from custom_ops.debug._model_side import _moved


def parsed(body: str, inputs: str = "float[N] x", outputs: str = "float[N] y") -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return onnx.parser.parse_model(text)


def deep(path: Path) -> dict[str, Any]:
    """Writes a model in which rounding adds up; returns its inputs."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(24):
        layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Tanh()]
    module, x = torch.nn.Sequential(*layers), torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        for _ in range(30):
            module(torch.randn(4, 8, 8, 8))
    program = torch.onnx.export(module.eval(), (x,), dynamo=True, verbose=False, optimize=False)
    assert program is not None
    program.save(str(path))
    return {program.model.graph.inputs[0].name or "": x.numpy()}


def test_rounding_that_adds_up_is_no_fault_of_an_optimization(tmp_path: Path) -> None:
    """ONNX Runtime merges what is apart in the file, and each layer amplifies the difference."""
    feeds = deep(tmp_path / "deep.onnx")
    found = custom_ops.debug.compare(tmp_path / "deep.onnx", tmp_path / "deep.onnx", feeds)
    assert found
    (output,) = found.outputs
    assert output.limit_by == "conditioning"
    assert 0 < (output.introduced or 0) < output.limit < 1e-3


def test_half_a_unit_moves_numbers_as_far_as_rounding_does() -> None:
    given = np.float32([-np.inf, np.nan, 1e5, 0, 3, 1 / 3])
    after = _moved(given, np.dtype(np.float16), torch.Generator().manual_seed(0))
    assert np.array_equal(after[[0, 1, 3, 4]], given[[0, 1, 3, 4]], equal_nan=True)
    assert abs(after[2] - given[2]) == 32  # of numbers from 65536 on, were there any in float16
    assert abs(after[5] - given[5]) == pytest.approx(2.0**-13)


# dtypes


def test_an_output_of_another_kind() -> None:
    right = parsed("y = Sigmoid(x)")
    wrong = parsed("a = Sigmoid(x) [last] y = Cast<to=7>(a)", outputs="int64[N] y")
    (fault,) = custom_ops.debug.compare(right, wrong, {"x": np.float32([1, 2])}).faults
    assert fault.node == "last"
    assert fault.metrics is not None
    assert fault.metrics.mismatch == "dtype int64, not float32"


def test_a_value_of_another_kind_is_fed_as_the_model_has_it(tmp_path: Path) -> None:
    right = parsed("a = Exp(x) b = Cast<to=7>(a) c = Cast<to=1>(b) y = Neg(c)")
    wrong = parsed("a = Exp(x) [narrow] b = Cast<to=6>(a) c = Cast<to=1>(b) [last] y = Relu(c)")
    found = custom_ops.debug.compare(right, wrong, {"x": np.float32([1, 2])})
    assert [fault.node for fault in found.faults] == ["narrow", "last"]
    mismatch = found.faults[0].metrics.mismatch if found.faults[0].metrics else ""
    assert mismatch == "dtype int32, not int64"
    found.bundle(tmp_path / "fault.zip")
    onnx.checker.check_model(found.evidence["b"].model, full_check=True)


@pytest.mark.parametrize("swap", [False, True])
def test_what_overflows_is_blamed_where_it_is_born(swap: bool) -> None:
    body = "z = Neg(x) [square] a = Mul(z, z) [root] b = Sqrt(a) [last] y = Relu(b)"
    right, half = parsed(body), parsed(body, "float16[N] x", "float16[N] y")
    found = custom_ops.debug.compare(right, half, {"x": np.float32([300, 1])})
    assert [fault.node for fault in found.faults] == ["square"]
    assert found.faults[0].metrics is not None
    assert found.faults[0].metrics.infinite == (0, 1)
    # The session to judge computes in float32 there, and gives what is right.
    assert found.outputs[0].arriving == found.outputs[0].metrics
    # A second fault behind it is found too.
    last = half.graph.node[-1 if swap else -2]
    last.op_type = "Neg"
    found = custom_ops.debug.compare(right, half, {"x": np.float32([300, 1])})
    assert [fault.node for fault in found.faults] == ["square", last.name]


def test_what_overflows_in_an_output() -> None:
    body = "[first] a = Mul(x, x) [last] y = Relu(a)"
    right, half = parsed(body), parsed(body, "float16[N] x", "float16[N] y")
    found = custom_ops.debug.compare(right, half, {"x": np.float32([300, 1])})
    assert [fault.node for fault in found.faults] == ["first"]


def test_a_mask_that_overflows_does_no_harm() -> None:
    body = "s = Add(x, m) [soft] p = Softmax(s) y = Relu(p)"
    right = parsed(body, "float[2,4] x, float[2,4] m", "float[2,4] y")
    half = parsed(body, "float16[2,4] x, float16[2,4] m", "float16[2,4] y")
    x = 20 * np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    mask = np.zeros((2, 4), np.float32)
    for number in (-np.inf, -1e9):
        mask[:, 2:] = number
        assert custom_ops.debug.compare(right, half, {"x": x, "m": mask})
    found = custom_ops.debug.compare(right, half, {"x": x, "m": mask})
    assert found.notes == ("input m: 4 of 8 numbers are infinite in float16",)
    mask[0] = -1e9  # where all is masked it does: the softmax is NaN
    found = custom_ops.debug.compare(right, half, {"x": x, "m": mask})
    assert [fault.name for fault in found.faults] == ["s"]
    mask[0] = 0
    half.graph.node[1].attribute.append(onnx.helper.make_attribute("axis", 0))
    found = custom_ops.debug.compare(right, half, {"x": x, "m": mask})
    assert "soft" in [fault.node for fault in found.faults]


# what is given


def test_models_and_inputs_of_all_kinds() -> None:
    model = parsed("y = Relu(x)")
    tensor = torch.ones(2, requires_grad=True)
    assert custom_ops.debug.compare(model, model, {"x": tensor})
    assert custom_ops.debug.compare(model, model, {"x": [1.0, 2.0]})
    assert custom_ops.debug.compare(model, model, {"x": np.ones(2, ml_dtypes.bfloat16)})
    assert custom_ops.debug.compare(ir.from_proto(model), ir.from_proto(model), {"x": tensor})
    integers = parsed("y = Neg(x)", "int64[N] x", "int64[N] y")
    assert custom_ops.debug.compare(integers, integers, {"x": np.int32([1, 2])})


@pytest.mark.parametrize(
    ("kind", "given"),
    [("int64", np.float32([1])), ("int32", np.int64([2**40])), ("float", np.int64([1]))],
)
def test_inputs_of_another_kind(kind: str, given: Any) -> None:
    model = parsed("y = Neg(x)", f"{kind}[N] x", f"{kind}[N] y")
    with pytest.raises(
        ValueError, match=r"^compare: args must be of .* for the input x, got .*; convert it first$"
    ):
        custom_ops.debug.compare(model, model, {"x": given})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("names", ["ab", "pq"])
def test_the_order_of_what_is_given_counts_for_nothing(names: str, order: tuple[int, int]) -> None:
    one = parsed("y = Sub(a, b)", "float[2] a, float[2] b", "float[2] y")
    same = parsed("y = Sub(p, q)", "float[2] p, float[2] q", "float[2] y")
    other = parsed("y = Sub(q, p)", "float[2] p, float[2] q", "float[2] y")
    arrays = np.float32([1, 2]), np.float32([9, 5])
    feeds = {names[i]: arrays[i] for i in order}
    assert custom_ops.debug.compare(one, same, feeds)
    assert not custom_ops.debug.compare(one, other, feeds)
    if names == "ab":  # where both have the names, these count alone
        swapped = parsed("y = Sub(a, b)", "float[2] b, float[2] a", "float[2] y")
        assert custom_ops.debug.compare(one, swapped, feeds)


def test_a_reference_that_does_not_run() -> None:
    right = parsed("y = Reshape(x, s)", "float[N] x, int64[1] s")
    feeds = {"x": np.ones(4, np.float32), "s": np.array([4])}
    wrong = onnx.ModelProto()
    wrong.CopyFrom(right)
    wrong.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", "five"], ["z"]))
    wrong.graph.node[1].input[0] = "z"
    wrong.graph.initializer.append(onnx.numpy_helper.from_array(np.array([5]), "five"))
    with pytest.raises(ValueError, match=r"^compare: reference must run on args, got "):
        custom_ops.debug.compare(wrong, right, feeds)
    with pytest.raises(ValueError, match=r"^compare: model must run on args, got "):
        custom_ops.debug.compare(right, wrong, feeds)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    model = parsed("y = Relu(x)")
    (tmp_path / "text.so").write_text("no library")
    for name in ("missing.so", "text.so"):
        with pytest.raises(ValueError, match=r"^compare: libraries must be files that .*; check "):
            custom_ops.debug.compare(
                torch.nn.ReLU(), model, torch.ones(2), libraries=[str(tmp_path / name)]
            )


def test_all_sessions_have_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, session = [], Graph.session

    def without(self: Graph, proto: Any, libraries: Any = (), *rest: Any, **options: Any) -> Any:
        asked.append(list(libraries))  # ours is registered anyway, and not twice
        return session(self, proto, (), *rest, **options)

    monkeypatch.setattr(Graph, "session", without)
    x, path = torch.randn(1, 3, 8, 8), tmp_path / "net.onnx"
    custom_ops.onnx.export(network(), x, path)
    model = onnx.load(path)
    model.graph.node[1].op_type = "Abs"
    library = custom_ops.get_library_path()
    found = custom_ops.debug.compare(network(), model, x, libraries=[library])
    assert [fault.difference for fault in found.faults] == ["op is Abs, not Relu"]
    assert asked == [[library]] * len(asked)
    assert len(asked) >= 4  # as it is, each value, cut apart, and the fresh export


# a module in another precision than its file


class Wrapped(torch.nn.Module):
    """Computes in float16 between inputs and outputs in float32."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.half()).float()  # type: ignore[no-any-return]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1)
    ).eval()


def test_a_hint_where_the_file_computes_in_another_precision(tmp_path: Path) -> None:
    x, path = torch.randn(1, 3, 8, 8), tmp_path / "half.onnx"
    custom_ops.onnx.export(network().half(), x.half(), path, verify=False)
    found = custom_ops.debug.compare(network(), path, x)
    assert not found
    said = (
        "the file computes in float16, the module in float32; compare with module.half() and its "
        "inputs in float16"
    )
    assert said in found.notes
    assert " ".join(said.split()) in " ".join(str(found).split())
    right = custom_ops.debug.compare(network().half(), path, x.half())
    assert right
    assert right.notes == ()


def test_a_hint_where_only_the_inside_is_in_another_precision(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 8, 8)
    half, single = tmp_path / "half.onnx", tmp_path / "single.onnx"
    custom_ops.onnx.export(Wrapped(network().half()).eval(), x, half, verify=False)
    custom_ops.onnx.export(network(), x, single)
    (note,) = (
        note
        for note in custom_ops.debug.compare(network(), half, x, explain=False).notes
        if note.startswith("the file computes in float16, the module in float32; ")
    )
    assert note.endswith("compare it with the model in float32 that it was made of, as two models")
    name = onnx.load(single).graph.input[0].name
    assert custom_ops.debug.compare(single, half, {name: x})


def test_a_hint_in_bfloat16(tmp_path: Path) -> None:
    module, path = custom_ops.MulAdd(0.5).eval(), tmp_path / "own.onnx"
    a, b = torch.randn(2, 4, 5)
    custom_ops.onnx.export(module, (a.bfloat16(), b.bfloat16()), path)
    found = custom_ops.debug.compare(module, path, (a, b), explain=False)
    assert found.notes == (
        "the file computes in bfloat16, the module in float32; compare with module.bfloat16() and "
        "its inputs in bfloat16",
    )


# pairs


def test_a_file_that_names_no_modules_is_paired_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(1, 3, 8, 8)
    custom_ops.onnx.export(network(), x, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    for i, node in enumerate(model.graph.node):
        del node.metadata_props[:]
        node.name = f"node{i}"
    aligned, calls = _alignment.aligned, []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return aligned(*args, **options)

    monkeypatch.setattr("custom_ops.debug._pairing.aligned", counted)
    monkeypatch.setattr("custom_ops.debug._approximate.aligned", counted)
    found = custom_ops.debug.compare(network(), model, x)
    assert found
    assert found.approximate
    assert {call.get("alike_alone") for call in calls} == {True}
