"""Runs sessions on arrays of every element type.

Processes without the package load it by its path, so it imports little.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime

# How far a session optimizes its graph.
LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns an array of a dtype that NumPy can save.

    bfloat16 becomes float32, other types that NumPy does not know become their bits.
    """
    if array.dtype == ml_dtypes.bfloat16:
        return array.astype(np.float32)
    if array.dtype.kind == "O":
        return array.astype("U")
    if array.dtype.kind == "V":
        return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
    return array


def _narrow(kind: str) -> bool:
    """Returns whether values of a type pass as bits, since NumPy does not know its numbers."""
    return kind == "tensor(bfloat16)" or kind.startswith("tensor(float8")


def _value(array: Any, kind: str, number: int) -> Any:
    if kind == "tensor(bfloat16)":
        array = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    if _narrow(kind):
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, number)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _result(value: Any) -> Any:
    kind = value.data_type()
    if not _narrow(kind):
        return value.numpy()
    bits = np.dtype(np.uint16 if kind == "tensor(bfloat16)" else np.uint8)
    raw = ctypes.string_at(value.data_ptr(), bits.itemsize * math.prod(value.shape()))
    array = np.frombuffer(raw, bits).reshape(value.shape())
    return array.view(ml_dtypes.bfloat16) if kind == "tensor(bfloat16)" else array


def run(session: Any, feed: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    """Runs a session.

    Args:
        session: An `onnxruntime.InferenceSession`.
        feed: Its inputs, in order, as `storable` gives them.
        numbers: The element types of the inputs, as onnx numbers them.

    Returns:
        The outputs; those of bfloat16 in that of ml_dtypes, those of 8 bits as bits.
    """
    inputs = session.get_inputs()
    if len(inputs) != len(feed):
        raise ValueError(f"it has {len(inputs)} inputs, not {len(feed)}")
    kinds = [each.type for each in (*inputs, *session.get_outputs())]
    if any(map(_narrow, kinds)):
        values = {
            each.name: _value(array, each.type, number)
            for each, array, number in zip(inputs, feed, numbers, strict=True)
        }
        return [_result(value) for value in session.run_with_ort_values(None, values)]
    arrays = {
        each.name: array.astype(object) if array.dtype.kind == "U" else array
        for each, array in zip(inputs, feed, strict=True)
    }
    results: list[Any] = session.run(None, arrays)
    return results
