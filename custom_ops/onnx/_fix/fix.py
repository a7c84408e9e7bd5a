"""Mends a model: what a release refuses, and what the caller wants changed."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import onnx

from custom_ops import _library
from custom_ops.onnx import _guarded, _storage, _walk
from custom_ops.onnx._doctor.doctor import examine
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._fix import dynamic as dynamics
from custom_ops.onnx._fix import ir_version as versions
from custom_ops.onnx._fix import names
from custom_ops.onnx._fix import opset as opsets
from custom_ops.onnx._fix.mends import MENDS
from custom_ops.onnx._fix.result import Change, Fixed
from custom_ops.onnx._proof import Differs, Proof, Verdict, compare, required
from custom_ops.onnx._reading import Document, ModelLike, is_binary, read
from custom_ops.onnx._targets import Target
from custom_ops.onnx._targets import target as find_target
from custom_ops.ops._body import DOMAIN

_Message = TypeVar("_Message", onnx.ModelProto, onnx.ValueInfoProto)
_MOST_ROUNDS = 10  # a mend may uncover the next finding


def set_ir_version(
    model: ModelLike,
    version: int,
    path: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> onnx.ModelProto:
    """Gives a model another IR version, where that has all that the model uses.

    "Unsupported model IR version" is what an older onnxruntime says of a file that a newer onnx
    has written; most such files use nothing of the newer version.

    Args:
        model: Path or ModelProto; left as it is.
        version: The IR version, as `custom_ops.onnx.target` tells it of a release.
        path: A file to write; data of the model in other files is copied beside it.
        force: Whether to overwrite what is there.

    Returns:
        The model; data in other files is not loaded.

    Raises:
        UnreadableModel: The file is no model.
        ValueError: The version is none or lacks something in use, or the file exists.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 11, opset_import: ["": 18]>
        ...     g (float[N] x) => (float[N] y) { y = Relu(x) }
        ... ''')
        >>> release = custom_ops.onnx.target("onnxruntime==1.20")
        >>> custom_ops.onnx.set_ir_version(model, release.ir_version).ir_version
        10
    """
    document = read(model)
    changed = _copied(document, model)
    versions.set_version(changed, version, "set_ir_version")
    if path is not None:
        _storage.check_free("set_ir_version", Path(path), force)
        _storage.check("set_ir_version", changed, document.folder)
        with _storage.written(changed, document.folder, Path(path), external=False):
            pass
    return changed


def fix(
    model: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    libraries: Sequence[str | os.PathLike[str]] = (),
    opset: int | None = None,
    ir_version: int | None = None,
    rename_inputs: Mapping[str, str] | None = None,
    rename_outputs: Mapping[str, str] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    embed: bool = False,
    external: bool = False,
    follow_links: bool = False,
    verify: bool = True,
    force: bool = False,
) -> Fixed:
    """Mends what a release of ONNX Runtime refuses of a model, and changes what is asked for.

    Each finding of `doctor` that is fixable is mended. A change that would alter what the model
    computes is refused. The model before and after run on the same random inputs, in another
    process; where the outputs differ nothing is written.

    Args:
        model: Path or ModelProto; left as it is.
        output: The file to write; data in other files is copied to ``<output>.data``.
        target: The release that is to run it, as "onnxruntime==1.20"; the one installed if left
            out.
        libraries: Libraries of custom ops that sessions register.
        opset: The opset of ai.onnx to move to; where left out, the target's newest if the model's
            is newer than that.
        ir_version: The IR version; where left out as for `opset`.
        rename_inputs: New names of inputs, by the old ones.
        rename_outputs: New names of outputs, by the old ones.
        dynamic: Sizes of inputs to open: by the input's (old) name and the axis, a name for the
            size. Refused where the old size is baked into a node, or nothing runs at another.
        embed: Whether to take data in other files into the model.
        external: Whether to put the data of initializers into a file beside the model.
        follow_links: Whether data behind symbolic links may be read; it is copied.
        verify: Whether to run both models.
        force: Whether to overwrite what is at `output`.

    Returns:
        A `Fixed`: the model, what was done, the proof, and what is left; true where no error is
        left for the target.

    Raises:
        UnreadableModel: The file is no model, or its data cannot be read.
        ValueError: A change is not possible, which names the nodes; outputs differ; or there is a
            file at `output`.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 11, opset_import: ["": 22]>
        ...     g (float[2] x) => (float[2] y) { y = Relu(x) }
        ... ''')
        >>> print(custom_ops.onnx.fix(model, target="onnxruntime==1.17"))  # doctest: +ELLIPSIS
        ir-version: IR version 11 to 9
        opset: opset 22 to 20
        proof: outputs equal bit for bit in onnxruntime ... on x=2
    """
    if embed and external:
        raise ValueError("fix: embed must be without external, got both; choose one")
    if external and output is None:
        raise ValueError("fix: external must have a file to write to, got no output; give one")
    chosen = find_target(target)
    for what, wanted, newest in (
        ("opset", opset, chosen.opset),
        ("ir_version", ir_version, chosen.ir_version),
    ):
        if wanted is not None and wanted > newest:
            raise ValueError(
                f"fix: {what} must be at most {newest} for {chosen}, got {wanted}; name the "
                "release that is to run the model as the target"
            )
    document = read(model)
    if output is not None:
        _storage.check_free("fix", Path(output), force)
    _storage.check("fix", document.proto, document.folder, follow_links)
    inputs = [_duplicate(value) for value in required(document.proto)]
    changed = _copied(document, model)
    changes = []
    if opset is not None:
        changes += [Change("opset", text) for text in opsets.set_opset(changed, opset)]
    changes += _mend(Document(changed, document.path), chosen, libraries)
    if ir_version is not None:
        text = versions.set_version(changed, ir_version)
        changes += [Change("ir-version", text)] if text else []
    texts, opened = dynamics.open_sizes(changed, dynamic or {})
    changes += [Change("dynamic", text) for text in texts]
    for text in names.rename(changed, rename_inputs or {}, rename_outputs or {}):
        changes.append(Change("rename", text))
    if _storage.is_external(changed):
        if embed:
            _storage.embed("fix", changed, document.folder)
            changes.append(Change("embed", "took the data of other files into the model"))
        elif follow_links:
            changes.append(Change("follow-links", "copied data from behind symbolic links"))
    if external:
        count = sum(1 for _ in _storage.movable(changed))
        text = f"put the data of {count} initializers into a file beside"
        changes.append(Change("external", text if count else "no initializer is large enough"))
    compare = functools.partial(_compare, document, inputs, libraries, opened) if verify else None
    done = Proof(Verdict.SKIPPED)
    if compare is not None or output is not None:
        done = _write(document, changed, output, external, compare)
    place = None if output is None else Path(output)
    # Of the file as it lies there now.
    left = examine(Subject(Document(changed, place or document.path), chosen, libraries))
    return Fixed(changed, place, str(chosen), tuple(changes), done, tuple(left))


def _mend(
    document: Document, target: Target, libraries: Sequence[str | os.PathLike[str]]
) -> list[Change]:
    """Mends every finding that can be, in place; returns what was done."""
    changes: list[Change] = []
    for _ in range(_MOST_ROUNDS):
        found = examine(Subject(document, target, libraries))
        codes = {each.code for each in found if each.fixable}
        done = [
            Change(code, text)
            for code, mend in MENDS.items()
            if code in codes
            for text in mend(Subject(document, target, libraries))
        ]
        if not done:
            break
        changes += done
    return changes


def _write(
    document: Document,
    changed: onnx.ModelProto,
    output: str | os.PathLike[str] | None,
    external: bool,
    compare: Callable[[Path], Proof] | None,
) -> Proof:
    """Writes a model, and compares it with the original before it appears."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(output) if output is not None else Path(folder) / "fixed.onnx"
        # Where no file is wanted the message that is returned stays as it is.
        written = changed if output is not None else _duplicate(changed)
        with _storage.written(written, document.folder, place, external) as file:
            return Proof(Verdict.SKIPPED) if compare is None else compare(file)


