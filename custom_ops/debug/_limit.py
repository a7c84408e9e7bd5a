"""How far a result may be from torch's: what rounding does to the ops that make it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

from custom_ops.debug import _arrays
from custom_ops.debug._arrays import Array
from custom_ops.debug._float64 import Replay
from custom_ops.debug._kinds import torch_kind
from custom_ops.debug._recording import Recording, Ref, Step

# The largest change of a result is a sample of as many as it has elements. Where these are few,
# random signs may cancel by chance, and are drawn again.
MANY, DRAWS = 100, 4


@dataclass(frozen=True)
class Limit:
    """The largest difference that counts as rounding.

    Attributes:
        value: The limit.
        by: The term that is largest: "rounding", "float64", "conditioning" or "summation"; "exact"
            where nothing is rounded, "choice" where rounding alone chooses other elements.
        note: What to know of it; "" if nothing.
    """

    value: float
    by: str
    note: str = ""


def cheap(expected: Array, largest: float | None = None) -> float:
    """Returns what rounding a result once does to it, at most: one eps of the largest number.

    Args:
        expected: The result; 0 for integers and text.
        largest: Its largest finite magnitude, where that is known already.

    Example:
        >>> import numpy
        >>> cheap(numpy.float32([1, -2])) == 2 * 2**-23
        True
    """
    unit = eps(expected.dtype)
    if not unit:
        return 0.0
    return unit * (_arrays.alone(expected)[0] if largest is None else largest)


def limit(
    recording: Recording,
    target: Ref,
    stops: Collection[Ref],
    *,
    factor: float,
    enough: float = math.inf,
    choosing: bool = False,
) -> Limit:
    """Computes the limit of a result from the ops that make it.

    The largest of four terms counts: one eps of the dtype times the largest magnitude; torch's
    own error, seen by the same ops in float64 on the same inputs; how the result changes
    in float64 when the inputs move by half a unit in the last place of their own dtype, up or
    down at random, as they do where an op rounds what it reads (the mean that a variance takes
    off); and what a running sum of n numbers in float32 or wider loses on average, sqrt(n) / 6 of
    its eps times the largest magnitude: torch adds in pairs, a runtime need not. The signs are
    random because those that are worst together do not happen.

    Args:
        recording: The ops that ran.
        target: The result.
        stops: The results that the ops start from; they are inputs, as recorded.
        factor: How many times the largest term is allowed.
        enough: A limit as large as this suffices: terms that cost more are then left out.
        choosing: Whether the inputs arrive rounded, so that an order, a comparison or an index
            may come out otherwise; else other elements than torch's are chosen by a fault alone.

    Returns:
        The limit. An op that float64 lacks runs in its own types, and the note names it.
    """
    found = _of_the_chosen(recording, target, stops, factor, enough)
    if choosing and found.value < enough:
        chosen = factor * _of_others(recording, target, stops)
        if chosen > found.value:
            return Limit(chosen, "choice", "rounding alone chooses other elements")
    return found


def _of_the_chosen(
    recording: Recording, target: Ref, stops: Collection[Ref], factor: float, enough: float
) -> Limit:
    """Computes the limit where the same elements are chosen."""
    value = recording.value(target)
    if not (value.is_floating_point() or value.is_complex()):
        return Limit(0.0, "exact")
    largest = _largest(value)
    terms = {"rounding": torch.finfo(value.dtype).eps * largest}
    note = ""
    if factor * max(terms.values()) < enough:
        replay = Replay(recording, target, stops)
        # In half precision too the sum itself runs in float32.
        unit = min(torch.finfo(value.dtype).eps, torch.finfo(torch.float32).eps)
        terms["summation"] = math.sqrt(_summed(recording, replay.steps)) / 6 * unit * largest
        exact = replay.run()
        if exact.shape != value.shape:
            return Limit(factor * terms["rounding"], "rounding", "float64 gives another shape")
        terms["float64"] = _apart(value, exact)
        if factor * max(terms.values()) < enough:
            draws = 1 if value.numel() >= MANY else DRAWS
            moved = [_apart(replay.run(seed), exact) for seed in range(draws)]
            terms["conditioning"] = max(moved)
        if replay.lacking:
            names = ", ".join(replay.lacking)
            note = f"not in float64: {names}; the limit leaves out what rounding does inside"
    by = max(terms, key=lambda name: terms[name])
    return Limit(factor * terms[by], by, note)


def _summed(recording: Recording, steps: Sequence[Step]) -> float:
    """Returns how many numbers a sum has, in the longest of the reductions."""
    counts = [0.0]
    for step in steps:
        if torch_kind(step.name) in ("mean", "sum"):
            given = [each for each in step.args if isinstance(each, torch.Tensor)]
            read = [*given, *(recording.value(ref) for ref in step.refs)]
            longest = max((each.numel() for each in read), default=0)
            counts.append(longest / max(1, step.outputs[0].numel()))
    return max(counts)


def _of_others(recording: Recording, target: Ref, stops: Collection[Ref]) -> float:
    """Returns how far a result moves where rounding may choose other elements."""
    value = recording.value(target)
    replay = Replay(recording, target, stops, choosing=True)
    most = 0.0
    for seed in (None, *range(DRAWS)):
        try:
            found = replay.run(seed)
        except (RuntimeError, IndexError):  # there are more or fewer of them
            return _largest(value)
        most = max(most, _apart(value, found) if found.shape == value.shape else _largest(value))
    return most


def eps(dtype: np.dtype[Any]) -> float:
    """Returns the relative spacing of the numbers of a dtype; 0 of what is no float."""
    try:
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    except ValueError:
        return 0.0


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the largest difference of elements that are finite on both sides."""
    if other.dtype.is_floating_point or other.dtype.is_complex:
        return _largest(one.to(other.dtype) - other)
    return _largest(one.double() - other.double())


def _largest(value: torch.Tensor) -> float:
    """Returns the largest finite magnitude."""
    if value.dtype == torch.bool:
        value = value.double()
    size = value.abs() if not value.is_complex() else value.to(torch.complex128).abs()
    finite = size[torch.isfinite(size)]
    return float(finite.max()) if finite.numel() else 0.0
