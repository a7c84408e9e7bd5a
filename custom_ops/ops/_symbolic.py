"""What an op becomes under the TorchScript exporter: its node, with or without its body."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from custom_ops.ops import _replay
from custom_ops.ops._body import DOMAIN, Body

LOWERINGS = ("portable", "custom", "decomposed")
_current: ContextVar[str] = ContextVar("custom_ops_lowering", default="portable")

_DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def current_lowering() -> str:
    """Returns the lowering that the exporters use now."""
    return _current.get()


@contextmanager
def lowering(name: str) -> Iterator[None]:
    """Chooses what `torch.onnx.export` makes of the ops inside the block.

    Args:
        name: "portable" (the node with its body), "custom" (the node alone) or "decomposed"
            (standard ops only).

    Raises:
        ValueError: Another name.

    Example:
        >>> import custom_ops
        >>> with custom_ops.onnx.lowering("custom"):
        ...     pass  # torch.onnx.export(...)
    """
    if name not in LOWERINGS:
        raise ValueError(
            f"lowering: name must be one of {', '.join(LOWERINGS)}, got {name!r}; "
            "custom_ops.onnx.export offers native and auto too"
        )
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def emit(g: Any, spec: Any, body: Body, args: tuple[Any, ...]) -> Any:
    """Adds the node of an op to a TorchScript graph.

    Args:
        g: The exporter's graph context.
        spec: The op's spec.
        body: Its decomposition.
        args: The arguments of the C++ op, as values of the graph or as Python values.

    Returns:
        The value, or the values, of the outputs.
    """
    count = len(spec.inputs)
    first = args[0]
    inputs = [
        _neutral(g, given, first) if _is_none(value) else value
        for value, given in zip(args[:count], spec.inputs, strict=True)
    ]
    attributes = {
        given.onnx_name: _constant(value)
        for value, given in zip(args[count:], spec.attributes, strict=True)
    }
    choice = current_lowering()
    if choice == "custom":
        outputs = g.op(
            f"{DOMAIN}::{spec.onnx_name}",
            *inputs,
            **_suffixed(attributes),
            outputs=len(spec.outputs),
        )
    else:
        dtype = _dtype(first) or "float32"
        opset = _checked_opset(g, spec.name, body, dtype)
        function = body.function(opset, frozenset([dtype]))
        if choice == "portable":
            outputs = g.onnxscript_op(
                function, *inputs, **_suffixed(attributes), outputs=len(spec.outputs)
            )
        else:
            outputs = _replay.replay(g, function.to_function_proto(), inputs, attributes)
    results = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    for result, original in zip(results, g.original_node.outputs(), strict=True):
        rank = original.type().dim() if original.type().kind() == "TensorType" else None
        if rank is not None:  # not the traced sizes: they may be dynamic
            result.setType(original.type().with_sizes([None] * rank))
    return outputs


def _checked_opset(g: Any, name: str, body: Body, dtype: str) -> int:
    needed = body.minimum(dtype)
    if g.opset < needed:
        raise ValueError(
            f"{name}: opset_version must be at least {needed} for {dtype}, got {g.opset}; "
            f"export with opset_version={needed}, or with custom_ops.onnx.lowering('custom')"
        )
    return int(g.opset)


def _suffixed(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns the attributes with the suffixes that tell the exporter their types."""
    suffixes = {bool: "i", int: "i", float: "f", str: "s"}
    result = {}
    for name, value in attributes.items():
        kind = type(value[0]) if isinstance(value, list) and value else type(value)
        result[f"{name}_{suffixes.get(kind, 'i')}"] = int(value) if kind is bool else value
    return result


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, torch.Value) and value.node().mustBeNone())


def _dtype(value: Any) -> str | None:
    dtype = value.type().dtype() if value.type().kind() == "TensorType" else None
    return _DTYPES.get(dtype)


def _neutral(g: Any, given: Any, like: Any) -> Any:
    if given.neutral is None:
        raise ValueError(f"{given.name} must be given, got None")
    value, rank = given.neutral
    constant = g.op("Constant", value_t=torch.full([1] * rank, value, dtype=torch.float32))
    dtype = like.type().dtype()
    if dtype == torch.float32:
        return constant
    return g.op("CastLike", constant, like)


def _constant(value: Any) -> Any:
    """Returns the Python value of an attribute, which the exporter may have put in the graph."""
    if not isinstance(value, torch.Value):
        return list(value) if isinstance(value, (list, tuple)) else value
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        return [_constant(element) for element in node.inputs()]
    constant = value.toIValue() if node.kind() in ("prim::Constant", "onnx::Constant") else None
    if constant is None and node.kind() == "onnx::Constant":
        constant = node.t("value")
    if isinstance(constant, torch.Tensor):
        constant = constant.tolist()
    return constant
