"""Exports a call through an exporter and runs it; as a script, a torch op, since some crash.

    python -m custom_ops.onnx._doctor.conversion_trial OP EXPORTER OPSET [FILE]

FILE has the arguments, as `torch.save` writes them; without it they are a sample of torch's own
tests of the op. Writes a line of JSON for the exporter alone and one for it with the mappings; of
arguments that the op does not take one line, which says why.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.utils import _pytree as pytree

from custom_ops._errors import first_line
from custom_ops.onnx._mappings import Traceable, install_mappings
from custom_ops.onnx._translation import translation_table

# Sums of float32 in another order differ in the last bits.
_RTOL, _ATOL = 1e-4, 1e-5


class Call(torch.nn.Module):
    """A call whose tensors are inputs, and whose other arguments are fixed."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        self.leaves, self.spec = pytree.tree_flatten((args, kwargs))
        self.places = [i for i, v in enumerate(self.leaves) if isinstance(v, torch.Tensor)]
        self.tensors = tuple(self.leaves[i].detach().clone() for i in self.places)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Returns the tensors among what the function returns."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        found = pytree.tree_leaves(self.function(*args, **kwargs))
        return tuple(each for each in found if isinstance(each, torch.Tensor))

    def __str__(self) -> str:
        """The arguments, tensors by their shapes."""
        shown = [list(v.shape) if isinstance(v, torch.Tensor) else v for v in self.leaves]
        return ", ".join(map(str, shown))


def attempt(
    module: torch.nn.Module, args: Any, exporter: str, opset: int, mapped: bool
) -> tuple[str, str]:
    """Exports a module with torch's exporter, runs the file, and compares.

    Args:
        module: In evaluation mode.
        args: Its inputs.
        exporter: "dynamo" or "torchscript".
        opset: The opset to write.
        mapped: Whether the exporter gets the mappings.

    Returns:
        The status ("right", "wrong", "refused" by onnxruntime, "fails" to export), and why.
    """
    with torch.no_grad():
        outputs = pytree.tree_leaves(module(*(_copied(args))))
    wanted = [_real(each) for each in outputs if isinstance(each, torch.Tensor)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        try:
            _export(module, args, path, exporter, opset, mapped)
        except Exception as error:  # the exporters raise of every class
            return "fails", _cause(error)
        try:
            found = _run(path, args)
        except Exception as error:
            return "refused", _cause(error)
    if len(found) != len(wanted):
        return "wrong", f"{len(found)} outputs instead of {len(wanted)}"
    for i, (value, right) in enumerate(zip(found, wanted, strict=True)):
        if value.shape != right.shape or value.dtype != right.dtype:
            got = f"{value.dtype}{list(value.shape)}"
            return "wrong", f"output {i} is {got} instead of {right.dtype}{list(right.shape)}"
        if not np.allclose(value, right, _RTOL, _ATOL, equal_nan=True):
            return "wrong", f"output {i} has other numbers"
    return "right", ""


def _copied(args: Any) -> Any:
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, args)


def _export(
    module: torch.nn.Module, args: Any, path: Path, exporter: str, opset: int, mapped: bool
) -> None:
    options: dict[str, Any] = {"opset_version": opset, "dynamo": exporter == "dynamo"}
    if exporter == "dynamo":
        options["verbose"] = False
        options["custom_translation_table"] = translation_table(opset) if mapped else None
    else:
        options["input_names"] = [f"input_{i}" for i in range(len(pytree.tree_leaves(args)))]
    with contextlib.ExitStack() as stack:
        if mapped:
            stack.enter_context(install_mappings() if exporter == "torchscript" else Traceable())
        stack.enter_context(torch.no_grad())
        stack.enter_context(_without_output())
        torch.onnx.export(module, tuple(args), str(path), **options)


def _run(path: Path, args: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = [_real(v) for v in pytree.tree_leaves(args) if isinstance(v, torch.Tensor)]
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(given):  # TorchScript leaves out what the result does not depend on
        given = [given[int(name.rpartition("_")[2])] for name in names]
    return list(session.run(None, dict(zip(names, given, strict=True))))


def _real(tensor: torch.Tensor) -> Any:
    """Returns an array; of complex numbers as pairs, the form that ONNX has for them."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return (torch.view_as_real(plain) if plain.is_complex() else plain).numpy()


def _cause(error: BaseException) -> str:
    """Returns the first line of what lies behind an exporter's long account."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"\x1b\[\d+m|\[ONNXRuntimeError\] : \d+ : ", "", lines[0] if lines else "")
    return text or type(error).__name__


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Hides what TorchScript prints of a graph that it cannot export."""
    sys.stdout.flush()
    kept = os.dup(1)
    hole = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(hole, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(hole)


def _sample(op: str) -> Call | None:
    """Returns a call of an op from torch's own tests."""
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError:  # they need a package that torch does not
        return None
    name = op.partition("::")[2].partition(".")[0]
    for info in op_db:
        names = (info.aten_name, info.name.replace(".", "_"), info.name.rpartition(".")[2])
        if name in names and torch.float32 in info.dtypes and not info.variant_test_name:
            for sample in info.sample_inputs("cpu", torch.float32, requires_grad=False):
                call = Call(info.op, (sample.input, *sample.args), sample.kwargs)
                if call.tensors and all(each.numel() for each in call.tensors):
                    return call
    return None


def _given(op: str, file: str) -> Call:
    namespace, _, rest = op.partition("::")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name)
    function = getattr(packet, overload) if overload else packet
    return Call(function, tuple(torch.load(file, weights_only=True)), {})


def _main() -> int:
    op, exporter, opset, *files = sys.argv[1:]
    if op.startswith("torchvision::"):
        import torchvision  # noqa: F401  # it registers its ops
    torch.manual_seed(0)
    call = _given(op, files[0]) if files else _sample(op)
    if call is None:
        return 0
    if files:
        try:
            call(*_copied(call.tensors))
        except Exception as error:  # an op of torch raises of every class
            print(json.dumps({"not taken": first_line(error)}), flush=True)
            return 0
    for mapped in (False, True):
        status, why = attempt(call.eval(), call.tensors, exporter, int(opset), mapped)
        print(json.dumps({"status": status, "why": why, "arguments": str(call)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
