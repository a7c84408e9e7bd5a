"""How far a result may be from torch's: what rounding does to the ops that make it."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

from custom_ops.debug import _arrays
from custom_ops.debug._arrays import Array
from custom_ops.debug._float64 import Replay
from custom_ops.debug._recording import Recording, Ref

# The largest change of a result is a sample of as many as it has elements. Where these are few,
# random signs may cancel by chance, and are drawn again.
_MANY, _DRAWS = 100, 4


@dataclass(frozen=True)
class Limit:
    """The largest difference that counts as rounding.

    Attributes:
        value: The limit.
        by: The term that is largest: "rounding", "float64" or "conditioning"; "exact" where
            nothing is rounded.
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
) -> Limit:
    """Computes the limit of a result from the ops that make it.

    The largest of three terms counts: one eps of the dtype times the largest magnitude; torch's
    own error, seen by the same ops in float64 on the same inputs; and how the result changes
    in float64 when the inputs move by half a unit in the last place of their own dtype, up or
    down at random, as they do where an op rounds what it reads (the mean that a variance takes
    off). The signs are random because those that are worst together do not happen.

    Args:
        recording: The ops that ran.
        target: The result.
        stops: The results that the ops start from; they are inputs, as recorded.
        factor: How many times the largest term is allowed.
        enough: A limit as large as this suffices: terms that cost more are then left out.

    Returns:
        The limit. An op that float64 lacks runs in its own types, and the note names it.
    """
    value = recording.value(target)
    if not (value.is_floating_point() or value.is_complex()):
        return Limit(0.0, "exact")
    terms = {"rounding": torch.finfo(value.dtype).eps * _largest(value)}
    note = ""
    if factor * max(terms.values()) < enough:
        replay = Replay(recording, target, stops)
        exact = replay.run()
        if exact.shape != value.shape:
            return Limit(factor * terms["rounding"], "rounding", "float64 gives another shape")
        terms["float64"] = _apart(value, exact)
        if factor * max(terms.values()) < enough:
            draws = 1 if value.numel() >= _MANY else _DRAWS
            moved = [_apart(replay.run(seed), exact) for seed in range(draws)]
            terms["conditioning"] = max(moved)
        if replay.lacking:
            names = ", ".join(replay.lacking)
            note = f"not in float64: {names}; the limit leaves out what rounding does inside"
    by = max(terms, key=lambda name: terms[name])
    return Limit(factor * terms[by], by, note)


def eps(dtype: np.dtype[Any]) -> float:
    """Returns the relative spacing of the numbers of a dtype; 0 of what is no float."""
    try:
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    except ValueError:
        return 0.0


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the largest difference of elements that are finite on both sides."""
    return _largest(one.to(other.dtype) - other)


def _largest(value: torch.Tensor) -> float:
    """Returns the largest finite magnitude."""
    size = value.abs() if not value.is_complex() else value.to(torch.complex128).abs()
    finite = size[torch.isfinite(size)]
    return float(finite.max()) if finite.numel() else 0.0
