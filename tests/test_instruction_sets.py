"""The kernels of every instruction set that the machine has, against each other and torchvision."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_instruction_set import AWKWARD, DTYPES, awkward, calls, computed, to_dtype

from custom_ops import _library
from custom_ops.ops._registry import ops

TESTS = Path(__file__).parent
SETS = list(_library.core().instruction_sets())
Results = dict[str, np.ndarray[Any, Any]]

# Under pytest-xdist one worker runs these: the results of a set are computed once.
pytestmark = pytest.mark.xdist_group("instruction_sets")


def run(*arguments: str, instruction_set: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with an instruction set."""
    environment = {
        "CUSTOM_OPS_ISA": instruction_set,
        "OMP_WAIT_POLICY": "passive",  # more threads than cores must not wait for each other busily
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def results_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """Gives what tests/in_instruction_set.py computes with an instruction set."""
    known: dict[str, Results] = {}

    def results(instruction_set: str) -> Results:
        if instruction_set not in known:
            path = tmp_path_factory.mktemp("results") / "results.npz"
            script = TESTS / "in_instruction_set.py"
            run(str(script), str(path), instruction_set=instruction_set)
            with np.load(path) as file:
                known[instruction_set] = dict(file)
            path.unlink()  # pytest keeps the folder
            assert known[instruction_set]["in_use"].item() == instruction_set
        return known[instruction_set]

    return results


@pytest.fixture(scope="module")
def torchvision() -> Any:
    return pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))


def check(
    name: str, dtype: str, actual: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]
) -> None:
    """Asserts that a result lies within the op's tolerance, where the largest value counts 1.

    Sums over many pixels and channels are as exact as their largest terms.
    """
    tolerance = ops()[name].tolerances[dtype]
    finite = np.isfinite(wanted)
    largest = max(1.0, float(np.abs(wanted[finite]).max(initial=0.0)))
    np.testing.assert_allclose(
        actual / largest, wanted / largest, rtol=tolerance.rtol, atol=tolerance.atol
    )


CALLS = {name: op.name for name, op, _ in calls()}
each_set = pytest.mark.parametrize("instruction_set", SETS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("instruction_set", SETS[1:])
@pytest.mark.parametrize("call", CALLS)
def test_computes_what_the_baseline_does(
    call: str, instruction_set: str, dtype: str, results_of: Callable[[str], Results]
) -> None:
    prefix = f"{call}/{dtype}/"
    ours, baseline = results_of(instruction_set), results_of(SETS[0])
    keys = [key for key in baseline if key.startswith(prefix)]
    assert len(keys) >= 2
    for key in keys:
        check(CALLS[call], dtype, ours[key], baseline[key])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "lost_offsets"])
def test_computes_what_torchvision_does(
    name: str, dtype: str, results_of: Callable[[str], Results], torchvision: Any
) -> None:
    """The output and all five gradients."""

    def function(
        input: torch.Tensor,
        offset: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        taps = offset.shape[1] // 2
        bias = None if bias is None else bias.expand(weight.shape[0])
        if mask is not None:
            mask = mask.expand(offset.shape[0], taps, *offset.shape[2:])
        output: torch.Tensor = torchvision.ops.deform_conv2d(
            input, offset, weight, bias, mask=mask, **options
        )
        return output

    wanted = computed(function, to_dtype(awkward(name), DTYPES[dtype]))
    for instruction_set in SETS:
        results = results_of(instruction_set)
        for i, tensor in enumerate(wanted):
            check("deform_conv2d", dtype, results[f"awkward-{name}/{dtype}/{i}"], tensor.numpy())


@each_set
def test_bits_do_not_depend_on_threads(
    instruction_set: str, results_of: Callable[[str], Results]
) -> None:
    assert not results_of(instruction_set)["unequal"].size


WRONG = """
import numpy as np, torch
import custom_ops
from custom_ops.onnx._single_node import single_node
from custom_ops.onnx._verify import to_array
from custom_ops.ops._registry import ops

for op in ops().values():
    sample = next(iter(op.samples(torch.Generator().manual_seed(0))))
    arrays = sample.map(to_array)
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs))
    for call in (
        lambda: op.public(*sample.args, **sample.kwargs),
        lambda: getattr(custom_ops.numpy, op.name)(*arrays.args, **arrays.kwargs),
        lambda: custom_ops.onnx.session(model).run(None, feeds),
    ):
        try:
            call()
        except Exception as error:
            print(error)
"""


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx2 ", "0"])
def test_another_name_is_refused_with_the_same_sentence(name: str) -> None:
    lines = run("-c", WRONG, instruction_set=name).stdout.splitlines()
    assert len(lines) == 3 * len(ops())
    sentence = (
        "custom_ops: CUSTOM_OPS_ISA must be one that this machine has "
        f"({', '.join(SETS)}), got {name}; unset it to get the fastest"
    )
    in_onnxruntime = rf"\[ONNXRuntimeError\] .* Status Message: {re.escape(sentence)}"
    for i, line in enumerate(lines):
        assert line == sentence if i % 3 < 2 else re.fullmatch(in_onnxruntime, line)


def test_an_empty_name_is_none() -> None:
    code = "from custom_ops import _library; print(_library.core().instruction_set())"
    assert run("-c", code, instruction_set="").stdout.strip() == SETS[-1]


@each_set
def test_the_peak_is_measured(instruction_set: str) -> None:
    code = "from custom_ops import _library; print(_library.core().measure_fma_peak(0.01))"
    assert float(run("-c", code, instruction_set=instruction_set).stdout) > 1e8


@pytest.mark.parametrize("seconds", [0.0, -1.0, 61.0, float("nan")])
def test_the_peak_is_measured_for_a_minute_at_most(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0 and at most 60, got"):
        _library.core().measure_fma_peak(seconds)
