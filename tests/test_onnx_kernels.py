"""The kernels of each release: what the doctor says of nodes, beside what a session says."""

import io
from collections.abc import Iterator

import onnx
import onnxruntime
import pytest
import torch
from doctor_models import inference_in_this_process
from onnx.backend.test.case.node import collect_testcases

import custom_ops.onnx
from custom_ops.onnx import RELEASES, _guarded
from custom_ops.onnx._kernels.judge import Outcome, judge_model
from custom_ops.onnx._kernels.table import table
from custom_ops.onnx._kernels.typed import SchemaOf

SAMPLE = "{0}[N, C, H, W] x, {0}[N, P, Q, 2] g"
SAMPLED = "{0}[N, C, P, Q] y"
ROIS = "float[N, C, H, W] x, float[P, 4] r, int64[P] i"


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with inference_in_this_process():
        yield


def model(
    body: str,
    opset: int = 18,
    inputs: str = "float[N] x",
    outputs: str = "float[N] y",
    functions: str = "",
    imports: str = "",
) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {opset}, "f": 1{imports}]> '
        f"g ({inputs}) => ({outputs}) {{ {body} }} {functions}"
    )


def function(text: str, opset: int = 18) -> str:
    return f'<domain: "f", opset_import: ["": {opset}]> {text}'


def found(proto: onnx.ModelProto, release: str = "1.32") -> list[str]:
    report = custom_ops.onnx.doctor(proto, f"onnxruntime=={release}")
    return [str(finding) for finding in report.findings]


def loads(proto: onnx.ModelProto) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), options)
    except Exception:
        return False
    return True


def grid_sample(kind: str, opset: int) -> onnx.ModelProto:
    return model("y = GridSample (x, g)", opset, SAMPLE.format(kind), SAMPLED.format(kind))


def roi_align(opset: int) -> onnx.ModelProto:
    return model("y = RoiAlign (x, r, i)", opset, ROIS, "float[P, C, Q, R] y")


