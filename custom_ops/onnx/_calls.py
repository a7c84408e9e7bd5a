"""Tells apart the calls of a module, by the order of what they do."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Something that is done in a module.

    Attributes:
        paths: The modules around it, outermost first.
        mark: The same for the same step in another call of the same module.
    """

    paths: tuple[str, ...]
    mark: object


def numbered(steps: Sequence[Step]) -> list[list[int]]:
    """Returns for each step which call of each of its modules it is in, from 0.

    A module is called again where it is left and entered again, and where what is done in it is
    the same several times over.
    """
    calls: list[list[int]] = [[] for _ in steps]
    entered: Counter[str] = Counter()
    # A span is what a call of a module does: steps[begin:end], at a depth.
    spans = deque([(0, len(steps), 0)])
    while spans:
        begin, end, depth = spans.popleft()
        for first, last in _runs(steps, begin, end, depth):
            path = steps[first].paths[depth]
            period = _period([step.mark for step in steps[first:last]]) if depth else last - first
            for start in range(first, last, period):
                for i in range(start, start + period):
                    calls[i].append(entered[path])
                entered[path] += 1
                spans.append((start, start + period, depth + 1))
    return calls


def _runs(steps: Sequence[Step], begin: int, end: int, depth: int) -> list[tuple[int, int]]:
    """Returns the longest parts of a span that are in one module at a depth."""
    runs: list[tuple[int, int]] = []
    start, path = begin, None
    for i in range(begin, end + 1):
        paths = steps[i].paths if i < end else ()
        here = paths[depth] if depth < len(paths) else None
        if here != path or i == end:
            if path is not None:
                runs.append((start, i))
            start, path = i, here
    return runs


def _period(marks: Sequence[object]) -> int:
    """Returns the length of the shortest piece that the marks are a repetition of."""
    border = [0] * len(marks)  # of each beginning: how much of it ends as it begins
    for i in range(1, len(marks)):
        k = border[i - 1]
        while k and marks[i] != marks[k]:
            k = border[k - 1]
        border[i] = k + (marks[i] == marks[k])
    period = len(marks) - border[-1]
    return period if len(marks) % period == 0 else len(marks)
