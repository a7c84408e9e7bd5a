"""The numbers of a tensor, piece by piece, wherever in the folder of the model they lie."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from custom_ops.onnx import _external
from custom_ops.onnx._doctor.subject import Subject

_PIECE = 1 << 22  # bytes


def pieces(subject: Subject, tensor: onnx.TensorProto) -> Iterator["np.ndarray[Any, Any]"]:
    """Yields the numbers of a tensor in order, in flat arrays; none where they cannot be read."""
    try:
        dtype = np.dtype(ir.DataType(tensor.data_type).numpy())
    except (TypeError, ValueError):  # text, and what is no element type
        return
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        data = _mapped(subject, tensor)
    elif tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
    else:
        try:
            yield numpy_helper.to_array(tensor).reshape(-1)
        except (TypeError, ValueError):  # data that does not fit the shape
            return
        return
    if data is None or ir.DataType(tensor.data_type).bitwidth < 8:
        return
    size = len(data) - len(data) % dtype.itemsize
    for start in range(0, size, _PIECE):
        yield np.asarray(data[start : min(start + _PIECE, size)]).view(dtype)


def size(tensor: onnx.TensorProto) -> int:
    """Returns the bytes that a tensor's shape and element type ask for; 0 if they do not tell."""
    return _external.data_bytes(tensor) or 0


def _mapped(subject: Subject, tensor: onnx.TensorProto) -> "np.ndarray[Any, Any] | None":
    folder = subject.document.folder
    entry = _external.entry(tensor)
    if folder is None or entry.tensor in subject.external_broken or not entry.needed:
        return None
    try:
        return np.memmap(folder / entry.location, np.uint8, "r", entry.offset, (entry.needed,))
    except (OSError, ValueError):
        return None
