"""Draws inputs for a session from what it says of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np


def draw(
    inputs: Sequence[Any],
    sizes: Mapping[str, Sequence[int]] | None = None,
    arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns an array for each input of a session; the same on each call.

    Args:
        inputs: As `InferenceSession.get_inputs` gives them.
        sizes: Shapes by name.
        arrays: Inputs by name, instead of random ones.

    Returns:
        Normal random numbers, or 0 and 1 for integers and bool. A size that the model leaves open
        is, where no shape is given, that of another input's axis of the same name, else 1 for the
        first axis and 16 for the others.

    Raises:
        ValueError: An input that is not given is no tensor of numbers.
    """
    arrays = arrays or {}
    given_sizes = {**(sizes or {}), **{name: array.shape for name, array in arrays.items()}}
    known: dict[str, int] = {}
    for given in inputs:
        for label, size in zip(given.shape, given_sizes.get(given.name, ()), strict=False):
            if isinstance(label, str):
                known.setdefault(label, size)
    generator = np.random.default_rng(0)
    result = {}
    for given in inputs:
        if given.name in arrays:
            result[given.name] = arrays[given.name]
            continue
        shape = given_sizes.get(given.name)
        if shape is None:
            shape = [_size(dim, axis, known) for axis, dim in enumerate(given.shape)]
        result[given.name] = _random(given, list(shape), generator)
    return result


def _size(dim: Any, axis: int, known: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    size = 1 if axis == 0 else 16
    return known.setdefault(dim, size) if isinstance(dim, str) else size


def _random(given: Any, shape: list[int], generator: Any) -> np.ndarray[Any, Any]:
    dtype = _dtype_of(given.type)
    if dtype is None:
        raise ValueError(f"input {given.name} must be given: its type is {given.type}")
    if dtype.kind in "biu":
        array: np.ndarray[Any, Any] = generator.integers(0, 2, shape).astype(dtype)
    else:
        array = generator.standard_normal(shape).astype(dtype)
    return array


def _dtype_of(kind: str) -> np.dtype[Any] | None:
    """Returns the dtype of a session's type, for example ``tensor(float)``; None for others."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    name = {"float": "float32", "double": "float64"}.get(name, name)
    try:
        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    except TypeError:
        return None
    return dtype if name == "bfloat16" or dtype.kind in "biuf" else None