HALF_OF_IF = (
    "y = If (c) <then_branch = t () => (double[N] a) {{ a = {0} (x) }}, "
    "else_branch = e () => (double[N] b) {{ b = Identity (x) }}>"
)
OWN, ML = ', "com.microsoft": 1', ', "ai.onnx.ml": 1'
NCHWC = ', "com.microsoft.nchwc": 1'
GELU, GELUED = "float[1, 4, 8] x, float[8] b", "float[1, 4, M] y"
IMAGE, IMAGED = "float[1, 16, 2, 2] x", "float[1, 16, 2, 2] y"
BLOCKED = "double[1, 16, 2, 2] x", "double[1, 16, 2, 2] y"
# A fault, the same without it, and what is said of the fault.
PAIRS = {
    "float64": (
        grid_sample("double", 16),
        grid_sample("double", 20),
        "error kernel: y: GridSample in float64 must have a CPU kernel in onnxruntime 1.32 at "
        "opset 16, got kernels for float32; export at opset 20, or convert it to float32",
    ),
    "open range": (
        roi_align(22),
        roi_align(21),
        "error kernel: y: RoiAlign in float32 and int64 must have a CPU kernel in onnxruntime 1.32 "
        "at opset 22, got none; export at opset 21",
    ),
    "no such op": (
        model("y = Reluu (x)"),
        model("y = Relu (x)"),
        "error unknown-op: y: Reluu must be an op of onnxruntime 1.32 at opset 18, got a name that "
        "it does not know; write Relu, if that is meant",
    ),
    "newer op": (
        model("y = Gelu (x)", 18),
        model("y = Gelu (x)", 20),
        "error unknown-op: y: Gelu must be an op of onnxruntime 1.32 at opset 18, got one that "
        "opset 20 brings; export at opset 20",
    ),
    "op taken away": (
        model("y = Upsample (x, s)", 13, "float[N] x, float[1] s"),
        model("y = Upsample (x, s)", 9, "float[N] x, float[1] s"),
        "error unknown-op: y: Upsample must be an op of onnxruntime 1.32 at opset 13, got one that "
        "opset 10 took away; export at opset 9",
    ),
    "attribute": (
        model("y = com.microsoft.QuickGelu <beta = 1.0> (x)", imports=', "com.microsoft": 1'),
        model("y = com.microsoft.QuickGelu <alpha = 1.0> (x)", imports=', "com.microsoft": 1'),
        "error op-call: y: QuickGelu must be called as onnxruntime 1.32 at opset 1 of "
        "com.microsoft knows it, got attribute 'beta'; write the call anew",
    ),
    "in a subgraph": (
        model(HALF_OF_IF.format("Asinh"), 18, "double[N] x, bool c", "double[N] y"),
        model(HALF_OF_IF.format("Sin"), 18, "double[N] x, bool c", "double[N] y"),
        "error kernel: a: Asinh in float64 must have a CPU kernel in onnxruntime 1.32 at opset 18, "
        "got kernels for float32; convert it to float32",
    ),
    "in a function": (
        model(
            "y = f.outer (x)",
            18,
            "double[N] x",
            "double[N] y",
            '<domain: "f", opset_import: ["": 18, "f": 1]> outer (a) => (b) { b = f.inner (a) }'
            + function("inner (a) => (b) { t = Asinh (a) b = Neg (t) }"),
        ),
        model(
            "y = f.outer (x)",
            18,
            "float[N] x",
            "float[N] y",
            '<domain: "f", opset_import: ["": 18, "f": 1]> outer (a) => (b) { b = f.inner (a) }'
            + function("inner (a) => (b) { t = Asinh (a) b = Neg (t) }"),
        ),
        "Asinh in float64 must have a CPU kernel in onnxruntime 1.32 at opset 18, got kernels for "
        "float32; convert it to float32",
    ),
    "contrib op": (
        model("y = com.microsoft.FastGeluu (x)", imports=', "com.microsoft": 1'),
        model("y = com.microsoft.FastGelu (x)", imports=', "com.microsoft": 1'),
        "FastGeluu must be an op of onnxruntime 1.32 at opset 1 of com.microsoft, got a name that "
        "it does not know; write FastGelu, if that is meant",
    ),
    "contrib op in float64": (
        model("y = com.microsoft.Gelu (x)", 18, "double[N] x", "double[N] y", "", OWN),
        model("y = com.microsoft.Gelu (x)", imports=OWN),
        "error kernel: y: Gelu in float64 must have a CPU kernel in onnxruntime 1.32 at opset 1 of "
        "com.microsoft, got kernels for float32; convert it to float32",
    ),
    "contrib op for GPUs": (
        model("y = com.microsoft.BiasSplitGelu (x, b)", 18, GELU, GELUED, "", OWN),
        model("y = com.microsoft.BiasGelu (x, b)", 18, GELU, GELUED, "", OWN),
        "error kernel: y: BiasSplitGelu in float32 must have a CPU kernel in onnxruntime 1.32 at "
        "opset 1 of com.microsoft, got none; write it with other ops, or use a library that has a "
        "kernel",
    ),
    "op of blocked channels": (
        model("y = com.microsoft.nchwc.ReorderInput (x)", 18, *BLOCKED, "", NCHWC),
        model("y = com.microsoft.nchwc.ReorderInput (x)", 18, IMAGE, IMAGED, "", NCHWC),
        "ReorderInput in float64 must have a CPU kernel in onnxruntime 1.32 at opset 1 of "
        "com.microsoft.nchwc, got kernels for float32",
    ),
    "op of machine learning": (
        model("y = ai.onnx.ml.Binarizer (x)", 18, "double[N] x", "double[N] y", "", ML),
        model("y = ai.onnx.ml.Binarizer (x)", imports=ML),
        "Binarizer in float64 must have a CPU kernel in onnxruntime 1.32 at opset 1 of ai.onnx.ml, "
        "got kernels for float32; convert it to float32",
    ),
    "domain without ops": (
        model(
            "y = com.microsoft.experimental.Gelu (x)", imports=', "com.microsoft.experimental": 1'
        ),
        model("y = com.microsoft.Gelu (x)", imports=OWN),
        "error unknown-op: y: Gelu must be an op of onnxruntime 1.32 at opset 1 of "
        "com.microsoft.experimental, got a name that it does not know",
    ),
    "input of a function left out": (
        model(
            "y = f.add (x)",
            functions=function("add (a, b) => (y) { y = Add (a, b) }"),
        ),
        model(
            "y = f.clip (x)",
            functions=function("clip (a, low, high) => (y) { y = Clip (a, low, high) }"),
        ),
        "Add must be called as onnxruntime 1.32 at opset 18 knows it, got no input 'B'",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_does_not_run(name: str) -> None:
    fault, without, sentence = PAIRS[name]
    (said,) = found(fault)
    assert sentence in said
    assert found(without) == []


@pytest.mark.skipif(
    custom_ops.onnx.target().release != "1.32", reason="the sentences are about onnxruntime 1.32"
)
@pytest.mark.parametrize("name", PAIRS)
def test_sessions_agree(name: str) -> None:
    fault, without, _ = PAIRS[name]
    assert not loads(fault)
    assert loads(without)


@pytest.mark.parametrize(
    "proto",
    [
        model("y = HardSwish (x)", 14),  # without a kernel, by its body
        model("y = Mish (x)", 18, "double[N] x", "double[N] y"),
        model("y = Constant <value_float = 1.0> ()", outputs="float y"),
        model(
            "y = com.microsoft.FastGelu (x)",
            18,
            "double[N] x",
            "double[N] y",
            "",
            ', "com.microsoft": 1',
        ),
        model("y = f.Unknown (x)"),  # for the rule of libraries
    ],
)
def test_no_false_alarm(proto: onnx.ModelProto) -> None:
    codes = {f.code for f in custom_ops.onnx.doctor(proto, "onnxruntime==1.32").findings}
    assert not codes & {"kernel", "unknown-op", "op-call", "kernel-casts"}


def test_float16_runs_between_casts() -> None:
    half, single = grid_sample("float16", 16), grid_sample("float", 16)
    (said,) = found(half)
    assert said == (
        "note kernel-casts: y: GridSample in float16 runs in float32, between casts, on "
        "onnxruntime 1.32 at opset 16; convert it to float32 where speed matters"
    )
    assert found(single) == []
    assert loads(half)
    assert [said] == found(grid_sample("float16", 16))  # and is no error
    bfloat16 = grid_sample("bfloat16", 22)
    assert "export" not in found(bfloat16)[0]
    assert not loads(bfloat16)


def test_later_releases() -> None:
    deform = model(
        "y = DeformConv (x, w, o)",
        19,
        "float[N, C, H, W] x, float[P, Q, R, S] w, float[N, K, L, M] o",
        "float[N, P, L, M] y",
    )
    (said,) = found(deform, "1.20")
    assert said.endswith(
        "DeformConv in float32 must have a CPU kernel in onnxruntime 1.20 at opset 19, got none; "
        "turn it into ours with custom-ops convert, or deploy onnxruntime 1.25"
    )
    assert found(deform, "1.25") == []


def test_many_nodes_are_one_finding() -> None:
    proto = model("a = Asinh (x) b = Asinh (a) y = Asinh (b)", 18, "double[N] x", "double[N] y")
    (said,) = found(proto)
    assert "(and in 2 more nodes)" in said


OVERLOADED = model(
    "t = f.foo (x) y = f.foo (t)",
    functions=function("foo (a) => (b) { b = Neg (a) }")
    + function("foo (a) => (b) { b = Exp (a) }"),
)
for place in (OVERLOADED.functions, OVERLOADED.graph.node):
    place[1].overload = "other"


def test_overloads() -> None:
    (said,) = found(OVERLOADED, "1.26")
    assert said.startswith("error function-overloads: t: function 'foo' must have one body")
    assert "deploy onnxruntime 1.27" in said
    (said,) = found(OVERLOADED, "1.27")
    assert said.startswith("note function-overloads")
    alone = onnx.ModelProto()
    alone.CopyFrom(OVERLOADED)
    alone.functions[0].name = alone.graph.node[0].op_type = "other"
    assert found(alone, "1.26") == []


def test_outputs_of_a_function_left_out() -> None:
    two = function("two (a) => (b, c) { b = Neg (a) c = Exp (a) }")
    (said,) = found(model("y = f.two (x)", functions=two))
    assert said.startswith("error function-outputs: y: a call of function 'two' must name its 2")
    named = model("y, c = f.two (x)", functions=two)
    named.graph.node[0].output[1] = ""
    assert found(named) == []
    assert loads(named)


def test_the_table() -> None:
    for release in RELEASES:
        known = table(release)
        for opset, name in ((13, "Conv"), (13, "Softmax"), (17, "LayerNormalization")):
            schema = known.schema("", name, opset)
            assert schema is not None
            assert known.kernels(schema)
    assert table("1.24").schema("", "DeformConv", 19) is not None


def test_a_library_may_serve_what_has_a_body() -> None:
    body = function("asinh (a) => (b) { b = Asinh (a) }")
    proto = model("y = f.asinh (x)", 18, "double[N] x", "double[N] y", body)
    assert "Asinh in float64" in found(proto)[0]
    report = custom_ops.onnx.doctor(
        proto, "onnxruntime==1.32", libraries=[custom_ops.get_library_path()]
    )
    assert report.findings == ()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
@pytest.mark.filterwarnings("ignore")
def test_no_false_alarm_on_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.get_model(name, weights=None).eval()
    file = io.BytesIO()
    torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), file, dynamo=False, opset_version=17)
    proto = onnx.load_from_string(file.getvalue())
    for release in ("1.17", "1.32"):
        assert judge_model(proto, SchemaOf(table(release), {"": 17})) == []


