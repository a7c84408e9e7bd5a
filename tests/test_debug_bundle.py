"""Tests of bundles: each reproduces its fault in a process that knows nothing of it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from test_debug_compare import Net, born_nan, other_attribute, scaled, transposed

import custom_ops.debug
from custom_ops.debug import Comparison

FAULTS = {each.__name__: each for each in (scaled, other_attribute, transposed, born_nan)}


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 9, 10)
    path = tmp_path_factory.mktemp("net") / "secret_name.onnx"
    custom_ops.onnx.export(net, x, path, verify=False)
    found = {}
    for name, fault in FAULTS.items():
        model = onnx.load(path)
        fault(model)
        found[name] = custom_ops.debug.compare(net, model, x)
    return found


def reproduced(bundle: Path, folder: Path, *, without: str = "") -> tuple[int, str]:
    with zipfile.ZipFile(bundle) as file:
        file.extractall(folder)
    hide = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    code = f"{hide}import runpy; runpy.run_path('reproduce.py')"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_reproduces(
    fault: str, comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons[fault].bundle(tmp_path / "fault.zip")
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "there")
    assert code == 1
    assert "torch gives the expected numbers again, within 0" in text
    code, text = reproduced(tmp_path / "fault.zip", tmp_path / "bare", without="torch")
    assert code == 1
    assert "torch is not installed" in text


def test_a_bundle_of_what_is_mended_says_so(
    comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons["other_attribute"].bundle(tmp_path / "fault.zip")
    reproduced(tmp_path / "fault.zip", tmp_path / "there")
    model = onnx.load(tmp_path / "there" / "model.onnx")
    model.graph.node[0].attribute[0].f = 0.5
    onnx.save(model, tmp_path / "there" / "model.onnx")
    run = subprocess.run([sys.executable, "reproduce.py"], cwd=tmp_path / "there", timeout=120)
    assert run.returncode == 0


@pytest.mark.parametrize("fault", ["scaled", "transposed", "born_nan"])
def test_scrambled_weights_keep_the_fault(
    fault: str, comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    found = comparisons[fault]
    found.bundle(tmp_path / "fault.zip", scramble=True)
    assert reproduced(tmp_path / "fault.zip", tmp_path / "there")[0] == 1
    assert found.first_fault is not None
    before = found.evidence[found.first_fault.name].model.graph.initializer
    after = onnx.load(tmp_path / "there" / "model.onnx").graph.initializer
    large = [(a, b) for a, b in zip(before, after, strict=True) if np.prod(a.dims) > 8]
    assert large
    for one, other in large:
        ours, theirs = numpy_helper.to_array(one), numpy_helper.to_array(other)
        assert not np.allclose(ours, theirs)


def test_nothing_of_the_machine_is_inside(
    comparisons: dict[str, Comparison], tmp_path: Path
) -> None:
    comparisons["scaled"].bundle(tmp_path / "fault.zip")
    with zipfile.ZipFile(tmp_path / "fault.zip") as file:
        everything = b"".join(file.read(name) for name in file.namelist())
        facts = json.loads(file.read("fault.json"))
    for secret in (str(Path.home()), str(Path(__file__).parent), "secret_name", "test_debug"):
        assert secret.encode() not in everything
    assert facts["difference"].startswith("input 1, ")
    assert set(facts["versions"]) == {"torch", "onnx", "onnxruntime"}


def test_wrong_arguments(comparisons: dict[str, Comparison], tmp_path: Path) -> None:
    found = comparisons["scaled"]
    with pytest.raises(ValueError, match=r"^bundle: fault must be one of the faults, got 7; they"):
        found.bundle(tmp_path / "fault.zip", 7)
    found.bundle(tmp_path / "fault.zip")
    with pytest.raises(FileExistsError, match=r"^bundle: path must be a new file, got "):
        found.bundle(tmp_path / "fault.zip")
    found.bundle(tmp_path / "fault.zip", force=True)
