"""Rewrites the nodes of our ops in a model: with bodies, inlined, or as standard ops."""

import collections
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from custom_ops.onnx import _marker, _nodes, _origin
from custom_ops.onnx._model import open_model
from custom_ops.onnx._nodes import infer_types, our_nodes
from custom_ops.onnx._reading import ModelLike
from custom_ops.onnx._targets import Target
from custom_ops.onnx._targets import target as find_target
from custom_ops.ops._body import DOMAIN
from custom_ops.ops._registry import Op

LOWERINGS = ("portable", "custom", "decomposed", "native", "auto")
_BATCH = 100  # calls that share the names of one body


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
        raise ValueError(f"lower: lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}")
    result = open_model(model)
    _nodes.inline_callers(result)
    _marker.attach_body(result)
    if lowering == "custom":
        omits = target is None or target.takes_omitted_inputs or _nodes.opset_of(result) < 15
        _nodes.complete(result, inputs="none" if omits else "between")
        for key in [key for key in result.functions if key[0] == DOMAIN]:
            del result.functions[key]
        return result
    for _, op in our_nodes(result):
        op.onnx.body.check_opset(op.name, _nodes.opset_of(result), "float32")
    _nodes.complete(result)
    dtypes = _nodes.infer_dtypes(result)
    if lowering in ("native", "auto"):
        _make_native(result, dtypes, target or find_target(), strict=lowering == "native")
    for node, op in our_nodes(result):
        op.onnx.body.check_opset(op.name, _nodes.opset_of(result), dtypes[node])
    _nodes.attach_bodies(result, dtypes)
    if lowering in ("decomposed", "native"):
        inline(result, dtypes)
    return result


def embed(model: ModelLike) -> onnx.ModelProto:
    """Adds to a model the bodies of our ops, so that it runs without our library too.

    The markers of `custom_ops.debug` get theirs.

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


def inline(model: ir.Model, dtypes: dict[ir.Node, str]) -> None:
    """Puts the bodies in the place of the nodes, so that only standard ops are left.

    Args:
        model: Changed in place; it has the bodies, and all that the nodes may leave out.
        dtypes: Element type of each node.
    """
    origins = _origin.tag_calls(model, dtypes)
    _part_bodies(model)
    InlinePass(criteria=lambda function: function.domain == DOMAIN)(model)
    RemoveUnusedNodesPass()(model)
    model.opset_imports.pop(DOMAIN, None)
    # Runtimes have no kernel for CastLike and warn that they cannot fold it; the types are known.
    infer_types(model)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "CastLike" and node.domain == "" and node.inputs[1] is not None:
            dtype = node.inputs[1].dtype
            if dtype is not None:
                node.op_type = "Cast"
                node.resize_inputs(1)
                node.attributes.add(ir.AttrInt64("to", dtype.value))
    RemoveUnusedNodesPass()(model)
    _origin.tag_results(model, origins)


def _part_bodies(model: ir.Model) -> None:
    """Gives every hundred calls a body with names of its own.

    For a name that is taken the inliner tries one number after the other, from 2 on at each call:
    with one body for all calls its time is quadratic in them.
    """
    calls: dict[ir.OperatorIdentifier, int] = collections.Counter()
    for node, _ in our_nodes(model):
        body = model.functions[node.op_identifier()]
        batch = calls[body.identifier()] // _BATCH
        calls[body.identifier()] += 1
        if batch == 0:
            continue
        node.overload = f"part{batch}"
        if node.op_identifier() not in model.functions:
            part = ir.serde.deserialize_function(ir.serde.serialize_function(body))
            part.overload = node.overload
            for inner in ir.traversal.RecursiveGraphIterator(part.graph):
                inner.name = f"{inner.name or inner.op_type}/{batch}"
                for output in inner.outputs:
                    output.name = f"{output.name}/{batch}"
            model.functions[part.identifier()] = part


def _make_native(model: ir.Model, dtypes: dict[ir.Node, str], target: Target, strict: bool) -> None:
    """Turns nodes into the standard op of the same meaning, where the target runs it.

    Args:
        model: Changed in place.
        dtypes: Element type of each node.
        target: The release that runs the model.
        strict: Whether to refuse, rather than leave, a node that the target does not run.
    """
    nodes = list(our_nodes(model))
    # What the model itself does not say of its shapes is inferred.
    copies = [node for node, _ in our_nodes(_nodes.with_inferred_types(model))]
    for (node, op), copy in zip(nodes, copies, strict=True):
        if op.onnx.native is None:
            continue
        found = _native_attributes(op, copy, _nodes.opset_of(model), dtypes[node], target)
        if isinstance(found, str):
            if strict:
                raise ValueError(
                    f"{op.name}: lowering must suit the model and the target, got 'native', but "
                    f"for {_nodes.label(node)} {found}; use lowering='portable'"
                )
            continue
        for name, value in found.items():
            node.attributes.add(ir.convenience.convert_attribute(name, value))
        _drop_neutrals(node, op)
        node.op_type, node.domain, node.version = op.onnx.native.op_type, "", None
    RemoveUnusedNodesPass()(model)


def _native_attributes(
    op: Op, node: ir.Node, opset: int, dtype: str, target: Target
) -> dict[str, Any] | str:
    """Returns the attributes of the standard op for a node, or why it cannot serve."""
    assert op.onnx.native is not None
    why_not = target.why_not_native(op.onnx.native.op_type, opset, dtype)
    if why_not is not None:
        return why_not
    shapes = [
        None if given.optional and _nodes.is_neutral(value, given) else _nodes.static_shape(value)
        for value, given in zip(node.inputs, op.spec.inputs, strict=True)
    ]
    # Where 0 says "from the shapes", another number says it itself.
    given = [node.attributes[a.onnx_name].value for a in op.spec.attributes if a.default == 0]
    if all(given) and all(shape is None or None in shape for shape in shapes):
        return {}
    return op.onnx.native.attributes(shapes)


def _drop_neutrals(node: ir.Node, op: Op) -> None:
    """Leaves out the inputs that the standard op does not take as one element."""
    for i, given in enumerate(op.spec.inputs):
        if given.optional and _nodes.is_neutral(node.inputs[i], given):
            node.replace_input_with(i, None)
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
