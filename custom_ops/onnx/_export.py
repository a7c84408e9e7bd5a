"""From a torch module to an ONNX file that is known to run."""

import contextlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

import custom_ops
from custom_ops.onnx._lowering import LOWERINGS, lower
from custom_ops.onnx._model import is_large, write, written_beside
from custom_ops.onnx._sizes import doubled, dynamic_axes, further_sizes
from custom_ops.onnx._targets import Target
from custom_ops.onnx._targets import target as find_target
from custom_ops.onnx._translation import translation_table
from custom_ops.onnx._verify import Verification
from custom_ops.onnx._verify import verify as verify_model
from custom_ops.ops import _symbolic

# What torch's exporters write; a request outside is refused.
EXPORTERS: Mapping[str, tuple[int, int]] = {"dynamo": (15, 24), "torchscript": (13, 23)}
_DEFAULT_OPSET = 20  # every target takes it, and every body and dtype is served


def export(
    model: torch.nn.Module,
    args: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, Any] | None = None,
    lowering: str = "portable",
    exporter: str = "dynamo",
    opset_version: int | None = None,
    target: str | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    verify: bool = True,
    verify_args: Sequence[Sequence[Any]] = (),
) -> Verification | None:
    """Exports a module, and checks that ONNX Runtime computes what torch computes.

    Args:
        model: The module, in evaluation mode; a module in training mode is warned about.
        args: Its inputs.
        path: The file to write. It appears only when everything has succeeded.
        kwargs: Its keyword inputs.
        lowering: What becomes of our ops: "portable" (nodes that carry their decomposition, so
            they run with and without our library), "custom" (nodes that need our library),
            "decomposed" (standard ops), "native" (the standard op of the same meaning) or "auto"
            (native where the target runs it, else portable).
        exporter: "dynamo" (opsets 15 to 24) or "torchscript" (13 to 23), both of torch.
        opset_version: The opset to write; 20 if left out.
        target: The release that will run the file, as "onnxruntime==1.20"; the one installed if
            left out. What it cannot run is refused.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        dynamic_shapes: Which sizes may change: for each input a dict from axis to a name or
            ``torch.export.Dim``, as a tuple in the order of the inputs, or a dict by name.
        verify: Whether to run the file in the installed ONNX Runtime and compare, on `args` and
            on further sizes: those of `verify_args`, else drawn within the dynamic ranges.
        verify_args: Inputs of further sizes.

    Returns:
        The comparison; None where `verify` is false.

    Raises:
        ValueError: An argument, or what the target cannot run, in one sentence with the remedy.
        RuntimeError: The model computes something else than the module; no file is left.

    Example:
        >>> import torch, custom_ops
        >>> path = getfixture("tmp_path") / "model.onnx"
        >>> print(custom_ops.onnx.export(
        ...     custom_ops.MulAdd().eval(), (torch.ones(2, 3), torch.ones(2, 3)), path))
        [2, 3], [2, 3]: equal (largest difference 0)
    """
    if lowering not in LOWERINGS:
        raise ValueError(
            f"export: lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}"
        )
    chosen = find_target(target)
    opset = _checked_opset(exporter, opset_version, chosen)
    if model.training and any(True for m in model.modules() if m is not model):
        warnings.warn(
            "export: the module is in training mode, so dropout and batch normalisation are "
            "exported as in training; call model.eval() first",
            stacklevel=2,
        )
    kwargs = dict(kwargs or {})
    names = list(input_names) if input_names is not None else _input_names(model, args, kwargs)
    if exporter == "dynamo":
        exported, ranges = _by_dynamo(
            model, args, kwargs, opset, names, output_names, dynamic_shapes
        )
    else:
        exported, ranges = _by_torchscript(
            model, args, kwargs, opset, names, output_names, dynamic_shapes
        )
    lowered = lower(exported, lowering, chosen)
    _stamp(lowered, model, chosen)

    result = None
    with written_beside(path) as file:
        write(lowered, file)
        if not is_large(lowered):
            _check(file)
        if verify:
            result = _verified(file, model, args, kwargs, verify_args, ranges, lowering)
    return result


