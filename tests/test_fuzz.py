"""A few hundred broken models through every tool; `tools/fuzz.py` takes thousands."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import fuzz
import onnx
import pytest
from models_to_break import seeds
from test_cli import call

import custom_ops.onnx

COUNT = 200


def faults(events: list[fuzz.Fault | int]) -> list[fuzz.Fault]:
    return [event for event in events if isinstance(event, fuzz.Fault)]


def test_no_tool_does_what_it_must_not_do() -> None:
    events = list(fuzz.fuzz(range(COUNT), seed=1, tools=[*fuzz.TOOLS], seconds=fuzz.SECONDS))
    assert faults(events) == []
    assert sorted(event for event in events if isinstance(event, int)) == list(range(COUNT))


def test_what_is_broken_is_sound_at_first(tmp_path: Path) -> None:
    for model in seeds():
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        (tmp_path / fuzz.DATA).write_bytes(bytes(64))
        onnx.checker.check_model(str(path))
        for tool in ("inspect", "doctor"):
            fuzz.TOOLS[tool](path, tmp_path / f"{tool}{time.monotonic()}")


def _outside(model: Path) -> Path:
    return model.parent.parent / "outside"


def _abort(model: Path, output: Path) -> None:
    os.abort()


def _hang(model: Path, output: Path) -> None:
    os.open(_outside(model), os.O_RDONLY)  # as C++ would: Python's own open is seen


def _write(model: Path, output: Path) -> None:
    output.write_text("half")
    raise ValueError("no")


def _leave(model: Path, output: Path) -> None:
    output.with_name(".result.part").write_text("half")


def _change(model: Path, output: Path) -> None:
    model.write_bytes(b"")


def _open(model: Path, output: Path) -> None:
    Path("/etc/hostname").read_bytes()


def _lines(model: Path, output: Path) -> None:
    raise ValueError("one\ntwo")


def _other(model: Path, output: Path) -> None:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a ValueError, but none of ours")


@pytest.mark.parametrize(
    ("tool", "what"),
    [
        (_abort, "ended the process with -6"),
        (_hang, "took longer than 2 s"),
        (_write, "refused the model, but wrote ['result']"),
        (_leave, "left ['.result.part']"),
        (_change, "changed the folder of the model"),
        (_open, "opened '/etc/hostname'"),
        (_lines, "did not say one sentence"),
        (_other, "UnicodeDecodeError"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_tool_must_not_do_is_found(
    tool: Callable[[Path, Path], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fuzz.TOOLS, "bad", tool)
    found = faults(list(fuzz.fuzz([1, 3], seed=0, tools=["bad"], seconds=2.0)))
    assert [(fault.case, fault.tool) for fault in found] == [(1, "bad"), (3, "bad")]
    assert all(what in fault.what for fault in found)


def test_a_tool_that_takes_what_is_no_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.TOOLS, "bad", lambda model, output: None)
    monkeypatch.setattr(fuzz.Fuzzer, "model_of", lambda self, case: b"junk")
    (found,) = faults(list(fuzz.fuzz([0], seed=0, tools=["bad"], seconds=9.0)))
    assert found.what.startswith("took what is no model")


@pytest.mark.parametrize("content", [b"", b"junk", bytes(100), seeds()[0].SerializeToString()[:99]])
@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "{model}", "--graph"),
        ("doctor", "{model}"),
        ("fix", "{model}", "--output", "{output}"),
        ("extract", "{model}", "{output}", "--outputs", "y"),
        ("convert", "{model}", "--output", "{output}"),
    ],
    ids=lambda command: command[0],
)
def test_commands_on_junk(command: tuple[str, ...], content: bytes, tmp_path: Path) -> None:
    model, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    model.write_bytes(content)
    outcome = call(*(each.format(model=model, output=output) for each in command))
    assert (outcome.code, outcome.out) == (2, "")
    assert "must hold an ONNX model" in outcome.sentence
    assert "Traceback" not in outcome.err
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("twice", [False, True], ids=["onnx's own", "ours"])
def test_a_name_with_two_lines_makes_one_sentence(twice: bool) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float s) => (uint8[2] y) {
            y = QuantizeLinear (x, s) }"""
    )
    node = model.graph.node[0]
    node.name = "a\nb"
    del node.output[:]
    if twice:
        node.output.append("a\nb")
        model.graph.output[0].name = "a\nb"
        model.graph.node.append(node)
    with pytest.raises(ValueError, match=r"a b|a\\nb") as refused:
        custom_ops.onnx.replace(model, "decomposed")
    assert "\n" not in str(refused.value)
    assert "\n" not in "".join(map(str, custom_ops.onnx.doctor(model).findings))


def test_weights_of_no_element_type_are_refused(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y)
            <float[2] w = {1, 2}, float[1] unused = {0}, string[1] s = {"text"}> {
            y = Add (x, w) }"""
    )
    custom_ops.onnx.replace(model, "decomposed", verify=False).save(tmp_path / "sound.onnx")
    model.graph.initializer[1].data_type = 0
    with pytest.raises(ValueError, match="tensor 'unused' must have an element type that ONNX"):
        custom_ops.onnx.replace(model, "decomposed", verify=False)
