"""Cuts a piece out of a model and writes it to a file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from custom_ops.onnx import _storage
from custom_ops.onnx._extract.bounds import between
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.modules import Modules
from custom_ops.onnx._extract.piece import cut
from custom_ops.onnx._extract.result import Extraction
from custom_ops.onnx._extract.samples import sample
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._reading import ModelLike, read


def extract(
    model: ModelLike,
    path: str | os.PathLike[str],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    *,
    module: str | None = None,
    call: int | None = None,
    torch_module: torch.nn.Module | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    follow_links: bool = False,
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
        module: Instead of both: path of a torch module, as "layer3.0", in a model that one of
            torch's exporters has written. Modules that it has merged, as a Conv with its BatchNorm,
            are cut as one piece.
        call: Which call of the module, from 0, where the model calls it several times.
        torch_module: The torch module that was exported. With its weights the BatchNorms are found
            that TorchScript has merged without a trace.
        args: The inputs of the torch module that was exported: then the result has a sample, what
            torch gives to `module` and gets from it, with which the piece is run and compared.
        kwargs: Its keyword inputs.
        follow_links: Whether to read weights that lie behind a symbolic link.
        force: Whether to replace files that are there.

    Returns:
        What was cut; true unless the piece differs from torch.

    Raises:
        UnreadableModel: The file is no model, or data of its weights must not be read.
        ValueError: A name is unknown, the outputs need more than the inputs, nothing lies between
            them, a module has no nodes, or a file is there already. No file is written.

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
    _check(inputs, outputs, module, call, torch_module, args)
    document = read(model)
    index = Index(document.proto.graph)
    located = None
    if module is None:
        bounds = between(index, document.proto, inputs, outputs)
    else:
        modules = Modules(index, torch_module, document.folder)
        located = modules.locate(module, call)
        bounds = located.bounds
    piece = cut(document.proto, index, bounds)
    path = Path(path)
    _storage.check_free("extract", path, force)
    _storage.check("extract", piece, document.folder, follow_links)
    result = Extraction(
        path=path,
        inputs=bounds.inputs,
        outputs=bounds.outputs,
        nodes=len(bounds.nodes),
        of=len(index.nodes),
        initializers=len(piece.graph.initializer) + len(piece.graph.sparse_initializer),
    )
    with _storage.written(piece, document.folder, path, external=False) as beside:
        if _storage.is_external(piece):
            result = replace(result, data=_storage.data_file(path))
        if located is None:
            return result
        result = replace(
            result,
            module=located.path,
            call=located.call,
            calls=located.calls,
            merged=located.merged,
            notes=located.notes,
        )
        if torch_module is None or args is None:
            return result
        whole = Call(tuple(args), dict(kwargs or {}))
        found = sample(document, index, located, beside, torch_module, whole)
    return replace(result, sample=found)


def _check(
    inputs: Sequence[str],
    outputs: Sequence[str],
    module: str | None,
    call: int | None,
    torch_module: torch.nn.Module | None,
    args: Sequence[Any] | None,
) -> None:
    """Refuses arguments that do not go together."""
    for argument, names in (("inputs", inputs), ("outputs", outputs)):
        if isinstance(names, str):
            raise ValueError(f"extract: {argument} must be a list of names, got the text {names!r}")
    by_names = bool(inputs) or bool(outputs)
    if by_names == (module is not None):
        got = "both" if by_names else "neither"
        raise ValueError(
            f"extract: inputs and outputs, or module, must be given, got {got}; name the tensors "
            "or nodes where the piece begins and ends, or a torch module"
        )
    if module is None and (call is not None or torch_module is not None):
        given = "call" if call is not None else "torch_module"
        raise ValueError(f"extract: {given} must come with module, got none; give module too")
    if args is not None and torch_module is None:
        raise ValueError("extract: args must come with torch_module, got none; give it too")
    if isinstance(args, torch.Tensor):
        raise ValueError("extract: args must be a tuple, got a tensor; give (tensor,)")