def _checked_opset(exporter: str, opset: int | None, target: Target) -> int:
    if exporter not in EXPORTERS:
        raise ValueError(
            f"export: exporter must be one of {', '.join(EXPORTERS)}, got {exporter!r}"
        )
    opset = min(_DEFAULT_OPSET, target.opset) if opset is None else opset
    lowest, highest = EXPORTERS[exporter]
    if not lowest <= opset <= highest:
        others = [name for name, (low, high) in EXPORTERS.items() if low <= opset <= high]
        remedy = f"use exporter={others[0]!r}" if others else "choose another opset_version"
        raise ValueError(
            f"export: opset_version must be {lowest} to {highest} for exporter={exporter!r}, got "
            f"{opset}; {remedy}"
        )
    if opset > target.opset:
        raise ValueError(
            f"export: opset_version must be at most {target.opset} for onnxruntime "
            f"{target.release}, got {opset}; use opset_version={target.opset}"
        )
    return opset


def _input_names(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[str] | None:
    """Returns the names of the parameters of forward, where each input is one tensor."""
    if not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        return None
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return None
    names = []
    for name, value in bound.arguments.items():
        several = isinstance(value, tuple)
        names += [f"{name}_{i}" for i in range(len(value))] if several else [name]
    return names


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Our ops become nodes, and gradients are off: with them on, some torch ops do not export."""
    with torch.no_grad(), _symbolic.lowering("custom"), warnings.catch_warnings():
        for message in (
            ".*legacy TorchScript-based ONNX export",
            "# The axis name",
            "Exporting a model while it is in training mode",
            ".*shape inference of custom_ops",
        ):
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


# Further inputs to verify on.
_MoreArgs = list[list[Any]]


def _by_dynamo(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    opset: int,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    dynamic_shapes: Any,
) -> tuple[ir.Model, _MoreArgs]:
    with _tracing():
        program = torch.onnx.export(
            model,
            tuple(args),
            kwargs=dict(kwargs),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            custom_translation_table=translation_table(),
        )
    assert program is not None
    return program.model, further_sizes(program.exported_program, [*args, *kwargs.values()])


def _by_torchscript(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    opset: int,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    dynamic_shapes: Any,
) -> tuple[ir.Model, _MoreArgs]:
    inputs = [*args, *kwargs.values()]
    axes = dynamic_axes(model, args, kwargs, dynamic_shapes, input_names)
    with tempfile.TemporaryDirectory() as folder, _tracing():
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tuple(args),
            file,
            kwargs=dict(kwargs),
            dynamo=False,
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=axes or None,
        )
        exported = ir.load(file)
        ir.external_data.load_to_model(exported)
    return exported, doubled(inputs, axes)


def _stamp(lowered: ir.Model, model: torch.nn.Module, target: Target) -> None:
    lowered.ir_version = min(max(lowered.ir_version or 0, 9), target.ir_version)
    lowered.producer_name, lowered.producer_version = "custom_ops", custom_ops.__version__
    lowered.doc_string = f"{type(model).__name__}, exported from torch {torch.__version__}"


def _check(file: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RuntimeError(f"export: the model must be valid, got: {error}") from error


def _verified(
    file: Path,
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    verify_args: Sequence[Sequence[Any]],
    drawn: _MoreArgs,
    lowering: str,
) -> Verification:
    """Compares with our kernels and, where the file needs none, without them."""
    checks: list[Any] = []
    count = len(args)
    more = list(verify_args) or [inputs[:count] for inputs in drawn if not kwargs]
    for kernels in ("native",) if lowering == "custom" else ("native", "none"):
        try:
            found = verify_model(file, model, args, kwargs, more_args=more, kernels=kernels)
        except Exception as error:
            first_line = str(error).splitlines()[0]
            raise RuntimeError(
                f"export: the model must run with kernels={kernels!r}, got: {first_line}"
            ) from error
        if not found:
            raise RuntimeError(
                f"export: the model must compute what the module computes, with "
                f"kernels={kernels!r}, got:\n{found}"
            )
        checks.append(found)
    return max(checks, key=lambda v: max(c.difference or 0.0 for c in v.checks))
