"""Each finding that the doctor calls fixable is mended, and the numbers are then right."""

from pathlib import Path

import doctor_models
import numpy as np
import onnx
import onnxruntime
import pytest
from doctor_models import Fault

import custom_ops.onnx
from custom_ops.onnx._doctor.rules import ALL, code
from custom_ops.onnx._fix.mends import MENDS

# What stands in the way of the versions is not in these models.
MENDED = [fault for fault in doctor_models.FAULTS if fault.code in MENDS]


def fixable(report: custom_ops.onnx.Report) -> set[str]:
    return {finding.code for finding in report.findings if finding.fixable}


@pytest.mark.parametrize("fault", MENDED, ids=lambda fault: f"{fault.code}: {fault.name}")
def test_mended(fault: Fault, tmp_path: Path) -> None:
    model = fault.faulty(tmp_path)
    if fault.code not in fixable(custom_ops.onnx.doctor(model)):
        pytest.skip("this one is not fixable in the installed release")
    fixed = custom_ops.onnx.fix(model)
    assert fault.code in [change.code for change in fixed.changes]
    assert fault.code not in [finding.code for finding in fixed.left]
    assert fixed.proof.verdict.value in ("equal", "only the new model runs")
    session = onnxruntime.InferenceSession(fixed.model.SerializeToString())
    (output,) = session.run(None, fault.feeds)
    np.testing.assert_allclose(output, fault.expected, rtol=1e-5)


def test_only_what_the_doctor_finds_is_mended() -> None:
    assert set(MENDS) <= {code(rule) for rule in ALL}
    for fault in MENDED:
        assert fault.code in MENDS


def test_everything_fixable_has_a_mend(tmp_path: Path) -> None:
    one_each = {fault.code: fault for fault in doctor_models.FAULTS if not fault.hangs}
    for name, fault in one_each.items():
        (tmp_path / name).mkdir()
        assert fixable(custom_ops.onnx.doctor(fault.faulty(tmp_path / name))) <= set(MENDS)


def test_sorting_keeps_what_it_can() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
            b = Neg(a) c = Abs(x) a = Relu(x) y = Add(b, c) }"""
    )
    fixed = custom_ops.onnx.fix(model)
    assert [node.output[0] for node in fixed.model.graph.node] == ["c", "a", "b", "y"]
    assert [change.sentence for change in fixed.changes] == ["sorted the nodes of the graph"]


def test_overloads_are_inlined() -> None:
    text = """<ir_version: 10, opset_import: ["": 18, "f": 1]>
        g (float[2] x) => (float[2] y) { a = f.f:one(x) y = f.f:two(a) }
        <domain: "f", overload: "one", opset_import: ["": 18]> f (x) => (y) { y = Neg(x) }
        <domain: "f", overload: "two", opset_import: ["": 18]> f (x) => (y) { y = Abs(x) }
        <domain: "f", opset_import: ["": 18]> h (x) => (y) { y = Relu(x) }"""
    model = onnx.parser.parse_model(text)
    assert custom_ops.onnx.fix(model).changes == ()  # newer releases tell them apart
    fixed = custom_ops.onnx.fix(model, target="onnxruntime==1.20")
    assert fixed
    assert fixed.proof
    assert [change.sentence for change in fixed.changes] == ["inlined f"]
    assert [node.op_type for node in fixed.model.graph.node] == ["Neg", "Abs"]
    assert [function.name for function in fixed.model.functions] == ["h"]
    older = custom_ops.onnx.fix(model, target="onnxruntime==1.17")
    assert [change.code for change in older.changes] == ["function-overloads", "ir-version"]
