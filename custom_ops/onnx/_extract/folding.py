"""Finds which BatchNorm a Conv of a model has in its weights, by the weights of the torch module.

TorchScript merges so: the node is the Conv's, its weights have no name of torch, and nothing tells
of the BatchNorm.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from custom_ops.onnx import _storage
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.merges import Merge
from custom_ops.onnx._scopes import Scope

_RTOL = 1e-4  # the exporter multiplies in float32


def by_folding(
    index: Index,
    scopes: Sequence[Scope | None],
    paths: Collection[str],
    module: torch.nn.Module,
    folder: Path | None,
) -> list[Merge]:
    """Finds Conv nodes whose weight is that of a Conv times the factors of a BatchNorm.

    Args:
        index: The main graph.
        scopes: Where its nodes come from.
        paths: Paths of all modules that have nodes.
        module: The torch module that was exported.
        folder: Where external data of the model lies.

    Raises:
        UnreadableModel: A weight lies in a file that must not be read.
    """
    places = {name: place for place, (name, _) in enumerate(module.named_modules())}
    norms = {
        name: each
        for name, each in module.named_modules()
        if isinstance(each, _BatchNorm) and each.running_var is not None and name not in paths
    }
    found: dict[str, str] = {}
    merges = []
    for i, scope in enumerate(scopes):
        node = index.nodes[i]
        if scope is None or node.op_type != "Conv" or scope.path not in places:
            continue
        conv = module.get_submodule(scope.path)
        computed = next((name for name in node.input[1:2] if "::" in name), None)
        if not isinstance(conv, torch.nn.modules.conv._ConvNd) or computed is None:
            continue
        if scope.path not in found:
            weight = _stored(index, computed, folder)
            parent = scope.path.rpartition(".")[0]
            # Fresh modules all fold alike: then the next one in the same parent is meant.
            near = sorted(
                norms.keys() - set(found.values()),
                key=lambda n: (
                    n.rpartition(".")[0] != parent,
                    (places[n] - places[scope.path]) % len(places),
                ),
            )
            norm = next((n for n in near if _folds(conv, norms[n], weight)), None)
            if norm is None:
                continue
            found[scope.path] = norm
        merges.append(Merge(i, (scope.path, found[scope.path])))
    return merges


def _folds(conv: torch.nn.modules.conv._ConvNd, norm: _BatchNorm, weight: Any) -> bool:
    """Returns whether a weight is that of a Conv with a BatchNorm behind it."""
    if weight is None or norm.num_features != conv.out_channels or norm.running_var is None:
        return False
    with torch.no_grad():
        factors = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            factors = factors * norm.weight
        expected = conv.weight.double().transpose(0, -1) * factors
        array = expected.transpose(0, -1).cpu().numpy()
    scale = float(np.abs(array).max(initial=0.0))
    return array.shape == weight.shape and np.allclose(weight, array, _RTOL, _RTOL * scale)


def _stored(index: Index, name: str, folder: Path | None) -> np.ndarray[Any, Any] | None:
    """Returns a stored value; equal ones are stored once, behind an Identity."""
    maker = index.maker.get(name)
    if maker is not None and index.nodes[maker].op_type == "Identity":
        name = next(iter(index.nodes[maker].input), "")
    tensor = index.initializers.get(name)
    if tensor is None:
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        holder = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
        _storage.check("extract", holder, folder)
    base = "" if folder is None else str(folder)
    array: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(tensor, base)
    return array
