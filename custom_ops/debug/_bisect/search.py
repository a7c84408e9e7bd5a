"""Finds a small list that passes a test: by halves where the cause is single, else by parts.

The parts are those of delta debugging (Zeller and Hildebrandt, "Simplifying and isolating
failure-inducing input", 2002), of which complements suffice after the halves.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")
# Given some items, returns them with those that they cannot be without, in order, if these pass the
# test, else None. It is asked again what it has refused, so it should remember.
Test: TypeAlias = Callable[[Sequence[T]], Sequence[T] | None]


def shortest_head(items: Sequence[T], test: Test[T]) -> Sequence[T]:
    """Returns the shortest head that passes, where each longer one does; else some that does.

    Args:
        items: They pass as they are.
        test: The test; it is made about log2(len(items)) times.
    """
    fails, passes, best = 0, len(items), items
    while passes - fails > 1:
        middle = (fails + passes) // 2
        found = test(items[:middle])
        if found is None:
            fails = middle
        else:
            passes, best = middle, found
    return best


def shortest_tail(items: Sequence[T], test: Test[T]) -> Sequence[T]:
    """Returns the shortest tail that passes, where each longer one does; else some that does.

    Args:
        items: They pass as they are.
        test: The test; it is made about log2(len(items)) times.
    """
    passes, fails, best = 0, len(items), items
    while fails - passes > 1:
        middle = (passes + fails) // 2
        found = test(items[middle:])
        if found is None:
            fails = middle
        else:
            passes, best = middle, found
    return best


def reduced(items: Sequence[T], test: Test[T]) -> Sequence[T]:
    """Returns items that pass, and would not without any one of them.

    Args:
        items: They pass as they are.
        test: The test.
    """
    size = max(len(items) // 2, 1)
    while True:
        smaller = False
        end = len(items)
        while end > 0:  # from the end: what comes late hangs on what comes early
            start = max(end - size, 0)
            rest = [*items[:start], *items[end:]]
            found = test(rest) if rest else None
            if found is not None and len(found) < len(items):
                items, smaller = found, True
            end = start
        if size == 1 and not smaller:
            return items
        size = max(size // 2, 1)
