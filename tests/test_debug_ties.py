"""Indices of equal numbers, and values that came in another order."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import custom_ops.debug
import custom_ops.onnx
from custom_ops.debug._ties import tied

READ = np.float32([[3, 1, 3, 2, 3, 0]])


def _node(op_type: str = "TopK", **attributes: int) -> onnx.NodeProto:
    outputs = ["y", "i"] if op_type == "TopK" else ["i"]
    return onnx.helper.make_node(op_type, ["x", "k"], outputs, **attributes)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[0, 2, 4, 3]], [[4, 0, 2, 3]], True),
        ([[0, 2, 4, 3]], [[4, 0, 2, 1]], False),  # another number
        ([[0, 2, 4, 3]], [[0, 0, 2, 3]], False),  # one of them twice
        ([[0, 2, 4, 3]], [[0, 2, 4, 6]], False),  # none of them
        ([[0, 2, 4, 3]], [[0, 2, 4, -3]], False),
        ([[0, 2, 4, 3]], [[0, 2, 4]], False),
    ],
)
def test_equal_numbers_may_change_places(
    one: list[list[int]], other: list[list[int]], expected: bool
) -> None:
    found = tied(_node(), "i", {"x": READ}, np.int64(one), np.int64(other))
    assert found == expected
    assert not tied(_node(), "y", {"x": READ}, np.int64(one), np.int64(other))
    assert not tied(_node(), "i", {}, np.int64(one), np.int64(other))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_largest_may_be_any_of_the_equal(keepdims: int) -> None:
    node = _node("ArgMax", axis=1, keepdims=keepdims)

    def place(number: int) -> np.ndarray:
        return np.full((1, 1) if keepdims else (1,), number, np.int64)

    assert tied(node, "i", {"x": READ}, place(0), place(4))
    assert not tied(node, "i", {"x": READ}, place(0), place(3))


class Largest(torch.nn.Module):
    """Takes rows by the order of what they are worth."""

    def __init__(self) -> None:
        super().__init__()
        self.worth = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        worth, places = self.worth(x).round().flatten().topk(20)
        return worth * 2.0, x[places] * 3.0


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_another_order_of_equal_numbers_is_no_fault(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Largest().eval(), torch.randn(200, 4)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter=exporter, verify=False)
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert not [each for each in found.faults if each.kind == "nodes"], str(found)
    (places,) = (each for each in found.values if each.op_type == "TopK" and each.dtype == "int64")
    assert (places.limit_by, places.note) == ("tie", "other places of equal numbers")
    assert places.introduced
    rows = [each for each in found.values if each.op_type in ("Gather", "GatherND")]
    assert rows  # paired by what they read: their numbers came in another order
    assert all(each.introduced == 0 for each in rows)


def test_a_wrong_index_is_a_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Largest().eval(), torch.randn(200, 4)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter="torchscript", verify=False)
    model = onnx.load(tmp_path / "m.onnx")
    (node,) = (each for each in model.graph.node if each.op_type == "TopK")
    node.attribute.append(onnx.helper.make_attribute("largest", 0))
    if [each.name for each in node.attribute].count("largest") > 1:
        node.attribute.remove(next(each for each in node.attribute if each.name == "largest"))
    found = custom_ops.debug.compare(module, model, x)
    assert {each.name for each in found.faults} >= set(node.output)


class Attention(torch.nn.Module):
    """Three results that are moved alike, behind one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.first(x).unflatten(-1, (3, 1, 8)).unbind(-3)
        moved = [each.transpose(1, 2) for each in (query, key, value)]
        found = torch.nn.functional.scaled_dot_product_attention(*moved)
        return self.last(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_what_is_moved_alike_keeps_its_partner_behind_a_fault(
    exporter: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, x = Attention().eval(), torch.randn(2, 5, 8)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter=exporter, verify=False)
    module.first.weight.data *= 1.5
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert [each.module for each in found.faults] == [("first",)], str(found)


class Halves(torch.nn.Module):
    """Of two halves alike the second is used alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, mean = self.first(x).chunk(2, -1)
        return self.last(mean.tanh())  # type: ignore[no-any-return]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_what_is_chosen_behind_a_fault_is_told_by_its_numbers(
    exporter: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, x = Halves().eval(), torch.randn(5, 8)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter=exporter, verify=False)
    module.first.weight.data *= 1.5
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert [each.module for each in found.faults] == [("first",)], str(found)


class Classes(torch.nn.Module):
    """Many that are chosen alike from one result, each by its own scores."""

    def __init__(self) -> None:
        super().__init__()
        self.score = torch.nn.Linear(4, 80)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, rows = self.score(x).sigmoid(), []
        for label in range(80):
            score = scores[:, label]
            rows.append(x[score > 0.5].sum(0) * 2.0)
        return torch.stack(rows)


def test_a_fault_before_what_is_chosen_is_the_only_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Classes().eval(), torch.randn(50, 4)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter="torchscript", verify=False)
    module.score.weight.data *= -3.0
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert [each.module for each in found.faults] == [("score",)], str(found)


def test_a_piece_that_does_not_run_is_a_fault_and_ends_nothing() -> None:
    """An index that the reference has is beyond the end of what the model has."""
    header = '<ir_version: 10, opset_import: ["" : 18]>'
    reference = onnx.parser.parse_model(
        f"""{header} g (float[10] x, int64[1] i) => (float[1] y) {{
            j = Abs(i)
            rows = Relu(x)
            a = Gather(rows, j)
            y = Neg(a)
        }}"""
    )
    model = onnx.parser.parse_model(
        f"""{header} g (float[10] x, int64[1] i) => (float[1] y)
        <int64[1] start = {{0}}, int64[1] end = {{5}}, int64[1] most = {{4}}> {{
            k = Min(i, most)
            j = Abs(k)
            some = Slice(x, start, end)
            rows = Relu(some)
            a = Gather(rows, j)
            y = Neg(a)
        }}"""
    )
    feeds = {"x": np.arange(10, dtype=np.float32), "i": np.int64([9])}
    found = custom_ops.debug.compare(reference, model, feeds)
    (fault,) = (each for each in found.faults if each.name == "a")
    assert "does not run" in fault.metrics.mismatch
    assert "out of data bounds" in fault.metrics.mismatch
    assert next(each for each in found.values if each.name == "y").ok


class Rolled(torch.nn.Module):
    """One op of torch, which the exporter writes as two that give the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(2, 4, 1), torch.nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).permute(0, 2, 3, 1).roll((-1, -2), (1, 2))
        y = y.view(1, 2, 4, 2, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, 4) * 2.0
        y = y.view(1, 2, 2, 4, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(1, 8, 8, 4)
        return self.last(y.roll((1, 2), (1, 2)).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def test_a_part_of_an_op_is_no_partner_behind_a_fault(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Rolled().eval(), torch.randn(1, 2, 8, 8)
    custom_ops.onnx.export(module, x, tmp_path / "m.onnx", exporter="torchscript", verify=False)
    module.first.weight.data *= -3.0
    found = custom_ops.debug.compare(module, tmp_path / "m.onnx", x)
    assert [each.module for each in found.faults] == [("first",)], str(found)
