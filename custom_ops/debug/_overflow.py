"""Finds values that are too large for another dtype of floats, where that does harm."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._limit import cheap, eps
from custom_ops.debug._metrics import measure
from custom_ops.debug._regions import inputs_of, regions

# Runs a model with some values fed; returns those that are named.
Run = Callable[[Mapping[str, Array], Sequence[str]], Mapping[str, Array]]


def rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """Returns floats in another dtype of floats; all else as it is."""
    if not (eps(array.dtype) and eps(dtype)):
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


def overflowing(array: Array, dtype: np.dtype[Any]) -> int:
    """Returns how many numbers are finite, and are not in another dtype of floats.

    Example:
        >>> overflowing(np.float32([1, 70000]), np.dtype(np.float16))
        1
    """
    if array.dtype == dtype or not (eps(array.dtype) and eps(dtype)):
        return 0
    return int(np.count_nonzero(np.isfinite(array) & ~np.isfinite(rounded(array, dtype))))


def clipped(
    graph: Graph,
    values: Mapping[str, Array],
    dtypes: Mapping[str, np.dtype[Any]],
    factor: float,
    run: Run,
) -> dict[str, Array]:
    """Returns the values of a model that overflow elsewhere and do harm, at the largest numbers.

    A mask of -1e9 before a softmax does none: it is as good as an infinite one.

    Args:
        graph: The model.
        values: What it makes when it runs.
        dtypes: Those that some of the values have elsewhere.
        factor: How many times what rounding does is no harm.
        run: Runs it with some values fed.
    """
    narrow = {
        name: rounded(values[name], dtype)
        for name, dtype in dtypes.items()
        if overflowing(values[name], dtype)
    }
    if not narrow:
        return {}
    infinite = {name: array.astype(values[name].dtype) for name, array in narrow.items()}
    made = run({**{name: values[name] for name in dtypes}, **infinite}, list(dtypes))
    changed = set()
    for name, dtype in dtypes.items():
        right = rounded(values[name], dtype)
        if not measure(right, rounded(made[name], dtype)).within(factor * cheap(right)):
            changed.add(name)
    found = {}
    for name in _harmful(graph, narrow, dtypes, changed):
        top = float(ml_dtypes.finfo(dtypes[name]).max)  # type: ignore[no-untyped-call]
        array = values[name]
        found[name] = np.where(np.isfinite(array), np.clip(array, -top, top), array)
    return found


def _harmful(
    graph: Graph, narrow: Collection[str], cuts: Collection[str], changed: Collection[str]
) -> set[str]:
    """Returns those of the values that are outputs, or that change what reads them."""
    readers: dict[str, set[str]] = {name: set(graph.outputs) & {name} for name in narrow}
    for name, region in regions(graph, cuts).items():
        for read in readers.keys() & inputs_of(region):
            readers[read].add(name)
    found: set[str] = set()
    for name in sorted(narrow, key=lambda name: -graph.producer[name].index):
        if name in graph.outputs or any(r in changed or r in found for r in readers[name]):
            found.add(name)
    return found
