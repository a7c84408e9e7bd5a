"""What importing the package does and offers."""

import subprocess
import sys

import numpy
import pytest

import custom_ops
import custom_ops.debug


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
    for module in (custom_ops, custom_ops.onnx, custom_ops.debug):
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
    with pytest.raises(ValueError, match="threads must be at least 1 and at most 1024, got 0"):
        custom_ops.numpy.set_num_threads(0)


def test_a_fork_keeps_the_threads() -> None:
    """And a process that gets no more threads works with those that it has."""
    code = (
        "import multiprocessing, resource, numpy, custom_ops\n"
        "a = numpy.ones(1_000_000)\n"
        "custom_ops.numpy.set_num_threads(3)\n"
        "custom_ops.numpy.mul_add(a, a)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    print(pool.apply(custom_ops.numpy.get_num_threads))\n"
        "limit = resource.getrlimit(resource.RLIMIT_AS)[1]\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, limit))\n"
        "custom_ops.numpy.set_num_threads(1000)\n"
        "print(1 < custom_ops.numpy.get_num_threads() < 1000)\n"
        "print(custom_ops.numpy.mul_add(a[:9], a[:9]).sum())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["3", "True", "27.0"]


def test_inputs_of_the_wrong_number_are_refused() -> None:
    core = custom_ops._library.core()
    with pytest.raises(ValueError, match="mul_add: inputs must be 2, got 1"):
        custom_ops.numpy.compute("mul_add", [numpy.ones(3)], [2.0])
    with pytest.raises(ValueError, match="mul_add: inputs must be 2, got 1"):
        core.infer("mul_add", [(3,)], [2.0])
    with pytest.raises(ValueError, match="mul_add: b must be given, got None"):
        core.infer("mul_add", [(3,), None], [2.0])
    with pytest.raises(ValueError, match="mul_add: inputs must be 2, got 40"):
        core.output_dtypes("mul_add", ["float32"] * 40)


def test_byte_order_does_not_matter() -> None:
    a = numpy.arange(5, dtype=">f4")
    assert custom_ops.numpy.mul_add(a, a).tolist() == [0.0, 3.0, 6.0, 9.0, 12.0]
    (result,) = custom_ops._library.core().compute("mul_add", [a, a], [2.0])
    assert result.tolist() == [0.0, 3.0, 6.0, 9.0, 12.0]
