"""Tests that no output of a model counts as right that nothing was compared with."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

import custom_ops
import custom_ops.debug
from custom_ops.onnx._export import EXPORTERS

X = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)


class Assigned(torch.nn.Module):
    """Returns what it has written to by index, which no op of torch gives as a whole."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y[:, 0] = x[:, 0] * 2
        y[:, 1:] = x[:, 1:].exp()
        return y


class Behind(Assigned):
    """Goes on from there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(3, 4)
        y[:, 1:] = x[:, 1:].exp()
        return torch.tanh(y)


def exported(module: torch.nn.Module, path: Path, exporter: str = "torchscript") -> onnx.ModelProto:
    custom_ops.onnx.export(module.eval(), X, path, exporter=exporter, verify=False)
    return onnx.load(path)


def parsed(body: str, inputs: str, outputs: str) -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    ("module", "op"), [(Assigned(), "Exp"), (Behind(), "Exp"), (Behind(), "Tanh")]
)
def test_a_fault_around_an_index_assignment(
    module: torch.nn.Module, op: str, exporter: str, tmp_path: Path
) -> None:
    model = exported(module, tmp_path / "model.onnx", exporter)
    right = custom_ops.debug.compare(module, model, X)
    assert right
    assert [output.name for output in right.outputs] == [each.name for each in model.graph.output]
    guilty = next(node for node in model.graph.node if node.op_type == op)
    guilty.op_type = "Sigmoid"
    found = custom_ops.debug.compare(module, model, X)
    assert [fault.node for fault in found.faults] == [guilty.name]
    assert f"op is Sigmoid, not {op}" in str(found)


def test_an_input_that_is_returned(tmp_path: Path) -> None:
    class Passed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x + 1

    model = exported(Passed(), tmp_path / "model.onnx")
    assert custom_ops.debug.compare(Passed(), model, X)
    name = model.graph.output[0].name
    made = [node for node in model.graph.node if name in node.output]
    if made:
        made[0].op_type = "Neg"
    assert bool(custom_ops.debug.compare(Passed(), model, X)) is not bool(made)


@pytest.mark.parametrize("value", [2.0, 3.0])
def test_an_output_that_depends_on_no_input(value: float) -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(x), torch.full((2,), 2.0)

    model = parsed(
        f"y = Relu(x) c = Constant<value = float[2] {{{value}, {value}}}>()",
        "float[3,4] x",
        "float[3,4] y, float[2] c",
    )
    found = custom_ops.debug.compare(Constant(), model, X)
    assert bool(found) == (value == 2.0)
    if not found:
        assert "output c, which is no layer's result on both sides, differs: 1, limit" in str(found)
        assert found.as_dict()["uncompared"]


def test_another_number_of_outputs() -> None:
    two = parsed("y = Relu(x) z = Neg(x)", "float[3,4] x", "float[3,4] y, float[3,4] z")
    one = parsed("y = Relu(x)", "float[3,4] x", "float[3,4] y")
    for reference, args in ((torch.nn.ReLU(), X), (one, {"x": X.numpy()})):
        found = custom_ops.debug.compare(reference, two, args)
        assert not found
        assert not found.faults
        assert "must have as many outputs, got 1 and 2" in str(found)


def test_an_output_that_the_other_model_makes_of_no_input() -> None:
    fixed = parsed("y = Constant<value = float[2] {1, 1}>()", "float[2] x", "float[2] y")
    made = parsed("y = Relu(x)", "float[2] x", "float[2] y")
    for one, other in ((fixed, made), (made, fixed)):
        # A constant that is right on these inputs, and wrong on others.
        assert custom_ops.debug.compare(one, other, {"x": np.ones(2, np.float32)})
        found = custom_ops.debug.compare(one, other, {"x": np.zeros(2, np.float32)})
        assert not found
        assert "output y" in str(found)
        assert "differs: 1, limit" in str(found)


BODIES = {
    "constant": "k = Constant<value = int64[2] {3, 4}>()",
    "another constant": "k = Constant<value = int64[2] {3, 5}>()",
    "shape": "k = Shape(x)",
    "shape and one": "one = Constant<value = int64[1] {1}>() s = Shape(x) k = Add(s, one)",
    "cast": "k = Cast<to = 7>(z)",
    "another cast": "m = Neg(z) k = Cast<to = 7>(m)",
}


@pytest.mark.parametrize("other", BODIES)
@pytest.mark.parametrize("one", BODIES)
def test_outputs_that_depend_on_no_numbers_of_two_models(one: str, other: str) -> None:
    first, second = (
        parsed(f"y = Neg(x) {BODIES[k]}", "float[a,b] x, float[2] z", "float[a,b] y, int64[2] k")
        for k in (one, other)
    )
    feeds = {"x": np.ones((3, 4), np.float32), "z": np.float32([3, 4])}
    right = {"constant", "shape", "cast"}
    found = custom_ops.debug.compare(first, second, feeds)
    assert bool(found) == (one == other or {one, other} <= right)


def test_an_output_that_is_another_input() -> None:
    one, other = (
        parsed("y = Neg(x)", "float[2] x, float[2] z", f"float[2] y, float[2] {name}")
        for name in ("x", "z")
    )
    feeds = {"x": np.float32([1, 2]), "z": np.float32([1, 5])}
    assert custom_ops.debug.compare(one, one, feeds)
    found = custom_ops.debug.compare(one, other, feeds)
    assert not found
    assert "output z, which is no layer's result on both sides, differs: 3, limit" in str(found)
    assert custom_ops.debug.compare(one, other, {"x": feeds["x"], "z": feeds["x"]})


@pytest.mark.parametrize("wide_first", [True, False])
@pytest.mark.parametrize("value", [0.1, 0.11])
def test_a_constant_output_in_half_precision(value: float, wide_first: bool) -> None:
    wide, half = (
        parsed(
            f"y = Neg(x) f = Constant<value_float = {number}>() k = Cast<to = {kind}>(f)",
            f"{name}[2] x",
            f"{name}[2] y, {name} k",
        )
        for name, kind, number in (("float", 1, 0.1), ("float16", 10, value))
    )
    pair = (wide, half) if wide_first else (half, wide)
    found = custom_ops.debug.compare(*pair, {"x": np.ones(2, np.float32)})
    assert bool(found) == (value == 0.1)


def test_an_output_is_no_partner_of_another_value() -> None:
    fixed = parsed(
        "a = Abs(x) y = Neg(a) k = Constant<value = float[2] {7, 7}>()",
        "float[2] x",
        "float[2] y, float[2] k",
    )
    made = parsed("k = Abs(x) y = Neg(k)", "float[2] x", "float[2] y, float[2] k")
    assert not custom_ops.debug.compare(fixed, made, {"x": np.float32([1, 2])})
    assert custom_ops.debug.compare(fixed, made, {"x": np.float32([7, -7])})


@pytest.mark.parametrize("name", ["tolerance", "limit"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_limit_that_nothing_is_above(name: str, value: float) -> None:
    model = parsed("y = Neg(x)", "float[3,4] x", "float[3,4] y")
    with pytest.raises(ValueError, match=f"^compare: {name} must be a finite number, 0 or more"):
        custom_ops.debug.compare(torch.nn.ReLU(), model, X, **{name: value})


def test_an_output_that_is_nan_throughout_tells_nothing(tmp_path: Path) -> None:
    module, x = torch.nn.Linear(3, 2).eval(), torch.full((4, 3), torch.nan)
    custom_ops.onnx.export(module, torch.ones(4, 3), tmp_path / "m.onnx", verify=False)
    module.weight.data *= 7.0
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert not found
    (why,) = found.uncompared
    assert why.endswith(
        "is NaN throughout in the reference, which tells nothing; compare on "
        "inputs that give numbers"
    )
    x[0] = 1.0  # some numbers tell
    assert not custom_ops.debug.compare(module, tmp_path / "m.onnx", x).uncompared
