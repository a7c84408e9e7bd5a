"""Says why values and results have no partner."""

from collections.abc import Iterable, Mapping

from custom_ops.debug._candidates import Candidate
from custom_ops.debug._float64 import Replay
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._inside import LOOP_BODY
from custom_ops.debug._recording import Recording, Ref
from custom_ops.debug._regions import regions
from custom_ops.debug._result import Unmatched


def unmatched_of(
    graph: Graph,
    nodes: Iterable[Node],
    values: Mapping[str, Array],
    candidates: Iterable[Candidate],
    of_value: Mapping[str, Ref],
    recording: Recording,
) -> Iterable[Unmatched]:
    """Yields the values and results without partner, and why."""
    stops = frozenset(of_value.values())
    inside = {
        node.index: name for name, region in regions(graph, of_value).items() for node in region
    }
    passed = {
        step.index: recording.steps[ref.step].name
        for ref in of_value.values()
        for step in Replay(recording, ref, stops).steps
    }
    for node in nodes:
        for name in node.proto.output:
            if name and name not in of_value:
                if name not in values:
                    reason = "is no tensor, or was not computed"
                elif node.index in inside:
                    reason = f"is a part of what gives {inside[node.index]}"
                elif node.scope is None:
                    reason = "its node names no module"
                else:
                    reason = "no result of its module has its shape, kind and place"
                where = node.scope.path if node.scope is not None else ""
                yield Unmatched("model", name, node.proto.op_type, where, reason)
    taken = set(of_value.values())
    for candidate in candidates:
        if candidate.ref not in taken and candidate.ref.output == 0:
            step = candidate.step
            reason = "no value of its module has its shape, kind and place"
            if step.index in passed:
                reason = f"is a part of what gives {passed[step.index]}"
            yield Unmatched("reference", step.name, step.name, step.path, reason)
    for step in recording.steps:
        if step.depends and step.in_loop:
            yield Unmatched("reference", step.name, step.name, step.path, LOOP_BODY)
