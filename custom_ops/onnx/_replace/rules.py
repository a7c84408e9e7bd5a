"""A user's own replacement: a pattern of nodes, and what takes its place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from onnxscript.rewriter import pattern as rewriter

from custom_ops.onnx import _nodes, _walk
from custom_ops.onnx._replace import shapes

WAS = "custom_ops.was"  # in the notes of a node that are not written: what it was


@dataclass(frozen=True)
class Rule:
    """A pattern of nodes, and what takes its place; for `replace`.

    The functions are those of `onnxscript.rewriter`. Stricter than there, an attribute that the
    pattern does not name must have its default, and a node with a body (If, Loop, Scan) in a
    pattern is an error: the body would not be compared.

    Attributes:
        pattern: ``pattern(op, a, b, ...)`` writes the nodes that are looked for, with ops as
            methods of `op`, and returns their result.
        replacement: ``replacement(op, a, b, ...)``, with the same names, writes the nodes that
            take their place; ``_domain="mine"`` makes one of a domain.
        condition: ``condition(context, a, b, ...)`` says whether a place is replaced; there
            values have all types and shapes that can be inferred. See `same_shape` and `scalar`.
        commute: Whether operands of ops like Add and Mul may stand in either order.
        body: The decomposition of the node that the replacement writes, if it is an op that
            runtimes do not have: an onnxscript function or a FunctionProto. For ops of this
            library it is known.
    """

    pattern: Callable[..., Any]
    replacement: Callable[..., Any]
    condition: Callable[..., Any] | None = None
    commute: bool = False
    body: Any = None


def apply(model: ir.Model, rules: Sequence[Rule]) -> None:
    """Replaces what the rules find: in the graph, in subgraphs and in functions.

    Each place is replaced once: what a rule has written is not looked at by the same rule.

    Args:
        model: Changed in place.
        rules: Applied one after the other.
    """
    for rule in rules:
        _check_body(model, rule)
        variants = _variants(rule)
        with shapes.known(model) as before:
            place = _Place(model, variants, before, _names(model))
            _apply(place, model.graph)
            for function in model.functions.values():
                _apply(place, function)
        if rule.body is not None:
            _add_body(model, rule)


def written(model: ir.Model) -> Iterator[tuple[ir.Node, str]]:
    """Yields the nodes that rules have written, with what each was."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in ir.traversal.RecursiveGraphIterator(graph):
            if WAS in node.meta:
                yield node, node.meta[WAS]


class _StrictMatcher(rewriter.SimplePatternMatcher):
    """Matches only what the replacement can know of."""

    def match(
        self, model: ir.Model, graph_or_function: Any, node: ir.Node, **options: Any
    ) -> rewriter.MatchResult:
        match = super().match(model, graph_or_function, node, **options)
        if not match:
            return match
        for pattern_node, found in match.node_bindings.items():
            if any(True for _ in shapes.subgraphs(found)):
                raise ValueError(
                    "replace: pattern must hold no node with a body (If, Loop, Scan), got "
                    f"{_nodes.label(found)}: its body would not be compared; write a pattern of "
                    "what stands inside"
                )
            opsets = getattr(graph_or_function, "opset_imports", None) or model.opset_imports
            opset = opsets.get(found.domain, model.opset_imports.get(found.domain))
            for name, attribute in found.attributes.items():
                if name not in pattern_node.attributes and not _is_default(found, attribute, opset):
                    match.fail(f"attribute {name} is not in the pattern", found)
                    return match
        return match


def _is_default(node: ir.Node, attribute: ir.Attr, opset: int | None) -> bool:
    if attribute.is_ref() or opset is None:
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        default = schema.attributes[attribute.name].default_value
        return bool(ir.serde.deserialize_attribute(default).value == attribute.value)
    except (onnx.defs.SchemaError, KeyError, TypeError, ValueError):
        return False


def _variants(rule: Rule) -> Sequence[rewriter.RewriteRule]:
    made = rewriter.RewriteRule(
        rule.pattern, rule.replacement, rule.condition, matcher=_StrictMatcher
    )
    return list(made.commute()) if rule.commute else [made]


