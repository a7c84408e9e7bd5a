"""Reads a model as it is written, without its external data, and refuses what is none."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx.serialization
import onnx_ir as ir
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from custom_ops._errors import UnreadableModel
from custom_ops.onnx import _external, _guarded

ModelLike: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

_SMALL = 1 << 26  # bytes, of which another copy does no harm


@dataclass(frozen=True)
class Document:
    """A model as it was given.

    Attributes:
        proto: The message; data in other files is not loaded.
        path: Its file; None where it came as a message.
    """

    proto: onnx.ModelProto
    path: Path | None

    @property
    def folder(self) -> Path | None:
        """Where external data lies."""
        return self.path.parent if self.path is not None else None

    @property
    def name(self) -> str:
        """What to call the model in a sentence."""
        return str(self.path) if self.path is not None else self.proto.graph.name or "the model"

    def graph(self) -> ir.Model:
        """Returns a graph of onnx-ir of its own; external data stays in its file until it is used.

        Raises:
            UnreadableModel: External data is missing or lies outside the folder, or the graph is
                broken.
        """
        for fault in _external.faults(self.proto, self.folder):
            raise UnreadableModel(f"{self.name}: {fault}")
        try:
            model = ir.serde.deserialize_model(self.proto)
        except Exception as error:  # of a broken graph, which onnx-ir does not check first
            raise UnreadableModel(
                f"model: the graph must be valid, got {self.name}: {error or type(error).__name__}"
                "; see `custom-ops doctor`"
            ) from error
        if self.folder is not None:
            ir.external_data.set_base_dir(model.graph, self.folder)
        return model


def read(model: ModelLike) -> Document:
    """Reads a model.

    Args:
        model: Path of a file (binary, or text by its suffix, as `onnx.load` takes it), bytes,
            ModelProto or onnx-ir model; left as it is.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableModel: The content is no model.
    """
    if isinstance(model, ir.Model):
        return Document(ir.to_proto(model), None)
    if isinstance(model, onnx.ModelProto):
        return Document(model, None)
    path = None if isinstance(model, bytes) else Path(model)
    if path is not None and not path.is_file():
        raise FileNotFoundError(
            f"model: path must be an ONNX file, got {str(path)!r}; export the model first"
        )
    what = str(path) if path is not None else "bytes"
    try:
        if isinstance(model, bytes):
            proto, size = onnx.load_from_string(model), len(model)
        else:
            size = os.path.getsize(model)  # what ByteSize() says too, once it has written it all
            proto = onnx.load(os.fspath(model), load_external_data=False)
    except Exception as error:  # the parsers of binary, JSON and text share no class
        raise _refusal(what, f"what does not parse ({type(error).__name__})") from error
    if not proto.HasField("graph"):  # as of an empty file, which parses
        raise _refusal(what, "one without a graph" if proto.ByteSize() else "nothing in it")
    if not _is_text(proto, size):
        raise _refusal(what, "one with names or other texts that are not UTF-8")
    return Document(proto, path)


def is_binary(path: Path) -> bool:
    """Returns whether a file has the binary form, which onnxruntime reads, by its suffix."""
    known = onnx.serialization.registry.get_format_from_file_extension(path.suffix)
    return known in (None, "protobuf")


def _is_text(proto: onnx.ModelProto, size: int) -> bool:
    """Returns whether all texts are UTF-8; the message of onnx gives others as bytes."""
    texts = proto if size < _SMALL else _guarded.without_large_weights(proto)
    try:
        _strict_message().FromString(texts.SerializeToString())
    except DecodeError:
        return False
    return True


@functools.cache
def _strict_message() -> type[Message]:
    """Returns the message of onnx in the syntax of protobuf that checks texts when it parses."""
    file = descriptor_pb2.FileDescriptorProto()
    onnx.ModelProto.DESCRIPTOR.file.CopyToProto(file)
    file.syntax, file.name = "proto3", "custom_ops/onnx.proto"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName(onnx.ModelProto.DESCRIPTOR.full_name)
    strict: type[Message] = message_factory.GetMessageClass(found)
    return strict


def _refusal(what: str, got: str) -> UnreadableModel:
    return UnreadableModel(
        f"model: {what} must hold an ONNX model, got {got}; export or download it again"
    )
