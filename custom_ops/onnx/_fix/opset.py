"""Moves a model to another opset, where every node means the same at both."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx
from onnx import defs

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._fix import changes_of_ops
from custom_ops.onnx._fix.context import Context, Hindered

LOWEST = 11  # below it some ops changed their meaning and kept their schema
# Opsets to which it was read what each change of an op means; see changes_of_ops.
REVIEWED = 28
_MOST_NAMED = 5


def set_opset(model: onnx.ModelProto, version: int) -> list[str]:
    """Moves a model, its functions and all subgraphs to an opset of ai.onnx, in place.

    Nodes stay as they are, metadata included, where the op's schema at both opsets is the same or
    differs only in what the node does not use: element types, inputs, outputs, and attributes that
    have their defaults. Some others are rewritten, where that is exact.

    Returns:
        What was done; nothing where the opset is right already.

    Raises:
        ValueError: Nodes hinder it, which it names; the model is then half changed.
    """
    newest = defs.onnx_opset_version()
    done, hindered = [], []
    context = Context(model)
    for holder, imports in _holders(model):
        versions = [each.version for each in imports if _walk.domain(each.domain) == ""]
        old = versions[-1] if versions else version  # of several the last counts
        if old == version:
            continue
        for number in (old, version):
            if not LOWEST <= number <= newest:
                raise ValueError(
                    f"fix: opset must be {LOWEST} to {newest} before and after, got {number}; "
                    "export the model at the opset that you need"
                )
        rewritten: list[str] = []
        for scope in _walk.within(holder):
            context.enter(scope, holder)
            for node in list(scope.node):
                if _walk.domain(node.domain) or _guarded.function_key(node) in context.functions:
                    continue
                try:
                    if _move(node, old, version, context):
                        rewritten.append(_called(node, holder))
                except Hindered as reason:
                    hindered.append(f"{_called(node, holder)} ({reason})")
                except (AttributeError, IndexError, TypeError, ValueError):
                    hindered.append(f"{_called(node, holder)} (it is malformed)")
            context.leave()
        for each in imports:
            if _walk.domain(each.domain) == "":
                each.version = version
        done.append(_said(holder, old, version, rewritten))
    if hindered:
        more = len(hindered) - _MOST_NAMED
        named = ", ".join(hindered[:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")
        raise ValueError(
            f"fix: opset must be one at which every node means the same, got {version}, at which "
            f"these do not: {named}; export the model at opset {version}, or deploy a release that "
            "takes its opset"
        )
    return done


def _holders(model: onnx.ModelProto) -> Iterator[tuple[_walk.Scope, Any]]:
    yield model.graph, model.opset_import
    for function in model.functions:
        yield function, function.opset_import


def _called(node: onnx.NodeProto, holder: _walk.Scope) -> str:
    name = node.name or next(filter(None, node.output), "")
    inside = f" in function {holder.name!r}" if isinstance(holder, onnx.FunctionProto) else ""
    return f"{node.op_type} {name!r}{inside}"


def _said(holder: _walk.Scope, old: int, new: int, rewritten: list[str]) -> str:
    what = f" of function {holder.name!r}" if isinstance(holder, onnx.FunctionProto) else ""
    nodes = ""
    if rewritten:
        more = len(rewritten) - _MOST_NAMED
        named = ", ".join(rewritten[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        nodes = f", rewriting {named}"
    return f"opset{what} {old} to {new}{nodes}"


def _move(node: onnx.NodeProto, old: int, new: int, context: Context) -> bool:
    """Makes a node one of another opset; returns whether it had to be changed."""
    first, last = _schema(node.op_type, old), _schema(node.op_type, new)
    if first is None:
        raise Hindered(f"opset {old} has no such op")
    steps = _steps(node.op_type, old, new)
    if last is None or not steps:
        if last is None or first.since_version != last.since_version:
            raise Hindered(f"opset {new} has no such op")
        return False
    before = node.SerializeToString(deterministic=True)
    given = [list(node.input), list(node.output)]
    for lower, upper in steps:
        up = new > old
        since = upper.since_version
        if since > REVIEWED and (_signature(lower) != _signature(upper)):
            raise Hindered(f"it changed at opset {since}, which is newer than this tool")
        source, result = (lower, upper) if up else (upper, lower)
        rewrite = changes_of_ops.REWRITES.get((node.op_type, since))
        check = changes_of_ops.CHECKS.get((node.op_type, since))
        if check is not None:
            check(node, up, context)
        if rewrite is not None:
            rewrite(node, up, context)
        elif _signature(lower) != _signature(upper):
            _fit(node, source, result)
    _check_types(node, given, first, last, context)
    return bool(node.SerializeToString(deterministic=True) != before)


@cache
def _schema(op: str, version: int) -> defs.OpSchema | None:
    try:
        return defs.get_schema(op, version, "")
    except defs.SchemaError:
        return None


@cache
def _steps(op: str, old: int, new: int) -> list[tuple[defs.OpSchema, defs.OpSchema]]:
    """Returns the changes of an op between two opsets, as pairs of schemas, in the order to take.

    The pair is always (earlier, later).
    """
    low, high = sorted((old, new))
    found = {}
    for version in range(low, high + 1):
        schema = _schema(op, version)
        if schema is not None:
            found[schema.since_version] = schema
    versions = sorted(found)
    pairs = [(found[a], found[b]) for a, b in itertools.pairwise(versions)]
    return pairs if new > old else pairs[::-1]


@cache
def _signature(schema: defs.OpSchema) -> tuple[Any, ...]:
    """Returns all of a schema but its types and texts."""
    attributes = sorted(
        (name, str(each.type), each.required, str(each.default_value))
        for name, each in schema.attributes.items()
    )
    formals = [
        [(str(f.option), f.is_homogeneous, f.min_arity) for f in formals]
        for formals in (schema.inputs, schema.outputs)
    ]
    return (tuple(attributes), *map(tuple, formals), schema.deprecated)


def _fit(node: onnx.NodeProto, source: defs.OpSchema, result: defs.OpSchema) -> None:
    """Checks that a node uses only what the other schema has too; drops defaults that it has not.

    Raises:
        Hindered: It uses more, or means something else there.
    """
    since = max(source.since_version, result.since_version)
    for attribute in list(node.attribute):
        name = attribute.name
        if name in result.attributes or name not in source.attributes:
            continue
        default = source.attributes[name].default_value
        if not _same_value(attribute, default):
            raise Hindered(f"its {name} changed at opset {since}")
        node.attribute.remove(attribute)
    present = {attribute.name for attribute in node.attribute}
    for name, wanted in result.attributes.items():
        if name not in present and wanted.required:
            raise Hindered(f"its {name} must be given at the other opset")
        other = source.attributes.get(name)
        if other is not None and str(other.default_value) != str(wanted.default_value):
            raise Hindered(f"its {name} changed at opset {since}")
    for what, values, formals, most in (
        ("input", node.input, result.inputs, result.max_input),
        ("output", node.output, result.outputs, result.max_output),
    ):
        while values and not values[-1] and len(values) > most:
            del values[-1]
        if len(values) > most:
            raise Hindered(f"its {what} {most + 1} came at opset {since}")
        for i, formal in enumerate(formals):
            single = formal.option == defs.OpSchema.FormalParameterOption.Single
            if single and (i >= len(values) or not values[i]):
                raise Hindered(f"its {what} {formal.name} must be given at the other opset")
    if result.deprecated:
        raise Hindered(f"it is deprecated before opset {since}")


def _same_value(attribute: onnx.AttributeProto, default: onnx.AttributeProto) -> bool:
    if attribute.ref_attr_name:
        return False
    if attribute.name == "dilations":  # has no default in schemas, since that is as long as axes
        return bool(set(attribute.ints) <= {1})
    if not default.type or attribute.type != default.type:
        return False
    value = onnx.helper.get_attribute_value(attribute)
    return bool(value == onnx.helper.get_attribute_value(default))


def _check_types(
    node: onnx.NodeProto,
    given: list[list[str]],
    first: defs.OpSchema,
    last: defs.OpSchema,
    context: Context,
) -> None:
    """Raises where a node has element types that the other schema does not take."""
    for names, had, has in (
        (given[0], first.inputs, last.inputs),
        (given[1], first.outputs, last.outputs),
    ):
        for i, name in enumerate(names):
            if not name or not had or not has:
                continue
            before, after = had[min(i, len(had) - 1)], has[min(i, len(has) - 1)]
            if before.types <= after.types:
                continue
            types = context.types(node, name)
            if not types:
                raise Hindered(f"the type of {name!r} is not known, and not every one is taken")
            if not types <= after.types:
                more = ", ".join(sorted(types - after.types))
                raise Hindered(f"{more} came at another opset than {last.since_version}")
