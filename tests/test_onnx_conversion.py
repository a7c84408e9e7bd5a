"""The conversion question: answers from trials, from the coverage table, and "not known"."""

import json
import lzma
from pathlib import Path

import pytest
import torch
from torch import Tensor

from custom_ops.cli import execute
from custom_ops.onnx import _child, convertible, register_mapping
from custom_ops.onnx._doctor import conversion

pytestmark = pytest.mark.usefixtures("quiet")


def statuses(answer: conversion.Conversion) -> dict[tuple[str, bool], str]:
    return {(trial.exporter, trial.mapped): trial.status for trial in answer.trials}


def test_an_op_from_a_trial() -> None:
    """The TorchScript exporter has no asinh; whether the mappings add it is theirs to say."""
    answer = convertible("aten::asinh", (torch.rand(3, 4),))
    found = statuses(answer)
    assert found["dynamo", False] == found["dynamo", True] == "right"
    assert found["torchscript", False] == "fails"
    assert answer
    assert answer.in_torch
    assert answer.in_onnx == "Asinh from opset 9 on"
    assert answer.arguments == "[3, 4]"
    assert "'aten::asinh' to ONNX opset version 20 is not supported" in str(answer)
    assert json.dumps(answer.as_dict())


def test_an_op_that_torch_does_not_have() -> None:
    answer = convertible("aten::asihn")
    assert not answer
    assert not answer.in_torch
    assert "did you mean" in answer.remedy
    with pytest.raises(ValueError, match="subject must be a module or an op like 'aten::asinh'"):
        convertible("asinh")


@pytest.mark.parametrize("args", [(torch.rand(3, 4),), (torch.rand(3, 4), 5)])
def test_arguments_that_an_op_does_not_take(args: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"those of aten::logcumsumexp\(Tensor self, int dim\)"):
        convertible("aten::logcumsumexp", args)


class Hyperbolic(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.asinh(x) + 1


def test_a_module_with_a_mapping_of_the_user() -> None:
    with register_mapping("aten::asinh", lambda op, x: op.Asinh(x), exporter="torchscript"):
        found = statuses(convertible(Hyperbolic().eval(), (torch.rand(3),)))
    assert found["torchscript", False] == "fails"
    assert found["torchscript", True] == "right"
    with pytest.raises(ValueError, match="args must be given for a module"):
        convertible(Hyperbolic())


def test_a_mapping_that_is_wrong_and_one_that_does_not_run() -> None:
    for function, status in (
        (lambda op, x: op.Neg(x), "wrong"),
        (lambda op, x: op.custom("mine::Nothing", x), "refused"),
    ):
        with register_mapping("aten::asinh", function):
            found = statuses(convertible(Hyperbolic().eval(), (torch.rand(3),)))
        assert found["dynamo", True] == found["torchscript", True] == status


def test_the_coverage_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_tried", lambda *args: ([], ""))
    table = tmp_path / "coverage.json.xz"
    monkeypatch.setattr(conversion, "_COVERAGE", table)
    assert set(statuses(convertible("aten::i0")).values()) == {"not known"}
    version = torch.__version__.partition("+")[0]
    row = ["i0", "aten::i0", "[5]", *([["fails", "no i0"]] * 3), ["right", ""]]
    for of, status in ((version, "right"), ("1.0", "not known")):
        table.write_bytes(lzma.compress(json.dumps({"torch": of, "rows": [row]}).encode()))
        assert statuses(convertible("aten::i0"))["torchscript", True] == status
    table.write_bytes(lzma.compress(json.dumps({"torch": version, "rows": [row]}).encode()))
    assert f"no i0 (coverage table of torch {version})" in str(convertible("aten::i0"))


def test_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_child.sys, "executable", "/bin/false")
    assert set(statuses(convertible("aten::i0")).values()) == {"crashes"}


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hyperbolic.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.asinh(x)\n"
        "def make():\n"
        "    return Net().eval(), (torch.rand(3),)\n"
    )
    assert execute(["doctor", "--model", "hyperbolic.py:make", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    assert [t["exporter"] for t in answer["trials"]] == ["dynamo"] * 2 + ["torchscript"] * 2
    assert execute(["doctor", "--torch", "aten::asihn"]) == 1
    assert "did you mean" in capsys.readouterr().out
    assert execute(["doctor"]) == 2
    assert execute(["doctor", "--torch", "asinh"]) == 2
    assert "one of MODEL, --torch and --model" in capsys.readouterr().err
