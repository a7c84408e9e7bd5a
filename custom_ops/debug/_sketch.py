"""Tells whether two arrays are alike, by some of their elements."""

import math
from typing import TypeAlias

import numpy as np
import torch

from custom_ops.debug._graph import Array
from custom_ops.onnx._verify import to_array

Form: TypeAlias = tuple[str, tuple[int, ...]]  # dtype and shape

_SKETCH = 64  # elements that tell whether two arrays are alike
_ALIKE = 1e-3  # of the largest number, which two that are alike may be apart


def form_of(array: Array) -> Form:
    """Returns the dtype and shape of an array."""
    return str(array.dtype), array.shape


def sketch(array: Array) -> Array:
    """Returns some elements of an array, spread evenly."""
    flat = array.reshape(-1)
    if flat.dtype.kind not in "fiubc" and flat.dtype.name != "bfloat16":
        return np.zeros(0)
    step = max(1, flat.size // _SKETCH)
    return flat[::step][: 2 * _SKETCH].astype(
        np.float64 if flat.dtype.kind != "c" else np.complex128
    )


def sketch_of_tensor(tensor: torch.Tensor) -> Array:
    """Returns the same elements of a tensor, without an array of all."""
    count = tensor.numel()
    if tensor.layout != torch.strided or count == 0:
        return np.zeros(0)
    step = max(1, count // _SKETCH)
    if tensor.is_contiguous():
        return sketch(to_array(tensor.view(-1)[::step][: 2 * _SKETCH].clone()))
    places = torch.arange(0, count, step)[: 2 * _SKETCH]
    index = torch.unravel_index(places, tensor.shape) if tensor.dim() else ()
    return sketch(to_array(tensor[index].reshape(-1) if index else tensor.reshape(-1)))


def alike(a: Array, b: Array, tolerance: float = _ALIKE) -> bool:
    """Returns whether two sketches are of the same values, as far as they tell."""
    if a.shape != b.shape or a.size == 0:
        return False
    with np.errstate(all="ignore"):
        scale = np.abs(a).max()
        return bool(np.all(np.abs(a - b) <= tolerance * scale + 1e-12))


def mostly_alike(a: Array, b: Array) -> bool:
    """Returns whether most numbers of two sketches agree: some came in another order."""
    if a.shape != b.shape or a.size == 0:
        return False
    with np.errstate(all="ignore"):
        agree = np.abs(a - b) <= _ALIKE * np.abs(a) + 1e-12
    return bool(agree.mean() > 0.5) and len(np.unique(a[agree])) > _SKETCH // 4


def alike_rows(own: Array, rows: Array) -> Array:
    """Does what `alike` does for many of one shape."""
    if rows.shape[1:] != own.shape or own.size == 0:
        return np.zeros(len(rows), bool)
    with np.errstate(all="ignore"):
        most = _ALIKE * np.abs(own).max() + 1e-12
        return np.asarray(np.all(np.abs(rows - own) <= most, axis=1))


def nearness(a: Array, b: Array) -> float:
    """Returns how near two sketches that are alike are: 1 where equal, by digits that agree."""
    with np.errstate(all="ignore"):
        apart = float(np.abs(a - b).max() / np.abs(a).max())
    return -math.log10(min(max(apart, 1e-9), 1.0)) / 9 if apart == apart else 0.0
