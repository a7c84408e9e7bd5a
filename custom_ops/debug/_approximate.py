"""Pairs the values of a model that notes no modules: by the numbers, and past faults by trying."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from custom_ops.debug._alignment import aligned
from custom_ops.debug._candidates import Candidate, candidates_of
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._kinds import fits
from custom_ops.debug._pairing import Pairs, Run, leaving_of, outputs_of
from custom_ops.debug._recording import Recording, Ref
from custom_ops.debug._sketch import form_of
from custom_ops.debug._unmatched import unmatched_of
from custom_ops.onnx._verify import to_array
from custom_ops.onnx._walk import used

_FAULTS, _TRIALS = 8, 12  # faults that are passed, and runs for each
_PARTNERS = 3  # that are tried for one value

# Runs the model with some values fed; returns what its nodes give for all values.


def pair(graph: Graph, values: Mapping[str, Array], recording: Recording, run: Run) -> Pairs:
    """Pairs the values of a model with the results of torch, where modules are not known.

    Numbers that are alike make a pair. Behind a fault none are: there the first value that has a
    result of its shape and kind is fed with that, and where more numbers are alike behind it
    then, it is its partner.

    Args:
        graph: The model.
        values: What it makes when it runs, by name.
        recording: What torch did on the same inputs.
        run: Runs the model with some values fed.
    """
    search = _Search(
        graph, candidates_of(recording), recording, outputs_of(graph, values, recording)
    )
    guesses: dict[str, Ref] = {}
    found = search.alike(values, guesses)
    for _ in range(_FAULTS):
        better = search.past_fault(found, values, guesses, run)
        if better is None:
            break
        guesses, found = better
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    unmatched = unmatched_of(graph, nodes, values, search.candidates, found, recording)
    return Pairs(found, tuple(unmatched), True)


@dataclass(frozen=True)
class _Search:
    """What does not change while pairs are looked for."""

    graph: Graph
    candidates: list[Candidate]
    recording: Recording
    outputs: Mapping[str, Ref]

    def alike(self, values: Mapping[str, Array], guesses: Mapping[str, Ref]) -> dict[str, Ref]:
        """Returns the pairs whose numbers are alike, those guessed, and the outputs."""
        fixed = {**self.outputs, **guesses}
        makers = [
            (node, name)
            for node in self.graph.nodes
            if not node.constant
            for name in node.proto.output
            if name in values
        ]
        leaving = leaving_of(self.graph)
        return fixed | aligned(makers, values, self.candidates, fixed, leaving, alike_alone=True)

    def past_fault(
        self,
        found: Mapping[str, Ref],
        values: Mapping[str, Array],
        guesses: Mapping[str, Ref],
        run: Run,
    ) -> tuple[dict[str, Ref], dict[str, Ref]] | None:
        """Returns the guesses with one more, and the pairs then; None where none helps."""
        for trial, (name, ref) in enumerate(self._frontier(found, values)):
            if trial == _TRIALS:
                break
            more = {**guesses, name: ref}
            fed = {n: to_array(self.recording.value(r)) for n, r in {**found, **more}.items()}
            pairs = self.alike(run(fed), more)
            if len(pairs) > len(found) + 1:
                return more, pairs
        return None

    def _frontier(
        self, found: Mapping[str, Ref], values: Mapping[str, Array]
    ) -> Iterator[tuple[str, Ref]]:
        """Yields values without partner, in order, with the first results that they may be."""
        latest: dict[str, int] = {}  # of each value: the last step that is known before it
        taken = set(found.values())
        for node in self.graph.nodes:
            before = max((latest.get(name, -1) for name in used(node.proto)), default=-1)
            for name in node.proto.output:
                known = found.get(name) if name not in self.outputs else None
                latest[name] = max(before, known.step if known is not None else -1)
                if name in found or name not in values or node.constant:
                    continue
                for ref in self._first(node, values[name], before, taken):
                    yield name, ref

    def _first(self, node: Node, array: Array, before: int, taken: set[Ref]) -> Iterator[Ref]:
        form = form_of(array)
        fitting = (
            candidate.ref
            for candidate in self.candidates
            if candidate.ref.step > before
            and candidate.ref not in taken
            and candidate.form == form
            and fits(node.proto.op_type, node.proto.domain, node.target, candidate.kinds)
        )
        return itertools.islice(fitting, _PARTNERS)
