"""Mappings under the TorchScript exporter: symbolic functions that look them up."""

import contextlib
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
import torch

from custom_ops.onnx._mappings import calling, registry, schema
from custom_ops.onnx._mappings.refusal import MappingRefused, NeedsNewerOpset
from custom_ops.onnx._mappings.tensor import Tensor
from custom_ops.ops import _replay

_depth = 0
# By op: the opsets at which our symbolic function is, with what a user had put there before.
_installed: dict[str, dict[int, Callable[..., Any] | None]] = {}


class Installation:
    """What `install_mappings` did; `uninstall` or the end of a block undoes it."""

    def __init__(self) -> None:
        global _depth
        self._active = True
        self._restore = contextlib.ExitStack()
        self._restore.enter_context(_replay.shape_inference_restored())
        _depth += 1
        _synchronise()

    def uninstall(self) -> None:
        """Gives plain TorchScript export back what it had."""
        global _depth
        if self._active:
            self._active = False
            self._restore.close()
            _depth -= 1
            _synchronise()

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()


def install_mappings() -> Installation:
    """Gives all mappings, registered ones and the pack, to plain TorchScript export.

    Those that are registered later count too. `custom_ops.onnx.export` does this itself.

    Returns:
        What undoes it, by `uninstall` or as a context manager.

    Example:
        >>> import io, torch, custom_ops
        >>> class Softplus(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.nn.functional.softplus(x, beta=2.0)
        >>> with custom_ops.onnx.install_mappings():
        ...     torch.onnx.export(Softplus(), (torch.ones(2),), io.BytesIO(), dynamo=False)
    """
    # It registers functions of its own when it is imported, which would take the place of ours.
    with contextlib.suppress(ImportError):
        importlib.import_module("torchvision")
    return Installation()


def _synchronise() -> None:
    """Registers our symbolic function for each op that has a mapping, and for no other."""
    wanted = registry.names("torchscript") if _depth else set()
    for op in sorted(wanted - _installed.keys()):
        _install(op)
    for op in sorted(_installed.keys() - wanted):
        _uninstall(op)


registry.when_changed(_synchronise)


def _install(op: str) -> None:
    group = _group(op)
    functions = group._functions if group is not None else None
    opsets = {1, *(functions if functions is not None else ())}
    before = {
        opset: functions[opset] if functions is not None and functions.overridden(opset) else None
        for opset in opsets
    }
    theirs = [f for f in before.values() if f is not None and not _is_of_torchvision(f)]
    if theirs and all(m.is_of_pack for m in _mappings_of(op)):
        return  # the pack gives way to what the user has told the exporter
    _installed[op] = before

    def symbolic(g: Any, *args: Any, **kwargs: Any) -> Any:
        return _call(op, g, args, kwargs)

    for opset in sorted(opsets):
        torch.onnx.register_custom_op_symbolic(op, symbolic, opset)


def _uninstall(op: str) -> None:
    for opset, before in _installed.pop(op).items():
        torch.onnx.unregister_custom_op_symbolic(op, opset)
        if before is not None:
            torch.onnx.register_custom_op_symbolic(op, before, opset)
    if not _group(op)._functions:  # the exporter fails on an op that it knows in no opset
        del _symbolics()._registry[op]


def _is_of_torchvision(function: Callable[..., Any]) -> bool:
    """Returns whether torchvision registered a function itself; the pack does better."""
    return str(getattr(function, "__module__", "")).startswith("torchvision.")


def _mappings_of(op: str) -> list[registry.Mapping]:
    return [m for m in registry._mappings if m.op == op and "torchscript" in m.exporters]


def _group(op: str) -> Any:
    return _symbolics().get_function_group(op)


