"""Where the data of tensors lies: takes it into the model's file, or puts it into one beside.

Data is copied file to file in pieces, so a model of any size needs little memory, and on messages,
so nothing else of the model is touched.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from custom_ops._errors import UnreadableModel
from custom_ops.onnx import _external, _walk
from custom_ops.onnx._model import LARGEST_FILE, check_new, written_beside

_PIECE = 1 << 24
_ALIGNMENT = 4096  # a page, so that readers can map it
_SMALLEST_MOVED = 1024  # bytes; smaller ones may be shapes, which readers want at hand


def check(
    tool: str, model: onnx.ModelProto, folder: Path | None, follow_links: bool = False
) -> None:
    """Refuses a model whose external data must not, or cannot, be read.

    Raises:
        UnreadableModel: It is missing, truncated or lies outside the model's folder.
        ValueError: It lies behind a symbolic link, which is not to be followed.
    """
    for fault in _external.faults(model, folder):
        if fault.code != _external.LINK:
            raise UnreadableModel(f"{tool}: {fault}")
        if not follow_links:
            raise ValueError(
                f"{tool}: {fault.tensor!r}: external data {fault.rule}; copy it with "
                "custom-ops fix --follow-links (follow_links=True) where you trust the folder"
            )


def check_free(tool: str, path: Path, force: bool) -> None:
    """Refuses to overwrite a model or its data.

    Raises:
        ValueError: There is something at one of both places; a folder even with `force`.
    """
    for file in (path, data_file(path)):
        check_new(tool, "output", file, force)


def data_file(path: Path) -> Path:
    """Returns where the data of a model is written that does not go into its file."""
    return path.with_name(f"{path.name}.data")


def is_external(model: onnx.ModelProto) -> bool:
    """Returns whether a model has data in other files."""
    return next(_external.entries(model), None) is not None


def size_of_data(model: onnx.ModelProto) -> int:
    """Returns the bytes of all tensors, wherever they lie."""
    outside = sum(entry.needed or 0 for entry in _external.entries(model))
    return outside + sum(len(tensor.raw_data) for tensor in _walk.tensors(model))


def movable(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields the initializers whose data is in the model and large enough for another file."""
    for scope in _walk.scopes(model):
        for tensor in scope.initializer if isinstance(scope, onnx.GraphProto) else ():
            inside = tensor.data_location != onnx.TensorProto.EXTERNAL
            if inside and tensor.data_type != onnx.TensorProto.STRING:
                size = _external.data_bytes(tensor)
                if size is not None and size >= _SMALLEST_MOVED:
                    yield tensor


def embed(tool: str, model: onnx.ModelProto, folder: Path | None) -> None:
    """Takes all data into the model, in place.

    Raises:
        ValueError: It does not fit into one file.
    """
    size = size_of_data(model)
    if size > LARGEST_FILE:
        raise ValueError(
            f"{tool}: embedded data must be at most {LARGEST_FILE:,} bytes, got {size:,}; leave it "
            "in a file of its own"
        )
    for tensor in _walk.tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            assert folder is not None
            file, offset, length = _place(tensor, folder)
            with open(file, "rb") as source:
                source.seek(offset)
                data = source.read(length)
            _clear(tensor)
            tensor.raw_data = data


def link(model: onnx.ModelProto, folder: Path | None, target: Path) -> None:
    """Puts the external data of a model into another folder too, without copying if that can be.

    Args:
        model: The model, whose data has been checked.
        folder: Where its external data lies.
        target: The other folder; models that are written there find the data as this one does.
    """
    for location in {entry.location for entry in _external.entries(model)}:
        assert folder is not None
        file = target / location
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / location, file)
        except OSError:  # on another disk, or one that has no links
            shutil.copyfile(folder / location, file)


def externalize(
    model: onnx.ModelProto, folder: Path | None, target: Path, everything: bool
) -> None:
    """Writes data into a file and points the model's tensors at it, in place.

    Args:
        model: The model.
        folder: Where its external data lies.
        target: The file to write.
        everything: Whether initializers that are in the model go there too.
    """
    written: dict[tuple[Path, int, int], int] = {}  # tensors may share their data
    sources: dict[Path, BinaryIO] = {}
    try:
        with open(target, "wb") as out:
            for tensor in _walk.tensors(model):
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    assert folder is not None
                    key = _place(tensor, folder)
                    if key not in written:
                        if key[0] not in sources:
                            sources[key[0]] = open(key[0], "rb")  # noqa: SIM115  (closed below)
                        written[key] = _copy(sources[key[0]], key[1], key[2], out)
                    _point(tensor, target.name, written[key], key[2])
            for tensor in movable(model) if everything else ():
                data = _bytes(tensor)
                offset = _align(out)
                out.write(data)
                _point(tensor, target.name, offset, len(data))
    finally:
        for source in sources.values():
            source.close()
    if not target.stat().st_size and not is_external(model):
        target.unlink()


@contextmanager
def written(
    model: onnx.ModelProto, folder: Path | None, path: Path, external: bool
) -> Iterator[Path]:
    """Writes a model beside its place, where it moves at the end of the block.

    Args:
        model: The model; in it tensors in other files point to the new place at the end.
        folder: Where its external data lies; it is copied.
        path: The place.
        external: Whether all large initializers go into a file of their own, which they do anyhow
            where the model would be too large.
    """
    with written_beside(path) as temporary:
        everything = external or sum(map(_inside, _walk.tensors(model))) > LARGEST_FILE
        if everything or is_external(model):
            externalize(model, folder, data_file(temporary), everything)
        onnx.save(model, os.fspath(temporary))  # in the form that the suffix names
        yield temporary


def _bytes(tensor: onnx.TensorProto) -> bytes:
    try:
        data = ir.serde.deserialize_tensor(tensor).tobytes()
    except Exception:  # of onnx-ir, which does not say which
        data = b""
    if len(data) != _external.data_bytes(tensor):
        raise UnreadableModel(
            f"model: initializer {tensor.name!r} must hold the numbers of its shape and type, got "
            "others; export the model again"
        )
    return data


def _inside(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data)


def _place(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    """Returns file, offset and length of a tensor's data."""
    entry = _external.entry(tensor)
    file = (folder / entry.location).resolve()
    length = entry.length if entry.length is not None else entry.needed
    if length is None:
        length = file.stat().st_size - entry.offset
    return file, entry.offset, length


def _align(out: BinaryIO) -> int:
    offset = -(-out.tell() // _ALIGNMENT) * _ALIGNMENT
    out.seek(offset)
    return offset


def _copy(source: BinaryIO, offset: int, length: int, out: BinaryIO) -> int:
    start = _align(out)
    source.seek(offset)
    left = length
    while left:
        piece = source.read(min(left, _PIECE))
        if not piece:
            raise UnreadableModel(f"model: external data must have {length:,} bytes, got fewer")
        out.write(piece)
        left -= len(piece)
    return start


def _clear(tensor: onnx.TensorProto) -> None:
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(name)
    tensor.ClearField("uint64_data")


def _point(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    _clear(tensor)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
