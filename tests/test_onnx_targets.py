"""Releases of ONNX Runtime by name, and what they refuse."""

import warnings

import pytest

import custom_ops
from custom_ops.onnx import RELEASES, target


def test_installed_release_is_the_default() -> None:
    import onnxruntime

    assert onnxruntime.__version__.startswith(target().release + ".")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("onnxruntime==1.20", "1.20"),
        ("onnxruntime==1.20.1", "1.20"),
        ("onnxruntime == 1.17.3", "1.17"),
    ],
)
def test_names(name: str, release: str) -> None:
    found = target(name)
    assert (found.release, found.opset, found.ir_version) == (release, *RELEASES[release])


def test_newer_than_the_table_is_warned_about() -> None:
    newest = list(RELEASES)[-1]
    with pytest.warns(UserWarning, match=f"onnxruntime must be {newest} or earlier, .*, got 99.0"):
        assert target("onnxruntime==99.0").release == newest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert target(f"onnxruntime=={newest}.7").release == newest


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime>=1.20", "tensorrt==10.0", "1.20", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"target: name must be a release like 'onnxruntime==1.20'"
    ):
        target(name)


def test_old_releases_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"target: onnxruntime must be 1.17 or later, got 1.16.3; "
    ):
        target("onnxruntime==1.16.3")


def test_releases_only_ever_take_more() -> None:
    rows = list(RELEASES.values())
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    ("release", "opset", "dtype", "reason"),
    [
        ("1.32", 20, "float32", None),
        ("1.25", 19, "float64", None),
        ("1.25", 22, "float16", None),
        ("1.24", 20, "float32", "a CPU kernel for DeformConv from 1.25 on, got 1.24"),
        ("1.32", 18, "float32", "DeformConv needs opset 19, got 18"),
        ("1.32", 22, "bfloat16", "onnxruntime 1.32 has no CPU kernel for DeformConv in bfloat16"),
    ],
)
def test_why_not_native(release: str, opset: int, dtype: str, reason: str | None) -> None:
    found = custom_ops.onnx.target(f"onnxruntime=={release}").why_not_native(
        "DeformConv", opset, dtype
    )
    assert (found is None) if reason is None else (reason in str(found))
