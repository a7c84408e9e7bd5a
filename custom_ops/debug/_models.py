"""Compares two models: what each layer of the second introduces beside the first."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from custom_ops.debug import _branches, _culprit, _graph, _inside, _runs
from custom_ops.debug._culprit import Paired
from custom_ops.debug._evidence import Op
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._judge import Judge, Origin
from custom_ops.debug._limit import Limit, cheap, eps
from custom_ops.debug._metrics import Metrics, measure
from custom_ops.debug._pairing import alike, heaviest, sketch
from custom_ops.debug._result import Comparison, Fault, Unmatched
from custom_ops.debug._runs import Runs
from custom_ops.debug._work import Work, running
from custom_ops.onnx._reading import Document

_MOST_PARTNERS = 64  # that are tried for one value
_LIKE = 1e-2  # of the largest number, which half precision does to a value


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
        feeds: The inputs, by the names that they have in the first; in the second their order
            counts where their names differ.
        work: What the comparison was asked for, and what it notes.
    """
    with work.part("read"):
        given = _graph.of_document(model)
        theirs, ours = work.opened(_graph.of_document(reference)), work.opened(given)
        lacking = work.lacking(theirs, ours)
        if lacking and not work.simulate:
            return work.not_comparable(model.name)
        theirs, ours, given = (replace(each, simulated=lacking) for each in (theirs, ours, given))
        arrays = {name: np.asarray(array) for name, array in feeds.items()}
        inputs = _fed(theirs, arrays), _fed(ours, arrays)
    plain = work.plain(given, inputs[1])
    with work.part("instrumented"), running("model"):
        theirs = _branches.taken(theirs, inputs[0], work.libraries)
        ours = _branches.taken(ours, inputs[1], work.libraries)
        wanted = _runs.instrumented(
            theirs, inputs[0], work.libraries, inner=True, memory=work.memory
        )
        arriving = _runs.instrumented(
            ours, inputs[1], work.libraries, inner=True, memory=work.memory
        )
    with work.part("pairing"):
        partners = _partners(theirs, wanted, ours, arriving)
    with work.part("cut"):
        expected = {n: wanted[p].astype(arriving[n].dtype) for n, p in partners.items()}
        introduced = _runs.cut(ours, expected, inputs[1], work.libraries, memory=work.memory)

    def again(fed: Mapping[str, Array]) -> dict[str, Array]:
        return _runs.cut(ours, fed, inputs[1], work.libraries, memory=work.memory)

    def explained(faults: list[Fault]) -> list[Fault]:
        names = {partner: partner for partner in partners.values()}
        return _culprit.explained(faults, Paired(ours, partners), Paired(theirs, names))

    coarse = {n: max(wanted[p].dtype, arriving[n].dtype, key=eps) for n, p in partners.items()}
    side = _Other(theirs, partners, coarse, expected, introduced, again)
    runs = Runs(inputs[1], plain, arriving, expected, introduced)
    return work.judged(
        model.name,
        Judge(ours, side, work.allowed, runs),
        explained,
        [
            *_unmatched(theirs, wanted, ours, arriving, partners),
            *_inside.inside(ours),
            *_inside.inside(theirs, "reference"),
        ],
        [wanted.get(name) for name in theirs.outputs],
        approximate=not any(node.scope is not None for node in ours.nodes),
    )


@dataclass
class _Other:
    """The other model as the reference.

    Attributes:
        graph: It.
        partners: Its value for each of the model to judge.
        coarse: The coarser dtype of the two values.
        expected: What is fed to the pieces.
        introduced: What they give.
        again: Runs the pieces on other numbers.
    """

    graph: Graph
    partners: Mapping[str, str]
    coarse: Mapping[str, np.dtype[Any]]
    expected: Mapping[str, Array]
    introduced: Mapping[str, Array]
    again: Callable[[Mapping[str, Array]], dict[str, Array]]
    _moved: dict[str, Array] = field(default_factory=dict)

    def origin(self, name: str, region: Sequence[Node]) -> Origin:
        """Returns where a value comes from."""
        partner = self.partners[name]
        scopes = [node.scope for node in (*region, self.graph.producer[partner]) if node.scope]
        paths = tuple(dict.fromkeys(scope.path for scope in scopes))
        return Origin(partner, paths, scopes[-1].source if scopes else "")

    def ops(self, name: str) -> tuple[tuple[Op, ...], int]:
        """Returns nothing: no op of torch gives the value."""
        return (), 0

    def limit(
        self, name: str, expected: Array, metrics: Metrics, factor: float, *, whole: bool
    ) -> Limit:
        """Returns the limit by the coarser dtype: what rounding what is fed does to the result."""
        rounding = factor * cheap(expected.astype(self.coarse[name]), metrics.largest)
        if metrics.max_abs <= rounding:
            return Limit(rounding, "rounding")
        if not self._moved:
            fed = {n: _moved(array, self.coarse[n]) for n, array in self.expected.items()}
            self._moved.update(self.again(fed))
        change = factor * measure(self.introduced[name], self._moved[name]).max_abs
        if change > rounding:
            return Limit(change, "conditioning")
        return Limit(rounding, "rounding")


