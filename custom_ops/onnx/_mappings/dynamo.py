"""Mappings under the dynamo exporter: functions for its table of translations."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import evaluator

from custom_ops.onnx._mappings import calling, registry, schema
from custom_ops.onnx._mappings.refusal import MappingRefused
from custom_ops.onnx._mappings.tensor import Tensor

# Whatever opset is asked for, the exporter calls the model it writes 18, then converts it. It
# leaves alone a node that says that it is of the asked opset; older ones are converted from 18.
_WRITTEN = 18


# By domain and name: bodies of custom nodes for the end of an export, where it asks for that.
_kept: ContextVar[dict[tuple[str, str], onnx.FunctionProto] | None] = ContextVar(
    "custom_ops_kept_bodies", default=None
)


@contextlib.contextmanager
def bodies_kept() -> Iterator[Callable[[ir.Model], None]]:
    """Keeps custom nodes whole: the exporter inlines each body that it knows of.

    Gives a function that adds the bodies of the nodes in the block to a model.
    """
    kept: dict[tuple[str, str], onnx.FunctionProto] = {}
    token = _kept.set(kept)

    def add(model: ir.Model) -> None:
        for (domain, _), proto in kept.items():
            function = ir.serde.deserialize_function(proto)
            function.opset_imports[""] = model.opset_imports[""]
            model.functions[function.identifier()] = function
            model.opset_imports.setdefault(domain, 1)
        if kept:  # attributes of functions have defaults from 9 on
            model.ir_version = max(model.ir_version or 0, 9)

    try:
        yield add
    finally:
        _kept.reset(token)


def table(opset: int | None, ours: dict[Any, Callable[..., Any]]) -> dict[Any, Callable[..., Any]]:
    """Returns the functions of all mappings by overload, beside those of our ops.

    Args:
        opset: The opset that the model gets; None for the one that the exporter tells, where
            what is older than 18 looks like 18.
        ours: Those of our ops: they go before the pack, and mappings of users before them.
    """
    found = dict(ours)
    for op in sorted(registry.names("dynamo")):
        for overload in schema.overloads(op):
            mapping = registry.find(op, overload._overloadname, "dynamo")
            if mapping is None or (mapping.is_of_pack and overload in ours):
                continue
            # The pack takes nothing away that the exporter does, or takes apart, at an older opset.
            is_old = opset is not None and opset < mapping.since_opset
            if not (is_old and mapping.is_of_pack and op.startswith("aten::")):
                found[overload] = _translation(mapping, overload, opset)
    return found


def _translation(
    mapping: registry.Mapping, overload: torch._ops.OpOverload, opset: int | None
) -> Callable[..., Any]:
    def translate(*args: Any, **kwargs: Any) -> Any:
        recorder: Any = evaluator.default()
        told = recorder.opset.version
        if opset is not None and max(opset, _WRITTEN) != told:
            raise MappingRefused(
                f"translation_table: opset_version must be that of the export, got {opset} where "
                f"the export writes {told}; pass the same to both"
            )
        given = schema.arguments(overload._schema, args, kwargs)
        values = [
            schema.plain(argument, _wrapped(value), ir.DataType)
            for argument, value in zip(overload._schema.arguments, given, strict=True)
        ]
        asked = told if opset is None else opset
        new_value = functools.partial(_symbolic_tensor(), recorder.opset)
        found = calling.call(mapping, overload._schema, values, told, asked, new_value)
        if found is None:
            return _own(overload, told)(*args, **kwargs)
        op, outputs = found
        if getattr(mapping.function, "takes_complex", False):
            for output in outputs:  # the exporter knows that pairs have a dimension more only then
                output.type = None
        recorder.nodes.extend(op.nodes)
        kept = _kept.get()
        if kept is not None:
            kept.update(op.functions)
            return outputs if len(outputs) > 1 else outputs[0]
        for (domain, name), proto in op.functions.items():
            function = ir.serde.deserialize_function(proto)
            function.opset_imports[""] = _WRITTEN  # the exporter inlines it before it converts
            for node in ir.traversal.RecursiveGraphIterator(function.graph):
                node.version = max(asked, told) if node.domain == "" else node.version
            recorder.functions[domain, name, ""] = function
        return outputs if len(outputs) > 1 else outputs[0]

    translate.__name__ = mapping.op.replace("::", "_")
    return translate


def _symbolic_tensor() -> Any:
    """Returns the class of values that functions of the exporter itself compute with."""
    from torch.onnx._internal.exporter._tensors import SymbolicTensor

    return SymbolicTensor


def _wrapped(value: Any) -> Any:
    """Returns a value of the exporter with tensors as mappings know them."""
    if isinstance(value, (list, tuple)):
        return [_wrapped(each) for each in value]
    return Tensor(value) if isinstance(value, ir.Value) else value


def _own(overload: torch._ops.OpOverload, opset: int) -> Callable[..., Any]:
    """Returns what the exporter itself does of an overload."""
    metas = _torchlib(opset).get_decomps(overload)
    for meta in metas:
        if not meta.is_complex:
            return meta.onnx_function  # type: ignore[no-any-return]
    raise MappingRefused(
        f"{overload.name()}: a mapping must not leave the call to the exporter under dynamo, which "
        "has nothing for it in ONNX but takes it apart; map it for exporter='torchscript' only"
    )


@functools.cache
def _torchlib(opset: int) -> Any:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib(opset)
