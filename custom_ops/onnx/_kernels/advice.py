"""What to say of a node that a release does not run, and what to do about it, by the tables."""

import difflib
import re
from collections.abc import Iterable
from itertools import chain

from custom_ops.onnx import _walk
from custom_ops.onnx._kernels.judge import HALF, Outcome, Verdict, misfit, takes
from custom_ops.onnx._kernels.table import Kind, Schema, table
from custom_ops.onnx._kernels.typed import SchemaOf, TypedNode
from custom_ops.onnx._targets import RELEASES

# Where float32 is all that has a kernel, these can become it; integers would lose digits.
_FLOATING = ("tensor(double)", HALF, "tensor(bfloat16)")
_DTYPES = {"float": "float32", "double": "float64"}


def readable(kind: Kind) -> str:
    """Returns a type by the names of NumPy.

    Example:
        >>> readable("seq(tensor(double))")
        'sequence of float64'
    """
    text = re.sub(r"tensor\((\w+)\)", lambda m: _DTYPES.get(m[1], m[1]), kind or "unknown")
    wrapped = re.match(r"(seq|optional)\((.*)\)$", text)
    if wrapped is not None:
        return f"{'sequence' if wrapped[1] == 'seq' else 'optional'} of {readable(wrapped[2])}"
    return text


def sentence(verdict: Verdict, schema_of: SchemaOf) -> str:
    """Returns what is wrong with a node, or what the release does with it."""
    node, schema = verdict.node.node, verdict.schema
    domain = _walk.domain(node.domain)
    place = f"onnxruntime {schema_of.table.release} at opset {schema_of.opsets[domain]}"
    place += f" of {domain}" * bool(domain)
    if schema is None:
        return f"{node.op_type} must be an op of {place}, got {_known(verdict.node, schema_of)}"
    if verdict.outcome is Outcome.CALL:
        return f"{node.op_type} must be called as {place} knows it, got {misfit(node, schema)}"
    inside = _inside(verdict, schema_of)
    if verdict.outcome is Outcome.CASTS:
        why = f", as {inside} of its body" * bool(inside)
        return f"{node.op_type} in float16 runs in float32, between casts, on {place}{why}"
    kinds = _and(map(readable, _at_fault(verdict.node, schema, schema_of)))
    got = f"none, and {inside} of its body" if inside else _kernels(schema, schema_of)
    return f"{node.op_type} in {kinds} must have a CPU kernel in {place}, got {got}"


def remedy(verdict: Verdict, schema_of: SchemaOf) -> str:
    """Returns what to do: another opset or release that runs the node, or float32."""
    node, domain = verdict.node, _walk.domain(verdict.node.node.domain)
    if verdict.outcome is Outcome.CASTS:
        return "convert it to float32 where speed matters"
    ways = []
    opset = _other_opset(node, schema_of) if domain == "" else None
    if opset is not None:
        ways.append(f"export at opset {opset}")
    schema = verdict.schema
    if verdict.outcome is Outcome.KERNEL and schema is not None:
        floating = any(kind in _FLOATING for kind in (*node.inputs, *node.outputs))
        if floating and takes(schema, node, schema_of, *_FLOATING):
            ways.append("convert it to float32")
    release = _later_release(node, schema_of)
    if release is not None:
        ways.append(f"deploy onnxruntime {release}")
    if schema is None and not schema_of.table.versions(domain, node.node.op_type):
        near = difflib.get_close_matches(node.node.op_type, schema_of.table.names(domain), 1)
        ways += [f"write {name}, if that is meant" for name in near]
    if verdict.outcome is Outcome.CALL and not ways:
        return "write the call anew"
    return ", or ".join(ways) or "write it with other ops, or use a library that has a kernel"


def _known(node: TypedNode, schema_of: SchemaOf) -> str:
    domain, name = _walk.domain(node.node.domain), node.node.op_type
    opset, known = schema_of.opsets[domain], schema_of.table.versions(domain, name)
    if not known:
        return "a name that it does not know"
    if known[0].since > opset:
        return f"one that opset {known[0].since} brings"
    return f"one that opset {max(each.since for each in known if each.deprecated)} took away"


def _kernels(schema: Schema, schema_of: SchemaOf) -> str:
    """Returns for what types there are kernels."""
    kernels = schema_of.table.kernels(schema)
    if not kernels:
        return "none"
    kinds = [kind for kernel in kernels for types in kernel.types.values() for kind in types]
    return f"kernels for {_and(map(readable, dict.fromkeys(kinds)))}" if kinds else "none"


def _at_fault(node: TypedNode, schema: Schema, schema_of: SchemaOf) -> list[Kind]:
    """Returns the types of a node that no kernel takes where it has them; all, if each is taken."""
    bound = schema.bound(node.inputs, node.outputs)
    kernels = schema_of.table.kernels(schema)
    strings = dict.fromkeys(string for kernel in kernels for string in kernel.types)
    names = list(strings) or [formal.type_string for formal in (*schema.inputs, *schema.outputs)]
    kinds = {name: bound[name] for name in names if bound.get(name)}
    lacking = [
        kind
        for name, kind in kinds.items()
        if not any(kind in kernel.types.get(name, (kind,)) for kernel in kernels)
    ]
    return list(dict.fromkeys(lacking or kinds.values())) or ["unknown types"]


def _inside(verdict: Verdict, schema_of: SchemaOf) -> str:
    """Returns which op of the body has no kernel; an empty string where there is no body."""
    if verdict.inner is None:
        return ""
    inner = verdict.inner
    while inner.inner is not None:
        inner = inner.inner
    name = inner.node.node.op_type
    if inner.schema is None:
        return f"no op {name}"
    return (
        f"none for {name} in {_and(map(readable, _at_fault(inner.node, inner.schema, schema_of)))}"
    )


def _runs_at(node: TypedNode, schema_of: SchemaOf) -> bool:
    """Returns whether a kernel takes a node as it is written, with casts or without."""
    schema = schema_of(node.node)
    return schema is not None and not misfit(node.node, schema) and takes(schema, node, schema_of)


def _other_opset(node: TypedNode, schema_of: SchemaOf) -> int | None:
    """Returns the nearest opset at which the release has a kernel for a node, a newer one first."""
    newest = RELEASES[schema_of.table.release][0]
    now = min(max(schema_of.opsets[""], 0), newest + 1)  # a file may say any number
    for opset in chain(range(now + 1, newest + 1), range(now - 1, 6, -1)):
        if _runs_at(node, SchemaOf(schema_of.table, {**schema_of.opsets, "": opset})):
            return opset
    return None


def _later_release(node: TypedNode, schema_of: SchemaOf) -> str | None:
    """Returns the first later release that has a kernel for a node."""
    names = list(RELEASES)
    for release in names[names.index(schema_of.table.release) + 1 :]:
        fits = RELEASES[release][0] >= schema_of.opsets.get("", 0)
        if fits and _runs_at(node, SchemaOf(table(release), schema_of.opsets)):
            return release
    return None


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
