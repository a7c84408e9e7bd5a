"""The doctor: each rule on a model with the fault and on one without."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from doctor_models import WITH_LIBC, compiled, inference_in_this_process

import custom_ops.onnx
from custom_ops.cli import execute
from custom_ops.onnx._doctor import trial
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._reading import read


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with inference_in_this_process():
        yield


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
    assert codes(parsed("y = Relu(x)", 2), target) == [("warning", "ir-version")]


@pytest.mark.parametrize(("version", "called"), [(28, True), (29, True), (29, False)])
def test_opset_of_a_function(version: int, called: bool) -> None:
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (float[2] x) => (float[2] y) {{ y = {"f.Twice" if called else "Relu"} (x) }}
        <domain: "f", opset_import: ["": {version}]> Twice (a) => (b) {{ b = Add (a, a) }}""")
    found = [
        each
        for each in custom_ops.onnx.doctor(model, "onnxruntime==1.32").findings
        if each.code == "opset"
    ]
    assert len(found) == (version > 28 and called)
    assert all("the opset in function 'Twice' must be at most 28" in f.sentence for f in found)


def test_opset() -> None:
    assert codes(parsed("y = Relu(x)", imports='"": 21'), "onnxruntime==1.20") == []
    found = codes(parsed("y = Relu(x)", imports='"": 22'), "onnxruntime==1.20")
    assert found == [("error", "opset")]


def test_domain_import() -> None:
    model = parsed("y = Relu(x)")
    del model.opset_import[:]
    model.opset_import.add(domain="other", version=1)
    assert ("warning", "domain-import") in codes(model)
    del model.opset_import[:]
    assert ("error", "domain-import") in codes(model)


def call(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute(("doctor", *arguments))
    return code, out.getvalue(), err.getvalue().strip().splitlines()[-1]


def test_a_missing_file_of_many_tensors_is_one_finding(tmp_path: Path) -> None:
    names = [f"w{i}" for i in range(4)]
    nodes = [onnx.helper.make_node("Sum", names, ["y"])]
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    weights = [onnx.numpy_helper.from_array(np.ones(2, np.float32), name) for name in names]
    graph = onnx.helper.make_graph(nodes, "g", [], [value], weights)
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for weight, data in zip(model.graph.initializer, "aaab", strict=True):
        onnx.external_data_helper.set_external_data(weight, data)
        weight.ClearField("raw_data")
    onnx.save_model(model, tmp_path / "g.onnx")
    said = [f.sentence for f in custom_ops.onnx.doctor(tmp_path / "g.onnx").findings]
    rule = "external data must be a file, got none at"
    assert said == [f"tensor 'w0': {rule} 'a' (and that of 2 more)", f"tensor 'w3': {rule} 'b'"]


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(parsed("y = Relu(x)"), path)
    assert call(str(path))[:2] == (0, f"{path} for {custom_ops.onnx.target()}: nothing\n")
    onnx.save(parsed("y = Relu(x)", 12), path)
    code, out, _ = call(str(path), "--target", "onnxruntime==1.20")
    assert code == 1
    for word in ("ir-version", "3 to 10", "set_ir_version(model, 10)", "(fixable)"):
        assert word in out.replace("\n", " ")
    code, out, _ = call(str(path), "--target", "onnxruntime==1.20", "--json")
    assert code == 1
    assert json.loads(out) == custom_ops.onnx.doctor(path, "onnxruntime==1.20").as_dict()


def test_the_command_on_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"junk")
    code, out, sentence = call(str(tmp_path / "m.onnx"))
    assert (code, out) == (2, "")
    assert "must hold an ONNX model" in sentence
    onnx.save(parsed("y = Relu(x)"), tmp_path / "m.onnx")
    code, out, sentence = call(str(tmp_path / "m.onnx"), "--target", "other==1")
    assert (code, out) == (2, "")
    assert sentence.startswith("target: name must be a release like 'onnxruntime==1.20'")


