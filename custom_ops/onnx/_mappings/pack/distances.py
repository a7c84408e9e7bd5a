"""Distances between the vectors of two sets, or of one."""

from typing import Any

from custom_ops.onnx._mappings.pack.reductions import vector_norm
from custom_ops.onnx._mappings.registry import packed


@packed("aten::cdist", since_opset=18)
@packed("aten::_cdist_forward", since_opset=18)
def _cdist(op: Any, x1: Any, x2: Any, p: float = 2, compute_mode: Any = None) -> Any:
    # By differences, whatever the mode: exact where a product of matrices would cancel.
    gaps = op.Sub(op.Unsqueeze(x1, [-2]), op.Unsqueeze(x2, [-3]))
    return vector_norm(op, gaps, float(p), -1, False)


@packed("aten::pdist", since_opset=18)
@packed("aten::_pdist_forward", since_opset=18)
def _pdist(op: Any, self: Any, p: float = 2) -> Any:
    gaps = op.Sub(op.Unsqueeze(self, [1]), op.Unsqueeze(self, [0]))
    distances = op.Reshape(vector_norm(op, gaps, float(p), -1, False), [-1])
    number = op.Range(0, op.Squeeze(op.Shape(self, end=1)), 1)
    above = op.Less(op.Unsqueeze(number, [1]), op.Unsqueeze(number, [0]))
    return op.Compress(distances, op.Reshape(above, [-1]), axis=0)
