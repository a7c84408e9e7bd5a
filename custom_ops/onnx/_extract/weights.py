"""Copies the external data of a piece into a file of its own, without loading it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from custom_ops._errors import UnreadableModel
from custom_ops.onnx import _external, _walk

_AT_ONCE = 16 << 20  # bytes
_ALIGNED = 4096  # what lets a runtime map the file's pages


def external(piece: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Returns the tensors of a piece whose data lies in other files."""
    return [t for t in _walk.tensors(piece) if t.data_location == onnx.TensorProto.EXTERNAL]


def save(piece: onnx.ModelProto, folder: Path | None, path: Path) -> None:
    """Writes a piece, and what of its weights is external to ``<path>.data`` beside it.

    Args:
        piece: The piece, which is changed.
        folder: Where the data of the model lies.
        path: The file to write.

    Raises:
        UnreadableModel: Data is missing or must not be read.
    """
    if external(piece):
        data = path.with_name(f"{path.name}.data")
        _copy(piece, folder, data.name, data)
    onnx.save(piece, path)


def _copy(piece: onnx.ModelProto, folder: Path | None, name: str, file: Path) -> None:
    """Copies the external data that a piece uses, and makes the piece name the copy."""
    for fault in _external.faults(piece, folder):
        raise UnreadableModel(f"model: {fault}")
    assert folder is not None  # else each is a fault
    copied: dict[tuple[str, int, int], int] = {}  # tensors may share their bytes
    with file.open("wb") as to:
        for tensor, entry in zip(external(piece), _external.entries(piece), strict=True):
            source = folder / entry.location
            length = entry.length
            if length is None:
                length = entry.needed or source.stat().st_size - entry.offset
            key = (entry.location, entry.offset, length)
            if key not in copied:
                to.seek(-to.tell() % _ALIGNED, 1)
                copied[key] = to.tell()
                with source.open("rb") as data:
                    data.seek(entry.offset)
                    for part in _parts(data, length):
                        to.write(part)
            fields = {"location": name, "offset": str(copied[key]), "length": str(length)}
            del tensor.external_data[:]
            for field, value in fields.items():
                tensor.external_data.add(key=field, value=value)


def _parts(data: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0:
        part = data.read(min(length, _AT_ONCE))
        if not part:
            raise UnreadableModel(
                "model: external data must stay as it is while it is copied, got a file that ends "
                "early; try again"
            )
        yield part
        length -= len(part)
