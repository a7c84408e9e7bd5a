"""The doctor against the installed ONNX Runtime: each rule on models with its fault and without."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from doctor_models import (
    DECOMPOSED,
    FAULTS,
    RELU,
    Fault,
    inference_in_this_process,
    nested,
    parsed,
    pool,
)
from onnx import helper
from work import calls

import custom_ops.onnx
from custom_ops.onnx import _guarded
from custom_ops.onnx._doctor import rules, trial
from custom_ops.onnx._fix.mends import MENDS

INSTALLED = str(custom_ops.onnx.target())
NEWEST = trial.same_release(onnxruntime.__version__, list(custom_ops.onnx.RELEASES)[-1])


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with inference_in_this_process():
        yield


def write(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path, fault: Fault) -> str:
    """What onnxruntime says, or how its numbers differ; "" where all is well."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        for library in fault.libraries:
            options.register_custom_ops_library(str(path.parent / library))
        session = onnxruntime.InferenceSession(path, options)
        result = session.run(None, fault.feeds)[0]
    except Exception as error:
        return str(error)
    if np.shape(result) == np.shape(fault.expected) and np.allclose(result, fault.expected, 1e-5):
        return ""
    return f"other numbers: {result}"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.code}, {f.name}")
def test_the_doctor_says_what_onnxruntime_does(fault: Fault, tmp_path: Path) -> None:
    for faulty, make in ((True, fault.faulty), (False, fault.sound)):
        folder = tmp_path / str(faulty)
        folder.mkdir()
        path = write(make(folder), folder)
        libraries = [folder / library for library in fault.libraries]
        report = custom_ops.onnx.doctor(path, INSTALLED, libraries)
        found = {finding.code for finding in report.findings}
        assert (fault.code in found) == faulty, str(report)
        if (
            not (faulty and (fault.hangs or fault.unsafe)) and NEWEST
        ):  # the severities depend on the release
            said = refusal(path, fault)
            assert report.ok == (said == ""), f"{report}\nbut onnxruntime: {said}"
        if not faulty:
            assert report.findings == (), str(report)


def test_each_rule_has_a_fault() -> None:
    assert {fault.code for fault in FAULTS} >= {rules.code(rule) for rule in rules.ALL}


