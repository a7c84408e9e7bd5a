"""What an op becomes under the TorchScript exporter: its node, with or without its body."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from custom_ops.ops import _replay
from custom_ops.ops._body import DOMAIN, VERSION, Body

LOWERINGS = ("portable", "custom", "decomposed")
_current: ContextVar[str] = ContextVar("custom_ops_lowering", default="portable")

_SUFFIXES = {bool: "i", int: "i", float: "f", str: "s"}


def current_lowering() -> str:
    """Returns the lowering that the exporters use now."""
    return _current.get()


@contextmanager
def lowering(name: str) -> Iterator[None]:
    """Chooses what `torch.onnx.export` makes of the ops inside the block.

    Args:
        name: "portable" (the node with its body; the dynamo exporter inlines bodies), "custom"
            (the node alone) or "decomposed" (standard ops only).

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
        with _replay.shape_inference_restored():
            yield
    finally:
        _current.reset(token)


def register_symbolic(name: str, op: Any, mapping: Callable[..., tuple[Any, ...]] | None) -> None:
    """Tells the TorchScript exporter what becomes of a torch op.

    Args:
        name: Qualified name of the torch op; it need not exist.
        op: The op of the registry that it is.
        mapping: From its arguments to those of the C++ op; None where they are the same.
    """

    def symbolic(g: Any, *args: Any) -> Any:
        if mapping is not None:  # it may look at numbers and flags
            args = mapping(*(_number(value) for value in args))
        return emit(g, op.spec, op.onnx.body, args)

    torch.onnx.register_custom_op_symbolic(name, symbolic, 1)


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
    attributes = {
        given.onnx_name: _attribute(spec.name, given, value)
        for given, value in zip(spec.attributes, args[count:], strict=True)
    }
    tensors = list(zip(args[:count], spec.inputs, strict=True))
    keywords = dict(_suffixed(attributes), outputs=len(spec.outputs))
    choice = current_lowering()
    if choice == "custom":
        inputs = [_replay.none(g) if _is_none(value) else value for value, _ in tensors]
        name = f"{DOMAIN}::{spec.onnx_name}"
        # torch attaches the body that an earlier export registered, unless another thing is there.
        torch.onnx.register_custom_op_symbolic(name, emit, VERSION)
        outputs = g.op(name, *inputs, **keywords)
    else:
        inputs = [_neutral(g, i, args[0]) if _is_none(value) else value for value, i in tensors]
        dtypes = _dtypes(g.original_node, args[0])
        for dtype in dtypes:
            body.check_opset(spec.name, g.opset, dtype)
        function = body.function(g.opset, dtypes)
        if choice == "portable":
            outputs = g.onnxscript_op(function, *inputs, **keywords)
        else:
            outputs = _replay.replay(g, function.to_function_proto(), inputs, attributes)
    results = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    if g.original_node is not None:
        types = [output.type() for output in g.original_node.outputs()]
    else:  # torch does not tell it where an autograd.Function is called directly
        types = [args[0].type()] * len(results) if spec.like_first_input else []
    for result, kind in zip(results, types, strict=False):
        rank = kind.dim() if kind.kind() == "TensorType" else None
        if rank is not None:  # not the traced sizes: they may be dynamic
            result.setType(kind.with_sizes([None] * rank))
    return outputs


def _dtypes(node: Any, first: Any) -> frozenset[str]:
    """Returns the element types of all nodes of this kind: a file has one body for them all."""
    if node is None:  # a body that computes half types right is right for float32 too
        dtype = _dtype(first) or "float32"
        return frozenset([dtype] if dtype == "float64" else [dtype, "float16"])
    block = node.owningBlock()
    while block.owningNode() is not None:
        block = block.owningNode().owningBlock()
    found = {_dtype(next(iter(other.inputs()))) for other in block.findAllNodes(node.kind())}
    return frozenset(dtype for dtype in found if dtype) or frozenset(["float32"])


def _dtype(value: Any) -> str | None:
    dtype = value.type().dtype() if value.type().kind() == "TensorType" else None
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _suffixed(attributes: dict[str, Any]) -> dict[str, Any]:
    """Returns the attributes with the suffixes that tell the exporter their types."""
    result = {}
    for name, value in attributes.items():
        kind = type(value[0]) if isinstance(value, list) and value else type(value)
        result[f"{name}_{_SUFFIXES.get(kind, 'i')}"] = int(value) if kind is bool else value
    return result


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, torch.Value) and value.node().mustBeNone())


def _neutral(g: Any, given: Any, like: Any) -> Any:
    value, rank = given.neutral
    constant = g.op("Constant", value_t=torch.full([1] * rank, value, dtype=torch.float32))
    return constant if like.type().dtype() == torch.float32 else g.op("CastLike", constant, like)


def _attribute(op: str, given: Any, value: Any) -> Any:
    """Returns the value of an attribute, which the exporter may have put in the graph.

    A number computed from shapes is none there; where 0 says "from the shapes", it is 0.
    """
    constant = _constant(value)
    if constant is None or (isinstance(constant, list) and None in constant):
        if type(given.default) is not int or given.default != 0:
            raise ValueError(
                f"{op}: {given.name} must be a constant, got a value computed in the graph; "
                "pass a Python number, or export with dynamo=True"
            )
        return 0
    return constant


def _number(value: Any) -> Any:
    """Returns the number that a value of the graph is, or else the value."""
    constant = _constant(value)
    return constant if isinstance(constant, (bool, int, float)) else value


def _constant(value: Any) -> Any:
    """Returns the Python value of a constant of the graph; None where it is computed."""
    if isinstance(value, (list, tuple)):
        return [_constant(element) for element in value]
    if not isinstance(value, torch.Value):
        return value
    node = value.node()
    if node.kind() == "prim::ListConstruct":
        return [_constant(element) for element in node.inputs()]
    if node.kind() == "prim::Constant":
        constant = value.toIValue()
    elif node.kind() == "onnx::Constant":
        constant = getattr(node, node.kindOf("value"))("value")  # a tensor, or a string
    else:
        return None
    return constant.tolist() if isinstance(constant, torch.Tensor) else constant