def _fed(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the inputs as a graph takes them: by name, else by order; floats in its dtype."""
    names = graph.inputs
    if set(names) <= set(feeds):
        found = {name: feeds[name] for name in names}
    elif len(names) == len(feeds):
        found = dict(zip(names, feeds.values(), strict=True))
    else:
        raise ValueError(
            f"compare: args must hold the inputs {', '.join(names)}, got {', '.join(feeds)}"
        )
    types = {each.name: each.type.tensor_type.elem_type for each in graph.proto.graph.input}
    return {
        name: array.astype(_graph.numpy_type(types[name])) if eps(array.dtype) else array
        for name, array in found.items()
    }


def _partners(
    theirs: Graph, wanted: Mapping[str, Array], ours: Graph, arriving: Mapping[str, Array]
) -> dict[str, str]:
    """Pairs values of two models by shape and order, and by op, name or numbers."""
    outputs = zip(ours.outputs, theirs.outputs, strict=False)
    found = {n: p for n, p in outputs if n in arriving and p in wanted and n in ours.producer}
    if len(ours.outputs) != len(theirs.outputs):
        found = {}
    made = [n for node in theirs.nodes for n in node.proto.output if n in wanted]
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    place = {name: j for j, name in enumerate(made)}
    for name, j in place.items():
        if name not in found.values():
            by_shape[wanted[name].shape].append(j)
    sketches = {name: sketch(wanted[name]) for name in made}
    mine = [n for node in ours.nodes for n in node.proto.output if n in arriving]
    links = []
    for i, name in enumerate(mine):
        if name in found:
            continue
        own, kind = sketch(arriving[name]), _kind(ours, name)
        merged = ours.producer[name].proto.domain == "com.microsoft"
        near = by_shape.get(arriving[name].shape, [])
        if len(near) > _MOST_PARTNERS:
            close = sorted(near, key=lambda j: abs(j * len(mine) - i * len(made)))
            near = [*close[:_MOST_PARTNERS], *(j for j in near if made[j] == name)]
        for j in near:
            named, same = name == made[j], kind == _kind(theirs, made[j])
            like = alike(own, sketches[made[j]], _LIKE)
            # What an optimization merges has another op, and often the name of its last node.
            if (same and (like or named)) or (like and (named or merged)):
                apart = abs(i / len(mine) - j / len(made))
                weight = 1.0 + 0.5 * named + 0.5 * like + 0.5 * same - 0.01 * apart
                links.append((i, j, weight))
    return found | {mine[i]: made[j] for i, j in heaviest(links)}


def _kind(graph: Graph, name: str) -> str:
    node = graph.producer[name].proto
    return f"{node.domain}::{node.op_type}:{list(node.output).index(name)}"


def _unmatched(
    theirs: Graph,
    wanted: Mapping[str, Array],
    ours: Graph,
    arriving: Mapping[str, Array],
    partners: Mapping[str, str],
) -> Iterator[Unmatched]:
    sides = (
        ("model", ours, arriving, set(partners)),
        ("reference", theirs, wanted, set(partners.values())),
    )
    for side, graph, values, known in sides:
        for name in values:
            if name not in known:
                node = graph.producer[name]
                where = node.scope.path if node.scope is not None else ""
                reason = (
                    "no value of the other model has its shape and place, and its name or numbers"
                )
                yield Unmatched(side, name, node.proto.op_type, where, reason)


def _moved(array: Array, coarse: np.dtype[Any]) -> Array:
    """Returns numbers moved by half a unit in the last place of a dtype, up or down at random."""
    if not eps(array.dtype) or array.dtype.kind == "c":
        return array
    signs = np.random.default_rng(0).choice(np.array([-0.5, 0.5]), array.shape)
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(array.astype(coarse))).astype(np.float64)
        return np.asarray(array + signs * unit, array.dtype)
