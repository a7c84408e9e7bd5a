"""Attention, of which the dynamo exporter knows four dimensions only, and one of two results."""

from typing import Any

import onnx_ir as ir

from custom_ops.onnx._mappings.registry import packed


def _scores(
    op: Any, query: Any, key: Any, mask: Any, dropout_p: float, is_causal: bool, scale: float | None
) -> Any:
    """Returns what softmax makes weights of."""
    if dropout_p:
        raise op.refusal(f"dropout_p must be 0 in a model, got {dropout_p}; call eval()")
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
    if mask is None:
        return scores
    if mask.dtype is ir.DataType.BOOL:
        return op.Where(mask, scores, float("-inf"))
    return op.Add(scores, mask)


def _weighted(op: Any, scores: Any, value: Any, may_see_nothing: bool) -> Any:
    weights = op.Softmax(scores, axis=-1)
    if may_see_nothing:  # torch gives 0 where nothing is seen
        weights = op.Where(op.IsNaN(weights), 0.0, weights)
    return op.MatMul(weights, value)


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
    if enable_gqa:
        key, value = (_repeated(op, x, query) for x in (key, value))
    scores = _scores(op, query, key, attn_mask, dropout_p, is_causal, scale)
    return _weighted(op, scores, value, attn_mask is not None or is_causal)


@packed("aten::_scaled_dot_product_flash_attention_for_cpu", since_opset=18, wide=False)
def _flash_attention(
    op: Any,
    query: Any,
    key: Any,
    value: Any,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
) -> Any:
    # The exporter's second result has another shape, and is not the logarithm of the sums.
    # The second is float32 where the first has 16 bits.
    kind = query.dtype
    wide = ir.DataType.DOUBLE if kind is ir.DataType.DOUBLE else ir.DataType.FLOAT
    query, key, value = (op.Cast(x, to=wide) for x in (query, key, value))
    if attn_mask is not None and attn_mask.dtype is not ir.DataType.BOOL:
        attn_mask = op.Cast(attn_mask, to=wide)
    scores = _scores(op, query, key, attn_mask, dropout_p, is_causal, scale)
    found = op.Cast(_weighted(op, scores, value, attn_mask is not None), to=kind)
    total = op.ReduceLogSumExp(scores, [-1], keepdims=0)
    if attn_mask is not None:  # torch gives 0 here too where nothing is seen
        total = op.Where(op.IsInf(total, detect_positive=0), 0.0, total)
    return found, total


def _repeated(op: Any, x: Any, query: Any) -> Any:
    """Repeats each head as often as the heads of the queries need."""
    heads, ours = (op.Shape(t, start=-3, end=-2) for t in (query, x))
    number = op.Range(0, op.Squeeze(heads), 1)
    return op.Gather(x, op.Div(op.Mul(number, ours), heads), axis=x.rank - 3)
