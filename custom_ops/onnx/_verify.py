"""Compares an exported model with the torch module that it came from."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from custom_ops.onnx._model import ModelLike
from custom_ops.onnx._session import session
from custom_ops.ops._samples import TOLERANCES, Tolerance


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
) -> Verification:
    """Runs a model in ONNX Runtime and the module in torch, and compares the outputs.

    Args:
        model: Path, bytes or ModelProto; its inputs are those of the module, in order.
        module: The torch module.
        args: Its inputs.
        kwargs: Its keyword inputs, in the order of the model's further inputs.
        more_args: Further inputs, of other sizes. One that the module refuses counts as not
            checked.
        tolerances: By dtype of the output; `custom_ops.ops._samples.TOLERANCES` if left out.
        kernels: Who runs our nodes; see `session`.

    Returns:
        A `Verification`: true where all is equal, and printed as one line for each size.

    Example:
        >>> import torch, custom_ops
        >>> inputs = (torch.ones(2), torch.ones(2))
        >>> path = getfixture("tmp_path") / "mul_add.onnx"
        >>> _ = custom_ops.onnx.export(custom_ops.MulAdd(), inputs, path)
        >>> bool(custom_ops.onnx.verify(path, custom_ops.MulAdd(), inputs))
        True
    """
    runner = session(model, kernels=kernels)
    names = [given.name for given in runner.get_inputs()]
    checks = []
    for i, inputs in enumerate([args, *more_args]):
        keywords = dict(kwargs or {})
        flat = [*inputs, *keywords.values()]
        tensors = [t for t in _leaves(flat) if isinstance(t, torch.Tensor)]
        sizes = ", ".join(str(list(t.shape)) for t in tensors)
        try:
            with torch.no_grad():
                expected = _leaves(module(*copy.deepcopy(list(inputs)), **copy.deepcopy(keywords)))
        except Exception as error:  # the module may refuse a size that the model would take
            if i == 0:
                raise
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            checks.append(Check(sizes, None, True, f"torch refuses it: {first_line}"))
            continue
        feeds = {n: to_array(t) for n, t in zip(names, tensors, strict=True)}
        try:
            actual = runner.run(None, feeds)
        except Exception as error:
            first_line = str(error).splitlines()[0]
            checks.append(Check(sizes, float("nan"), False, f"the model raises: {first_line}"))
            continue
        outputs = [t for t in expected if isinstance(t, torch.Tensor)]
        checks.append(_compare(sizes, outputs, actual, tolerances or TOLERANCES))
    return Verification(tuple(checks))


def to_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Returns a tensor as the array that a session takes; bfloat16 is that of ml_dtypes."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _leaves(value: Any) -> list[Any]:
    return list(torch.utils._pytree.tree_leaves(value))


def _compare(
    sizes: str,
    expected: Sequence[torch.Tensor],
    actual: Sequence[Any],
    tolerances: Mapping[str, Tolerance],
) -> Check:
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
