"""The doctor: each rule on a model with the fault and on one without."""

import onnx
import pytest

import custom_ops.onnx


def parsed(body: str, ir_version: int = 9, imports: str = '"": 18') -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"<ir_version: {ir_version}, opset_import: [{imports}]> "
        f"g (float[N] x) => (float[N] y) {{ {body} }}"
    )


def codes(model: onnx.ModelProto, target: str = "onnxruntime==1.32") -> list[tuple[str, str]]:
    report = custom_ops.onnx.doctor(model, target)
    assert report.ok == all(str(f.severity) != "error" for f in report.findings)
    return [(str(f.severity), f.code) for f in report.findings]


def test_a_good_model_has_no_findings() -> None:
    report = custom_ops.onnx.doctor(parsed("y = Relu(x)"), "onnxruntime==1.17")
    assert str(report) == "g for onnxruntime==1.17: nothing"
    assert report
    assert report.as_dict()["findings"] == []


@pytest.mark.parametrize(("release", "newest"), [("1.17", 9), ("1.20", 10), ("1.32", 14)])
def test_ir_version(release: str, newest: int) -> None:
    target = f"onnxruntime=={release}"
    assert codes(parsed("y = Relu(x)", newest), target) == []
    assert codes(parsed("y = Relu(x)", newest + 1), target) == [("error", "ir-version")]
    assert codes(parsed("y = Relu(x)", 2), target) == [("error", "ir-version")]


def test_opset() -> None:
    assert codes(parsed("y = Relu(x)", imports='"": 21'), "onnxruntime==1.20") == []
    found = codes(parsed("y = Relu(x)", imports='"": 22'), "onnxruntime==1.20")
    assert found == [("error", "opset")]


def test_domain_import() -> None:
    model = parsed("y = Relu(x)")
    del model.opset_import[:]
    model.opset_import.add(domain="other", version=1)
    assert ("error", "domain-import") in codes(model)
