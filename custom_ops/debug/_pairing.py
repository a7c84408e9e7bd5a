"""Finds which result of torch a value of a model is: by module, order, shape and kind."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from custom_ops.debug._alignment import aligned
from custom_ops.debug._candidates import Candidate, candidates_of
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._kinds import LOOPS, fits, torch_kind
from custom_ops.debug._recording import Recording, Ref, Step
from custom_ops.debug._result import Unmatched
from custom_ops.debug._sketch import alike, form_of, sketch
from custom_ops.debug._unmatched import unmatched_of
from custom_ops.onnx._verify import to_array
from custom_ops.onnx._walk import used

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_ROUNDS = 16  # of pairing what follows a fault; each goes at least one node further


@dataclass(frozen=True)
class Pairs:
    """What found its partner.

    Attributes:
        of_value: The result of torch that a value of the model is.
        unmatched: The others.
        approximate: Whether modules were not known, and order and shape alone decided.
    """

    of_value: Mapping[str, Ref]
    unmatched: tuple[Unmatched, ...]
    approximate: bool


def names_modules(graph: Graph) -> bool:
    """Returns whether most nodes say which module they come from."""
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    return sum(node.scope is not None for node in nodes) * 2 >= len(nodes)


def pair(
    graph: Graph, values: Mapping[str, Array], recording: Recording, run: Run | None = None
) -> Pairs:
    """Pairs the values of a model that names modules with the results of torch.

    Behind a fault numbers tell nothing of what arrives. Where some are not alike they are therefore
    paired again, by what the nodes give when they are fed with the partners that were found, until
    nothing changes: a fault, or a wrong partner, then hides those next to it alone.

    Args:
        graph: The model.
        values: What it makes when it runs, by name.
        recording: What torch did on the same inputs.
        run: Runs the model with some values fed; may leave out values that do not come then. None
            where there is no fault to look past.
    """
    candidates = candidates_of(recording)
    by_ref = {each.ref: each for each in candidates}
    found = _paired(graph, values, candidates, recording)
    given = values
    for _ in range(_ROUNDS if run is not None else 0):
        assert run is not None
        if not _unlike(found, given, by_ref):
            break
        given = {**values, **run(_fed(found, recording))}
        again = _paired(graph, given, candidates, recording)
        if again == found:
            unlike = _unlike(found, given, by_ref)
            others = {name: ref for name, ref in found.items() if name not in unlike}
            alone = {**values, **run(_fed(others, recording))}
            again = _with_rivals(graph, alone, found, {n: by_ref[found[n]] for n in unlike})
            if again == found:
                break
        found = again
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    unmatched = unmatched_of(graph, nodes, values, candidates, found, recording)
    return Pairs(found, tuple(unmatched), False)


def _fed(found: Mapping[str, Ref], recording: Recording) -> dict[str, Array]:
    return {name: to_array(recording.value(ref)) for name, ref in found.items()}


def _unlike(
    found: Mapping[str, Ref], given: Mapping[str, Array], by_ref: Mapping[Ref, Candidate]
) -> list[str]:
    """Returns the values whose numbers are not those of their partners."""
    known = ((name, by_ref.get(ref)) for name, ref in found.items())
    return [n for n, c in known if c is not None and not alike(sketch(given[n]), c.sketch)]


def _with_rivals(
    graph: Graph,
    given: Mapping[str, Array],
    found: Mapping[str, Ref],
    unlike: Mapping[str, Candidate],
) -> dict[str, Ref]:
    """Gives partners that are not alike to values without one that are, if there are any.

    Args:
        graph: The model.
        given: What it makes where those that are not alike are not fed.
        found: The pairs.
        unlike: Of the values that are not alike, the partners.
    """
    free = [
        (node, name)
        for node in graph.nodes
        for name in node.proto.output
        if name in given and name not in found
    ]
    new = dict(found)
    for name, partner in unlike.items():
        if name in graph.outputs:
            continue
        for node, rival in free:
            proto, array = node.proto, given[rival]
            if (
                rival not in new
                and form_of(array) == partner.form
                and alike(sketch(array), partner.sketch)
                and fits(proto.op_type, proto.domain, node.target, partner.kinds)
            ):
                new[rival] = new.pop(name)
                break
    return new


def _paired(
    graph: Graph,
    values: Mapping[str, Array],
    candidates: Sequence[Candidate],
    recording: Recording,
) -> dict[str, Ref]:
    """Pairs values by module, order, shape, kind and numbers."""
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    ours: dict[str, list[tuple[Node, str]]] = defaultdict(list)
    for node in nodes:
        if node.scope is not None:
            where = recording.aliases.get(node.scope.path, node.scope.path)
            ours[where] += [(node, name) for name in node.proto.output if name in values]
    theirs: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        theirs[candidate.step.path].append(candidate)
    of_value = outputs_of(graph, values, recording)
    leaving = leaving_of(graph)
    for where, makers in ours.items():
        of_value |= aligned(makers, values, theirs.get(where, []), of_value, leaving)
    of_value |= _of_scripts(nodes, values, candidates, of_value)
    return _past_merged(graph, of_value, recording)


def outputs_of(graph: Graph, values: Mapping[str, Array], recording: Recording) -> dict[str, Ref]:
    """Returns the outputs, which are those of the module, in order."""
    names = graph.outputs
    if len(names) != len(recording.outputs):
        return {}
    return {
        name: ref
        for name, ref in zip(names, recording.outputs, strict=True)
        if name in values and name in graph.producer
    }


def leaving_of(graph: Graph) -> set[str]:
    """Returns the values that are used outside the module call that their node comes from."""
    leaving = set(graph.outputs)
    for node in graph.nodes:
        for name in used(node.proto):
            maker = graph.producer.get(name)
            if maker is not None and _inside(maker) != _inside(node):
                leaving.add(name)
    return leaving


def _inside(node: Node) -> object:
    return None if node.scope is None else (node.scope.path, node.scope.call)


def _of_scripts(
    nodes: Iterable[Node],
    values: Mapping[str, Array],
    candidates: Sequence[Candidate],
    fixed: Mapping[str, Ref],
) -> dict[str, Ref]:
    """Pairs what loops of scripts give, which name no module, with the last result alike."""
    taken = set(fixed.values())
    found: dict[str, Ref] = {}
    for node in nodes:
        if node.scope is None and node.proto.op_type in LOOPS:
            for name in node.proto.output:
                if name in values and name not in fixed:
                    own, form = sketch(values[name]), form_of(values[name])
                    near = [c for c in candidates if c.form == form and c.ref not in taken]
                    same = [c.ref for c in near if alike(own, c.sketch)]
                    if same:
                        found[name] = same[-1]
                        taken.add(same[-1])
    return found


def _past_merged(graph: Graph, of_value: Mapping[str, Ref], recording: Recording) -> dict[str, Ref]:
    """Moves a value on to the result of the BatchNorm that the exporter merged into its node."""
    users: dict[Ref, list[Step]] = defaultdict(list)
    for step in recording.steps:
        for ref in step.refs:
            users[ref].append(step)
    taken = set(of_value.values())
    normalizations = {
        node.proto.input[0] for node in graph.nodes if node.proto.op_type == "BatchNormalization"
    }
    moved = dict(of_value)
    for name, ref in of_value.items():
        if graph.producer[name].proto.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        after = users[ref]
        if len(after) != 1 or torch_kind(after[0].name) != "batch_norm":
            continue
        result = Ref(after[0].index, 0)
        if name not in normalizations and result not in taken:
            moved[name] = result
    return moved
