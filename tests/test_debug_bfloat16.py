"""Tests of `custom_ops.debug.compare` on models in bfloat16, which onnxruntime hardly runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import custom_ops
import custom_ops.debug

Exported = tuple[torch.nn.Module, torch.Tensor, Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 5),
        torch.nn.Softmax(1),
    )
    module.eval().bfloat16()
    x = torch.randn(2, 3, 6, 6).bfloat16()
    path = tmp_path_factory.mktemp("bfloat16") / "net.onnx"
    program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))
    return module, x, path


def changed(path: Path, weight: str, change: Callable[[Any], Any]) -> onnx.ModelProto:
    model = onnx.load(path)
    (tensor,) = (each for each in model.graph.initializer if each.name == weight)
    array = numpy_helper.to_array(tensor)
    wrong = np.asarray(change(array.astype(np.float32))).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(wrong, weight))
    return model


def test_what_has_no_kernel_is_not_comparable(exported: Exported) -> None:
    found = custom_ops.debug.compare(exported[0], exported[2], exported[1])
    assert not found
    assert not found.ok
    assert not found.comparable
    assert found.values == ()
    assert found.faults == ()
    (note,) = found.notes
    assert note.startswith("not comparable: no kernel for Conv, Relu, Gemm, Softmax in bfloat16; ")
    assert "not comparable" in " ".join(str(found).split())
    assert json.loads(found.to_json())["comparable"] is False


def test_simulated(exported: Exported) -> None:
    found = custom_ops.debug.compare(exported[0], exported[2], exported[1], simulate=True)
    assert found.ok
    assert found.simulated
    assert found.unmatched == ()
    assert [(value.op_type, value.dtype, value.note) for value in found.values] == [
        ("Conv", "bfloat16", "simulated"),
        ("Relu", "bfloat16", "simulated"),
        ("Reshape", "bfloat16", ""),
        ("Gemm", "bfloat16", "simulated"),
        ("Softmax", "bfloat16", "simulated"),
    ]
    largest = [value.metrics.largest for value in found.values]
    limits = [value.limit for value in found.values]
    assert limits == [8 * 2.0**-7 * top for top in largest]
    # What torch rounds, the simulation rounds too: at most a unit in the last place apart.
    assert all(value.introduced <= value.limit / 8 for value in found.values)
    assert "bfloat16 simulated" in " ".join(str(found).split())
    assert any(note.startswith("simulated: Conv, ") for note in found.notes)


@pytest.mark.parametrize(("weight", "op_type"), [("0.weight", "Conv"), ("3.bias", "Gemm")])
def test_a_fault_in_a_simulated_model(exported: Exported, weight: str, op_type: str) -> None:
    module, x, path = exported
    model = changed(path, weight, lambda array: array * 1.5 + 0.25)
    found = custom_ops.debug.compare(module, model, x, simulate=True, explain=False)
    assert [(fault.op_type, fault.kind) for fault in found.faults] == [(op_type, "nodes")]
    with pytest.raises(ValueError, match="bfloat16 was simulated; compare in float32"):
        found.bundle(path.with_suffix(".zip"))


def test_a_fresh_export_is_simulated_too(exported: Exported) -> None:
    module, x, path = exported
    model = onnx.load(path)
    node = next(each for each in model.graph.node if each.op_type == "Relu")
    node.op_type = "Abs"
    found = custom_ops.debug.compare(module, model, x, simulate=True)
    assert [fault.difference for fault in found.faults] == ["op is Abs, not Relu"]
    assert not any("does not export afresh" in note for note in found.notes)


def test_our_ops_have_kernels(tmp_path: Path) -> None:
    module = custom_ops.MulAdd(0.5).eval()
    a, b = torch.randn(2, 4, 5).bfloat16()
    path = tmp_path / "own.onnx"
    custom_ops.onnx.export(module, (a, b), path)
    found = custom_ops.debug.compare(module, path, (a, b))
    assert found.ok
    assert found.comparable
    assert not found.simulated
    assert [(value.op_type, value.dtype) for value in found.values] == [("MulAdd", "bfloat16")]


def typed(name: str, kind: int = TensorProto.BFLOAT16, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def test_two_models(exported: Exported) -> None:
    _, x, path = exported
    feeds = {"input": x.float().numpy()}
    assert not custom_ops.debug.compare(path, path, feeds).comparable
    found = custom_ops.debug.compare(path, path, feeds, simulate=True)
    assert found.ok
    assert len(found.values) == 5
    wrong = changed(path, "3.bias", lambda array: array + 1)
    found = custom_ops.debug.compare(path, wrong, feeds, simulate=True)
    assert [fault.op_type for fault in found.faults] == ["Gemm"]


def test_nodes_of_types_constants_and_branches() -> None:
    """What names bfloat16 in attributes, and nodes inside a branch, compute the same."""
    inner = helper.make_graph(
        [helper.make_node("Sqrt", ["sum"], ["root"])], "then", [], [typed("root", 16, 2)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["sum"], ["negative"])], "else", [], [typed("negative", 16, 2)]
    )
    three = numpy_helper.from_array(np.array([3.0], ml_dtypes.bfloat16))
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["filled"], value=three),
        helper.make_node("Cast", ["x"], ["small"], to=TensorProto.BFLOAT16),
        helper.make_node("Add", ["small", "filled"], ["sum"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=other),
    ]
    size = numpy_helper.from_array(np.array([2]), "size")
    graph = helper.make_graph(
        nodes,
        "types",
        [typed("x", TensorProto.FLOAT, 2), typed("yes", TensorProto.BOOL)],
        [typed("y", TensorProto.BFLOAT16, 2)],
        [size],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor, yes: torch.Tensor) -> torch.Tensor:
            return (x.bfloat16() + torch.full((2,), 3.0, dtype=torch.bfloat16)).sqrt()

    args = torch.tensor([1.01, 6.03]), torch.tensor(True)
    found = custom_ops.debug.compare(Module(), model, args, simulate=True)
    assert found.ok
    assert {"Add", "Sqrt"} <= {value.op_type for value in found.values}
    assert all(value.introduced == 0 for value in found.values)
