"""Finds the weights of a model among those of torch, and puts the numbers of both in other places.

Most weights of a model are those of torch with other axes, or in another shape: there a number of
the model moves with that of torch, and what a fault has done to it moves along. Others, as those of
an LSTM, are made of parts of several: there each number becomes another one, wherever it is.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from custom_ops.debug._arrays import Array
from custom_ops.debug._limit import eps

_MOST_AXES = 5  # whose orders are tried
_NEAR = 0.25  # of a number, which a fault may change
_MASK = -1e4  # from which on a number stands for nothing


@dataclass(eq=False)
class Weight:
    """A weight.

    Attributes:
        side: Where it is, in words.
        before: Its numbers.
        after: Those that take their place; None as long as there are none.
    """

    side: str
    before: Array
    after: Array | None = field(default=None, init=False)

    @property
    def flat(self) -> Array:
        """Its numbers in a row, in a type that holds them all."""
        return self.before.reshape(-1).astype(np.result_type(self.before, np.float64))

    @property
    def single(self) -> bool:
        """Whether it is one number, once or many times."""
        return bool((self.before == self.before.flat[0]).all())


def tells(array: Array) -> bool:
    """Returns whether an array tells something of weights: no mask, and not zeros or ones alone.

    Whole numbers of 8 bits are weights too; those of more are shapes and indices.
    """
    if not eps(array.dtype):
        small = array.dtype.kind in "iuV" and array.dtype.itemsize == 1
        return small and np.unique(array.astype(np.int16)).size > 1
    numbers = np.unique(array[np.isfinite(array)].astype(np.result_type(array, np.float64)))
    others = numbers[numbers != 0]
    if len(others) == 1 and not np.iscomplexobj(others):
        return bool(others[0] > _MASK and (len(numbers) > 1 or others[0] != 1))
    return len(others) > 0


def put_in_other_places(ours: Sequence[Weight], theirs: Sequence[Weight]) -> None:
    """Gives all weights other numbers, so that the model's are made of torch's as before.

    Args:
        ours: The weights of the model.
        theirs: Those of torch.

    Raises:
        ValueError: One has no partner on the other side.
    """
    generator = np.random.default_rng()  # with a seed one could put the numbers back
    _change_single(ours, theirs, generator)
    _change_whole(ours, theirs, generator)
    left = [[each for each in side if each.after is None] for side in (ours, theirs)]
    if left[0] or left[1]:
        _change_parts(left[0], left[1], generator)


def _change_single(
    ours: Sequence[Weight], theirs: Sequence[Weight], generator: np.random.Generator
) -> None:
    """Changes the weights that are one number; what only the model has is no weight of torch's."""
    factors: dict[Any, float] = {}
    for other in (each for each in theirs if each.single):
        number = other.before.flat[0]
        factor = factors.setdefault(number, generator.uniform(0.5, 0.9))
        for weight in ours:
            if weight.single and weight.before.flat[0] == number.astype(weight.before.dtype):
                other.after = np.asarray(other.before * factor, other.before.dtype)
                weight.after = np.asarray(weight.before * factor, weight.before.dtype)
    for weight in ours:
        if weight.single and not any(
            (each.before == weight.before.flat[0]).any() for each in theirs
        ):
            weight.after = weight.before


def _change_whole(
    ours: Sequence[Weight], theirs: Sequence[Weight], generator: np.random.Generator
) -> None:
    """Changes the weights that are those of torch with other axes, or in another shape."""
    orders: dict[Weight, Array] = {}
    for weight in ours:
        found = _partner(weight, theirs) if not weight.single else None
        if found is not None:
            other, places = found
            flat = other.before.reshape(-1)
            if other not in orders:
                orders[other] = _order(flat, generator)
            order = orders[other]
            other.after = flat[order].reshape(other.before.shape)
            in_order = np.empty_like(weight.before.reshape(-1))
            in_order[places] = weight.before.reshape(-1)
            weight.after = in_order[order][places].reshape(weight.before.shape)


def _partner(weight: Weight, theirs: Sequence[Weight]) -> tuple[Weight, Array] | None:
    """Returns the weight of torch that is most like one of the model, and its places there."""
    best, found, own = (0.5, 0.0), None, weight.flat
    for other in theirs:
        if other.single or other.before.size != own.size:
            continue
        numbers = other.flat
        for places in _arrangements(other.before.shape):
            there = numbers[places]
            some = (own != 0) | (there != 0)
            like = np.isclose(own[some], there[some], rtol=_NEAR, atol=0).mean()
            score = (float(like), float((own == there).mean()))
            if score >= best and (found is None or score > best):
                best, found = score, (other, places)
            if score[1] == 1:
                return found
    return found


def _arrangements(shape: Sequence[int]) -> Iterator[Array]:
    """Yields for each order of the axes where its numbers are in the first order."""
    sizes = [size for size in shape if size > 1]
    places = np.arange(np.prod(sizes, dtype=np.int64)).reshape(sizes)
    axes = range(len(sizes))
    for order in itertools.permutations(axes) if len(sizes) <= _MOST_AXES else [tuple(axes)]:
        yield places.transpose(order).reshape(-1)


def _order(numbers: Array, generator: np.random.Generator) -> Array:
    """Returns an order in which numbers are others than before."""
    while True:
        order = generator.permutation(len(numbers))
        if not np.array_equal(numbers[order], numbers, equal_nan=True):
            return order


def _change_parts(
    ours: Sequence[Weight], theirs: Sequence[Weight], generator: np.random.Generator
) -> None:
    """Changes each number to another of torch's; zeros stay."""
    known = np.unique(np.concatenate([_numbers(each) for each in theirs] or [np.zeros(0)]))
    in_model = np.concatenate([_numbers(each) for each in ours] or [np.zeros(0)])
    for weights, numbers in ((ours, known), (theirs, in_model)):
        for weight in weights:
            if len(known) < 2 or np.isin(_numbers(weight), numbers).mean() < 0.5:
                raise ValueError(
                    "bundle: scramble must find each weight both in the model and in torch, got "
                    f"{weight.before.dtype}{list(weight.before.shape)} in {weight.side} alone, as "
                    "where weights are merged; leave it out"
                )
    others = known[_order(known, generator)]
    for weight in (*ours, *theirs):
        flat = weight.flat
        right = np.searchsorted(known, flat).clip(1, len(known) - 1)
        nearest = right - (np.abs(flat - known[right - 1]) < np.abs(known[right] - flat))
        after = others[nearest] + (flat - known[nearest])
        after = np.where((flat == 0) | ~np.isfinite(flat), flat, after)
        weight.after = after.astype(weight.before.dtype).reshape(weight.before.shape)


def _numbers(weight: Weight) -> Array:
    """Returns the numbers of a weight that are changed."""
    flat = weight.flat
    return np.asarray(flat[(flat != 0) & np.isfinite(flat)])
