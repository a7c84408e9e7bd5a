"""Models as files, bytes, protos and graphs; files are written beside and renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from custom_ops.onnx._reading import ModelLike, read

# A protobuf message ends at 2 GB; weights beyond that go to a file of their own.
LARGEST_FILE = 2_000_000_000


def open_model(model: ModelLike) -> ir.Model:
    """Returns a model as a graph of onnx-ir; the caller's object is left as it is.

    Raises:
        UnreadableModel: It is none, or its external data must not be read.
    """
    if isinstance(model, ir.Model):
        return model.clone()
    loaded = read(model).graph()
    ir.external_data.load_to_model(loaded)
    return loaded


def is_large(model: ir.Model) -> bool:
    """Returns whether the weights do not fit into one file."""
    values = model.graph.initializers.values()
    size = sum(v.const_value.nbytes for v in values if v.const_value is not None)
    return size > LARGEST_FILE


def write(model: ir.Model, path: Path) -> None:
    """Writes a model.

    Its weights go to ``<name>.data`` beside it where they do not fit, and where they come from
    such a file.
    """
    weights = (value.const_value for value in model.graph.initializers.values())
    apart = is_large(model) or any(isinstance(each, ir.ExternalTensor) for each in weights)
    external = f"{path.name}.data" if apart else None
    ir.save(model, path, external_data=external)


def check_new(tool: str, what: str, path: str | os.PathLike[str], force: bool) -> None:
    """Refuses to write to a folder, and to overwrite what is there unless told.

    Args:
        tool: Who writes, for the error.
        what: What is written.
        path: Where to.
        force: Whether a file that is there may go.

    Raises:
        ValueError: It is a folder, or exists and `force` is not given.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(
            f"{tool}: {what} must be a file, got {str(file)!r}, a folder; name a file in it"
        )
    if not force and (file.exists() or file.is_symlink()):
        raise ValueError(
            f"{tool}: {what} must be a new file, got {str(file)!r}, which exists; overwrite it "
            "with force=True (--force)"
        )


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to; what is there at the end of the block moves to `path`.

    Where the block raises, nothing is left, and a file that was at `path` is untouched.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield folder / final.name
        for file in sorted(folder.iterdir(), key=lambda f: f.name == final.name):
            os.replace(file, final.parent / file.name)  # the model last: it names its data
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def session_input(model: ModelLike) -> Iterator[str | bytes]:
    """Gives a model as a session takes it: a path, or bytes where they suffice."""
    if isinstance(model, (bytes, str, os.PathLike)):
        yield model if isinstance(model, bytes) else os.fspath(model)
        return
    graph = open_model(model)
    if not is_large(graph):
        yield ir.to_proto(graph).SerializeToString()
        return
    with tempfile.TemporaryDirectory() as folder:
        write(graph, Path(folder) / "model.onnx")
        yield os.path.join(folder, "model.onnx")