def chain(length: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["x"], ["v0"])]
    nodes += [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    nodes.append(helper.make_node("Identity", [f"v{length}"], ["y"]))
    model = parsed("")
    model.graph.node.extend(nodes)
    return model


def test_a_long_chain_is_linear_work() -> None:
    def work(length: int) -> int:
        model = chain(length)
        return calls(lambda: clean(custom_ops.onnx.doctor(model, INSTALLED)))

    def clean(report: custom_ops.onnx.Report) -> None:
        assert report.findings == ()

    work(10)
    assert work(8_000) < 9 * work(1_000)


def test_long_chains_that_are_broken() -> None:
    model = chain(5_000)
    turned = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(turned)
    (found,) = custom_ops.onnx.doctor(model, INSTALLED).findings
    assert (found.code, str(found.severity)) == ("unsorted", "warning")
    assert "got 5001 that do not in the graph: " in found.sentence
    model.graph.node[-1].input[0] = "v5000"
    (found,) = custom_ops.onnx.doctor(model, INSTALLED).findings
    assert found.code == "cycle"
    assert len(found.sentence) < 200


def test_deep_models_end_no_process() -> None:
    model = nested(500)
    assert custom_ops.onnx.doctor(model, INSTALLED).findings[0].code == "expansion"
    deep = RELU
    for _ in range(30):  # protobuf takes no deeper ones
        graph = onnx.GraphProto(name="deep", node=deep.graph.node, output=deep.graph.output)
        deep = parsed("c = Constant <value = bool {1}> ()")
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        deep.graph.node.append(node)
        if len(deep.SerializeToString()) > 10**5:
            break
    assert all(f.code == "shadowed-value" for f in custom_ops.onnx.doctor(deep, INSTALLED).findings)


CONTRADICTIONS = (
    "a = Add(x, i) b = MatMul(x, q) d = Add(x, p) e = And(x, x) f = Relu(b) "
    "g = If (c) <then_branch = t () => (float[2] o) { o = Add(x, p) }, "
    "else_branch = s () => (float[2] o) { o = Identity(x) }> y = Relu(x)"
)


def test_every_contradiction_is_a_finding() -> None:
    """Of types and of shapes, in the graph and inside; but not what only follows from one."""
    given = "float[2] x, float[3] p, float[3, 3] q, int64[2] i, bool c"
    report = custom_ops.onnx.doctor(parsed(CONTRADICTIONS, given), INSTALLED)
    found = [finding.where for finding in report.findings if finding.code == "node-types"]
    assert sorted(found) == ["a", "b", "d", "e", "o"]
    sound = CONTRADICTIONS.replace("(x, q)", "(q, q)").replace("(x, p)", "(x, x)")
    sound = sound.replace("(x, i)", "(x, x)").replace("And(x, x)", "And(c, c)")
    assert custom_ops.onnx.doctor(parsed(sound, given), INSTALLED).findings == ()


def test_an_op_of_another_domain_hides_no_contradiction() -> None:
    body = "z = custom_ops.MulAdd(x, x) t = Neg(z) u = Add(t, p) v = Add(x, p) y = Relu(x)"
    model = parsed(body, "float[2] x, float[3] p", imports=', "custom_ops": 1')
    library = [custom_ops.get_library_path()]
    (found,) = custom_ops.onnx.doctor(model, INSTALLED, library).findings
    assert (found.where, found.code) == ("v", "node-types")
    model.graph.value_info.append(helper.make_tensor_value_info("z", 1, [2]))
    report = custom_ops.onnx.doctor(model, INSTALLED, library)
    assert [found.where for found in report.findings] == ["u", "v"]
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2
    assert custom_ops.onnx.doctor(model, INSTALLED, library).findings == ()


def test_contradictions_in_functions_name_the_node_there() -> None:
    body, calls = "t = Add(x, p) y = Relu(x)", "z = f.F(x, p) y = f.F(z, p)"
    text = f'<domain: "f", opset_import: ["": 17]> F (x, p) => (y) {{ {body} }}'
    model = parsed(calls, "float[2] x, float[3] p", imports=', "f": 1', functions=text)
    (found,) = custom_ops.onnx.doctor(model, INSTALLED).findings
    assert (found.where, found.code) == ("t", "node-types")
    assert "that fit in function 'F', got: Incompatible dimensions" in found.sentence


@pytest.mark.parametrize(("kind", "count"), [("float[3]", 1_000), ("int64[2]", 1_000)])
def test_many_contradictions_are_ten_findings(kind: str, count: int) -> None:
    model = parsed("y = Relu(x)", f"float[2] x, {kind} p")
    nodes = [helper.make_node("Add", ["x", "p"], [f"v{i}"]) for i in range(count)]
    model.graph.node.extend(nodes)
    found = custom_ops.onnx.doctor(model, INSTALLED).findings
    assert [finding.where for finding in found] == [f"v{i}" for i in range(10)]
    assert ("(and in 990 more nodes)" in found[-1].sentence) == (kind == "float[3]")


def test_one_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of onnx, where no node asks for the body of an op; each costs half a second."""
    run, started = _guarded._in_child, []

    def counted(action: str, model: bytes, seconds: float) -> bytes:
        started.append(action)
        return run(action, model, seconds)

    monkeypatch.setattr(_guarded, "_in_child", counted)
    assert custom_ops.onnx.doctor(DECOMPOSED, INSTALLED).findings == ()
    assert started == ["several"]


def test_what_ends_the_process_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _guarded._in_child

    def crashing(action: str, model: bytes, seconds: float) -> bytes:
        actions = {node.op_type for node in onnx.load_from_string(model).graph.node}
        if "check" in actions:
            raise _guarded.Refused("crashed")
        return run(action, model, seconds)

    monkeypatch.setattr(_guarded, "_in_child", crashing)
    model = parsed("y = Add(x, p)", "float[2] x, float[3] p")
    (found,) = custom_ops.onnx.doctor(model, INSTALLED).findings
    assert found.code == "node-types"


def test_what_hinders_inference_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise _guarded.Refused("no end")

    monkeypatch.setattr(_guarded, "_in_child", refuse)
    assert custom_ops.onnx.doctor(RELU, INSTALLED).findings == ()


def test_the_page_has_the_table_of_rules() -> None:
    page = Path(__file__).parents[1] / "docs" / "doctor.md"
    assert f"\n{rules.table()}\n" in page.read_text("utf-8")


def test_what_is_fixable_has_a_mend(tmp_path: Path) -> None:
    fixable = set()
    for fault in FAULTS:
        folder = tmp_path / f"{fault.code}, {fault.name}"
        folder.mkdir()
        report = custom_ops.onnx.doctor(fault.faulty(folder), "onnxruntime==1.17")
        fixable |= {finding.code for finding in report.findings if finding.fixable}
    assert "unsorted" in fixable
    assert fixable <= MENDS.keys()


@pytest.mark.parametrize(
    ("opset", "size", "severities"),
    [
        (17, 6, {"1.17": "error", "1.28": "error", "1.29": "note"}),
        (19, 6, {"1.20": "error", "1.21": "note", "1.32": "note"}),
        (17, "N", {"1.28": "warning", "1.29": "note"}),
        (17, 5, {"1.17": None, "1.32": None}),
    ],
)
def test_a_faulty_kernel_is_told_of_where_its_fault_shows(
    opset: int, size: object, severities: dict[str, str | None]
) -> None:
    for release, severity in severities.items():
        report = custom_ops.onnx.doctor(pool(1, opset, size), f"onnxruntime=={release}")
        found = {each.code: str(each.severity) for each in report.findings}
        assert found.get("faulty-kernel") == severity


def test_a_faulty_kernel_in_a_function_is_told_of_by_the_sizes_of_its_calls() -> None:
    body = pool(1).graph.node[0]
    calls = '<ir_version: 9, opset_import: ["": 17, "f": 1]> g ({}) => (float[1, 1, M] y) {{ {} }}'
    text = '<domain: "f", opset_import: ["": 17]> P (x) => (y) { y = Relu(x) }'
    for given, severity in (("float[1, 1, 6] x", "error"), ("float[1, 1, 5] x", None)):
        model = onnx.parser.parse_model(calls.format(given, "y = f.P(x)") + text)
        model.functions[0].node[0].CopyFrom(body)
        report = custom_ops.onnx.doctor(model, "onnxruntime==1.28")
        found = {each.code: str(each.severity) for each in report.findings}
        assert found.get("faulty-kernel") == severity


def test_a_fault_that_depends_on_numbers_is_a_warning() -> None:
    model = parsed(
        "y = Attention <is_causal = 1> (x, x, x, , , , n)",
        "float[1, 1, 2, 4] x, int64[1] n",
        "float[1, 1, 2, 4] y",
        opset=24,
        ir_version=10,
    )
    for release, severity in (("1.27", "warning"), ("1.28", "note")):
        (found,) = custom_ops.onnx.doctor(model, f"onnxruntime=={release}").findings
        assert (found.code, str(found.severity)) == ("faulty-kernel", severity)


@pytest.mark.parametrize("name", ["kernel_shape", "strides", "pads", "auto_pad", "dilations"])
def test_malformed_attributes_end_no_rule(name: str) -> None:
    model = pool(1)
    kept = [each for each in model.graph.node[0].attribute if each.name != name]
    for value in (3, [0], [-1, 2], 2.5, "text", model.graph):
        broken = pool(1)
        del broken.graph.node[0].attribute[:]
        broken.graph.node[0].attribute.extend([*kept, helper.make_attribute(name, value)])
        custom_ops.onnx.doctor(broken)
