"""Models of many kinds to break: subgraphs, functions, weights in files, names of exporters."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATA = "weights.data"  # beside each model


def seeds() -> list[onnx.ModelProto]:
    """Returns models of many kinds; one has data in a file, `DATA`, of 64 bytes or more."""
    texts = (text.replace("WEIGHT", ", ".join(["1"] * 216)) for text in _TEXTS)
    return [*map(onnx.parser.parse_model, texts), _with_weights(), _from_torch(), nested(4)]


_TEXTS = (
    """<ir_version: 8, opset_import: ["": 18, "mine": 1]>
    g (float[N, 3] x, bool flag) => (float[N, 3] y) <float[3] w = {1, 2, 3}> {
      a = mine.twice (x)
      y = If (flag) <
        then_branch = t () => (float[N, 3] b) <int64 n = {3}> {
          yes = Constant <value = bool {1}> ()
          b = Loop (n, yes, a) <body = body (int64 i, bool c, float[N, 3] v)
            => (bool d, float[N, 3] u) { d = Identity (c) u = Add (v, w) }>
        },
        else_branch = e () => (float[N, 3] m) { m = Mul (a, w) }
      >
    }
    <domain: "mine", opset_import: ["": 18, "mine": 1]>
    twice (p) => (q) { r = mine.once (p) q = mine.once (r) }
    <domain: "mine", opset_import: ["": 18]>
    once (p) => (q) { r = Add (p, p) q = Relu (r) }""",
    """<ir_version: 9, opset_import: ["": 19]>
    g (float[1, 4, 5, 5] x, float[1, 18, 3, 3] offset) => (float[1, 6, 3, 3] y)
      <float[6, 4, 3, 3] w = {WEIGHT}> { y = DeformConv (x, w, offset) }""",
    """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 4] x) => (float[N, 2] y)
      <float scale = {0.5}, uint8 zero = {3}, int8[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8},
       float ws = {0.25}, int8 wz = {0}, int64[2] shape = {-1, 4}> {
      r = Reshape (x, shape)
      q = QuantizeLinear (r, scale, zero)
      d = DequantizeLinear (q, scale, zero)
      f = DequantizeLinear (w, ws, wz)
      y = MatMul (d, f)
    }""",
    """<ir_version: 8, opset_import: ["": 17, "mmcv": 1]>
    g (float[1, 4, 5, 5] x, float[1, 18, 3, 3] o, float[1, 9, 3, 3] m) => (float[1, 6, 3, 3] y)
      <float[6, 4, 3, 3] w = {WEIGHT}> {
      y = mmcv.MMCVModulatedDeformConv2d <stride = [1, 1], padding = [0, 0], dilation = [1, 1],
        groups = 1, deform_groups = 1> (x, o, m, w)
    }""",
    """<ir_version: 7, opset_import: ["": 13]>
    g (float[S, N] x, seq(float[N]) s) => (float[N] last, float[S, N] all, int64 size)
      <float[1] start = {0}> {
      last, all = Scan <num_scan_inputs = 1, body = step (float[N] state, float[N] one)
        => (float[N] next, float[N] out) { next = Add (state, one) out = Identity (next) }>
        (start, x)
      size = SequenceLength (s)
    }""",
    '<ir_version: 10, opset_import: ["": 22]> g () => () {}',
)


def _with_weights() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]>
        g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
          <float[1] scale = {1}, float[1] bias = {0}, float[1] mean = {0}, float[1] var = {1}> {
          c = Conv (x, w) n = BatchNormalization (c, scale, bias, mean, var) y = Clip (n, s)
        }"""
    )
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": DATA, "offset": "16", "length": "4"}.items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5])
    indices = helper.make_tensor("s_indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))
    return model


def _from_torch() -> onnx.ModelProto:
    """Returns a model with names and metadata as both exporters write them."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]>
        g (float[N, 3] x) => (float[N, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
        { a = MatMul (x, w) b = Relu (a) c = Relu (b) y = MatMul (c, w) }"""
    )
    for i, node in enumerate(model.graph.node):
        node.name = f"/layer/layer.{i}/act_{i}/{node.op_type}"
        if i % 2:
            key = "pkg.torch.onnx."
            node.metadata_props.add(key=f"{key}name_scopes", value=f"['', 'layer', 'n{i}']")
            node.metadata_props.add(key=f"{key}class_hierarchy", value="['Net', 'L', 'aten']")
            node.metadata_props.add(key=f"{key}stack_trace", value='File "a.py", line 3, in f')
    return model


def nested(depth: int) -> onnx.ModelProto:
    """Returns a model whose functions each call the next one twice."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="f")],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    functions = []
    for i in range(depth):
        name, domain = (f"f{i + 1}", "f") if i + 1 < depth else ("Relu", "")
        nodes = [
            helper.make_node(name, ["x"], ["m"], domain=domain),
            helper.make_node(name, ["m"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("f", f"f{i}", ["x"], ["y"], nodes, opsets))
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
