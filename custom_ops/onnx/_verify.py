"""Compares an exported model with the torch module that it came from."""

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from torch.utils import _pytree as pytree

from custom_ops._errors import first_line
from custom_ops.onnx._inputs import Call, input_names
from custom_ops.onnx._reading import ModelLike
from custom_ops.onnx._session import session
from custom_ops.onnx._unchanged import unchanged
from custom_ops.ops._samples import TOLERANCES, Tolerance

_BFLOAT16 = "tensor(bfloat16)"


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        sizes: The shapes of the inputs.
        difference: The largest absolute difference of any output; None where torch refused.
        passed: Whether every output is within its tolerance.
        note: Why it was not compared, or what differs.
    """

    sizes: str
    difference: float | None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.sizes}: not checked, {self.note}"
        verdict = "equal" if self.passed else f"DIFFERS, {self.note}"
        if math.isnan(self.difference):  # nothing could be compared
            return f"{self.sizes}: {verdict}"
        return f"{self.sizes}: {verdict} (largest difference {self.difference:.3g})"


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify`; true where every comparison passed."""

    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks) and any(
            check.difference is not None for check in self.checks
        )

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)


def verify(
    model: ModelLike,
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    more_args: Sequence[Sequence[Any]] = (),
    tolerances: Mapping[str, Tolerance] | None = None,
    kernels: str = "native",
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> Verification:
    """Runs a model in ONNX Runtime and the module in torch, and compares the outputs.

    Args:
        model: Path, bytes or ModelProto; its inputs are the tensors of the arguments: by the names
            of the parameters of forward, or in order where it has others.
        module: The torch module.
        args: Its inputs.
        kwargs: Its keyword inputs, in the order of the model's further inputs.
        more_args: Further inputs, of other sizes; where there are `kwargs`, pairs of both. Sizes
            that the module refuses count as not checked.
        tolerances: By dtype of the output; `custom_ops.ops._samples.TOLERANCES` if left out.
        kernels: Who runs our nodes; see `session`.
        libraries: Files of further libraries of custom ops that the model needs.

    Returns:
        A `Verification`: true where all is equal, and printed as one line for each size.

    Example:
        >>> import torch, custom_ops
        >>> inputs, module = (torch.ones(2), torch.ones(2)), custom_ops.MulAdd().eval()
        >>> path = getfixture("tmp_path") / "mul_add.onnx"
        >>> _ = custom_ops.onnx.export(module, inputs, path)
        >>> bool(custom_ops.onnx.verify(path, module, inputs))
        True
    """
    first = Call(tuple(args), dict(kwargs or {}))
    calls = [first, *further_calls(more_args, first)]
    names = input_names(module, first)
    wanted = expected(module, calls)
    return compare(model, calls, wanted, names, tolerances, kernels, libraries)


def further_calls(more_args: Sequence[Any], first: Call) -> list[Call]:
    """Returns further inputs as calls: tuples, or pairs with keyword inputs."""
    if first.kwargs:
        return [Call(tuple(args), dict(kwargs)) for args, kwargs in more_args]
    return [Call(tuple(args), {}) for args in more_args]


def expected(module: torch.nn.Module, calls: Sequence[Call]) -> list[list[torch.Tensor] | str]:
    """Returns the tensors that the module computes for each call, or why it refuses.

    Raises:
        Exception: What the module raises for the first call.
    """
    results: list[list[torch.Tensor] | str] = []
    for i, call in enumerate(calls):
        own = call.with_tensors([t.detach().clone() for t in call.tensors])
        try:
            with torch.no_grad(), unchanged(module):
                outputs = pytree.tree_leaves(module(*own.args, **own.kwargs))
                # One that is a buffer, or a view of it, is about to change.
                results.append([t.clone() for t in outputs if isinstance(t, torch.Tensor)])
        except Exception as error:  # the module may refuse a size that the model would take
            if i == 0:
                raise
            results.append(f"torch refuses it: {first_line(error)}")
    return results


def compare(
    model: ModelLike,
    calls: Sequence[Call],
    wanted: Sequence[list[torch.Tensor] | str],
    names: Sequence[str],
    tolerances: Mapping[str, Tolerance] | None = None,
    kernels: str = "native",
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> Verification:
    """Runs a model on the tensors of each call, and compares the outputs with those wanted.

    Args:
        model: Path, bytes or ModelProto.
        calls: The inputs.
        wanted: For each call the outputs, or why there are none.
        names: Names of the tensors of a call.
        tolerances: By dtype of the output.
        kernels: Who runs our nodes.
        libraries: Files of further libraries of custom ops.
    """
    options = onnxruntime.SessionOptions()
    for library in libraries:
        options.register_custom_ops_library(os.fspath(library))
    runner = session(model, kernels=kernels, sess_options=options)
    own = [given.name for given in runner.get_inputs()]
    checks = []
    for call, outputs in zip(calls, wanted, strict=True):
        if isinstance(outputs, str):
            checks.append(Check(call.sizes, None, True, outputs))
            continue
        arrays = feeds("verify", own, names, call)
        try:
            actual = run(runner, arrays)
        except Exception as error:
            note = f"the model raises: {first_line(error)}"
            checks.append(Check(call.sizes, float("nan"), False, note))
            continue
        checks.append(compare_arrays(call.sizes, outputs, actual, tolerances or TOLERANCES))
    return Verification(tuple(checks))


def feeds(
    tool: str, own: Sequence[str], names: Sequence[str], call: Call
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the tensors of a call as inputs of a model.

    Args:
        tool: Who asks, for the error.
        own: The inputs of the model.
        names: Names of the tensors, from the module. They count where the model has no other;
            else, where it has as many, the order does.
        call: The tensors.

    Raises:
        ValueError: The model has other inputs.
    """
    known = set(own) <= set(names)
    if not known and len(own) == len(names):
        names = own
    elif not known:
        raise ValueError(
            f"{tool}: model must have the inputs {', '.join(names)}, got {', '.join(own)}; "
            "pass the arguments that it was exported with"
        )
    pairs = zip(names, call.tensors, strict=True)
    return {name: to_array(tensor) for name, tensor in pairs if name in own}


def run(
    runner: onnxruntime.InferenceSession,
    feeds: Mapping[str, np.ndarray[Any, Any]],
    outputs: Sequence[str] | None = None,
) -> list[np.ndarray[Any, Any]]:
    """Runs a session on arrays; those of bfloat16, which `run` does not take, included.

    Args:
        runner: The session.
        feeds: Its inputs.
        outputs: Which outputs to return; all if left out.
    """
    if not any(v.type == _BFLOAT16 for v in (*runner.get_inputs(), *runner.get_outputs())):
        results: list[np.ndarray[Any, Any]] = runner.run(outputs, dict(feeds))
        return results
    values = {name: _to_value(array) for name, array in feeds.items()}
    return [_to_array(value) for value in runner.run_with_ort_values(outputs, values)]


def _to_value(array: np.ndarray[Any, Any]) -> onnxruntime.OrtValue:
    if array.dtype != ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        np.ascontiguousarray(array).view(np.uint16), onnx.TensorProto.BFLOAT16
    )


def _to_array(value: onnxruntime.OrtValue) -> np.ndarray[Any, Any]:
    if value.data_type() != _BFLOAT16:
        return value.numpy()  # type: ignore[no-any-return]
    shape = value.shape()
    raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return np.frombuffer(raw, dtype=ml_dtypes.bfloat16).reshape(shape)


def to_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Returns a tensor as the array that a session takes; bfloat16 is that of ml_dtypes."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def compare_arrays(
    sizes: str,
    expected: Sequence[torch.Tensor],
    actual: Sequence[Any],
    tolerances: Mapping[str, Tolerance] = TOLERANCES,
) -> Check:
    """Compares outputs of torch with those of a session, one by one.

    Args:
        sizes: The shapes of the inputs, for the result.
        expected: The outputs of torch.
        actual: Those that a session gave.
        tolerances: By dtype; of others equal is wanted.
    """
    if len(expected) != len(actual):
        note = f"the model has {len(actual)} outputs, the module {len(expected)}"
        return Check(sizes, float("nan"), False, note)
    largest, notes = 0.0, []
    for i, (want, got) in enumerate(zip(expected, actual, strict=True)):
        want_array = to_array(want)
        if want_array.shape != got.shape or want_array.dtype != got.dtype:
            notes.append(
                f"output {i} is {got.dtype}{list(got.shape)}, not "
                f"{want_array.dtype}{list(want_array.shape)}"
            )
            continue
        dtype = str(want.dtype).removeprefix("torch.")
        tolerance = tolerances.get(dtype, Tolerance(0.0, 0.0))
        wide_want, wide_got = want_array.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(wide_want) & np.isfinite(wide_got)
        difference = np.abs(np.where(finite, wide_want - wide_got, 0.0))
        same = (wide_want == wide_got) | (np.isnan(wide_want) & np.isnan(wide_got))
        # Rounding grows with the sums behind an element: the output's scale is its yardstick.
        scale = float(np.abs(wide_want[finite]).max(initial=0.0))
        allowed = tolerance.atol + tolerance.rtol * max(scale, 1.0)
        largest = max(largest, float(difference.max(initial=0.0)))
        if not bool(np.all(same | (finite & (difference <= allowed)))):
            notes.append(f"output {i} is off by {difference.max(initial=0.0):.3g}")
    return Check(sizes, largest, not notes, "; ".join(notes))