def sessions(model: onnx.ModelProto | Path, **options: Any) -> list[tuple[str, str]]:
    report = custom_ops.onnx.doctor(model, run=True, **options)
    return [(str(f.severity), str(f)) for f in report.findings if f.code == "session"]


def test_a_session_is_opened_where_asked(tmp_path: Path) -> None:
    assert sessions(parsed("y = Relu(x)")) == []
    unknown = parsed("y = mine.Op(x)", imports='"": 18, "mine": 1')
    ((severity, text),) = sessions(unknown)
    assert severity == "error"
    assert "mine:Op(-1) is not a registered function/op; register the library" in text
    onnx.save(unknown, tmp_path / "m.onnxtxt")  # which onnxruntime does not read itself
    assert sessions(tmp_path / "m.onnxtxt") == [(severity, text)]
    ours = parsed("y = custom_ops.MulAdd(x, x)", imports='"": 18, "custom_ops": 1')
    assert "not a registered" in sessions(ours)[0][1]
    assert sessions(ours, libraries=[custom_ops.get_library_path()]) == []
    ((severity, text),) = sessions(ours, libraries=[tmp_path / "none.so"])
    assert severity == "error"
    assert "none.so: the library must register" in text


NEWER = """
struct Base { const void *(*get)(unsigned); const char *(*version)(void); };
void *RegisterCustomOps(void *options, const struct Base *base) {
    const volatile int *api = base->get(VERSION);
    int first = *api;  // null for a version that there is not
    return (void *)(long)(first * 0);
}
"""


def test_a_library_for_a_newer_api(tmp_path: Path) -> None:
    library = compiled(NEWER.replace("VERSION", "1000"))
    library(tmp_path)
    model, path = parsed("y = Relu(x)"), tmp_path / "lib.so"
    ((severity, text),) = sessions(model, libraries=[path])
    assert severity == "error"
    assert "the library must register in onnxruntime==" in text
    assert "requested API version [1000] is not available" in text
    assert text.endswith("deploy a newer onnxruntime, or build the library for this one")
    library = compiled(NEWER.replace("VERSION", "16"))
    library(tmp_path)
    assert sessions(model, libraries=[path]) == []


def test_a_library_for_a_newer_libc(tmp_path: Path) -> None:
    compiled(WITH_LIBC, edit=lambda data: data.replace(b"GLIBC_2.", b"GLIBC_9."))(tmp_path)
    path = tmp_path / "lib.so"
    (found,) = custom_ops.onnx.doctor(parsed("y = Relu(x)"), libraries=[path]).findings
    assert re.search(
        r"must find GLIBC_9\.[\d.]+ in libc\S*, got a libc\S* that has", found.sentence
    )
    assert "GLIBC_2." in found.sentence


def test_a_session_is_opened_in_the_installed_release_alone() -> None:
    ((severity, text),) = sessions(parsed("y = Relu(x)"), target="onnxruntime==1.17")
    assert severity == "note"
    assert "onnxruntime==1.17 must be installed to open a session" in text


def test_a_session_that_hangs_or_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(trial, "_CHILD", child)
    child.write_text("import time; time.sleep(60)")
    subject = Subject(read(parsed("y = Relu(x)")), custom_ops.onnx.target())
    (found,) = trial.trial(subject, set(), seconds=0.2)
    assert "must open within 0.2 s, got no end" in found.sentence
    child.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (found,) = trial.trial(subject, set())
    assert "an end of the process (-11)" in found.sentence
    (found,) = trial.trial(subject, {"external-outside"})
    assert str(found.severity) == "note"
    assert "must be safe to open, got external-outside" in found.sentence


def test_sentences_of_onnxruntime_are_shortened() -> None:
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /a/b.onnx failed:"
        "/onnxruntime_src/onnxruntime/core/graph/model.cc:180 onnxruntime::Model::Model(const "
        "onnxruntime::PathString&, bool) Unsupported model IR version: 12"
    )
    assert trial.shortened(said) == "Unsupported model IR version: 12"
    assert len(trial.shortened("word " * 1000)) == 300
