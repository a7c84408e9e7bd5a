"""Opening sizes of inputs: where it is right, and where the old size is baked in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import custom_ops.onnx


def parsed(text: str, version: int = 18, **constants: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": {version}]> {text}')
    for name, value in constants.items():
        array = np.array(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def opened(model: Any, dynamic: Mapping[str, Mapping[int, str]], **given: Any) -> Any:
    return custom_ops.onnx.fix(model, dynamic=dynamic, **given)


def sizes(value: onnx.ValueInfoProto) -> list[Any]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


N = {"x": {0: "N"}}


def test_a_batch_is_opened() -> None:
    model = parsed(
        """g (float[1, 3, 8, 8] x) => (float[1, 6] y) <float[1, 12, 1, 1] p> {
            c = Conv <kernel_shape = [3, 3]> (x, w)
            p = GlobalAveragePool(c)
            f = Flatten(p)
            y = MatMul(f, v)
        }""",
        w=np.ones((12, 3, 3, 3)),
        v=np.ones((12, 6)),
    )
    fixed = opened(model, N)
    assert fixed.proof
    assert fixed.proof.note == "it runs with N at 2 and 3 too; each row is computed on its own"
    assert [c.sentence for c in fixed.changes] == ["size 1 of x:0 is open, as 'N'"]
    graph = fixed.model.graph
    assert sizes(graph.input[0]) == ["N", 3, 8, 8]
    assert sizes(graph.output[0]) == ["N", 6]
    assert sizes(graph.value_info[0]) == ["N", 12, 1, 1]
    session = onnxruntime.InferenceSession(fixed.model.SerializeToString())
    assert session.run(None, {"x": np.ones((5, 3, 8, 8), np.float32)})[0].shape == (5, 6)


def test_sizes_of_an_image_are_opened() -> None:
    model = parsed(
        """g (float[1, 3, 64, 96] x) => (float[1, 4, 32, 48] y) {
            y = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)
        }""",
        w=np.ones((4, 3, 3, 3)),
    )
    fixed = opened(model, {"x": {2: "H", 3: "W"}})
    assert "H at 96 and 128 too; outputs depend on all rows" in fixed.proof.note
    assert sizes(fixed.model.graph.output[0]) == [1, 4, 0, 0]  # not H, and open


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("y = Reshape(x, s)", {"s": [1, -1]}, r"Reshape 'y' \(its shape is \[1, -1\]\)"),
        ("y = Reshape(x, s)", {"s": [1, 12]}, r"its shape is \[1, 12\]"),
        ("y = Reshape(x, s)", {"s": [4, 3]}, r"its shape is \[4, 3\]"),
        ("y = Squeeze(x)", {}, "its output has 2 axes at this size, else 3"),
    ],
)
def test_what_is_baked_in(body: str, constants: dict[str, Any], reason: str) -> None:
    model = parsed(f"g (float[1, 3, 4] x) => (y) {{ {body} }}", **constants)
    with pytest.raises(ValueError, match=f"size 1 is baked in: .*{reason}"):
        opened(model, N)


@pytest.mark.parametrize(
    ("body", "constants", "reason"),
    [
        ("y = Slice(x, a, b, a)", {"a": [0], "b": [4]}, "it ends at 4"),
        ("y = Gather(x, i)", {"i": [3, 2, 1, 0]}, "all 4 are taken by number"),
        (
            "a = Gather(x, i) b = Gather(x, j) y = Add(a, b)",
            {"i": [0, 1], "j": [2, 3]},
            "Gather 'b' .*all 4 are taken by number",
        ),
        ("y, z = Split <num_outputs = 2> (x)", {}, "it makes 2 parts"),
        (
            'y = Resize <mode = "nearest"> (x, , , s)',
            {"s": [8, 3]},
            r"its sizes are \[8, 3\]",
        ),
        ("y = Add(x, c)", {"c": np.ones((4, 3))}, "N must stay 4, which is baked in: .*broadcast"),
        (
            "s = ReduceSum <keepdims = 0> (x, a) y = Div(s, c)",
            {"a": [0], "c": 4.0},
            "N may have to stay 4, by which Div 'y'",
        ),
    ],
)
def test_what_is_baked_in_of_more_rows(body: str, constants: dict[str, Any], reason: str) -> None:
    model = parsed(f"g (float[4, 3] x) => (y) {{ {body} }}", **constants)
    with pytest.raises(ValueError, match=reason):
        opened(model, N)


@pytest.mark.parametrize(
    ("body", "constants", "shape"),
    [
        ("y = Reshape(x, s)", {"s": [-1, 3]}, ["N", 3]),
        ("y = Reshape(x, s)", {"s": [0, 3, 1]}, ["N", 3, 1]),
        ("y = Reshape(x, s)", {"s": [-1]}, [0]),
        ("y = Slice(x, a, b, a)", {"a": [0], "b": [2**62]}, ["N", 3]),
        ("y = Gather(x, i)", {"i": [0]}, [1, 3]),
        ("s = Shape(x) f = Flatten <axis = 0> (x) y = Reshape(f, s)", {}, ["N", 3]),
        ("y = Mul(x, c)", {"c": 4.0}, ["N", 3]),
        ("y = ReduceMax <keepdims = 0> (x, a)", {"a": [0]}, [3]),
    ],
)
def test_what_follows(body: str, constants: dict[str, Any], shape: list[Any]) -> None:
    model = parsed(f"g (float[4, 3] x) => (float[4, 3] y) {{ {body} }}", **constants)
    onnx.checker.check_model(model)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    del dims[:]
    for size in shape:
        dims.add(dim_value=size if isinstance(size, int) else 4)
    if body.endswith("Reshape(x, s)") and constants["s"] == [-1]:
        dims[0].dim_value = 12
    fixed = opened(model, N)
    assert fixed.proof
    assert sizes(fixed.model.graph.output[0]) == shape


def test_inside_subgraphs_and_functions() -> None:
    inside = parsed(
        """g (bool c, float[1, 3, 4] x) => (y) {
            y = If (c) <
                then_branch = a () => (t) { t = Reshape(x, s) },
                else_branch = b () => (e) { e = Flatten(x) }
            > }""",
        s=[1, -1],
    )
    with pytest.raises(ValueError, match="Reshape 't'"):
        opened(inside, N)
    model = parsed("g (float[1, 3, 4] x) => (y) { y = f.f(x) }")
    model.opset_import.add(domain="f", version=1)
    function = onnx.parser.parse_function(
        """<domain: "f", opset_import: ["": 18]>
        f (x) => (y) { s = Constant <value_ints = [1, -1]> () y = Reshape(x, s) }"""
    )
    model.functions.append(function)
    with pytest.raises(ValueError, match="Reshape"):
        opened(model, N)
    model.functions[0].node[0].attribute[0].ints[:] = [0, -1]
    assert opened(model, N).proof


def test_one_name_for_two_inputs() -> None:
    model = parsed("g (float[2, 3] a, float[2, 3] b) => (float[2, 3] y) { y = Add(a, b) }")
    fixed = opened(model, {"a": {0: "N"}, "b": {0: "N"}})
    assert [sizes(value) for value in fixed.model.graph.input] == [["N", 3], ["N", 3]]
    with pytest.raises(ValueError, match="N must stay 2, which is baked in"):
        opened(model, {"a": {0: "N"}})


def test_open_sizes_get_names() -> None:
    model = parsed("g (float[B, 3] x) => (float[B, 3] y) { y = Relu(x) }")
    fixed = opened(model, N)
    assert sizes(fixed.model.graph.output[0]) == ["N", 3]
    assert [c.sentence for c in fixed.changes] == ["size 'B' is called 'N'"]


@pytest.mark.parametrize(
    ("dynamic", "sentence"),
    [
        ({"z": {0: "N"}}, "must name inputs, got 'z'"),
        ({"x": {2: "N"}}, "has 2 axes, got 2"),
        ({"x": {0: "N", 1: "N"}}, "one name to equal sizes"),
        ({"x": {0: "a b"}}, "names to sizes"),
    ],
)
def test_wrong_requests(dynamic: dict[str, dict[int, str]], sentence: str) -> None:
    model = parsed("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")
    with pytest.raises(ValueError, match=sentence):
        opened(model, dynamic)


@pytest.mark.parametrize("exporter", [False, True], ids=["torchscript", "dynamo"])
def test_networks(exporter: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolutions = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    ).eval()
    path = tmp_path / "a.onnx"
    given = {"dynamo": exporter, "opset_version": 18, "verbose": False}
    torch.onnx.export(convolutions, (torch.ones(1, 3, 16, 16),), path, input_names=["x"], **given)
    if exporter:  # writes every size that it is not told to leave open
        with pytest.raises(ValueError, match=r"Reshape 'node_view' \(its shape is \[1, 4\]\)"):
            opened(path, N)
        return
    fixed = opened(path, N)
    assert fixed.proof
    image = torch.randn(3, 3, 16, 16)
    session = onnxruntime.InferenceSession(fixed.model.SerializeToString())
    (output,) = session.run(None, {"x": image.numpy()})
    np.testing.assert_allclose(output, convolutions(image).detach(), rtol=1e-4, atol=1e-5)
