"""The nodes of other producers that mean the same as ours; the registry of ops declares them."""

from collections.abc import Collection
from typing import Any

import onnx_ir as ir

from custom_ops.onnx import _nodes
from custom_ops.onnx._replace.rules import WAS
from custom_ops.ops._body import DOMAIN, VERSION
from custom_ops.ops._registry import ForeignNode, Op, ops

NATIVE, DECOMPOSED = "native", "decomposed"


def sources() -> tuple[str, ...]:
    """Returns the names of all forms that can be turned into our nodes."""
    domains = {node.domain for op in ops().values() for node in op.onnx.nodes}
    return (NATIVE, DECOMPOSED, *sorted(domains - {""}))


def to_ours(model: ir.Model, wanted: Collection[str]) -> None:
    """Turns the nodes of other producers into ours, where they stand.

    Args:
        model: Changed in place; functions that hold such nodes are inlined.
        wanted: Which forms, by their names in `sources`.

    Raises:
        ValueError: A node has what our op does not, naming it.
    """
    known = {
        (node.domain, node.op_type, ""): (op, node)
        for op in ops().values()
        for node in op.onnx.nodes
        if (node.domain or NATIVE) in wanted
    }
    _nodes.inline_callers(model, among=known)
    was: dict[ir.Node, str] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_identifier() in known:
            op, form = known[node.op_identifier()]
            was[node] = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            node.meta[WAS] = was[node]
            _turn(node, op, form)
    if was:
        model.opset_imports[DOMAIN] = VERSION
        _drop_unused_imports(model, {form.domain for _, form in known.values()})
        _check(model, was)


def _turn(node: ir.Node, op: Op, form: ForeignNode) -> None:
    given = {name: _value(node, attribute) for name, attribute in node.attributes.items()}
    attributes = form.attributes(given)
    if isinstance(attributes, str):
        raise _refusal(node, attributes)
    if len(node.inputs) > len(form.inputs):
        raise _refusal(node, f"it must have at most {len(form.inputs)} inputs")
    values = dict(zip(form.inputs, node.inputs, strict=False))
    names = [each.name for each in op.spec.inputs]
    for each in op.spec.inputs:
        if values.get(each.name) is None and not each.optional:
            raise _refusal(node, f"its input {each.name} must be given")
    node.resize_inputs(len(names))
    for i, name in enumerate(names):
        node.replace_input_with(i, values.get(name))
    while node.inputs and node.inputs[-1] is None:
        node.resize_inputs(len(node.inputs) - 1)
    node.attributes.clear()
    for name, value in attributes.items():
        node.attributes.add(ir.convenience.convert_attribute(name, value))
    node.domain, node.op_type, node.version = DOMAIN, op.spec.onnx_name, None


def _value(node: ir.Node, attribute: ir.Attr) -> Any:
    if attribute.is_ref():
        raise _refusal(node, f"its attribute {attribute.name} must have a value")
    if attribute.type == ir.AttributeType.INTS:
        return list(attribute.as_ints())
    if attribute.type == ir.AttributeType.INT:
        return attribute.as_int()
    raise _refusal(node, f"its attribute {attribute.name} must be of integers")


def _check(model: ir.Model, was: dict[ir.Node, str]) -> None:
    """Refuses what our op would refuse, as far as the shapes in the model tell."""
    places = [i for i, (node, _) in enumerate(_nodes.our_nodes(model)) if node in was]
    originals = [node for node, _ in _nodes.our_nodes(model)]
    copies = list(_nodes.our_nodes(_with_shapes(model)))
    for i in places:
        copy, op = copies[i]
        if op.onnx.why_not is None:
            continue
        shapes = [
            _nodes.static_shape(value)
            for value, _ in zip([*copy.inputs, *[None] * 8], op.spec.inputs, strict=False)
        ]
        attributes = {name: each.value for name, each in originals[i].attributes.items()}
        reason = op.onnx.why_not(attributes, shapes)
        if reason is not None:
            raise _refusal(originals[i], reason, was[originals[i]])


def _with_shapes(model: ir.Model) -> ir.Model:
    opset = _nodes.opset_of(model)
    if all(opset >= op.onnx.body.min_opset for _, op in _nodes.our_nodes(model)):
        return _nodes.with_inferred_types(model)
    copy = _nodes.copied(model)  # too old for the bodies: no shape is known behind our nodes
    _nodes.infer_types(copy)
    return copy


def _refusal(node: ir.Node, reason: str, was: str | None = None) -> ValueError:
    kind = was or (f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
    name = node.name or node.outputs[0].name
    return ValueError(
        f"replace: node {name!r} ({kind}) must be one that our op can be, got this: {reason}; "
        "leave it out with sources, or correct the model"
    )


def _drop_unused_imports(model: ir.Model, domains: Collection[str]) -> None:
    used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    used |= {n.domain for f in model.functions.values() for n in f.all_nodes()} | {""}
    for domain in set(domains) - used:
        model.opset_imports.pop(domain, None)
