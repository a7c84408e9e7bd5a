"""Runs the exporters of torch: the same arguments for both, and one sentence where one fails."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from custom_ops._errors import ExportFailed, first_line, root
from custom_ops.onnx import _inputs
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._mappings import Installation, MappingRefused, Traceable, refused_in
from custom_ops.onnx._translation import translation_table
from custom_ops.onnx._unchanged import unchanged
from custom_ops.onnx._verify import expected
from custom_ops.ops import _replay
from custom_ops.ops._symbolic import lowering as symbolic_lowering

# What torch's exporters write, measured on 2.13 and 2.14; a request outside is refused. Beyond
# these ends dynamo writes 18, or a file that is no model, and TorchScript raises.
EXPORTERS: Mapping[str, tuple[int, int]] = {"dynamo": (14, 25), "torchscript": (9, 23)}


class _NotWritten(ValueError):
    """An opset that an exporter did not write."""

    def __init__(self, opset: int, happened: str) -> None:
        super().__init__(
            f"export: opset_version must be one that the model can be converted to, got {opset}, "
            f"where exporter='dynamo' {happened}; use opset_version=18 or exporter='torchscript'"
        )


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Keeps attention modules from running as one op, which has no counterpart in ONNX."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _explained(exporter: str, model: torch.nn.Module, call: Call) -> Iterator[None]:
    """Says in one sentence what an exporter raises, in errors of many kinds and over pages."""
    try:
        yield
    except (MappingRefused, _NotWritten):
        raise
    except Exception as error:
        refusal = refused_in(error)
        if refusal is not None:  # a new one: this one has not led to itself
            raise type(refusal)(str(refusal)) from error
        try:
            expected(model, [call])
        except Exception as own:
            raise ValueError(
                f"export: model must run on args, got {type(own).__name__}: {first_line(own)}; "
                "give inputs that it takes"
            ) from own
        cause = root(error)
        other = next(name for name in EXPORTERS if name != exporter)
        raise ExportFailed(
            f"export: torch's exporter must take the module, got {type(cause).__name__}: "
            f"{first_line(cause)}; try exporter={other!r}, or write the module in other ops"
        ) from error


@contextlib.contextmanager
def _tracing(model: torch.nn.Module) -> Iterator[None]:
    """Makes our ops nodes, leaves the module as it was, and turns gradients off.

    With them on, `scaled_dot_product_attention` with a learnt mask does not export: torch traces
    it with other strides than it has decomposed. A view of a parameter is enough for that, even
    under `torch.no_grad`, so no parameter may ask for a gradient.
    """
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with (
        torch.no_grad(),
        unchanged(model),
        without_fast_path(),
        symbolic_lowering("custom"),
        warnings.catch_warnings(),
    ):
        for message in (
            ".*legacy TorchScript-based ONNX export",
            "# The axis name",
            "Exporting a model while it is in training mode",
            ".*shape inference of custom_ops",
        ):
            warnings.filterwarnings("ignore", message=message)
        # It warns of each op of torchvision, where torchvision is not installed.
        registration = logging.getLogger("torch.onnx._internal.exporter._registration")
        level = registration.level
        try:
            registration.setLevel(logging.ERROR)
            for parameter in learnt:
                parameter.requires_grad_(False)
            yield
        finally:
            registration.setLevel(level)
            for parameter in learnt:
                parameter.requires_grad_(True)


def by_dynamo(
    model: torch.nn.Module,
    call: Call,
    opset: int,
    input_names: list[str],
    output_names: list[str] | None,
    dynamic_shapes: Any,
) -> tuple[ir.Model, list[Call]]:
    """Exports by dynamo; see `by_torchscript`."""
    with _explained("dynamo", model, call), _tracing(model), Traceable():
        try:
            program = torch.onnx.export(
                model,
                call.args,
                kwargs=dict(call.kwargs),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=dynamic_shapes,
                custom_translation_table=translation_table(opset),
            )
        except ValueError as error:
            if "Target opset version" in str(error):  # where the only nodes are custom ones
                raise _NotWritten(opset, "raised an error") from error
            raise
    assert program is not None
    written = program.model.opset_imports[""]
    if written != opset:
        raise _NotWritten(opset, f"wrote {written}")
    axes = _inputs.dynamic_axes(model, call, dynamic_shapes, input_names)
    _inputs.name_axes(program.model, axes)
    return program.model, _inputs.drawn(program.exported_program, call)


def by_torchscript(
    model: torch.nn.Module,
    call: Call,
    opset: int,
    input_names: list[str],
    output_names: list[str] | None,
    dynamic_shapes: Any,
) -> tuple[ir.Model, list[Call]]:
    """Exports by TorchScript.

    Args:
        model: The module.
        call: What it is called with.
        opset: The opset to write.
        input_names: Names of the tensors of the call.
        output_names: Names of the outputs, or None.
        dynamic_shapes: Which sizes may change; see `custom_ops.onnx.export`.

    Returns:
        The model, and calls of further sizes that it should take.

    Raises:
        ExportFailed: The exporter does not take the module.
        ValueError: A mapping refuses a call, the module does not run on its inputs, or the
            exporter does not write the opset.
    """
    axes = _inputs.dynamic_axes(model, call, dynamic_shapes, input_names)
    modes = torch.onnx.TrainingMode
    mode = modes.TRAINING if model.training else modes.EVAL
    with (
        tempfile.TemporaryDirectory() as folder,
        _explained("torchscript", model, call),
        _tracing(model),
        _flat_forward(model, call),
        Installation(),
    ):
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tuple(call.tensors),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=axes or None,
            training=mode,
        )
        exported = ir.load(file)
        ir.external_data.load_to_model(exported)
        if axes and not _replay.infers_shapes():
            for output in exported.graph.outputs:
                if output.shape is not None:
                    output.shape = ir.Shape([None] * len(output.shape))
    return exported, _inputs.other_sizes(call, axes, input_names)


@contextlib.contextmanager
def _flat_forward(model: torch.nn.Module, call: Call) -> Iterator[None]:
    """Lets a module take tensors only: TorchScript has no keyword inputs, and mixes up others."""
    if call.flat:
        yield
        return
    forward = model.forward

    def flat(*tensors: torch.Tensor) -> Any:
        full = call.with_tensors(tensors)
        outputs = pytree.tree_leaves(forward(*full.args, **full.kwargs))
        return tuple(t for t in outputs if isinstance(t, torch.Tensor))

    model.forward = flat
    try:
        yield
    finally:
        del model.forward  # the class has its own
