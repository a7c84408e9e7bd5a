"""Checks that contenders compute the same: a time of a wrong result means nothing."""

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from custom_ops.onnx._verify import to_array
from custom_ops.ops._samples import Tolerance

# How results are compared: each element; all but one in a thousand, for gradients of an op, which
# jump where a position is a whole number but for rounding; or by the norm of the difference, for
# gradients of a model, where one jump moves everything before it a little.
ELEMENTS, NEARLY_ALL, NORM = "elements", "nearly all elements", "norm"


class Differs(ValueError):
    """A contender computes something else than we do."""


def arrays(result: Any) -> list[np.ndarray[Any, Any]]:
    """Returns the outputs of a run, of torch or of a session, in float64."""
    leaves = pytree.tree_leaves(result)
    given = [to_array(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return [np.asarray(array).astype(np.float64) for array in given]


def difference(
    title: str,
    got: list[np.ndarray[Any, Any]],
    ours: list[np.ndarray[Any, Any]],
    tolerance: Tolerance,
    compared: str = ELEMENTS,
) -> float:
    """Returns the largest difference between two results, as a share of the output's scale.

    Args:
        title: Who differs, and at what, for the error.
        got: The outputs of a contender.
        ours: Ours.
        tolerance: How far they may lie apart; relative to the largest element of the output, or
            to its norm.
        compared: How they are compared.

    Raises:
        Differs: They lie further apart, or are of other shapes.
    """
    if [each.shape for each in got] != [each.shape for each in ours]:
        raise Differs(
            f"{title} must give the shapes {[each.shape for each in ours]}, got "
            f"{[each.shape for each in got]}"
        )
    largest = 0.0
    for index, (theirs, own) in enumerate(zip(got, ours, strict=True)):
        if compared == NORM:
            apart, scale = np.array([np.linalg.norm(theirs - own)]), float(np.linalg.norm(own))
        else:
            apart, scale = np.abs(theirs - own), float(np.abs(own).max(initial=0.0))
        close = apart <= tolerance.atol + tolerance.rtol * scale  # false for NaN
        allowed = own.size // 1000 if compared == NEARLY_ALL else 0
        if np.count_nonzero(~close) > allowed:
            what = "norm" if compared == NORM else "largest element"
            raise Differs(
                f"{title} must compute what we do, got output {index} off by "
                f"{apart.max():.3g} where the {what} is {scale:.3g}"
            )
        largest = max(largest, float(apart[close].max(initial=0.0)) / (scale or 1.0))
    return largest
