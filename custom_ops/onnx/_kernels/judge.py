"""Whether a release of ONNX Runtime runs the nodes of a model on the CPU.

A node of a domain of ONNX runs where a kernel serves it; else where the body that ONNX defines for
its op does; else, in float16, where a kernel takes float32, as the runtime puts casts around it. Of
the runtime's own domains the table has a kernel where one of its bodies serves, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._kernels.table import Schema
from custom_ops.onnx._kernels.typed import SchemaOf, TypedNode, flat, typed
from custom_ops.onnx._walk import STANDARD_DOMAINS

HALF, FLOAT = "tensor(float16)", "tensor(float)"
_EMPTY_DOMAINS = frozenset({"com.microsoft.experimental"})  # which every release takes, without ops
_DEEPEST = 8  # bodies within bodies; ONNX's own go three deep


class Outcome(Enum):
    """What becomes of a node that does not just run.

    UNKNOWN: the release has no such op at the opset. CALL: it has, but not with these inputs or
    attributes. KERNEL: it has no kernel for the types. CASTS: it runs in float32, between casts.
    """

    UNKNOWN = "unknown"
    CALL = "call"
    KERNEL = "kernel"
    CASTS = "casts"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a node that does not just run.

    Attributes:
        node: The node.
        outcome: What becomes of it.
        schema: Its op in the release at the opset; None where there is none.
        inner: Where the op has a body, what becomes of the node of the body that decides.
    """

    node: TypedNode
    outcome: Outcome
    schema: Schema | None = None
    inner: "Verdict | None" = None


def judge_model(model: onnx.ModelProto, schema_of: SchemaOf) -> list[Verdict]:
    """Returns what becomes of the nodes of a model that do not just run, functions inlined."""
    try:
        known = flat(model)
    except _guarded.Refused:  # then by the types that the model declares
        known = model
    return list(judge(known.graph, schema_of))


def judge(graph: onnx.GraphProto, schema_of: SchemaOf) -> Iterator[Verdict]:
    """Yields what becomes of each node of a graph that does not just run.

    Args:
        graph: A graph without functions of the model, with the types that onnx infers.
        schema_of: The release and the opsets.
    """
    yield from _settle(_without_kernel(graph, schema_of), schema_of, _DEEPEST)


def takes(schema: Schema, node: TypedNode, schema_of: SchemaOf, *as_float: str) -> bool:
    """Returns whether a kernel takes the types of a node.

    Args:
        schema: The op.
        node: The node.
        schema_of: The release.
        as_float: Types that count as float32.
    """
    kinds = [
        tuple(FLOAT if kind in as_float else kind for kind in each)
        for each in (node.inputs, node.outputs)
    ]
    bound = schema.bound(*kinds)
    return any(kernel.takes(bound) for kernel in schema_of.table.kernels(schema))


def misfit(node: onnx.NodeProto, schema: Schema) -> str | None:
    """Returns how a node is called as its op cannot be; None where it can.

    The runtime refuses such a node, and ends where an input of any number of them is left out.
    """
    names = (attribute.name for attribute in node.attribute)
    unknown = [name for name in names if name not in schema.attributes and name[:1] != "_"]
    if unknown:
        return f"attribute {unknown[0]!r}"
    formals = schema.inputs
    if len(node.input) > len(formals) and not (formals and formals[-1].variadic):
        return f"{len(node.input)} inputs, where it has {len(formals)}"
    for i, formal in enumerate(formals):
        given = list(node.input[i:] if formal.variadic else node.input[i : i + 1])
        if formal.required and ("" in given or not (given or formal.variadic)):
            return f"no input {formal.name!r}"
    return None


def _without_kernel(graph: onnx.GraphProto, schema_of: SchemaOf) -> list[TypedNode]:
    return [node for node in typed(graph, schema_of) if not _runs(node, schema_of)]


def _runs(node: TypedNode, schema_of: SchemaOf) -> bool:
    """Returns whether a node runs as it is, or is of a domain that the table says nothing of."""
    domain = _walk.domain(node.node.domain)
    known = schema_of.table.domains | STANDARD_DOMAINS | _EMPTY_DOMAINS
    if domain not in schema_of.opsets or domain not in known:
        return True
    schema = schema_of(node.node)
    if schema is None or misfit(node.node, schema):
        return False
    constant = (domain, node.node.op_type) == ("", "Constant")  # becomes an initializer
    return constant or takes(schema, node, schema_of)


def _settle(nodes: Sequence[TypedNode], schema_of: SchemaOf, depth: int) -> Iterator[Verdict]:
    """Yields what becomes of nodes without a kernel."""
    queries: dict[bytes, TypedNode] = {}
    keys: dict[int, bytes] = {}
    for node in nodes:
        schema = schema_of(node.node)
        if schema is None:
            yield Verdict(node, Outcome.UNKNOWN)
        elif misfit(node.node, schema):
            yield Verdict(node, Outcome.CALL, schema)
        else:
            key = _alone(node).SerializeToString(deterministic=True)
            keys[id(node)] = key
            if schema.domain in STANDARD_DOMAINS:  # of others onnx knows no bodies
                queries.setdefault(key, node)
    inside = {
        key: _without_kernel(body, schema_of)
        for key, body in zip(queries, _bodies(queries.values(), schema_of, depth), strict=True)
        if body is not None
    }
    waiting = [node for inner in inside.values() for node in inner]
    within: Iterable[Verdict] = _settle(waiting, schema_of, depth - 1) if waiting else ()
    settled = {id(verdict.node): verdict for verdict in within}
    for node in nodes:
        key_of_it = keys.get(id(node))
        schema = schema_of(node.node)
        if key_of_it is None or schema is None:
            continue
        if key_of_it in inside:
            verdicts = [settled[id(each)] for each in inside[key_of_it] if id(each) in settled]
            refused = [each for each in verdicts if each.outcome is not Outcome.CASTS]
            if refused:
                yield Verdict(node, Outcome.KERNEL, schema, refused[0])
            elif verdicts:
                yield Verdict(node, Outcome.CASTS, schema, verdicts[0])
        elif HALF in node.inputs and takes(schema, node, schema_of, HALF):
            yield Verdict(node, Outcome.CASTS, schema)
        else:
            yield Verdict(node, Outcome.KERNEL, schema)


def _bodies(
    nodes: Iterable[TypedNode], schema_of: SchemaOf, depth: int
) -> list[onnx.GraphProto | None]:
    graphs = [_alone(node) for node in nodes]
    if not graphs or not depth:
        return [None] * len(graphs)
    opsets = [onnx.helper.make_opsetid(*each) for each in schema_of.opsets.items()]
    return _guarded.expand(graphs, opsets)


def _alone(node: TypedNode) -> onnx.GraphProto:
    """Returns a graph of one node, whose values are called by their place."""
    graph = onnx.GraphProto(name="alone")
    call = graph.node.add()
    call.CopyFrom(node.node)
    call.name = call.doc_string = ""
    del call.metadata_props[:]
    places = ((call.input, graph.input, "i"), (call.output, graph.output, "o"))
    for (names, values, letter), given in zip(
        places, (node.node.input, node.node.output), strict=True
    ):
        for i, name in enumerate(given):
            if name:
                names[i] = f"{letter}{i}"
                value = values.add(name=names[i])
                if name in node.types:
                    value.type.CopyFrom(node.types[name])
    return graph
