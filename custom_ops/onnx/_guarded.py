"""onnx's checker, shape inference and inliner under limits: a hostile model must not stop us.

Twenty-five functions that call the next one twice each are 2^25 nodes, in which all three hang; a
few broken models crash them. So they run in a child process, for a limited time, on models whose
functions do not expand beyond a limit. Large weights stay here: only small ones can be shapes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx

from custom_ops.onnx import _child, _walk

MOST_NODES = 2_000_000
_UNCOUNTED = 10**18  # a number of nodes beyond which none is counted
SECONDS = 60.0
_CHILD = Path(__file__).with_name("_onnx_child.py")
_LARGEST_KEPT = 4096  # bytes

FunctionKey = tuple[str, str, str]


class Refused(Exception):
    """What onnx said of a model, or that a limit was reached, in one line."""

    def __init__(self, said: str) -> None:
        super().__init__(" ".join(said.split()))  # names of a model may have line breaks


class Said(Refused):
    """What onnx said of a model."""


def infer_shapes(model: onnx.ModelProto, seconds: float = SECONDS) -> onnx.ModelProto:
    """Returns a model with the types and shapes that onnx infers, without its large weights.

    Raises:
        Refused: onnx raised, crashed, or did not end.
    """
    return onnx.load_from_string(_run("infer", model, seconds))


def check(model: onnx.ModelProto, seconds: float = SECONDS) -> None:
    """Runs onnx's checker, which looks at the model without its large weights.

    Raises:
        Refused: What it says.
    """
    _run("check", model, seconds)


def contradictions(answer: bytes) -> tuple[str, onnx.ModelProto]:
    """Reads an answer to "contradictions": what strict inference says, and what it infers.

    In what it says, each contradiction is in a line of its own; "" where nothing is wrong.
    """
    length, _, rest = answer.partition(b"\n")
    said, inferred = rest[: int(length)], rest[int(length) :]
    return said.decode(errors="replace"), onnx.load_from_string(inferred)


def several(
    requests: Sequence[tuple[str, onnx.ModelProto]], seconds: float = SECONDS
) -> list["bytes | Refused"]:
    """Returns what comes of actions on models, in one process as long as none ends it.

    Args:
        requests: Names of actions of the child, as "check", each with its model.
        seconds: How long all of them may take; where they take longer, how long each may.

    Returns:
        For each the answer, or why there is none.
    """
    if not requests:
        return []
    answers: dict[int, bytes | Refused] = {}
    carrier = onnx.ModelProto(ir_version=10)
    for number, (action, model) in enumerate(requests):
        try:
            bare = _bare(action, model)
        except Refused as refused:
            answers[number] = refused
            continue
        node = carrier.graph.node.add(op_type=action, name=str(number))
        node.attribute.add(name="model", type=onnx.AttributeProto.STRING, s=bare)
    try:
        if carrier.graph.node:
            carrier.ParseFromString(_in_child("several", carrier.SerializeToString(), seconds))
    except Refused as refused:
        if len(carrier.graph.node) == 1:
            answers[int(carrier.graph.node[0].name)] = refused
            del carrier.graph.node[:]
        for node in carrier.graph.node:  # one can crash onnx: the others shall not suffer
            number = int(node.name)
            (answers[number],) = several([requests[number]], seconds)
        del carrier.graph.node[:]
    for node in carrier.graph.node:
        answer = node.attribute[0]
        said = answer.s.decode(errors="replace")
        answers[int(node.name)] = Said(said) if answer.name == "refused" else answer.s
    return [answers[number] for number in range(len(requests))]


def inline(model: onnx.ModelProto, seconds: float = SECONDS) -> onnx.ModelProto:
    """Returns a model whose functions are inlined, without its large weights.

    Raises:
        Refused: onnx raised, crashed, or did not end.
    """
    return onnx.load_from_string(_run("inline", model, seconds))


def expand(
    nodes: Sequence[onnx.GraphProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
    seconds: float = SECONDS,
) -> list[onnx.GraphProto | None]:
    """Returns the bodies that ONNX defines for ops, with the types that onnx infers.

    Args:
        nodes: Graphs of one node each, whose inputs have types.
        opsets: The versions of the domains.
        seconds: How long it may take.

    Returns:
        For each node its body; None where it has none, or where onnx does not manage.
    """
    carrier = onnx.ModelProto(ir_version=10, opset_import=opsets)
    for graph in nodes:
        query = carrier.graph.node.add(op_type="Query")
        query.attribute.add(name="graph", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
    try:
        answer = onnx.load_from_string(_run("expand", carrier, seconds))
    except Refused:
        if len(nodes) < 2:
            return [None] * len(nodes)
        half = len(nodes) // 2  # one node can crash onnx: the others shall not suffer
        halves = (nodes[:half], nodes[half:])
        return [each for part in halves for each in expand(part, carrier.opset_import, seconds)]
    return [each.attribute[0].g if each.attribute else None for each in answer.graph.node]


def _run(action: str, model: onnx.ModelProto, seconds: float) -> bytes:
    return _in_child(action, _bare(action, model), seconds)


def _bare(action: str, model: onnx.ModelProto) -> bytes:
    """Returns what a child gets of a model.

    Raises:
        Refused: It would not end.
    """
    count = expanded_nodes(model)
    if count is None:
        raise Refused("functions must not call themselves, got a recursion")
    if count > MOST_NODES:
        raise Refused(f"functions must expand to at most {MOST_NODES:,} nodes, got {count:,}")
    return bytes(without_large_weights(model, action != "check").SerializeToString())


def _in_child(action: str, model: bytes, seconds: float) -> bytes:
    done = _child.run([_CHILD, action], model, seconds)
    if done.code is None:
        raise Refused(f"onnx must be done within {seconds:g} s, got no end")
    if done.code:
        said = done.errors.strip()
        ended = f"onnx ended the process with {done.code}"
        raise Refused(said if done.code == 1 and said else ended)
    return done.output


def function_key(node: onnx.NodeProto) -> FunctionKey:
    """Returns which function a node would call."""
    return _walk.domain(node.domain), node.op_type, node.overload


def key_of(function: onnx.FunctionProto) -> FunctionKey:
    """Returns what nodes call a function."""
    return _walk.domain(function.domain), function.name, function.overload


def functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """Returns the functions of a model by what nodes call."""
    return {key_of(function): function for function in model.functions}


def expanded_nodes(model: onnx.ModelProto) -> int | None:
    """Returns how many nodes a model has once all functions are inlined; None for a recursion.

    Numbers beyond any use are cut off.
    """
    counts, cycle = _expanded(functions(model))
    return None if cycle else _count(model.graph, counts)


def recursion(model: onnx.ModelProto) -> list[FunctionKey]:
    """Returns functions of which each calls the next one, and the last the first; or none."""
    return _expanded(functions(model))[1]


def _expanded(
    bodies: dict[FunctionKey, onnx.FunctionProto],
) -> tuple[dict[FunctionKey, int], list[FunctionKey]]:
    """Returns the number of nodes of each function, inlined, and the first recursion."""
    counts: dict[FunctionKey, int] = {}
    # Depth first, without recursion of ours: functions may be nested as deep as there are any.
    for root in bodies:
        if root in counts:
            continue
        stack = [(root, iter(list(_calls(bodies[root], bodies))))]
        open_ones = {root: None}  # in order
        while stack:
            key, callees = stack[-1]
            callee = next(callees, None)
            if callee is None:
                stack.pop()
                del open_ones[key]
                counts[key] = _count(bodies[key], counts)
            elif callee in open_ones:
                path = list(open_ones)
                return counts, path[path.index(callee) :]
            elif callee not in counts:
                open_ones[callee] = None
                stack.append((callee, iter(list(_calls(bodies[callee], bodies)))))
    return counts, []


def _calls(
    scope: _walk.Scope, bodies: dict[FunctionKey, onnx.FunctionProto]
) -> Iterator[FunctionKey]:
    for inner in _walk.within(scope):
        yield from (key for key in map(function_key, inner.node) if key in bodies)


def _count(scope: _walk.Scope, counts: dict[FunctionKey, int]) -> int:
    inside = (node for inner in _walk.within(scope) for node in inner.node)
    return min(sum(counts.get(function_key(node), 1) for node in inside), _UNCOUNTED)


def without_large_weights(model: onnx.ModelProto, shapes: bool = True) -> onnx.ModelProto:
    """Returns a copy whose large tensors have no data.

    Args:
        model: The model; left as it is.
        shapes: Whether they keep their shapes, else they are of no elements: the checker wants
            data for each element, and does not compare shapes.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for scope in _walk.scopes(bare) if not shapes else ():  # whose indices would not fit
        for sparse in scope.sparse_initializer if isinstance(scope, onnx.GraphProto) else ():
            scope.initializer.add(
                name=sparse.values.name, data_type=sparse.values.data_type, dims=[0]
            )
        if isinstance(scope, onnx.GraphProto):
            del scope.sparse_initializer[:]
    for tensor in _walk.tensors(bare):
        if tensor.ByteSize() > _LARGEST_KEPT or tensor.data_location == tensor.EXTERNAL:
            empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0])
            if shapes:
                empty.dims[:] = tensor.dims
                empty.data_location = onnx.TensorProto.EXTERNAL
                empty.external_data.add(key="location", value="none")
            tensor.CopyFrom(empty)
    return bare