@dataclass(frozen=True)
class _Place:
    """What is the same for all places that one rule looks at.

    Attributes:
        model: The model.
        variants: The rule, in each order of its operands.
        before: See `shapes.known`.
        taken: Names in the model.
    """

    model: ir.Model
    variants: Sequence[rewriter.RewriteRule]
    before: shapes.Known
    taken: set[str]


def _apply(place: _Place, scope: ir.Graph | ir.Function) -> None:
    for node in list(scope):
        if node.graph is None:  # replaced as a part of another place
            continue
        for inner in shapes.subgraphs(node):
            _apply(place, inner)
        for variant in place.variants:
            delta = variant.try_rewrite(place.model, scope, node)
            if delta is not None:
                _put(place, scope, node, delta)
                break


def _put(place: _Place, scope: ir.Graph | ir.Function, root: ir.Node, delta: Any) -> None:
    old, new = list(delta.match.nodes), list(delta.new_nodes)
    if delta.new_initializers:
        raise ValueError(
            "replace: replacement must write its constants as op.Constant, got an initializer "
            f"{delta.new_initializers[0].name!r}"
        )
    was = " + ".join(sorted(node.op_type for node in old))
    metadata: dict[str, str] = {}
    for node in old:
        metadata = {**node.metadata_props, **metadata}
    for value, replaced in zip(delta.new_outputs, delta.match.outputs, strict=True):
        place.before[value] = place.before.get(replaced, (None, None))
        value.metadata_props.update(replaced.metadata_props)
    for i, node in enumerate(new):
        base = root.name or str(root.outputs[0].name)
        node.name = (
            root.name if len(new) == 1 else _walk.free_name(f"{base}/{node.op_type}", place.taken)
        )
        node.metadata_props.update(metadata)
        node.meta[WAS] = was
        for value in node.outputs:
            if value not in delta.new_outputs:
                value.name = _walk.free_name(f"{base}/{node.op_type}{i}", place.taken)
    taken = {value for node in old for value in node.inputs if value is not None}
    ir.convenience.replace_nodes_and_values(
        scope, root, old, new, delta.match.outputs, delta.new_outputs
    )
    for value in taken:
        _remove_constant(value)


def _remove_constant(value: ir.Value) -> None:
    """Removes a constant that nothing uses any more."""
    producer = value.producer()
    if value.uses() or value.is_graph_output() or value.graph is None:
        return
    if producer is not None and producer.op_type == "Constant":
        value.graph.remove(producer)
    elif value.is_initializer() and not value.is_graph_input():
        del value.graph.initializers[str(value.name)]


def _names(model: ir.Model) -> set[str]:
    names = set()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        names |= {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
        for node in ir.traversal.RecursiveGraphIterator(graph):
            names |= {str(node.name), *(str(value.name) for value in node.outputs)}
    return names


def _function(rule: Rule) -> ir.Function:
    body = rule.body
    proto = body if isinstance(body, onnx.FunctionProto) else body.to_function_proto()
    return ir.serde.deserialize_function(proto)


def _check_body(model: ir.Model, rule: Rule) -> None:
    if rule.body is None:
        return
    function = _function(rule)
    for domain, version in function.opset_imports.items():
        if model.opset_imports.get(domain, version) != version:
            raise ValueError(
                f"replace: body of {function.name} must be written in opset "
                f"{model.opset_imports[domain]}, which the model has, got {version}"
            )
    if function.identifier() in model.functions:
        raise ValueError(
            f"replace: body must be of a node that the model has no function for, got "
            f"{function.name}; leave the body out"
        )


def _add_body(model: ir.Model, rule: Rule) -> None:
    function = _function(rule)
    key = function.identifier()
    graphs = (model.graph, *(each.graph for each in model.functions.values()))
    nodes = (n for graph in graphs for n in ir.traversal.RecursiveGraphIterator(graph))
    if any(node.op_identifier() == key for node in nodes):
        model.functions[key] = function
        for domain, version in function.opset_imports.items():
            model.opset_imports.setdefault(domain, version)
