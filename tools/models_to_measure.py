"""Models that are odd or large: what the tools are measured on."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from models_to_break import DATA, seeds
from onnx import TensorProto, helper, numpy_helper

_SIDE = 1 << 14
WEIGHTS, WEIGHT = 3, 4 * _SIDE * _SIDE  # of the model with much data: their number, bytes of each


def chain(count: int, op: str = "Add", unicode: bool = False) -> onnx.ModelProto:
    """Returns a model of nodes that each use what the one before made, and a weight.

    Args:
        count: How many.
        op: "Add", or "MulAdd", the op of ours.
        unicode: Whether the names are not of ASCII alone.
    """
    value = helper.make_tensor_value_info
    mark = "Größe/层/" if unicode else ""
    domain = "" if op == "Add" else "custom_ops"
    nodes, weights = [], []
    for i in range(count):
        name = f"{mark}/layers/layers.{i // 50}/add_{i % 50}/{op}"
        inputs, outputs = [f"{mark}v{i}", f"{mark}w{i}"], [f"{mark}v{i + 1}"]
        nodes.append(helper.make_node(op, inputs, outputs, name, domain=domain))
        weights.append(numpy_helper.from_array(np.ones(1, np.float32), f"{mark}w{i}"))
    first, last = ([value(f"{mark}v{i}", TensorProto.FLOAT, [1])] for i in (0, count))
    graph = helper.make_graph(nodes, "chain", first, last, weights)
    opsets = [helper.make_opsetid("", 18)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def large(folder: Path) -> None:
    """Writes a model of three products and a node of ours, with much data in a file.

    The file has a hole in the place of the data, so it takes no room.
    """
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18, "custom_ops": 1]>
        g (float[1, {_SIDE}] x) => (float[1, {_SIDE}] y) {{
            a = MatMul (x, w0) b = MatMul (a, w1) c = custom_ops.MulAdd (a, b)
            y = MatMul (c, w2) }}"""
    )
    for i in range(WEIGHTS):
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[_SIDE, _SIDE])
        weight.data_location = TensorProto.EXTERNAL
        place = {"location": "w.data", "offset": i * WEIGHT, "length": WEIGHT}
        for key, text in place.items():
            weight.external_data.add(key=key, value=str(text))
        model.graph.initializer.append(weight)
    with open(folder / "w.data", "wb") as file:
        file.truncate(WEIGHTS * WEIGHT)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def quantised(folder: Path, float_model: onnx.ModelProto) -> None:
    """Writes what ONNX Runtime's dynamic quantisation makes of a model."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as other:
        path = Path(other) / "float.onnx"
        onnx.save(float_model, path)
        quantize_dynamic(path, folder / "model.onnx")


_ODD = (
    "If, Loop, functions in functions",
    "DeformConv",
    "QuantizeLinear, DequantizeLinear",
    "MMCV's node",
    "Scan, a sequence",
    "an empty graph",
    "sparse initializer, data in a file",
    "names and metadata of the exporters",
    "functions nested 4 deep, each calling twice",
)


def odd(folder: Path) -> list[tuple[str, Path]]:
    """Writes models of unusual parts; returns what each has."""
    made = []
    for i, (name, model) in enumerate(zip(_ODD, seeds(), strict=True)):
        place = folder / f"odd{i}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        (place / DATA).write_bytes(bytes(64))
        made.append((name, place / "model.onnx"))
    (folder / "unicode").mkdir(exist_ok=True)
    onnx.save(chain(100, unicode=True), folder / "unicode" / "model.onnx")
    made.append(("unicode names", folder / "unicode" / "model.onnx"))
    (folder / "quantised").mkdir(exist_ok=True)
    product = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 3] x) => (float[N, 3] y)
        <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> { a = MatMul (x, w) y = Relu (a) }"""
    )
    quantised(folder / "quantised", product)
    made.append(("quantised by ONNX Runtime", folder / "quantised" / "model.onnx"))
    return made
