"""Runs a mapping on one call, with the arguments by the schema and checks on what it gives."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import onnxscript

from custom_ops.onnx._mappings.builder import Ops
from custom_ops.onnx._mappings.refusal import MappingRefused, NeedsNewerOpset
from custom_ops.onnx._mappings.registry import Mapping
from custom_ops.onnx._mappings.schema import is_ignored
from custom_ops.onnx._mappings.tensor import Tensor, is_floating

_HALVES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def call(
    mapping: Mapping,
    schema: Any,
    values: Sequence[Any],
    opset: int,
    asked: int,
    new_value: Callable[[], ir.Value] = ir.Value,
    takes_scan: bool = True,
) -> tuple[Ops, list[ir.Value]] | None:
    """Returns what a mapping writes for a call: the nodes and the outputs.

    Args:
        mapping: The mapping.
        schema: The schema of the overload.
        values: An argument for each of the schema.
        opset: The opset that nodes are written in.
        asked: The opset that the model gets at last.
        new_value: Makes the value of an output.
        takes_scan: Whether the exporter can write a Scan.

    Returns:
        The ops with their nodes, and the outputs; None where the mapping leaves the call to the
        exporter.

    Raises:
        MappingRefused: The mapping cannot write the call.
    """
    if asked < mapping.since_opset:
        raise NeedsNewerOpset(
            f"{mapping.op}: opset_version must be at least {mapping.since_opset} for its mapping, "
            f"got {asked}; export with opset_version={mapping.since_opset}"
        )
    half = _half(values) if mapping.wide else None
    floating = ir.DataType.FLOAT if half else _floating(values)
    op = Ops(mapping.op, opset, asked, floating, new_value, takes_scan)
    if half:
        values = [_widened(op, value) for value in values]
    function = mapping.function
    if isinstance(function, onnxscript.OnnxFunction):
        function = _as_node(function)
    args, kwargs = _fitting(mapping, function, schema, values)
    try:
        found = function(op, *args, **kwargs)
    except MappingRefused:
        raise
    except ValueError as error:
        sentence = str(error)
        prefix = "" if sentence.startswith(mapping.op) else f"{mapping.op}: "
        raise MappingRefused(f"{prefix}{sentence}") from error
    if found is NotImplemented:
        return None
    listed = list(found) if isinstance(found, (list, tuple)) else [found]
    count = len(schema.returns)
    if len(listed) != count or not all(isinstance(each, (Tensor, int, float)) for each in listed):
        raise MappingRefused(
            f"{mapping.op}: its mapping must return {count} tensor{'s' * (count > 1)}, got "
            f"{found!r}"
        )
    outputs: list[ir.Value] = []
    for each in listed:
        tensor = each if isinstance(each, Tensor) else Tensor(None, each)
        if half and tensor.dtype in (ir.DataType.FLOAT, None):
            tensor = op.Cast(tensor, to=half)
        outputs.append(op.own(tensor, outputs))
    return op, outputs


def _flat(values: Sequence[Any]) -> list[Any]:
    return [each for value in values for each in (value if isinstance(value, list) else [value])]


def _half(values: Sequence[Any]) -> ir.DataType | None:
    """Returns the dtype of 16 bits that all fractions of a call have; None where one has another.

    None too where the call names a dtype of its result.
    """
    flat = _flat(values)
    if any(isinstance(each, ir.DataType) for each in flat):
        return None
    dtypes = {each.dtype for each in flat if isinstance(each, Tensor)}
    fractions = {dtype for dtype in dtypes if dtype is not None and is_floating(dtype)}
    return fractions.pop() if len(fractions) == 1 and fractions <= _HALVES else None


def _widened(op: Ops, value: Any) -> Any:
    if isinstance(value, list):
        return [_widened(op, each) for each in value]
    is_half = isinstance(value, Tensor) and value.dtype in _HALVES
    return op.Cast(value, to=ir.DataType.FLOAT) if is_half else value


def _floating(values: Sequence[Any]) -> ir.DataType:
    """Returns the dtype of the first tensor of fractions: numbers that meet no tensor take it."""
    dtypes = (each.dtype for each in _flat(values) if isinstance(each, Tensor))
    return next((d for d in dtypes if d is not None and is_floating(d)), ir.DataType.FLOAT)


def _fitting(
    mapping: Mapping, function: Callable[..., Any], schema: Any, values: Sequence[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments that a function takes; one that it does not take must be neutral."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    kinds = [parameter.kind for parameter in parameters]
    by_name = {p.name for p in parameters}
    places = sum(k in (0, 1) for k in kinds)  # positional
    takes_all, takes_names = inspect.Parameter.VAR_POSITIONAL in kinds, 4 in kinds
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument, value in zip(schema.arguments, values, strict=True):
        if not argument.kwarg_only and (takes_all or len(args) < places):
            args.append(value)
        elif argument.name in by_name or (takes_names and argument.kwarg_only):
            kwargs[argument.name] = value
        elif argument.kwarg_only and len(args) < places and not takes_all:
            args.append(value)
        elif not (is_ignored(argument) or _is_default(argument, value)):
            raise MappingRefused(
                f"{mapping.op}: {argument.name} must be {argument.default_value!r} for its "
                f"mapping, got {value!r}; let the mapping take the argument"
            )
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in (0, 1)]
    if len(args) < len(needed):
        raise MappingRefused(
            f"{mapping.op}: its mapping must take op and the {len(schema.arguments)} arguments of "
            f"{schema}, got one that takes {', '.join(needed)} too"
        )
    return args, kwargs


def _is_default(argument: Any, value: Any) -> bool:
    if not argument.has_default_value() or isinstance(value, Tensor):
        return False
    default = argument.default_value
    return bool(value == default) or (isinstance(value, list) and set(value) == {default})


def _as_node(function: onnxscript.OnnxFunction[..., Any]) -> Callable[..., Any]:
    """Returns an onnxscript function as one of op: a node that has it as its body."""
    signature = function.op_signature
    assert signature is not None

    def call(op: Ops, *given: Any) -> Any:
        inputs, attributes = [], {}
        for parameter, value in zip(signature.params, given, strict=False):
            if isinstance(parameter, ir.schemas.Parameter):
                inputs.append(value)
            elif isinstance(value, Tensor):
                raise ValueError(
                    f"{parameter.name} must be a constant for the onnxscript function "
                    f"{function.name}, got a tensor"
                )
            else:
                attributes[parameter.name] = _attribute(parameter, value)
        if len(given) < len(signature.params):
            raise ValueError(
                f"the onnxscript function {function.name} must take {len(given)} arguments, got "
                f"{len(signature.params)}"
            )
        name = f"{function.function_ir.domain}::{function.name}"
        return op.custom(
            name, *inputs, body=function, outputs=len(function.function_ir.outputs), **attributes
        )

    # Only as many arguments as the function has: the rest must be neutral.
    parameters = [inspect.Parameter("op", inspect.Parameter.POSITIONAL_ONLY)]
    parameters += [
        inspect.Parameter(f"given{i}", inspect.Parameter.POSITIONAL_ONLY)
        for i in range(len(signature.params))
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _attribute(parameter: ir.schemas.AttributeParameter, value: Any) -> Any:
    """Returns the value of an attribute of an onnxscript function; its default for None."""
    if value is None:
        return parameter.default.value if parameter.default is not None else None
    return float(value) if parameter.type is ir.AttributeType.FLOAT else value