@functools.cache
def _symbolics() -> Any:
    """Returns the exporter's symbolic functions, which else it loads at the first export."""
    from torch.onnx._internal import torchscript_exporter

    for module in pkgutil.iter_modules(torchscript_exporter.__path__):
        if module.name.startswith("symbolic_opset"):
            importlib.import_module(f"{torchscript_exporter.__name__}.{module.name}")
    return torchscript_exporter.registration.registry


def _call(op: str, g: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = _schema(op, g)
    mapping = registry.find(op, found.overload_name or "default", "torchscript")
    written = None
    if mapping is not None:
        graph = _Inputs()
        values = [
            schema.plain(argument, graph.plain(argument, value), _dtype)
            for argument, value in zip(found.arguments, args, strict=True)
        ]
        _mark_complex(mapping, g.original_node, values)
        try:
            written = calling.call(mapping, found, values, g.opset, g.opset, takes_scan=False)
        except NeedsNewerOpset:
            # The pack takes nothing away that the exporter does at an older opset.
            if not mapping.is_of_pack or not _has_own(op, g.opset):
                raise
    if written is None:
        return _own(op, g.opset)(g, *args, **kwargs)
    return _replayed(g, *written, graph)


def _mark_complex(mapping: registry.Mapping, node: Any, values: list[Any]) -> None:
    """Marks complex tensors among the arguments, and refuses what would take pairs for numbers."""
    given = [value.type() for value in node.inputs()]
    for value, kind in zip(values, given, strict=True):
        if isinstance(value, Tensor) and _is_complex(kind):
            value.is_complex = True
            _check_takes_complex(mapping.op, mapping)
    for output in node.outputs():
        if _is_complex(output.type()):
            for use in output.uses():
                kind = use.user.kind()
                if kind.startswith("aten::"):
                    _check_takes_complex(kind, registry.find(kind, "default", "torchscript"))


def _check_takes_complex(op: str, mapping: registry.Mapping | None) -> None:
    if mapping is None or not getattr(mapping.function, "takes_complex", False):
        raise MappingRefused(
            f"{op}: its numbers must be real for the TorchScript exporter, got complex ones; "
            "compute with torch.view_as_real, or export with dynamo=True"
        )


def _is_complex(kind: Any) -> bool:
    dtype = kind.dtype() if kind.kind() == "TensorType" else None
    return dtype is not None and dtype.is_complex


def _schema(op: str, g: Any) -> Any:
    """Returns the schema of the call; the exporter knows which overload it is."""
    try:
        return torch._C.parse_schema(g.original_node.schema())
    except RuntimeError:  # the exporter made tensors of numbers, and knows it no more
        counts = [len(list(each)) for each in (g.original_node.inputs(), g.original_node.outputs())]
        found = [overload._schema for overload in schema.overloads(op)]
        fitting = [s for s in found if [len(s.arguments), len(s.returns)] == counts]
        if not fitting:
            raise MappingRefused(
                f"{op}: the call must fit an overload of torch, got none"
            ) from None
        return fitting[0]


def _own(op: str, opset: int) -> Callable[..., Any]:
    """Returns what is there without us: a user's function, else that of the exporter."""
    functions = _group(op)._functions
    kept = _installed[op]
    for version in sorted({*functions._base, *kept}, reverse=True):
        if version <= opset:
            function = kept.get(version) or functions._base.get(version)
            if function is not None:
                return function
    raise MappingRefused(
        f"{op}: a mapping must not leave the call to the TorchScript exporter, which has none; "
        "export with dynamo=True, or map every call"
    )


def _has_own(op: str, opset: int) -> bool:
    try:
        _own(op, opset)
    except MappingRefused:
        return False
    return True


def _dtype(code: int) -> ir.DataType:
    """Returns the element type that TorchScript means by a number."""
    from torch.onnx._internal.torchscript_exporter._type_utils import JitScalarType

    return ir.DataType(JitScalarType(code).onnx_type().value)


class _Inputs:
    """The inputs of a call: values of the exporter's graph, and their counterparts in ours."""

    def __init__(self) -> None:
        self.theirs: list[Any] = []
        self.ours: list[ir.Value] = []

    def plain(self, argument: Any, value: Any) -> Any:
        """Returns an argument with tensors as mappings know them, constants as Python values."""
        kind = str(argument.real_type)
        if not isinstance(value, torch.Value):
            return [self.plain(argument, v) for v in value] if isinstance(value, list) else value
        node = value.node()
        if node.kind() == "prim::ListConstruct":
            element = "Tensor" if "Tensor" in kind else "number"
            return [self._one(element, each) for each in node.inputs()]
        return self._one(kind, value)

    def _one(self, kind: str, value: Any) -> Any:
        constant = _constant(value)
        if constant is None and value.node().mustBeNone():
            return None
        if isinstance(constant, torch.Tensor):
            # A Python number is a constant without dimensions here; dynamo says it as a number.
            is_number = constant.dim() == 0 and value.node().kind() == "onnx::Constant"
            if "Tensor" not in kind or is_number:
                return constant.tolist()
        elif constant is not None:
            return constant
        if any(value is each for each in self.theirs):
            index = next(i for i, each in enumerate(self.theirs) if value is each)
        else:
            index = len(self.theirs)
            self.theirs.append(value)
            self.ours.append(_typed(value, f"input_{index}"))
        return Tensor(self.ours[index])


def _constant(value: Any) -> Any:
    """Returns what a constant of the exporter's graph is; None of what is computed."""
    node = value.node()
    if node.kind() == "prim::Constant":
        return value.toIValue()
    if node.kind() == "onnx::Constant":
        return getattr(node, node.kindOf("value"))("value")
    return None


def _typed(value: Any, name: str) -> ir.Value:
    kind = value.type()
    if kind.kind() != "TensorType" or kind.dtype() is None:
        return ir.Value(name=name)
    from torch.onnx._internal.torchscript_exporter._type_utils import JitScalarType

    dtype = ir.DataType(JitScalarType.from_dtype(kind.dtype()).onnx_type().value)
    rank = kind.dim()  # not the traced sizes: they may be dynamic
    shape = None if rank is None else ir.Shape([None] * rank)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)


