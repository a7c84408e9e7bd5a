"""Loops, scans and the bodies of functions in comparisons: what is compared, what is listed."""

import json
from pathlib import Path
from typing import TypeAlias

import onnx
import pytest
import torch
from onnx import numpy_helper

import custom_ops.debug
from custom_ops.debug import Comparison

LOOP_BODY = "not compared: loop body"


class While(torch.nn.Module):
    """A loop that calls a module in each round."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        def goes_on(count: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return count < 3

        def body(count: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return count + 1, torch.tanh(self.step(y))

        _, y = while_loop(goes_on, body, (torch.tensor(0), x * 2))
        return self.last(y.relu())  # type: ignore[no-any-return]


class Scan(torch.nn.Module):
    """A scan that carries a state and gives a result for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.scan import scan

        def body(state: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            state = torch.tanh(state + self.step(row))
            return state, state * 2

        state, rows = scan(body, torch.zeros(2, 4), x * 2, dim=0)
        return self.last(rows.relu()) + state.sum()  # type: ignore[no-any-return]


@torch.jit.script
def rounds(x: torch.Tensor, w: torch.Tensor, count: int) -> torch.Tensor:
    for _ in range(count):
        x = torch.tanh(x @ w) if bool(x.sum() > 0) else torch.sigmoid(x @ w)
    return x


class Script(torch.nn.Module):
    """A loop as torch.jit.script keeps it, with a branch inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)
        self.w = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = rounds(self.first(x), self.w, x.shape[0])
        return self.last(y.relu())  # type: ignore[no-any-return]


LOOPS = {
    "Loop": (While, (2, 4), "dynamo"),
    "Scan": (Scan, (5, 2, 4), "dynamo"),
    "script": (Script, (3, 4), "torchscript"),
}


@pytest.fixture(params=LOOPS, scope="module")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.nn.Module, torch.Tensor, Path]:
    torch.manual_seed(0)
    kind, shape, exporter = LOOPS[request.param]
    module, x, path = kind().eval(), torch.randn(shape), tmp_path_factory.mktemp("m") / "m.onnx"
    custom_ops.onnx.export(module, x, path, exporter=exporter)
    return module, x, path


Loop: TypeAlias = tuple[torch.nn.Module, torch.Tensor, onnx.ModelProto, onnx.NodeProto]


@pytest.fixture
def loop(exported: tuple[torch.nn.Module, torch.Tensor, Path]) -> Loop:
    """A module with a loop, its input, its model, and the node of the loop."""
    module, x, path = exported
    model = onnx.load(path)
    (node,) = [node for node in model.graph.node if node.op_type in ("Loop", "Scan")]
    return module, x, model, node


def inside(graph: onnx.GraphProto) -> list[str]:
    """The values that the nodes of a graph make, and those of the graphs inside them."""
    found = []
    for node in graph.node:
        found += node.output
        for attribute in node.attribute:
            found += inside(attribute.g)
    return found


def listed(found: Comparison) -> list[str]:
    return [u.name for u in found.unmatched if (u.side, u.reason) == ("model", LOOP_BODY)]


def test_what_a_loop_gives_is_compared_and_what_is_inside_is_listed(
    loop: Loop, tmp_path: Path
) -> None:
    module, x, model, node = loop
    found = custom_ops.debug.compare(module, model, x)
    assert found
    assert set(filter(None, node.output)) <= {value.name for value in found.values}
    names = inside(node.attribute[0].g)
    assert len(names) > 3
    assert sorted(listed(found)) == sorted(names)
    assert not set(names) & {value.name for value in found.values}
    assert f"  {len(names)} of the model: {LOOP_BODY}" in str(found).splitlines()
    of_json = json.loads(found.to_json())["unmatched"]
    of_model = [u for u in of_json if (u["side"], u["reason"]) == ("model", LOOP_BODY)]
    assert {u["name"] for u in of_model} == set(names)
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"{len(names)} of the model: {LOOP_BODY}" in page
    assert all(f"<code>{name}</code>" in page for name in names)


def test_a_fault_in_a_loop_is_that_of_its_node(loop: Loop, tmp_path: Path) -> None:
    module, x, model, node = loop
    (tensor,) = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name
        in {name for inner in node.attribute[0].g.node for name in inner.input}
        | {"step.weight", "w"}
        and list(tensor.dims) == [4, 4]
    ]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))
    found = custom_ops.debug.compare(module, model, x)
    assert {fault.node for fault in found.faults} == {node.name}
    assert all("inside of it" in fault.difference for fault in found.faults)
    assert all(value.inherited > 0 for value in found.values[-2:])
    found.bundle(tmp_path / "fault.zip")


def test_loops_of_two_models(loop: Loop) -> None:
    _, x, model, node = loop
    feeds = {model.graph.input[0].name: x.numpy()}
    found = custom_ops.debug.compare(model, model, feeds)
    assert found
    assert set(filter(None, node.output)) <= {value.name for value in found.values}
    sides = {u.side for u in found.unmatched if u.reason == LOOP_BODY}
    assert sides == {"model", "reference"}
    assert sorted(listed(found)) == sorted(inside(node.attribute[0].g))
