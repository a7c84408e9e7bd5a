"""Cuts a piece out of a model and writes it to a file."""

import os
from collections.abc import Sequence
from pathlib import Path

import onnx

from custom_ops.onnx import _model
from custom_ops.onnx._extract import weights
from custom_ops.onnx._extract.bounds import between
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.piece import cut
from custom_ops.onnx._extract.result import Extraction
from custom_ops.onnx._reading import ModelLike, read


def extract(
    model: ModelLike,
    path: str | os.PathLike[str],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    *,
    force: bool = False,
) -> Extraction:
    """Cuts a piece out of a model and writes it to a file.

    The piece has what its nodes use: initializers, functions, domains, value infos, annotations,
    and what the graphs inside them capture. The metadata of model and nodes stays. Weights in
    other files are copied to one beside the piece, without being loaded.

    Args:
        model: Path or ModelProto.
        path: The file to write; its weights go to ``<path>.data`` where the model has them in
            other files.
        inputs: Where the piece begins: names of tensors, or of nodes for the tensors that they
            read. An initializer becomes an input. If left out: the model's inputs, as far as the
            outputs need them.
        outputs: Where it ends: names of tensors, or of nodes for the tensors that they make. If
            left out: the model's outputs. A name that both a tensor and a node have is the
            tensor's.
        force: Whether to replace files that are there.

    Returns:
        What was cut.

    Raises:
        UnreadableModel: The file is no model, or data of its weights must not be read.
        ValueError: A name is unknown, the outputs need more than the inputs, nothing lies between
            them, or a file is there already. No file is written.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18]> g (float[N] x) => (float[N] z)
        ...     <float[N] y> { y = Relu(x) z = Exp(y) }
        ... ''')
        >>> folder = getfixture("tmp_path")
        >>> piece = custom_ops.onnx.extract(model, folder / "exp.onnx", inputs=["y"])
        >>> piece.inputs, piece.outputs, piece.nodes
        (('y',), ('z',), 1)
    """
    for argument, names in (("inputs", inputs), ("outputs", outputs)):
        if isinstance(names, str):
            raise ValueError(f"extract: {argument} must be a list of names, got the text {names!r}")
    if not inputs and not outputs:
        raise ValueError(
            "extract: inputs or outputs must be given, got neither; name the tensors or nodes "
            "where the piece begins and ends"
        )
    document = read(model)
    index = Index(document.proto.graph)
    bounds = between(index, document.proto, inputs, outputs)
    piece = cut(document.proto, index, bounds)
    data = _write(piece, document.folder, Path(path), force)
    return Extraction(
        path=Path(path),
        inputs=bounds.inputs,
        outputs=bounds.outputs,
        nodes=len(bounds.nodes),
        of=len(index.nodes),
        initializers=len(piece.graph.initializer) + len(piece.graph.sparse_initializer),
        data=data,
    )


def _write(piece: onnx.ModelProto, folder: Path | None, path: Path, force: bool) -> Path | None:
    """Writes a piece, and returns the file of its weights if it has one."""
    data = path.with_name(f"{path.name}.data") if weights.external(piece) else None
    for file in filter(None, (path, data)):
        if file.exists() and not force:
            raise ValueError(
                f"extract: path must be new, got {str(file)!r}, which exists; give another path, "
                "or force=True to replace it"
            )
    with _model.written_beside(path) as beside:
        if data is not None:
            weights.copy(piece, folder, data.name, beside.with_name(data.name))
        onnx.save(piece, beside)
    return data
