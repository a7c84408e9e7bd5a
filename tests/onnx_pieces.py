"""Models to cut, and whether a piece computes what the whole computes there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import custom_ops.onnx

Arrays = Mapping[str, np.ndarray[Any, Any]]


def parsed(text: str, ir_version: int = 10) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": 20]> {text}')


def run(model: onnx.ModelProto | Path, names: list[str] | None, feeds: Arrays) -> list[Any]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.register_custom_ops_library(custom_ops.get_library_path())
    session = onnxruntime.InferenceSession(given, options)
    return list(session.run(names, dict(feeds)))


def values(model: onnx.ModelProto, names: tuple[str, ...], feeds: Arrays) -> dict[str, Any]:
    """Returns what values inside of a model are."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    there = {each.name for each in whole.graph.output}
    missing = [name for name in names if name not in there]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    return dict(zip(names, run(whole, list(names), feeds), strict=True))


def agrees(piece: custom_ops.onnx.Extraction, model: onnx.ModelProto, feeds: Arrays) -> bool:
    """Returns whether a piece makes of the values at its inputs those at its outputs."""
    onnx.checker.check_model(str(piece.path), full_check=True)
    inside = values(model, piece.inputs, feeds)
    session = onnxruntime.InferenceSession(piece.path)
    assert tuple(each.name for each in session.get_inputs()) == piece.inputs
    assert tuple(each.name for each in session.get_outputs()) == piece.outputs
    actual = run(piece.path, None, inside)
    expected = values(model, piece.outputs, feeds)
    return all(np.array_equal(a, b) for a, b in zip(actual, expected.values(), strict=True))


CHAIN = """g (float[N] x) => (float[N] z)
    <float[N] a, float[N] b, float[1] w = {3}, float[1] u = {1}>
    { [relu] a = Relu(x) [mul] b = Mul(a, w) [exp] z = Exp(b) }"""
X = {"x": np.array([-1, 0.5, 2], np.float32)}


BRANCH = """g (bool c, float[N] x) => (float[N] z)
    <float[N] y, float[N] s, float[N] r, float[1] w = {3}>
    {
        y = Relu(x)
        s = Mul(y, w)
        [branch] r = If (c) <
            then_branch = t () => (float[N] p) { deep = Mul(s, w) p = Add(deep, y) },
            else_branch = e () => (float[N] q) {
                q = If (c) <then_branch = i () => (float[N] m) { m = Neg(y) },
                    else_branch = j () => (float[N] n) { n = Exp(s) }>
            }
        >
        z = Relu(r)
    }"""


def sparse() -> onnx.ModelProto:
    model = parsed("""g (float[2, 2] x) => (float[2, 2] z) <float[2, 2] y, float[2, 2] d>
        { y = Relu(x) d = MatMul(y, w) z = MatMul(d, w) }""")
    held = numpy_helper.from_array(np.array([5], np.float32), "w")
    places = numpy_helper.from_array(np.array([1], np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(held, places, [2, 2]))
    return model


def with_functions() -> onnx.ModelProto:
    return onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20, "f": 1, "g": 1, "unused": 3]>
        g (float[N] x) => (float[N] z) <float[N] y>
            { y = f.outer(x) z = g.lone(y) }
        <domain: "f", opset_import: ["": 20, "f": 1]> outer (a) => (b)
            { inside = f.inner(a) b = f.inner(inside) }
        <domain: "f", opset_import: ["": 20]> inner (a) => (b) { b = Exp(a) }
        <domain: "g", opset_import: ["": 20]> lone (a) => (b) { b = Neg(a) }
    """)


def with_weights(folder: Path) -> Path:
    model = parsed("g (float[N, 3] x) => (float[N, 3] z) { y = MatMul(x, v) z = MatMul(y, w) }")
    for i, name in enumerate(("v", "w", "unused")):
        array = np.arange(9, dtype=np.float32).reshape(3, 3) + i
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    folder.mkdir()
    onnx.save(
        *(model, folder / "m.onnx"),
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    return folder / "m.onnx"
