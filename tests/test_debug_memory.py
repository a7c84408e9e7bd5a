"""A comparison within little memory: several runs, and arrays in files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import custom_ops.debug
import custom_ops.onnx
from custom_ops.debug import _runs
from custom_ops.debug._memory import Memory


def _in_file(array: np.ndarray[Any, Any]) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, torch.Tensor)  # which maps it


def _given(names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.full((10, 5), int(name), np.float32) for name in names}  # 200 bytes each


@contextlib.contextmanager
def _watched() -> Iterator[list[dict[str, np.ndarray[Any, Any]]]]:
    """Gives what each run of a comparison fetches."""
    fetched: list[dict[str, np.ndarray[Any, Any]]] = []
    fetch = _runs.fetch

    def watched(*args: Any) -> dict[str, np.ndarray[Any, Any]]:
        fetched.append(fetch(*args))
        return fetched[-1]

    with mock.patch.object(_runs, "fetch", watched):
        yield fetched


@pytest.mark.parametrize("expected", [None, 100 * 200, 10, 10**9])
def test_values_come_in_runs_that_fit(expected: int | None) -> None:
    runs: list[int] = []

    def run(names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        runs.append(len(names))
        return _given(names)

    names = [str(i) for i in range(100)]
    memory = Memory(10 * 400, expected)
    found = memory.gathered(names, run)
    assert list(found) == names
    assert all((found[name] == int(name)).all() for name in names)
    assert all(count <= 5 for count in runs[1:])
    held = [name for name in names if not _in_file(found[name])]
    assert 0 <= len(held) * 200 == memory.used <= 10 * 400


def test_text_and_what_has_no_elements_stay_as_they_are() -> None:
    given = {"a": np.array(["x", "y"], object), "b": np.zeros((0, 3), np.float16)}
    found = Memory(0).gathered(list(given), lambda names: {n: given[n] for n in names})
    assert found["a"].tolist() == ["x", "y"]
    assert (found["b"].shape, found["b"].dtype) == ((0, 3), np.float16)


def test_no_file_stays_open_and_none_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    found = Memory(0).gathered([str(i) for i in range(50)], _given)
    assert len(os.listdir("/dev/fd")) <= before
    assert all((found[name] == int(name)).all() and _in_file(found[name]) for name in found)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match=r"must have room .* got No space left on device; set TMP"):
        Memory(0).gathered(["1"], _given)


def test_a_comparison_in_little_memory_says_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU()) for _ in range(6)]
    module, x = torch.nn.Sequential(*layers).eval(), torch.randn(50, 16)
    path = tmp_path / "m.onnx"
    custom_ops.onnx.export(module, x, path, verify=False)
    layers[3][0].weight.data[0] *= 1.01  # type: ignore[operator, union-attr]
    plenty = custom_ops.debug.compare(module, path, x)
    with _watched() as fetched:
        little = custom_ops.debug.compare(module, path, x, memory=10_000)
    assert [each.name for each in little.faults] == [each.name for each in plenty.faults] != []
    for one, other in zip(little.values, plenty.values, strict=True):
        assert (one.name, one.introduced, one.limit) == (other.name, other.introduced, other.limit)
    assert sum(_in_file(array) for found in fetched for array in found.values()) > 10


def test_two_models_in_little_memory(tmp_path: Path) -> None:
    module, x = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU()), torch.randn(50, 16)
    path = tmp_path / "m.onnx"
    custom_ops.onnx.export(module.eval(), x, path, input_names=["x"], verify=False)
    with _watched() as fetched:
        assert custom_ops.debug.compare(path, path, {"x": x.numpy()}, memory=100)
    assert any(_in_file(array) for found in fetched for array in found.values())


def test_memory_is_a_number_of_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compare: memory must be a finite number, 0 or more"):
        custom_ops.debug.compare(torch.nn.ReLU(), tmp_path / "m.onnx", torch.ones(1), memory=-1)