def _compare(
    document: Document,
    inputs: Sequence[onnx.ValueInfoProto],
    libraries: Sequence[str | os.PathLike[str]],
    opened: Sequence[dynamics.Opened],
    after: Path,
) -> Proof:
    """Compares the original with the file of the fixed model; raises where they differ."""
    count = _guarded.expanded_nodes(document.proto)
    if count is None or count > _guarded.MOST_NODES:
        return Proof(Verdict.NOT_COMPARED, "its functions expand to too many nodes to run it")
    scopes = _walk.scopes(document.proto)
    ours = any(node.domain == DOMAIN for scope in scopes for node in scope.node)
    registered = [*libraries, *([_library.library_path()] if ours else [])]
    try:
        if document.path is not None and is_binary(document.path):
            return compare(inputs, document.path, after, registered, opened)
        # The message of a file has been changed; that of a caller has not.
        original = document if document.path is None else read(document.path)
        with tempfile.TemporaryDirectory() as folder:
            before = Path(folder) / "original.onnx"
            with _storage.written(_duplicate(original.proto), document.folder, before, False):
                pass
            return compare(inputs, before, after, registered, opened)
    except Differs as reason:
        raise ValueError(
            f"fix: the fixed model must compute what {document.name} does, but {reason}; nothing "
            "was written"
        ) from None


def _copied(document: Document, model: ModelLike) -> onnx.ModelProto:
    """Returns a message that may be changed."""
    return _duplicate(document.proto) if document.proto is model else document.proto


def _duplicate(message: _Message) -> _Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
