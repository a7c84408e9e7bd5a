"""Pairs the values of two models: by shape and order, and by op, name or numbers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from custom_ops.debug._alignment import MOST_PARTNERS, heaviest
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._result import Unmatched
from custom_ops.debug._sketch import alike, sketch

_LIKE = 1e-2  # of the largest number, which half precision does to a value


def pairs(
    theirs: Graph, wanted: Mapping[str, Array], ours: Graph, arriving: Mapping[str, Array]
) -> dict[str, str]:
    """Returns the partner of each value of a model that has one: outputs first, by order.

    Args:
        theirs: The model that is right.
        wanted: Its values.
        ours: The model to judge.
        arriving: Its values.
    """
    outputs = zip(ours.outputs, theirs.outputs, strict=False)
    found = {n: p for n, p in outputs if n in arriving and p in wanted and n in ours.producer}
    alone = set(ours.outputs) - set(found)  # its place is that of an output without a layer
    if len(ours.outputs) != len(theirs.outputs):
        found, alone = {}, set()
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
        if name in found or name in alone:
            continue
        own, kind = sketch(arriving[name]), _kind(ours, name)
        merged = ours.producer[name].proto.domain == "com.microsoft"
        near = by_shape.get(arriving[name].shape, [])
        if len(near) > MOST_PARTNERS:
            close = sorted(near, key=lambda j: abs(j * len(mine) - i * len(made)))
            near = [*close[:MOST_PARTNERS], *(j for j in near if made[j] == name)]
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


def unmatched(
    theirs: Graph,
    wanted: Mapping[str, Array],
    ours: Graph,
    arriving: Mapping[str, Array],
    partners: Mapping[str, str],
) -> Iterator[Unmatched]:
    """Yields the values of both models without partner; the arguments are as for `pairs`."""
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