@pytest.mark.filterwarnings("ignore")
def test_some_node_models_of_onnx() -> None:
    """A tenth of them; tools/check_kernel_tables.py takes all, in several releases."""
    alarms, missed, target = [], [], custom_ops.onnx.target()
    for case in collect_testcases(None)[::10]:
        proto, opsets = case.model, {e.domain or "": e.version for e in case.model.opset_import}
        if opsets.get("", 0) > target.opset or proto.ir_version > target.ir_version:
            continue
        verdicts = judge_model(proto, SchemaOf(table(target.release), opsets))
        runs = all(verdict.outcome is Outcome.CASTS for verdict in verdicts)
        if not runs and loads(proto):
            alarms.append(case.name)
        if runs and not loads(proto):
            missed.append(case.name)
    assert alarms == []
    assert all("strnormalizer" in name or "batchwise" in name for name in missed)


def test_what_crashes_onnx_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def crashing(action: str, carrier: onnx.ModelProto, seconds: float) -> bytes:
        ops = [node.attribute[0].g.node[0].op_type for node in carrier.graph.node]
        calls.append(ops)
        if "Mish" in ops:
            raise _guarded.Refused("crashed")
        for node in carrier.graph.node:
            node.attribute[0].g.node[0].op_type = "Done"
        return carrier.SerializeToString()

    monkeypatch.setattr(_guarded, "_run", crashing)
    graphs = [model(f"y = {op} (x)").graph for op in ("Elu", "Mish", "Selu")]
    bodies = _guarded.expand(graphs, model("y = Elu (x)").opset_import)
    assert [body and body.node[0].op_type for body in bodies] == ["Done", None, "Done"]
