"""Reading models: what is none, what lies outside, and onnx's C++ under limits."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import custom_ops.onnx
from custom_ops.onnx import _external, _guarded
from custom_ops.onnx._model import open_model
from custom_ops.onnx._reading import read


def relu() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    )


def with_external(folder: Path, location: str = "w.data", **fields: int) -> Path:
    weight = numpy_helper.from_array(np.ones(6, np.float32), "w")
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        weight.external_data.add(key=key, value=str(value))
    model = relu()
    model.graph.initializer.append(weight)
    (folder / "w.data").write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def nested(depth: int) -> onnx.ModelProto:
    """Each function calls the next one twice."""
    model = relu()
    model.graph.node[0].op_type, model.graph.node[0].domain = "f0", "f"
    model.opset_import.append(helper.make_opsetid("f", 1))
    opsets = list(model.opset_import)
    for i in range(depth):
        domain, op = ("f", f"f{i + 1}") if i + 1 < depth else ("", "Relu")
        nodes = [
            helper.make_node(op, ["x"], ["m"], domain=domain),
            helper.make_node(op, ["m"], ["y"], domain=domain),
        ]
        model.functions.append(helper.make_function("f", f"f{i}", ["x"], ["y"], nodes, opsets))
    return model


@pytest.mark.parametrize("content", [b"", b"junk", b"\x00" * 100, relu().SerializeToString()[:9]])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for given in (content, path):
        with pytest.raises(custom_ops.onnx.UnreadableModel, match="must hold an ONNX model"):
            read(given)


def test_texts_that_are_not_utf_8() -> None:
    content = relu().SerializeToString().replace(b"Relu", b"Re\xffu")
    with pytest.raises(custom_ops.onnx.UnreadableModel, match="not UTF-8"):
        read(content)


def test_text_is_read_by_its_suffix(tmp_path: Path) -> None:
    onnx.save(relu(), tmp_path / "m.textproto")
    assert read(tmp_path / "m.textproto").proto == relu()
    (tmp_path / "m.textproto").write_text("ir_version: {")
    with pytest.raises(custom_ops.onnx.UnreadableModel, match="does not parse"):
        read(tmp_path / "m.textproto")


def test_external_data_is_read_when_it_is_used(tmp_path: Path) -> None:
    graph = open_model(with_external(tmp_path))
    np.testing.assert_array_equal(graph.graph.initializers["w"].const_value.numpy(), np.ones(6))


@pytest.mark.parametrize(
    ("location", "fields", "code"),
    [
        ("../w.data", {}, _external.OUTSIDE),
        ("/etc/passwd", {}, _external.OUTSIDE),
        ("C:\\w.data", {}, _external.OUTSIDE),
        ("a\\..\\..\\w.data", {}, _external.OUTSIDE),
        ("", {}, _external.OUTSIDE),
        ("none.data", {}, _external.MISSING),
        ("x" * 5000, {}, _external.MISSING),
        ("w.data", {"offset": 4}, _external.TRUNCATED),
        ("w.data", {"offset": -4}, _external.TRUNCATED),
        ("w.data", {"length": 20}, _external.TRUNCATED),
        ("w.data", {"length": 48}, _external.TRUNCATED),
    ],
)
def test_faults_of_external_data(
    location: str, fields: dict[str, int], code: str, tmp_path: Path
) -> None:
    path = with_external(tmp_path, location, **fields)
    document = read(path)
    (fault,) = _external.faults(document.proto, document.folder)
    assert (fault.code, fault.tensor) == (code, "w")
    with pytest.raises(custom_ops.onnx.UnreadableModel, match="external data must"):
        open_model(path)


def test_a_symbolic_link_is_said(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = with_external(inside)
    os.rename(inside / "w.data", tmp_path / "w.data")
    (inside / "w.data").symlink_to(tmp_path / "w.data")
    document = read(path)
    (fault,) = _external.faults(document.proto, document.folder)
    assert fault.code == _external.LINK


def test_expanded_nodes() -> None:
    assert _guarded.expanded_nodes(relu()) == 1
    assert _guarded.expanded_nodes(nested(5)) == 2**5
    assert _guarded.expanded_nodes(nested(50)) == 2**50
    assert _guarded.expanded_nodes(nested(2000)) == 10**18  # and no more is counted
    assert _guarded.recursion(nested(5)) == []
    recursive = nested(3)
    recursive.functions[2].node[0].op_type = "f0"
    recursive.functions[2].node[0].domain = "f"
    assert _guarded.expanded_nodes(recursive) is None
    assert [name for _, name, _ in _guarded.recursion(recursive)] == ["f0", "f1", "f2"]


def test_limits() -> None:
    for action in (_guarded.infer_shapes, _guarded.check, _guarded.inline):
        with pytest.raises(_guarded.Refused, match=f"got {2**25:,}"):
            action(nested(25))
        with pytest.raises(_guarded.Refused, match="no end"):
            action(nested(3), seconds=0.01)


def test_what_onnx_does_in_the_child() -> None:
    model = nested(3)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(10**5, np.float32), "w"))
    _guarded.check(model)
    inferred = _guarded.infer_shapes(model)
    assert [each.op_type for each in _guarded.inline(model).graph.node] == ["Relu"] * 8
    (weight,) = inferred.graph.initializer
    assert list(weight.dims) == [10**5]
    assert not weight.raw_data
    model.graph.node[0].op_type = "MatMul"
    model.graph.node[0].domain = ""
    with pytest.raises(_guarded.Refused, match="MatMul"):
        _guarded.check(model)
