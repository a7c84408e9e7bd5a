"""The samples of the ops as models of one node, with the outputs that they should have."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from releases import Call

from custom_ops.onnx._single_node import OPSET, single_node
from custom_ops.ops._registry import Op
from custom_ops.ops._samples import Sample

SEED = 0


def calls_of(
    op: Op, dtype: str, dynamic: bool = False, opset: int = OPSET
) -> Iterator[tuple[onnx.ModelProto, Call]]:
    """Yields each sample of an op as a model and its call.

    Args:
        op: The op.
        dtype: Element type of the floating-point inputs; half types are cast inside the model.
        dynamic: Whether the model leaves all sizes open.
        opset: The model's opset.
    """
    for sample in op.samples(torch.Generator().manual_seed(SEED)):
        cast = sample.map(functools.partial(_cast, dtype=getattr(torch, dtype)))
        model, feeds = single_node(op, op.arguments(*cast.args, **cast.kwargs), dynamic, opset)
        yield model, Call(f"{op.name} {sample.name} {dtype}", feeds, reference(op, cast))


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def reference(op: Op, sample: Sample) -> list[Any]:
    """Computes a call in float64 from the values that its dtype holds."""
    wide = sample.map(lambda t: t.double().numpy() if t.is_floating_point() else t.numpy())
    outputs = op.reference(*wide.args, **wide.kwargs)
    return [np.asarray(o) for o in (outputs if isinstance(outputs, tuple) else (outputs,))]
