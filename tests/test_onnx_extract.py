"""Cutting by names: pieces compute what the model computes, with all that belongs to them."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_pieces import BRANCH, CHAIN, X, agrees, parsed, run, sparse, with_functions, with_weights

from custom_ops.onnx import UnreadableModel, extract


@pytest.mark.parametrize(
    ("inputs", "outputs", "bounds", "nodes"),
    [
        (["a"], ["b"], (("a",), ("b",)), 1),
        (["a"], [], (("a",), ("z",)), 2),
        ([], ["b"], (("x",), ("b",)), 2),
        (["mul"], ["mul"], (("a",), ("b",)), 1),
        (["mul"], ["exp"], (("a",), ("z",)), 2),
        (["a", "w"], ["b"], (("a", "w"), ("b",)), 1),
        (["x"], ["z", "a"], (("x",), ("z", "a")), 3),
        (["a"], ["a", "b"], (("a",), ("a", "b")), 1),
    ],
)
def test_by_names_of_tensors_and_nodes(
    inputs: list[str], outputs: list[str], bounds: Any, nodes: int, tmp_path: Path
) -> None:
    model = parsed(CHAIN)
    piece = extract(model, tmp_path / "p.onnx", inputs, outputs)
    assert (piece.inputs, piece.outputs) == bounds
    assert (piece.nodes, piece.of) == (nodes, 3)
    assert agrees(piece, model, X)
    assert os.listdir(tmp_path) == ["p.onnx"]


def test_a_tensor_comes_before_a_node_of_its_name(tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (float[N] z) { [z] y = Relu(x) [y] z = Exp(y) }")
    piece = extract(model, tmp_path / "p.onnx", ["y"], ["z"])
    assert (piece.inputs, piece.outputs, piece.nodes) == (("y",), ("z",), 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"inputs": ["aa"]}, "inputs must name a tensor or a node .* got 'aa'; did you mean 'a'"),
        ({"outputs": ["rela"]}, "outputs must name .* 'rela'; did you mean 'relu'"),
        ({"outputs": ["nothing like it"]}, "see `custom-ops inspect`"),
        ({"inputs": ["b"], "outputs": ["z", "a"]}, "got 'a' from 'b' without 'x'; add"),
        ({"inputs": ["w"], "outputs": ["z"]}, "got 'z' from 'w' without 'x'"),
        ({"inputs": ["a"], "outputs": ["a"]}, "must lie between .* from 'a' to 'a'"),
        ({"inputs": ["x"], "outputs": ["w"]}, "must lie between"),
        ({"outputs": [""]}, "outputs must name"),
        ({"inputs": "x"}, "must be a list of names"),
        ({}, "inputs and outputs, or module, must be given, got neither"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        extract(parsed(CHAIN), tmp_path / "p.onnx", **arguments)
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_a_name_inside_of_a_graph_or_a_function_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'deep', which lies in a graph of the If 'branch'"):
        extract(parsed(BRANCH), tmp_path / "p.onnx", outputs=["deep"])
    with pytest.raises(ValueError, match="'inside', which lies in the function 'outer'"):
        extract(with_functions(), tmp_path / "p.onnx", outputs=["inside"])


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "p.onnx"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"output must be a new file, .*force=True"):
        extract(parsed(CHAIN), path, ["a"])
    assert path.read_text() == "mine"
    assert extract(parsed(CHAIN), path, ["a"], force=True).nodes == 2
    onnx.save(parsed(CHAIN), path)
    assert extract(path, path, ["b"], force=True).of == 3  # in place
    assert len(onnx.load(path).graph.node) == 1


# What onnx.utils.extract_model gets wrong, and what it gets right.


@pytest.mark.parametrize("inputs", [["c", "y"], ["c", "x"], ["y", "s", "c"], ["branch"]])
@pytest.mark.parametrize("condition", [True, False])
def test_what_subgraphs_capture(inputs: list[str], condition: bool, tmp_path: Path) -> None:
    model = parsed(BRANCH)
    piece = extract(model, tmp_path / "p.onnx", inputs, ["r"])
    assert agrees(piece, model, {"c": np.array(condition), **X})


def test_a_capture_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'r' from 'c' without 'x'"):
        extract(parsed(BRANCH), tmp_path / "p.onnx", ["c"], ["r"])


def test_the_captures_of_a_loop(tmp_path: Path) -> None:
    model = parsed("""g (int64 n, float[N] x) => (float[N] z) <float[N] y> {
        one = Constant <value = bool {1}> ()
        y = Exp(x)
        start = Identity(y)
        last = Loop (n, one, start) <body = b (int64 i, bool k, float[N] y_in)
            => (bool k_out, float[N] y_out) { k_out = Identity(k) y_out = Add(y_in, y) }>
        z = Neg(last) }""")
    for inputs in (["n", "y"], ["n", "start", "y"]):
        piece = extract(model, tmp_path / "p.onnx", inputs, ["z"], force=True)
        assert agrees(piece, model, {"n": np.array(3), **X})


def test_sparse_initializers(tmp_path: Path) -> None:
    model = sparse()
    x = {"x": np.array([[1, 2], [3, 4]], np.float32)}
    piece = extract(model, tmp_path / "p.onnx", ["y"], ["z"])
    assert piece.initializers == 1
    (z,) = run(piece.path, None, {"y": x["x"]})
    w = np.array([[0, 5], [0, 0]], np.float32)
    np.testing.assert_array_equal(z, x["x"] @ w @ w)
    as_input = extract(model, tmp_path / "q.onnx", ["y", "w"], ["d"])
    assert as_input.initializers == 0
    np.testing.assert_array_equal(run(as_input.path, None, {"y": x["x"], "w": w})[0], x["x"] @ w)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_values_without_shapes_are_inferred(dtype: str, tmp_path: Path) -> None:
    kind = {"float32": "float", "int64": "int64"}[dtype]
    model = parsed(f"""g ({kind}[N, 3] x) => ({kind} z)
        {{ y = Transpose(x) t = Concat <axis = 0> (y, y) z = ReduceSum <keepdims = 0> (t) }}""")
    piece = extract(model, tmp_path / "p.onnx", ["y"], ["t", "z"])
    (given,) = onnxruntime.InferenceSession(piece.path).get_inputs()
    assert given.shape == [3, "N"]
    assert onnx.load(piece.path).graph.output[0].type.tensor_type.shape.dim[0].dim_value == 6
    assert agrees(piece, model, {"x": np.arange(6, dtype=dtype).reshape(2, 3)})


def test_a_type_that_nobody_knows(tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (float[N] z) { y = other.Op(x) z = Relu(y) }")
    model.opset_import.append(helper.make_opsetid("other", 1))
    with pytest.raises(ValueError, match="inputs must be of known type, got 'y'"):
        extract(model, tmp_path / "p.onnx", ["y"], ["z"])
    assert os.listdir(tmp_path) == []
    model.graph.value_info.append(helper.make_tensor_value_info("y", 1, None))
    assert extract(model, tmp_path / "p.onnx", ["y"], ["z"]).nodes == 1


def test_metadata_and_annotations(tmp_path: Path) -> None:
    model = parsed(CHAIN)
    model.producer_name, model.producer_version, model.model_version = "maker", "1.2", 7
    model.domain, model.doc_string, model.graph.doc_string = "org", "about", "graph"
    for holder in (model, model.graph, model.graph.node[1], model.graph.value_info[0]):
        helper.set_model_props(holder, {"from": "torch"})
    for name in ("a", "b", "z"):
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="u")
    piece = onnx.load(extract(model, tmp_path / "p.onnx", ["a"], ["b"]).path)
    for field in ("ir_version", "producer_name", "producer_version", "model_version", "domain"):
        assert getattr(piece, field) == getattr(model, field)
    assert (piece.doc_string, piece.graph.doc_string, piece.graph.name) == ("about", "graph", "g")
    for holder in (piece, piece.graph, piece.graph.node[0], piece.graph.input[0]):
        assert [(p.key, p.value) for p in holder.metadata_props] == [("from", "torch")]
    assert [each.tensor_name for each in piece.graph.quantization_annotation] == ["a", "b"]
    assert [each.name for each in piece.graph.initializer] == ["w", "u"]


def test_initializers_that_are_inputs_too(tmp_path: Path) -> None:
    model = parsed(CHAIN, ir_version=3)
    model.graph.input.extend(
        helper.make_tensor_value_info(name, 1, [1]) for name in ("w", "u")
    )  # as IR version 3 asks for
    extract(model, tmp_path / "p.onnx", ["a"], ["b"])
    onnx.checker.check_model(str(tmp_path / "p.onnx"))
    piece = onnx.load(tmp_path / "p.onnx")
    assert [each.name for each in piece.graph.input] == ["a", "w"]
    assert [each.name for each in piece.graph.initializer] == ["w"]


def test_functions_and_domains_in_use(tmp_path: Path) -> None:
    model = with_functions()
    first = extract(model, tmp_path / "p.onnx", ["x"], ["y"])
    assert agrees(first, model, X)
    piece = onnx.load(first.path)
    assert [each.name for each in piece.functions] == ["outer", "inner"]
    assert {each.domain: each.version for each in piece.opset_import} == {"": 20, "f": 1}
    last = extract(model, tmp_path / "q.onnx", ["y"], ["z"])
    assert [each.name for each in onnx.load(last.path).functions] == ["lone"]
    assert agrees(last, model, X)


def test_overloads_of_a_function(tmp_path: Path) -> None:
    model = with_functions()
    other = model.functions.add()
    other.CopyFrom(model.functions[1])
    other.overload, other.node[0].op_type = "second", "Abs"
    model.graph.node[0].op_type, model.graph.node[0].overload = "inner", "second"
    piece = onnx.load(extract(model, tmp_path / "p.onnx", ["x"], ["y"]).path)
    assert [(each.name, each.overload) for each in piece.functions] == [("inner", "second")]


# Weights in other files.


def test_external_data_stays_external(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "from")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "to").mkdir()
    piece = extract(path, tmp_path / "to" / "p.onnx", ["y"], ["z"])
    assert piece.data == tmp_path / "to" / "p.onnx.data"
    assert piece.data.stat().st_size == 9 * 4
    assert sorted(os.listdir(tmp_path / "to")) == ["p.onnx", "p.onnx.data"]
    (z,) = run(piece.path, None, {"y": x})
    np.testing.assert_array_equal(z, x @ (np.arange(9, dtype=np.float32).reshape(3, 3) + 1))
    whole = extract(path, tmp_path / "to" / "q.onnx", ["x"])
    assert agrees(whole, onnx.load(path), {"x": x})
    piece.path.unlink()
    with pytest.raises(ValueError, match=r"p\.onnx\.data', which exists"):
        extract(path, piece.path, ["y"], ["z"])


def test_external_data_that_is_missing_leaves_no_file(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "from")
    (tmp_path / "to").mkdir()
    for model in (path, onnx.load(path, load_external_data=False)):
        (tmp_path / "from" / "m.data").unlink(missing_ok=True)
        with pytest.raises(UnreadableModel, match="external data must"):
            extract(model, tmp_path / "to" / "p.onnx", ["y"], ["z"])
        assert os.listdir(tmp_path / "to") == []


MEASURED = """
import resource, sys, custom_ops.onnx
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
custom_ops.onnx.extract("m.onnx", "p.onnx", ["y"], ["z"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_weights_behind_a_link(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "from")
    os.rename(tmp_path / "from" / "m.data", tmp_path / "blob")
    (tmp_path / "from" / "m.data").symlink_to(tmp_path / "blob")
    with pytest.raises(ValueError, match=r"symbolic link, .* copy it with"):
        extract(path, tmp_path / "p.onnx", ["y"], ["z"])
    assert sorted(os.listdir(tmp_path)) == ["blob", "from"]
    piece = extract(path, tmp_path / "p.onnx", ["y"], ["z"], follow_links=True)
    assert run(piece.path, None, {"y": np.ones((1, 3), np.float32)})[0].shape == (1, 3)


def test_weights_of_three_gigabytes_are_not_loaded(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    model = parsed(
        "g (float[N, M] x) => (float[N, 1024] z) { y = MatMul(x, big) z = Mul(y, small) }"
    )
    for name, offset, sizes in (("big", 4096, [3 << 18, 1024]), ("small", 0, [1024])):
        tensor = model.graph.initializer.add(name=name, data_type=1, dims=sizes)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        length = 4 * math.prod(sizes)
        fields = {"location": "m.data", "offset": offset, "length": length}
        for key, value in fields.items():
            tensor.external_data.add(key=key, value=str(value))
    with (tmp_path / "m.data").open("wb") as file:
        file.write(np.full(1024, 2, np.float32).tobytes())
        file.truncate(4096 + (3 << 30))  # a file with a hole: it takes no place on the disk
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100_000  # kB
    y = np.ones((2, 1024), np.float32)
    np.testing.assert_array_equal(run(tmp_path / "p.onnx", None, {"y": y})[0], 2 * y)
