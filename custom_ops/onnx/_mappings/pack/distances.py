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


@packed("aten::scaled_dot_product_attention", since_opset=18)
def _attention(
    op: Any,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if query.rank == key.rank == value.rank == 4 and not enable_gqa:
        return NotImplemented
    if dropout_p:
        raise op.refusal(f"dropout_p must be 0 in a model, got {dropout_p}; call eval()")
    if enable_gqa:
        key, value = (_repeated(op, x, query) for x in (key, value))
    order = list(range(key.rank))
    order[-2:] = reversed(order[-2:])
    width = op.Squeeze(op.CastLike(op.Shape(query, start=-1), query), [0])
    factor = op.Div(1.0, op.Sqrt(width)) if scale is None else float(scale)
    scores = op.Mul(op.MatMul(query, op.Transpose(key, perm=order)), factor)
    if is_causal:
        rows = op.Range(0, op.Squeeze(op.Shape(query, start=-2, end=-1)), 1)
        columns = op.Range(0, op.Squeeze(op.Shape(key, start=-2, end=-1)), 1)
        seen = op.GreaterOrEqual(op.Unsqueeze(rows, [1]), op.Unsqueeze(columns, [0]))
        scores = op.Where(seen, scores, float("-inf"))
    if attn_mask is not None:
        if attn_mask.dtype.name == "BOOL":
            scores = op.Where(attn_mask, scores, float("-inf"))
        else:
            scores = op.Add(scores, attn_mask)
    weights = op.Softmax(scores, axis=-1)
    if attn_mask is not None or is_causal:  # torch gives 0 where nothing is seen
        weights = op.Where(op.IsNaN(weights), 0.0, weights)
    return op.MatMul(weights, value)


def _repeated(op: Any, x: Any, query: Any) -> Any:
    """Repeats each head as often as the heads of the queries need."""
    heads, ours = (op.Shape(t, start=-3, end=-2) for t in (query, x))
    number = op.Range(0, op.Squeeze(heads), 1)
    return op.Gather(x, op.Div(op.Mul(number, ours), heads), axis=x.rank - 3)
