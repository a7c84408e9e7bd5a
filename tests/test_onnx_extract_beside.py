"""The table of docs/extract.md: what onnx.utils.extract_model gets wrong, and ours does not."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_pieces import BRANCH, CHAIN, X, agrees, parsed, sparse, with_functions, with_weights

from custom_ops.onnx import Extraction, extract

theirs_of_this_release = pytest.mark.skipif(
    not onnx.__version__.startswith("1.23"), reason="what onnx.utils does is that of onnx 1.23"
)


@dataclass(frozen=True)
class Row:
    """A row of the table: a model, where to cut, and what each makes of it."""

    model: Callable[[], onnx.ModelProto]
    inputs: list[str]
    outputs: list[str]
    right: Callable[[onnx.ModelProto, Extraction, onnx.ModelProto], Any]
    wrong: str | Callable[[onnx.ModelProto], Any]  # what it says, or what is wrong of its piece


def annotated() -> onnx.ModelProto:
    model = parsed(CHAIN)
    model.graph.quantization_annotation.add(tensor_name="a")
    return model


def described() -> onnx.ModelProto:
    model = parsed(CHAIN)
    model.producer_name = "maker"
    for holder in (model, model.graph):
        helper.set_model_props(holder, {"from": "torch"})
    return model


def overloaded() -> onnx.ModelProto:
    model = with_functions()
    model.functions[1].overload = "second"
    other = model.functions.add()
    other.CopyFrom(model.functions[1])
    other.overload, other.node[0].op_type = "", "Abs"
    model.graph.node[0].op_type, model.graph.node[0].overload = "inner", "second"
    return model


def reshaped() -> onnx.ModelProto:
    return parsed("""g (float[2, 3, N] x) => (float z) <int64[1] one = {-1}, int64[1] t = {2}>
        { s = Shape <start = 0, end = 1> (x) d = Concat <axis = 0> (s, one, t)
          y = Reshape(x, d) z = ReduceSum <keepdims = 0> (y) }""")


def unknown_type() -> onnx.ModelProto:
    model = parsed("g (float[N] x) => (float[N] z) { y = other.Op(x) z = Relu(y) }")
    model.opset_import.append(helper.make_opsetid("other", 1))
    return model


def sizes(model: onnx.ModelProto) -> list[int]:
    """Returns the sizes of the first input, 0 for those that are not known."""
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


ROWS = {
    "captures": Row(
        lambda: parsed(BRANCH),
        *(["c", "x"], ["r"]),
        lambda whole, cut, _: agrees(cut, whole, {"c": np.array(True), **X}),
        "is not output of any previous nodes",
    ),
    "sparse initializers": Row(
        sparse,
        *(["y"], ["z"]),
        lambda _, cut, piece: cut.initializers == len(piece.graph.sparse_initializer) == 1,
        "len_sparse_initializer is 1, it must be 0",
    ),
    "quantization annotations": Row(
        annotated,
        *(["a"], ["b"]),
        lambda _, cut, piece: len(piece.graph.quantization_annotation) == 1,
        "len_quantization_annotation is 1, it must be 0",
    ),
    "an initializer as input": Row(
        lambda: parsed(CHAIN),
        *(["a", "w"], ["b"]),
        lambda whole, cut, _: agrees(cut, whole, X) and cut.initializers == 0,
        "not found in value_infos: w",
    ),
    "a computed shape": Row(
        reshaped,
        *(["y"], ["z"]),
        lambda _, cut, piece: sizes(piece) == [2, 0, 2],
        lambda piece: sizes(piece) == [0, 0, 0],
    ),
    "an output of unknown type": Row(
        unknown_type,
        *(["x"], ["y"]),
        lambda _, cut, piece: [each.name for each in piece.graph.output] == ["y"],
        "not found in value_infos: y",
    ),
    "metadata": Row(
        described,
        *(["a"], ["b"]),
        lambda _, cut, piece: (
            piece.producer_name == "maker" and piece.metadata_props and piece.graph.metadata_props
        ),
        lambda piece: (
            piece.producer_name == "onnx.utils.extract_model"
            and not piece.metadata_props
            and not piece.graph.metadata_props
        ),
    ),
    "overloads": Row(
        overloaded,
        *(["x"], ["y"]),
        lambda _, cut, piece: [f.overload for f in piece.functions] == ["second"],
        lambda piece: [f.overload for f in piece.functions] == [""],
    ),
    "domains": Row(
        with_functions,
        *(["x"], ["y"]),
        lambda _, cut, piece: {each.domain for each in piece.opset_import} == {"", "f"},
        lambda piece: {each.domain for each in piece.opset_import} == {"", "f", "g", "unused"},
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_ours_is_right(row: Row, tmp_path: Path) -> None:
    model = row.model()
    cut = extract(model, tmp_path / "p.onnx", row.inputs, row.outputs)
    assert row.right(model, cut, onnx.load(cut.path))


@theirs_of_this_release
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_theirs_is_not(row: Row, tmp_path: Path) -> None:
    onnx.save(row.model(), tmp_path / "m.onnx")

    def cut() -> onnx.ModelProto:
        where = (str(tmp_path / "m.onnx"), str(tmp_path / "p.onnx"))
        onnx.utils.extract_model(*where, row.inputs, row.outputs)
        return onnx.load(tmp_path / "p.onnx")

    if isinstance(row.wrong, str):
        with pytest.raises((ValueError, onnx.checker.ValidationError), match=row.wrong):
            cut()
    else:
        assert row.wrong(cut())


@theirs_of_this_release
def test_theirs_puts_weights_into_the_piece(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "from")
    onnx.utils.extract_model(str(path), str(tmp_path / "p.onnx"), ["y"], ["z"])
    (weight,) = onnx.load(tmp_path / "p.onnx", load_external_data=False).graph.initializer
    assert weight.data_location == onnx.TensorProto.DEFAULT


@theirs_of_this_release
def test_theirs_leaves_a_file_behind_or_writes_an_empty_model(tmp_path: Path) -> None:
    onnx.save(parsed(CHAIN), tmp_path / "m.onnx")
    where = (str(tmp_path / "m.onnx"), str(tmp_path / "p.onnx"))
    with pytest.raises(onnx.checker.ValidationError):
        onnx.utils.extract_model(*where, ["b"], ["a"])
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "p.onnx"]
    onnx.utils.extract_model(*where, ["a"], ["a"])
    assert len(onnx.load(tmp_path / "p.onnx").graph.node) == 0
