"""What importing the package does and offers."""

import subprocess
import sys

import pytest

import custom_ops


def test_import_is_light() -> None:
    code = (
        "import sys, custom_ops\n"
        "heavy = {'onnx', 'onnxruntime', 'onnxscript', 'onnx_ir', 'onnxruntime_extensions'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "custom_ops.onnx\n"
        "print(sorted({'onnx', 'onnxruntime'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["[]", "['onnx', 'onnxruntime']"]


def test_public_names_exist_and_look_public() -> None:
    for module in (custom_ops, custom_ops.onnx):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        for name in module.__all__:
            assert not name.startswith("_")
            assert hasattr(module, name), name


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        custom_ops.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="has no op 'nothing'"):
        custom_ops.numpy.nothing  # noqa: B018


def test_numpy_threads() -> None:
    before = custom_ops.numpy.get_num_threads()
    try:
        custom_ops.numpy.set_num_threads(3)
        assert custom_ops.numpy.get_num_threads() == 3
    finally:
        custom_ops.numpy.set_num_threads(before)
    with pytest.raises(ValueError, match="set_num_threads: threads must be at least 1, got 0"):
        custom_ops.numpy.set_num_threads(0)
