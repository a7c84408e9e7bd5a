"""Tests that the precision debugger finds the faults of the library, and no others."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from debug_faults import KINDS, Editor, one_each, put
from debug_models import inputs, module

import custom_ops.debug
import custom_ops.onnx

MODELS = ("plain CNN", "DeformConv2d", "encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("faults")
    return path


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[str, torch.nn.Module, Path]:
    name = request.param
    made, path = module(name, 0), folder / f"{MODELS.index(name)}.onnx"
    custom_ops.onnx.export(made, inputs(name, 0), path, exporter="torchscript", verify=False)
    return name, made, path


@pytest.mark.parametrize("seed", [0, 1])
def test_no_alarm_without_fault(case: tuple[str, torch.nn.Module, Path], seed: int) -> None:
    name, made, path = case
    found = custom_ops.debug.compare(made, path, inputs(name, seed))
    assert found, str(found)
    assert all(
        each.reason.startswith("is a part of what gives ")
        for each in found.unmatched
        if each.side == "model"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_found(case: tuple[str, torch.nn.Module, Path], kind: str) -> None:
    name, made, path = case
    placed = next(one_each(onnx.load(path), kind), None)
    if placed is None:
        pytest.skip(f"{name} has no node that it fits")
    found = custom_ops.debug.compare(made, placed.model, inputs(name, 0))
    faults = [fault for fault in found.faults if fault.kind == "nodes"]
    if kind == "wrong epsilon" and not faults:  # which need not be above the limit
        return
    assert faults
    assert {fault.node for fault in faults} <= placed.nodes
    assert all(fault.difference for fault in faults)


def test_a_fault_in_every_node(case: tuple[str, torch.nn.Module, Path]) -> None:
    name, made, path = case
    placed = put(onnx.load(path), "weight scaled")
    found = custom_ops.debug.compare(made, placed.model, inputs(name, 0), explain=False)
    regions = {value.name for value in found.values if placed.nodes & set(value.nodes)}
    assert regions
    assert {fault.name for fault in found.faults if fault.kind == "nodes"} == regions


def test_a_shared_weight_gets_a_copy(case: tuple[str, torch.nn.Module, Path]) -> None:
    model = onnx.load(case[2])
    placed = next(one_each(model, "weight scaled"))
    before, after = Editor(model), Editor(placed.model)
    changed = [
        one.name
        for one, other in zip(before.nodes, after.nodes, strict=True)
        if one.input != other.input
    ]
    assert changed == list(placed.nodes)
    kept = {each.name: each for each in placed.model.graph.initializer}
    assert all(kept[each.name] == each for each in model.graph.initializer)


class Logarithm(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log1p(x * 1e-6) * 3


class Softmax(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 1e5).softmax(-1)


class Variance(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1e6).var(-1)


@pytest.mark.parametrize("made", [Softmax(), Variance()])
def test_what_is_badly_conditioned_is_no_fault(made: torch.nn.Module, tmp_path: Path) -> None:
    x = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    custom_ops.onnx.export(
        made.eval(), x, tmp_path / "m.onnx", exporter="torchscript", verify=False
    )
    found = custom_ops.debug.compare(made, tmp_path / "m.onnx", x)
    assert not found.faults, str(found)


def test_a_true_loss_is_reported(tmp_path: Path) -> None:
    """The logarithm of one more than a tiny number keeps few of its digits."""
    x = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)).abs()
    made = Logarithm().eval()
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[8, 50] x) => (float[8, 50] y) {
            a = Constant <value = float {1e-6}> ()
            b = Constant <value = float {1.0}> ()
            c = Constant <value = float {3.0}> ()
            d = Mul(x, a)
            e = Add(d, b)
            f = Log(e)
            y = Mul(f, c)
        }"""
    )
    found = custom_ops.debug.compare(made, graph, x)
    assert {fault.partner for fault in found.faults} <= {"aten.log1p", "aten.mul"}
    assert found.first_fault is not None
    assert found.first_fault.op_type in ("Log", "Mul")
