"""The numbers of a tensor, piece by piece, wherever in the folder of the model they lie."""

import contextlib
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
    if ir.DataType(tensor.data_type).bitwidth < 8:
        return
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        for piece in _read(subject, tensor):
            yield np.frombuffer(piece, dtype, len(piece) // dtype.itemsize)
    elif tensor.HasField("raw_data"):
        numbers = np.frombuffer(tensor.raw_data, dtype, len(tensor.raw_data) // dtype.itemsize)
        for start in range(0, len(numbers), _PIECE):
            yield numbers[start : start + _PIECE]
    else:
        with contextlib.suppress(TypeError, ValueError):  # data that does not fit the shape
            yield numpy_helper.to_array(tensor).reshape(-1)


def size(tensor: onnx.TensorProto) -> int:
    """Returns the bytes that a tensor's shape and element type ask for; 0 if they do not tell."""
    return _external.data_bytes(tensor) or 0


def _read(subject: Subject, tensor: onnx.TensorProto) -> Iterator[bytes]:
    folder = subject.document.folder
    entry = _external.entry(tensor)
    if folder is None or entry.tensor in subject.external_broken:
        return
    left = entry.needed or 0
    with contextlib.suppress(OSError), (folder / entry.location).open("rb") as file:
        file.seek(entry.offset)
        while left:
            piece = file.read(min(_PIECE, left))
            if not piece:
                return
            left -= len(piece)
            yield piece
