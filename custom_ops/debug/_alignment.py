"""Pairs values with results: as many as possible, in order."""

import bisect
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from custom_ops.debug._candidates import Candidate
from custom_ops.debug._graph import Array, Node
from custom_ops.debug._kinds import LOOPS, fits
from custom_ops.debug._recording import Ref
from custom_ops.debug._sketch import (
    Form,
    alike,
    alike_rows,
    form_of,
    mostly_alike,
    nearness,
    sketch,
)

MOST_PARTNERS = 64  # that are tried for one value
_ALIKE = 2.0  # what it counts that the numbers are the same; that two values have partners: 2


def aligned(
    makers: Sequence[tuple[Node, str]],
    values: Mapping[str, Array],
    candidates: Sequence[Candidate],
    fixed: Mapping[str, Ref],
    leaving: Collection[str],
    *,
    alike_alone: bool = False,
) -> dict[str, Ref]:
    """Pairs the values of one module with its results: as many as possible, in order.

    Args:
        makers: The values and their nodes, in the order of the graph.
        values: What the model makes, by name.
        candidates: The results, in the order of torch.
        fixed: Pairs that stand.
        leaving: The values that are used outside their module call.
        alike_alone: Whether only numbers that are alike may be a pair.
    """
    by_form: dict[Form, list[int]] = defaultdict(list)
    taken = set(fixed.values())
    for j, candidate in enumerate(candidates):
        if candidate.ref not in taken:
            by_form[candidate.form].append(j)
    links: list[tuple[int, int, float]] = []
    sketches: dict[Form, Array] = {}
    for i, (node, name) in enumerate(makers):
        if name in fixed:
            continue
        array = values[name]
        form = form_of(array)
        near = by_form.get(form, [])
        own = sketch(array)
        if len(near) > MOST_PARTNERS:  # those alike, those near
            if form not in sketches:
                sketches[form] = np.stack([candidates[j].sketch for j in near])
            rows = np.flatnonzero(alike_rows(own, sketches[form]))
            here = i * len(candidates) // len(makers)
            near = sorted({*_closest([near[row] for row in rows], here), *_closest(near, here)})
        same_as = {j for j in near if alike(own, candidates[j].sketch)}
        for j in near:
            candidate = candidates[j]
            same = j in same_as
            inside = node.function and not node.target  # where not all have a partner
            if (alike_alone or inside) and not same:
                continue
            kept = same and node.proto.op_type in LOOPS  # a loop that torch runs as other ops
            if kept or fits(node.proto.op_type, node.proto.domain, node.target, candidate.kinds):
                # One that is alike rather is it, and one that is at the same place.
                place = abs((i + 1) / len(makers) - (j + 1) / len(candidates))
                weight = (
                    1.0
                    + _ALIKE * same
                    + 0.5 * (not same_as and mostly_alike(own, candidate.sketch))
                    + (0.3 * nearness(own, candidate.sketch) if alike_alone else 0.0)
                    + 0.2 * (node.scope is not None and node.scope.call == candidate.call)
                    + 0.2 * ((name in leaving) == candidate.leaves)
                    - 0.01 * place
                )
                links.append((i, j, weight))
    return {makers[i][1]: candidates[j].ref for i, j in heaviest(links)}


def _closest(near: Sequence[int], place: int) -> Sequence[int]:
    """Returns those of ordered numbers that are closest to a place, a fixed number of them."""
    middle = bisect.bisect(near, place)
    start = max(0, min(middle - MOST_PARTNERS // 2, len(near) - MOST_PARTNERS))
    return near[start : start + MOST_PARTNERS]


def heaviest(links: Sequence[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """Returns the links of the largest total weight that do not cross, each end used once."""
    size = max((j for _, j, _ in links), default=-1) + 2
    best: list[tuple[float, int]] = [(0.0, -1)] * size  # a Fenwick tree of maxima
    before: list[int] = []
    totals: list[float] = []

    def largest(end: int) -> tuple[float, int]:
        found = (0.0, -1)
        while end > 0:
            found = max(found, best[end])
            end -= end & -end
        return found

    def put(place: int, entry: tuple[float, int]) -> None:
        while place < size:
            best[place] = max(best[place], entry)
            place += place & -place

    # Of one value the later partners first, so that none of its links builds on another.
    order = sorted(range(len(links)), key=lambda k: (links[k][0], -links[k][1]))
    for k in order:
        _, j, weight = links[k]
        total, previous = largest(j)
        before.append(previous)
        totals.append(total + weight)
        put(j + 1, (total + weight, len(totals) - 1))
    chosen = []
    at = max(range(len(totals)), key=totals.__getitem__, default=-1)
    while at >= 0:
        i, j, _ = links[order[at]]
        chosen.append((i, j))
        at = before[at]
    return chosen[::-1]
