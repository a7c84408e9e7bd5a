"""Says whether an index is of another element only because that one is as large."""

from collections.abc import Mapping

import numpy as np
import onnx

from custom_ops.debug._graph import Array

_CHOOSERS = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}  # which of the outputs is an index


def tied(
    node: onnx.NodeProto, name: str, known: Mapping[str, Array], one: Array, other: Array
) -> bool:
    """Says whether two results of a node point at equal numbers.

    Which of several equal numbers comes first is left open by ONNX and by torch.

    Args:
        node: What makes the indices.
        name: Which of its results they are.
        known: What it reads, where that is known.
        one: Indices.
        other: Others of the same shape.
    """
    place = _CHOOSERS.get(node.op_type)
    read = known.get(node.input[0]) if place is not None else None
    if place is None or read is None or list(node.output).index(name) != place:
        return False
    options = {each.name: each.i for each in node.attribute}
    axis = options.get("axis", -1 if node.op_type == "TopK" else 0)
    if node.op_type != "TopK" and not options.get("keepdims", 1):
        one, other = np.expand_dims(one, axis), np.expand_dims(other, axis)
    if one.shape != other.shape or one.ndim != read.ndim or one.size == 0:
        return False
    ends = [number for each in (one, other) for number in (each.min(), each.max())]
    if min(ends) < 0 or max(ends) >= read.shape[axis]:
        return False
    twice = (np.diff(np.sort(other, axis), axis=axis) == 0).any()  # one element more than once
    found, wanted = (np.take_along_axis(read, each, axis) for each in (other, one))
    return not twice and bool(np.array_equal(found, wanted, equal_nan=read.dtype.kind == "f"))
