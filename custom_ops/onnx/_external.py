"""Tensors whose data lies in other files: where they say it lies, and whether it may be read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir

from custom_ops.onnx import _walk

# Codes of faults; of a symbolic link only what onnx and onnx-ir refuse and onnxruntime takes.
MISSING, TRUNCATED, OUTSIDE, LINK = (
    "external-missing",
    "external-truncated",
    "external-outside",
    "external-link",
)


@dataclass(frozen=True)
class External:
    """Where the data of a tensor lies.

    Attributes:
        tensor: Name of the tensor.
        location: The path as written, to be relative to the folder of the model.
        offset: First byte.
        length: Bytes; None where the tensor does not say.
        needed: Bytes that shape and element type ask for; None where they do not tell.
    """

    tensor: str
    location: str
    offset: int
    length: int | None
    needed: int | None


@dataclass(frozen=True)
class Fault:
    """Why data of a tensor cannot, or should not, be read.

    Attributes:
        code: One of the codes of this module.
        tensor: Name of the tensor.
        rule: What must be, for a sentence "<tensor>: external data <rule>".
        remedy: What to do.
        leads_to: Of a symbolic link, the file behind it.
    """

    code: str
    tensor: str
    rule: str
    remedy: str
    leads_to: Path | None = None

    def __str__(self) -> str:
        return f"{self.tensor!r}: external data {self.rule}; {self.remedy}"


def entries(model: onnx.ModelProto) -> Iterator[External]:
    """Yields where each tensor with external data has it."""
    for tensor in _walk.tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield entry(tensor)


def entry(tensor: onnx.TensorProto) -> External:
    """Returns where a tensor with external data has it."""
    fields = {each.key: each.value for each in tensor.external_data}
    return External(
        tensor.name,
        fields.get("location", ""),
        _number(fields.get("offset")) or 0,
        _number(fields.get("length")),
        data_bytes(tensor),
    )


def faults(model: onnx.ModelProto, folder: Path | None) -> Iterator[Fault]:
    """Yields what is wrong with the external data of a model; no file is opened.

    Args:
        model: The model.
        folder: Where its file is; None where the model came without one.
    """
    for each in entries(model):
        fault = _fault(each, folder)
        if fault is not None:
            yield fault


def _fault(entry: External, folder: Path | None) -> Fault | None:
    def found(code: str, rule: str, remedy: str) -> Fault:
        return Fault(code, entry.tensor, rule, remedy)

    location = entry.location
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or absolute or ".." in parts or "\0" in location:
        rule = f"must lie in the folder of the model, got {location!r}"
        return found(OUTSIDE, rule, "move the data beside the model and name it by its file name")
    if folder is None:
        rule = f"must be found beside the model's file, got {location!r} and no file"
        return found(MISSING, rule, "give the path of the model, not its message")
    file = folder / location
    try:
        is_file, size = file.is_file(), file.stat().st_size if file.is_file() else 0
    except OSError:  # for example a name that is too long
        is_file, size = False, 0
    if not is_file:
        rule = f"must be a file, got none at {location!r}"
        return found(MISSING, rule, "put the data file beside the model again")
    length = entry.length if entry.length is not None else entry.needed
    end = entry.offset + (length or 0)
    other = None not in (entry.needed, entry.length) and entry.length != entry.needed
    if entry.offset < 0 or (length or 0) < 0 or end > size or other:
        wanted = max(end, entry.offset + (entry.needed or 0))
        rule = f"must have {wanted} bytes, got {size} in {location!r}"
        if other and end <= size:
            rule = f"must have {entry.needed} bytes by shape and type, got length {entry.length}"
        return found(TRUNCATED, rule, "copy or export the data file again")
    if file.resolve() != folder.resolve() / location:
        rule = f"must be no symbolic link, got {location!r}, which leads to {file.resolve()}"
        remedy = "embed it with custom-ops fix --embed --follow-links where you trust the folder"
        return Fault(LINK, entry.tensor, rule, remedy, file.resolve())
    return None


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return -1  # no offset and no length, so refused


def data_bytes(tensor: onnx.TensorProto) -> int | None:
    """Returns the bytes that shape and element type ask for; None where they do not tell."""
    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (TypeError, ValueError):  # text, and what is no element type
        return None
    elements: int = math.prod(max(size, 0) for size in tensor.dims)
    return (elements * bits + 7) // 8
