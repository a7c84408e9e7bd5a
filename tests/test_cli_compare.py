"""Tests of `custom-ops compare`."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_cli import call
from test_debug_compare import scaled

import custom_ops.onnx

NET = """
import torch

def net():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    return module, torch.ones(1, 3, 5, 5)

def bare():
    return net()[0]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    names: dict[str, object] = {}
    exec(NET, names)
    module, x = names["net"]()  # type: ignore[operator]
    custom_ops.onnx.export(module.eval(), x, "right.onnx", verify=False)
    model = onnx.load("right.onnx")
    scaled(model)
    onnx.save(model, "wrong.onnx")
    np.savez("inputs.npz", input=np.full((1, 3, 5, 5), 2, np.float32))
    return tmp_path


def test_a_right_model(folder: Path) -> None:
    outcome = call("compare", "net.py:net", "right.onnx")
    assert outcome.code == 0
    assert "no fault" in outcome.out


def test_a_wrong_model(folder: Path) -> None:
    outcome = call("compare", "net.py:net", "wrong.onnx", "--bundle", "fault.zip")
    assert outcome.code == 1
    assert "node_conv2d" in outcome.out
    assert "fault.zip reproduces the first fault" in outcome.err
    assert "reproduce.py" in zipfile.ZipFile("fault.zip").namelist()
    again = call("compare", "net.py:net", "wrong.onnx", "--bundle", "fault.zip")
    assert again.code == 1
    assert "bundle: path must be a new file" in again.err
    assert call("compare", "net.py:net", "wrong.onnx", "--bundle", "fault.zip", "--force").code == 1


def test_page(folder: Path) -> None:
    outcome = call("compare", "net.py:net", "wrong.onnx", "--html", "page.html")
    assert outcome.code == 1
    assert "node_conv2d" in Path("page.html").read_text("utf-8")
    outcome = call("compare", "net.py:net", "wrong.onnx", "--html", "page.html")
    assert "page.html" in outcome.err.splitlines()[-1]
    assert call("compare", "net.py:net", "right.onnx", "--html", "page.html", "--force").code == 0


def test_json(folder: Path) -> None:
    outcome = call("compare", "net.py:net", "wrong.onnx", "--json")
    assert outcome.code == 1
    assert [fault["op_type"] for fault in json.loads(outcome.out)["faults"]] == ["Conv"]


@pytest.mark.parametrize("inputs", [(), ("--inputs", "inputs.npz")])
def test_two_files(inputs: tuple[str, ...], folder: Path) -> None:
    assert call("compare", "right.onnx", "right.onnx", *inputs).code == 0
    assert call("compare", "right.onnx", "wrong.onnx", *inputs).code == 1


def test_inputs_of_a_file(folder: Path) -> None:
    assert call("compare", "net.py:bare", "right.onnx", "--inputs", "inputs.npz").code == 0
    assert call("compare", "net.py:bare", "right.onnx", "--args", "1x3x5x5").code == 0


def test_tolerance(folder: Path) -> None:
    assert call("compare", "net.py:net", "wrong.onnx", "--tolerance", "1").code == 0


def test_wrong_usage(folder: Path) -> None:
    for arguments, sentence in (
        (("nothing", "right.onnx"), "REFERENCE must be MODULE:FACTORY or an ONNX file, got"),
        (("net.py:bare", "right.onnx"), "--args must be given"),
        (("net.py:net", "right.onnx", "--inputs", "net.py"), "--inputs must be a .npz file"),
        (("right.onnx", "right.onnx", "--args", "1x3"), "--args must be for a torch module"),
        (("net.py:net", "net.py"), "must hold an ONNX model"),
    ):
        outcome = call("compare", *arguments)
        assert outcome.code == 2, arguments
        assert sentence in outcome.err
        assert outcome.err.count("\n") < 6
    outcome = call("compare", "net.py:net", "right.onnx", "--args", "1x3x9x9")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("compare: model must run on args, got ")
    assert "pass inputs of the sizes and dtypes that it was exported with" in outcome.err
