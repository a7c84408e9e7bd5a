"""Compares two models: what each layer of the second introduces beside the first."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from custom_ops.debug import (
    _branches,
    _culprit,
    _feeds,
    _graph,
    _inside,
    _model_pairs,
    _overflow,
    _runs,
)
from custom_ops.debug._culprit import Paired
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._judge import Judge
from custom_ops.debug._limit import eps
from custom_ops.debug._model_side import ModelSide
from custom_ops.debug._overflow import rounded
from custom_ops.debug._result import Comparison, Fault
from custom_ops.debug._runs import Runs
from custom_ops.debug._work import Work, running
from custom_ops.onnx._reading import Document


def compare_models(
    reference: Document,
    model: Document,
    feeds: Mapping[str, Any],
    work: Work,
) -> Comparison:
    """Compares a model with another one; see `compare`.

    Args:
        reference: The model that is right.
        model: The model to judge.
        feeds: The inputs, by the names that they have in the first; in the second the order of
            the first's inputs counts where their names differ.
        work: What the comparison was asked for, and what it notes.
    """
    with work.part("read"):
        given = _graph.of_document(model)
        theirs, ours = work.opened(_graph.of_document(reference)), work.opened(given)
        lacking = work.lacking(theirs, ours)
        if lacking and not work.simulate:
            return work.not_comparable(model.name)
        theirs, ours, given = (replace(each, simulated=lacking) for each in (theirs, ours, given))
        fed, own = _feeds.of_models(theirs, ours, _feeds.arrays_of(feeds))
        work.notes += _feeds.too_large(ours, own)
        fed, own = _feeds.typed(theirs, fed), _feeds.typed(ours, own)
    plain = work.plain(given, own)
    with work.part("instrumented"):
        with running("reference"):
            theirs = _branches.taken(theirs, fed, work.libraries)
            wanted = _runs.instrumented(theirs, fed, work.libraries, inner=True, memory=work.memory)
            fixed = _fixed(theirs, [n for n in theirs.outputs if n not in wanted], fed, work)
        with running("model"):
            ours = _branches.taken(ours, own, work.libraries)
            arriving = _runs.instrumented(ours, own, work.libraries, inner=True, memory=work.memory)
    with work.part("pairing"):
        partners = _model_pairs.pairs(theirs, wanted, ours, arriving)
    with work.part("cut"):

        def run(some: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
            return _runs.cut(theirs, some, fed, work.libraries, names, work.memory)

        dtypes = {partner: arriving[name].dtype for name, partner in partners.items()}
        clipped = _overflow.clipped(theirs, wanted, dtypes, work.allowed.factor, run)
        behind = {**run(clipped, list(wanted)), **clipped} if clipped else wanted
        right, expected = (
            {name: rounded(values[p], arriving[name].dtype) for name, p in partners.items()}
            for values in ({**wanted, **clipped}, behind)
        )
        typed = _runs.as_fed(expected, arriving)
        failed: dict[str, str] = {}
        introduced = _runs.cut(ours, typed, own, work.libraries, memory=work.memory, failed=failed)

    def explained(faults: list[Fault]) -> list[Fault]:
        names = {partner: partner for partner in partners.values()}
        return _culprit.explained(faults, Paired(ours, partners), Paired(theirs, names))

    coarse = {
        name: max(one.dtype, other.dtype, key=eps)
        for name, one, other in (
            *((name, array, fed.get(name, array)) for name, array in own.items()),
            *((name, arriving[name], wanted[partner]) for name, partner in partners.items()),
        )
    }
    runs = Runs(own, plain, arriving, right, expected, typed, introduced, failed)
    side = ModelSide(theirs, partners, ours, runs, coarse, work.libraries, work.memory)
    return work.judged(
        model.name,
        Judge(ours, side, work.allowed, runs),
        explained,
        [
            *_model_pairs.unmatched(theirs, wanted, ours, arriving, partners),
            *_inside.inside(ours),
            *_inside.inside(theirs, "reference"),
        ],
        [(wanted | fixed).get(name) for name in theirs.outputs],
        approximate=not any(node.scope is not None for node in ours.nodes),
        cast=True,
    )


def _fixed(
    graph: Graph, names: Sequence[str], feeds: Mapping[str, Array], work: Work
) -> dict[str, Array]:
    """Returns outputs that depend on no input's numbers, or are inputs."""
    if not names:
        return {}
    return _runs.fetch(graph.session(graph.proto, work.libraries), names, feeds)
