"""Says how attributes and weights of two nodes differ, with their numbers or without."""

import re
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from custom_ops.debug._graph import Array

_SHOWN = 4  # numbers of a tensor in a sentence


def text(value: Any) -> str:
    """Returns what an attribute is."""
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace"))
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        numbers = ", ".join(map(str, array.reshape(-1)[:_SHOWN].tolist()))
        return f"{array.dtype}{list(array.shape)} of {numbers}"
    return str(np.float32(value)) if isinstance(value, float) else str(value)


def apart(one: Array, other: Array) -> str:
    """Returns how two weights differ; "" where they do not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"is {one.dtype}{list(one.shape)}, not {other.dtype}{list(other.shape)}"
    different = ~((one == other) | ((one != one) & (other != other)))
    count = int(np.count_nonzero(different))
    if not count:
        return ""
    place = tuple(map(int, np.unravel_index(int(np.argmax(different)), one.shape)))
    at = f" at {list(place)}" if place else ""
    return f"differs in {count} of {one.size} numbers: {one[place]}, not {other[place]}{at}"


def without_numbers(difference: str) -> str:
    """Returns how a node differs, without the numbers of weights and constants.

    Example:
        >>> without_numbers("input 1, 'w', differs in 2 of 96 numbers: 0.5, not 0.25 at [0, 1]")
        "input 1, 'w', differs in 2 of 96 numbers"
        >>> without_numbers("attribute value is float32[1] of 0.5, not float32[1] of 1.0")
        'attribute value is another one'
        >>> without_numbers("inside of it, n: attribute value is float32[1] of 0.5, not float32[1]")
        'inside of it, n: attribute value is another one'
        >>> without_numbers("attribute epsilon is 1e-05, not 0.001")
        'attribute epsilon is 1e-05, not 0.001'
    """
    difference = re.sub(r"( differs in \d+ of \d+ numbers): .*", r"\1", difference, flags=re.S)
    tensor = r"attribute (?:(value\w*) is .*|(\w+) is .*\w\[[\d, ]*\] of .*)"
    found = re.fullmatch(f"((?:inside of it, .*?: )*?){tensor}", difference, flags=re.S)
    if found is None:
        return difference
    return f"{found[1]}attribute {found[2] or found[3]} is another one"
