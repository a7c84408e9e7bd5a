"""From a torch module to an ONNX file that is known to run."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

import custom_ops
from custom_ops._errors import ExportFailed, first_line
from custom_ops.onnx import _inputs, _marker, _walk
from custom_ops.onnx._exporters import EXPORTERS, by_dynamo, by_torchscript
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._kernels import advice
from custom_ops.onnx._kernels.judge import Outcome, judge_model
from custom_ops.onnx._kernels.table import table
from custom_ops.onnx._kernels.typed import SchemaOf
from custom_ops.onnx._lowering import LOWERINGS, lower
from custom_ops.onnx._mappings import bodies_kept
from custom_ops.onnx._model import write, written_beside
from custom_ops.onnx._reading import read
from custom_ops.onnx._targets import Target
from custom_ops.onnx._targets import target as find_target
from custom_ops.onnx._verify import Verification, compare, expected, further_calls

_DEFAULT_OPSET = 20  # every target takes it, and every body and dtype is served


def export(
    model: torch.nn.Module,
    args: Sequence[Any] | torch.Tensor,
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
        args: Its inputs; one tensor stands for itself.
        path: The file to write. It appears only when everything has succeeded.
        kwargs: Its keyword inputs.
        lowering: What becomes of our ops: "portable" (nodes that carry their decomposition, so
            they run with and without our library), "custom" (nodes that need our library),
            "decomposed" (standard ops), "native" (the standard op of the same meaning) or "auto"
            (native where the target runs it, else portable).
        exporter: "dynamo" (opsets 14 to 25) or "torchscript" (9 to 23), both of torch.
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
        ValueError: An argument, a call that a mapping refuses, or what the target cannot run.
        ExportFailed: The exporter does not take the module, or what it writes is not valid, does
            not run or computes something else; no file is left.

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
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"export: model must be a torch.nn.Module, got {model!r}")
    chosen = find_target(target)
    opset = _checked_opset(exporter, opset_version, chosen)
    if any(module.training for module in model.modules()):
        warnings.warn(
            "export: model must be in evaluation mode, got training mode, so dropout and batch "
            "normalisation are exported as in training; call model.eval() first",
            stacklevel=2,
        )
    call = Call.of(args, kwargs)
    _inputs.check_dynamic_shapes(model, call, dynamic_shapes)
    names = list(input_names or _inputs.input_names(model, call))
    if len(names) != len(call.tensors):
        raise ValueError(
            f"export: input_names must name the {len(call.tensors)} tensors of the inputs, got "
            f"{len(names)} names; leave it out to name them after the parameters of forward"
        )
    outputs = list(output_names) if output_names else None
    by = by_dynamo if exporter == "dynamo" else by_torchscript
    made, further = lowered(
        lambda: by(model, call, opset, names, outputs, dynamic_shapes), lowering, chosen
    )
    _stamp(made, model, chosen)

    with written_beside(path) as file:
        write(made, file)
        _check(file)
        _check_kernels(file, chosen)
        if not verify:
            return None
        calls = [call, *(further_calls(verify_args, call) or further)]
        kernels = {"custom": ("native",), "decomposed": ("none",), "native": ("none",)}
        return _verified(file, model, calls, names, kernels.get(lowering, ("native", "none")))


def lowered(
    exporting: Callable[[], tuple[ir.Model, list[Call]]], lowering: str, target: Target
) -> tuple[ir.Model, list[Call]]:
    """Exports a module and lowers our ops, whether the target runs the model or not.

    Args:
        exporting: Exports it; gives the model and arguments of further sizes that it takes.
        lowering: As for `export`.
        target: The release that will run it.
    """
    with bodies_kept() as add_bodies:
        exported, further = exporting()
    add_bodies(exported)
    if lowering in ("decomposed", "native"):
        # The bodies of the user's custom nodes; a marker stays, as it is asked for by name.
        InlinePass(criteria=lambda function: function.domain != _marker.DOMAIN)(exported)
    made = lower(exported, lowering, target)
    RemoveUnusedNodesPass()(made)  # TorchScript leaves loops whose results nobody reads
    return made, further


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


def _stamp(made: ir.Model, model: torch.nn.Module, target: Target) -> None:
    made.ir_version = min(max(made.ir_version or 0, 9), target.ir_version)
    made.producer_name, made.producer_version = "custom_ops", custom_ops.__version__
    made.doc_string = f"{type(model).__name__}, exported from torch {torch.__version__}"


def _check(file: Path) -> None:
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportFailed(
            f"export: the model must be valid, got: {first_line(error)}; export at another "
            "opset_version, or the module in float32"
        ) from error


def _check_kernels(file: Path, target: Target) -> None:
    proto = read(file).proto
    opsets = {_walk.domain(each.domain): each.version for each in proto.opset_import}
    schema_of = SchemaOf(table(target.release), opsets)
    for verdict in judge_model(proto, schema_of):
        if verdict.outcome is not Outcome.CASTS:
            sentence = advice.sentence(verdict, schema_of)
            raise ValueError(f"export: {sentence}; {advice.remedy(verdict, schema_of)}")


def _verified(
    file: Path,
    model: torch.nn.Module,
    calls: Sequence[Call],
    names: Sequence[str],
    kernels: Sequence[str],
) -> Verification:
    """Compares with each of the kernels; returns the comparison that differs most."""
    wanted = expected(model, calls)
    found = []
    for kind in kernels:
        try:
            result = compare(file, calls, wanted, names, kernels=kind)
        except Exception as error:
            remedy = "; export the module in float32" * ("NOT_IMPLEMENTED" in str(error))
            raise ExportFailed(
                f"export: the model must run with kernels={kind!r} in the installed "
                f"onnxruntime, got: {first_line(error)}{remedy}"
            ) from error
        if not result:
            raise ExportFailed(
                f"export: the model must compute what the module computes, with "
                f"kernels={kind!r}, got:\n{result}"
            )
        found.append(result)
    return max(found, key=lambda v: max(check.difference or 0.0 for check in v.checks))
