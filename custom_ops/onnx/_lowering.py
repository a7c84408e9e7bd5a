"""Rewrites the nodes of our ops in a model: with bodies, inlined, or as standard ops."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass, ShapeInferencePass

from custom_ops.onnx._model import ModelLike, open_model
from custom_ops.onnx._targets import Target
from custom_ops.ops._body import DOMAIN, VERSION
from custom_ops.ops._registry import Op, by_onnx_name

LOWERINGS = ("portable", "custom", "decomposed", "native", "auto")
_Shapes: TypeAlias = list[list[int | None] | None]
_FUNCTION_DEFAULTS_IR_VERSION = 9  # the first that has attribute defaults in functions


def lower(model: ModelLike, lowering: str, target: Target | None = None) -> ir.Model:
    """Rewrites the nodes of the domain custom_ops.

    Args:
        model: Path, bytes, ModelProto or onnx-ir model; it is left as it is.
        lowering: "portable" (nodes with bodies), "custom" (nodes alone), "decomposed" (standard
            ops), "native" (the standard op where there is one, else decomposed) or "auto" (native
            where the target has a kernel, else portable).
        target: The release that native and auto are for; None for the one installed.

    Returns:
        The rewritten model.

    Raises:
        ValueError: A body needs a newer opset, or the target does not run the standard op.
    """
    if lowering not in LOWERINGS:
        raise ValueError(
            f"lower: lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}"
        )
    result = open_model(model)
    _complete(result)
    if lowering == "custom":
        return result
    dtypes = infer_dtypes(result)
    if lowering in ("native", "auto"):
        if target is None:
            from custom_ops.onnx._targets import target as find_target

            target = find_target()
        _make_native(result, dtypes, target, strict=lowering == "native")
    _attach(result, dtypes)
    if lowering in ("decomposed", "native"):
        _inline(result)
    return result


def embed(model: ModelLike) -> onnx.ModelProto:
    """Adds to a model the bodies of our ops, so that it runs without our library too.

    Args:
        model: Path, bytes or ModelProto with nodes of the domain custom_ops; left as it is.

    Returns:
        The model with a function for each op, every input written and every attribute given.

    Raises:
        ValueError: The model's opset is older than a body needs.

    Example:
        >>> import onnx, custom_ops
        >>> graph = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        ...     g (float[N] a, float[N] b) => (float[N] y) { y = custom_ops.MulAdd(a, b) }
        ... ''')
        >>> [function.name for function in custom_ops.onnx.embed(graph).functions]
        ['MulAdd']
    """
    return ir.to_proto(lower(model, "portable"))


def our_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, Op]]:
    """Yields the nodes of our ops with the ops, subgraphs and functions included."""
    graphs = [model.graph, *(f for key, f in model.functions.items() if key[0] != DOMAIN)]
    for graph in graphs:
        for node in list(ir.traversal.RecursiveGraphIterator(graph)):
            if node.domain != DOMAIN:
                continue
            op = by_onnx_name(node.op_type)
            if op is not None:
                yield node, op


def _opset(model: ir.Model) -> int:
    return model.opset_imports.get("", 1)


def _complete(model: ir.Model) -> None:
    """Writes every attribute, and the neutral value of every input that is left out."""
    for node, op in our_nodes(model):
        for given in op.spec.attributes:
            if given.onnx_name not in node.attributes:
                value = list(given.default) if isinstance(given.default, list) else given.default
                value = int(value) if isinstance(value, bool) else value
                node.attributes.add(ir.convenience.convert_attribute(given.onnx_name, value))
        missing = len(op.spec.inputs) - len(node.inputs)
        if missing > 0:
            node.resize_inputs(len(op.spec.inputs))
        for i, given in enumerate(op.spec.inputs):
            if node.inputs[i] is None and given.optional:
                node.replace_input_with(i, _neutral_value(model, node, given))
    if any(True for _ in our_nodes(model)):
        model.opset_imports.setdefault(DOMAIN, VERSION)


def _neutral_value(model: ir.Model, node: ir.Node, given: Any) -> ir.Value:
    """Adds, before the node, the value of an input left out, in the type of the first input."""
    value, rank = given.neutral
    like = node.inputs[0]
    assert like is not None
    constant = ir.node("Constant", [], {"value": ir.tensor(_filled(value, rank))})
    cast = ir.node("CastLike", [constant.outputs[0], like])
    if _opset(model) < 15:
        raise ValueError(
            f"{node.op_type}: opset of the model must be at least 15, got {_opset(model)}; "
            "export again with a newer opset"
        )
    assert node.graph is not None
    node.graph.insert_before(node, [constant, cast])
    for i, added in enumerate((constant, cast)):
        stem = node.name or node.outputs[0].name
        added.name = f"{stem}/{given.name}{i}"
        added.outputs[0].name = f"{added.name}_value"
    if like.dtype is not None:
        cast.outputs[0].dtype = like.dtype
    return cast.outputs[0]


def _filled(value: float, rank: int) -> Any:
    import numpy as np

    return np.full([1] * rank, value, dtype=np.float32)


def infer_dtypes(model: ir.Model) -> dict[ir.Node, str]:
    """Returns the element type of the first input of each node of our ops.

    Raises:
        ValueError: The model does not tell one.
    """
    nodes = [node for node, _ in our_nodes(model)]
    dtypes = [_dtype(node) for node in nodes]
    if None in dtypes:
        dtypes = [_dtype(node) for node, _ in our_nodes(_with_inferred_types(model))]
    for node, dtype in zip(nodes, dtypes, strict=True):
        if dtype is None:
            raise ValueError(
                f"{node.op_type}: the element type of {_first(node).name!r} must be known, got "
                "none; give the model's inputs types, and run onnx.shape_inference"
            )
    return {node: str(dtype) for node, dtype in zip(nodes, dtypes, strict=True)}


def _with_inferred_types(model: ir.Model) -> ir.Model:
    """Returns a copy with types and shapes wherever onnx can infer them, through bodies too."""
    copy = model.clone()
    _complete(copy)
    # For inference the type that a body computes in does not matter.
    _attach(copy, dict.fromkeys((node for node, _ in our_nodes(copy)), "float32"), check=False)
    ShapeInferencePass(strict_mode=False)(copy)
    return copy


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.op_type}: the first input must be given, got none")
    return value


def _dtype(node: ir.Node) -> str | None:
    dtype = _first(node).dtype
    return None if dtype is None else _name(dtype)


def _name(dtype: ir.DataType) -> str:
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    return names.get(dtype.name, dtype.name.lower())


def _attach(model: ir.Model, dtypes: dict[ir.Node, str], check: bool = True) -> None:
    """Adds the function of each op that the model uses."""
    used: dict[str, tuple[Op, set[str]]] = {}
    for node, op in our_nodes(model):
        used.setdefault(node.op_type, (op, set()))[1].add(dtypes[node])
    opset = _opset(model)
    for op, kinds in used.values():
        for dtype in sorted(kinds):
            needed = op.onnx.body.minimum(dtype)
            if check and opset < needed:
                raise ValueError(
                    f"{op.name}: opset must be at least {needed} for a body in {dtype}, got "
                    f"{opset}; export with opset_version={needed}, or with lowering='custom'"
                )
        body_opset = max(opset, op.onnx.body.min_opset)
        function = op.onnx.body.function(body_opset, frozenset(kinds))
        proto = function.to_function_proto()
        model.functions[(DOMAIN, op.spec.onnx_name, "")] = ir.serde.deserialize_function(proto)
    if used:
        model.opset_imports.setdefault(DOMAIN, VERSION)
        model.ir_version = max(model.ir_version or 0, _FUNCTION_DEFAULTS_IR_VERSION)


def _inline(model: ir.Model) -> None:
    """Puts the bodies in the place of the nodes, so that only standard ops are left."""
    ours: Callable[[ir.Function], bool] = lambda function: function.domain == DOMAIN  # noqa: E731
    InlinePass(criteria=ours)(model)
    RemoveUnusedNodesPass()(model)
    model.opset_imports.pop(DOMAIN, None)
    # Runtimes have no kernel for CastLike and warn that they cannot fold it; the types are known.
    ShapeInferencePass(strict_mode=False)(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "CastLike" and node.domain == "" and node.inputs[1] is not None:
            dtype = node.inputs[1].dtype
            if dtype is not None:
                node.op_type = "Cast"
                node.resize_inputs(1)
                node.attributes.add(ir.AttrInt64("to", dtype.value))
    RemoveUnusedNodesPass()(model)


def _make_native(
    model: ir.Model, dtypes: dict[ir.Node, str], target: Target, strict: bool
) -> None:
    """Turns nodes into the standard op of the same meaning, where the target runs it.

    Args:
        model: Changed in place.
        dtypes: Element type of each node.
        target: The release that runs the model.
        strict: Whether to refuse, rather than leave, a node that the target does not run.
    """
    shapes: list[_Shapes] | None = None
    replaced: list[tuple[ir.Node, str]] = []
    for i, (node, op) in enumerate(list(our_nodes(model))):
        if op.onnx.native is None:
            continue
        native = op.onnx.native
        attributes: dict[str, Any] | str
        why_not = target.why_not_native(native.op_type, _opset(model), dtypes[node])
        if why_not is None:
            attributes = native.attributes(_shapes(node, op))
            if isinstance(attributes, str):  # the model itself does not say: infer
                if shapes is None:
                    inferred = _with_inferred_types(model)
                    shapes = [_shapes(node, op) for node, op in our_nodes(inferred)]
                attributes = native.attributes(shapes[i])
            why_not = attributes if isinstance(attributes, str) else None
        if why_not is not None:
            if strict:
                raise ValueError(
                    f"{op.name}: lowering='native' must suit the model and the target, got a "
                    f"refusal: {why_not}; use lowering='portable'"
                )
            continue
        for name, value in attributes.items():  # type: ignore[union-attr]
            node.attributes.add(ir.convenience.convert_attribute(name, value))
        _drop_neutrals(node, op)
        replaced.append((node, native.op_type))
    for node, op_type in replaced:
        node.op_type, node.domain, node.version = op_type, "", None


def _shapes(node: ir.Node, op: Op) -> _Shapes:
    return [
        None if given.optional and _is_neutral(value, given) else _static_shape(value)
        for value, given in zip(node.inputs, op.spec.inputs, strict=True)
    ]


def _static_shape(value: ir.Value | None) -> list[int | None] | None:
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else None for dim in value.shape.dims]


def _is_neutral(value: ir.Value | None, given: Any) -> bool:
    """Returns whether a value is the neutral constant of an input, through casts."""
    while value is not None and value.producer() is not None:
        producer = value.producer()
        assert producer is not None
        if producer.op_type not in ("Cast", "CastLike", "Identity"):
            break
        value = producer.inputs[0]
    if value is None:
        return True
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1:
        return False
    return float(tensor.numpy().reshape(())) == given.neutral[0]


def _drop_neutrals(node: ir.Node, op: Op) -> None:
    """Leaves out the inputs that the standard op does not take as one element."""
    for i, given in enumerate(op.spec.inputs):
        if given.optional and _is_neutral(node.inputs[i], given):
            node.replace_input_with(i, None)
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