def _replayed(g: Any, op: Any, outputs: list[ir.Value], given: _Inputs) -> Any:
    """Writes the nodes of a mapping into the exporter's graph."""
    from torch.onnx._internal.torchscript_exporter import registration

    for (domain, name), proto in op.functions.items():
        registration.custom_onnx_symbolic(f"{domain}::{name}", 1)(_Body(proto))
    graph = ir.Graph(given.ours, outputs, nodes=op.nodes, name="mapping")
    proto = ir.serde.serialize_graph(graph)
    function = onnx.FunctionProto(name="mapping")
    function.input.extend(each.name for each in proto.input)
    function.output.extend(each.name for each in proto.output)
    function.node.extend(proto.node)
    function.value_info.extend([*proto.value_info, *proto.output])
    results = _replay.replay(g, function, given.theirs, {})
    listed = results if isinstance(results, (list, tuple)) else [results]
    for result, original in zip(listed, g.original_node.outputs(), strict=False):
        kind = original.type()
        rank = kind.dim() if kind.kind() == "TensorType" else None
        if rank is not None and _is_complex(kind):
            real = torch.float64 if kind.dtype() == torch.complex128 else torch.float32
            result.setType(kind.with_dtype(real).with_sizes([None] * (rank + 1)))
        elif rank is not None:
            result.setType(kind.with_sizes([None] * rank))
    return results


class _Body:
    """The body of a custom node, in the form in which the exporter attaches it."""

    def __init__(self, proto: onnx.FunctionProto) -> None:
        self._proto = proto

    def to_function_proto(self) -> onnx.FunctionProto:
        """Returns the function that the model gets."""
        return self._proto

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Is never called: the exporter looks it up by the name of the node."""
        raise NotImplementedError
