"""Losses, which the TorchScript exporter lacks or gets wrong."""

import math
from typing import Any

from custom_ops.onnx._mappings.pack._values import axis_of
from custom_ops.onnx._mappings.pack.activations import log_sigmoid
from custom_ops.onnx._mappings.pack.reductions import mean, vector_norm
from custom_ops.onnx._mappings.registry import packed

_MEAN, _SUM = 1, 2  # torch's numbers for a reduction; 0 is none


def _reduced(op: Any, loss: Any, reduction: int) -> Any:
    if reduction == _MEAN:
        return mean(op, loss)
    axes = list(range(loss.rank))
    return op.ReduceSum(loss, axes, keepdims=0) if reduction == _SUM else op.Identity(loss)


def _positive(op: Any, x: Any) -> Any:
    return op.Max(x, 0.0)


@packed("aten::l1_loss", since_opset=15, exporter="torchscript")
def _l1(op: Any, self: Any, target: Any, reduction: int = _MEAN) -> Any:
    return _reduced(op, op.Abs(op.Sub(self, target)), reduction)


@packed("aten::smooth_l1_loss", since_opset=15, exporter="torchscript")
def _smooth_l1(op: Any, self: Any, target: Any, reduction: int = _MEAN, beta: float = 1.0) -> Any:
    gap = op.Abs(op.Sub(self, target))
    if not beta:
        return _reduced(op, gap, reduction)
    near = op.Mul(op.Mul(gap, gap), 0.5 / beta)
    return _reduced(op, op.Where(op.Less(gap, beta), near, op.Sub(gap, 0.5 * beta)), reduction)


@packed("aten::huber_loss", since_opset=15, exporter="torchscript")
def _huber(op: Any, self: Any, target: Any, reduction: int = _MEAN, delta: float = 1.0) -> Any:
    gap = op.Abs(op.Sub(self, target))
    far = op.Mul(op.Sub(gap, 0.5 * delta), delta)
    near = op.Mul(op.Mul(gap, gap), 0.5)
    return _reduced(op, op.Where(op.LessOrEqual(gap, delta), near, far), reduction)


@packed("aten::soft_margin_loss", since_opset=15, exporter="torchscript")
def _soft_margin(op: Any, self: Any, target: Any, reduction: int = _MEAN) -> Any:
    return _reduced(op, op.Log(op.Add(op.Exp(op.Neg(op.Mul(self, target))), 1.0)), reduction)


@packed("aten::margin_ranking_loss", since_opset=15, exporter="torchscript")
def _margin_ranking(
    op: Any, input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: int = _MEAN
) -> Any:
    gap = op.Mul(op.Neg(target), op.Sub(input1, input2))
    return _reduced(op, _positive(op, op.Add(gap, float(margin))), reduction)


@packed("aten::hinge_embedding_loss", since_opset=15, exporter="torchscript")
def _hinge_embedding(
    op: Any, self: Any, target: Any, margin: float = 1.0, reduction: int = _MEAN
) -> Any:
    apart = op.Where(op.Equal(target, 1), 0.0, _positive(op, op.Sub(float(margin), self)))
    together = op.Where(op.Equal(target, -1), 0.0, self)
    return _reduced(op, op.Add(apart, together), reduction)


@packed("aten::cosine_embedding_loss", since_opset=15, exporter="torchscript")
def _cosine_embedding(
    op: Any,
    input1: Any,
    input2: Any,
    target: Any,
    margin: float = 0.0,
    reduction: int = _MEAN,
) -> Any:
    def dot(a: Any, b: Any) -> Any:
        return op.ReduceSum(op.Mul(a, b), [-1], keepdims=0)

    tiny = 1e-12  # torch adds it to both squared lengths
    lengths = op.Mul(op.Add(dot(input1, input1), tiny), op.Add(dot(input2, input2), tiny))
    cosine = op.Div(dot(input1, input2), op.Sqrt(lengths))
    alike = op.Where(op.Equal(target, 1), op.Sub(1.0, cosine), 0.0)
    unlike = _positive(op, op.Sub(cosine, float(margin)))
    return _reduced(op, op.Add(alike, op.Where(op.Equal(target, -1), unlike, 0.0)), reduction)


@packed("aten::triplet_margin_loss", since_opset=18, exporter="torchscript")
def _triplet_margin(
    op: Any,
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int = _MEAN,
) -> Any:
    def distance(a: Any, b: Any) -> Any:
        return vector_norm(op, op.Add(op.Sub(a, b), float(eps)), float(p), -1, False)

    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = op.Min(far, distance(positive, negative))
    return _reduced(op, _positive(op, op.Add(op.Sub(near, far), float(margin))), reduction)


@packed("aten::poisson_nll_loss", since_opset=15, exporter="torchscript")
def _poisson_nll(
    op: Any, input: Any, target: Any, log_input: bool, full: bool, eps: float, reduction: int
) -> Any:
    if log_input:
        loss = op.Sub(op.Exp(input), op.Mul(target, input))
    else:
        loss = op.Sub(input, op.Mul(target, op.Log(op.Add(input, float(eps)))))
    if full:
        stirling = op.Sub(op.Mul(target, op.Log(target)), target)
        stirling = op.Add(stirling, op.Mul(op.Log(op.Mul(target, 2 * math.pi)), 0.5))
        loss = op.Add(loss, op.Where(op.LessOrEqual(target, 1.0), 0.0, stirling))
    return _reduced(op, loss, reduction)


@packed("aten::binary_cross_entropy", since_opset=15, exporter="torchscript")
def _binary_cross_entropy(
    op: Any, self: Any, target: Any, weight: Any = None, reduction: int = _MEAN
) -> Any:
    # torch bounds both logarithms by -100.
    yes = op.Mul(target, op.Max(op.Log(self), -100.0))
    no = op.Mul(op.Sub(1.0, target), op.Max(op.Log(op.Sub(1.0, self)), -100.0))
    loss = op.Neg(op.Add(yes, no))
    return _reduced(op, loss if weight is None else op.Mul(loss, weight), reduction)


@packed("aten::binary_cross_entropy_with_logits", since_opset=12)
def _binary_cross_entropy_with_logits(
    op: Any,
    self: Any,
    target: Any,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: int = _MEAN,
) -> Any:
    # TorchScript's exporter takes logarithms of a sigmoid that has become 0.
    likely = log_sigmoid(op, self)
    if pos_weight is not None:
        likely = op.Mul(likely, op.Add(op.Mul(op.Sub(pos_weight, 1.0), target), 1.0))
    loss = op.Sub(op.Mul(op.Sub(1.0, target), self), likely)
    return _reduced(op, loss if weight is None else op.Mul(loss, weight), reduction)


@packed("aten::multi_margin_loss", since_opset=15, exporter="torchscript")
def _multi_margin(
    op: Any,
    self: Any,
    target: Any,
    p: float = 1,
    margin: float = 1,
    weight: Any = None,
    reduction: int = _MEAN,
) -> Any:
    flat = self.rank < 2
    x = op.Reshape(self, [1, -1]) if flat else self
    column = op.Reshape(target, [-1, 1])
    own = op.GatherElements(x, column, axis=1)
    loss = _positive(op, op.Add(op.Sub(x, own), float(margin)))
    loss = op.Mul(loss, loss) if p == 2 else loss
    if weight is not None:
        loss = op.Mul(loss, op.Reshape(op.Gather(weight, target), [-1, 1]))
    classes = op.Shape(x, start=1)
    is_own = op.Equal(op.Range(0, op.Squeeze(classes), 1), column)
    loss = mean(op, op.Where(is_own, 0.0, loss), [1])
    loss = op.Squeeze(loss, [0]) if flat and not target.rank else loss
    return _reduced(op, loss, reduction)


@packed("aten::threshold", since_opset=15, exporter="torchscript")
def _threshold(op: Any, self: Any, threshold: float, value: float) -> Any:
    return op.Where(op.LessOrEqual(self, threshold), value, self)


@packed("aten::rms_norm", since_opset=15, exporter="torchscript")
def _rms_norm(
    op: Any, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> Any:
    import numpy as np

    if eps is None:
        eps = float(np.finfo(input.dtype.numpy()).eps)
    axes = list(range(input.rank - len(normalized_shape), input.rank))
    square = mean(op, op.Mul(input, input), axes, True)
    scaled = op.Div(input, op.Sqrt(op.Add(square, eps)))
    return scaled if weight is None else op.Mul(scaled, weight)


@packed("aten::_safe_softmax", since_opset=15, exporter="torchscript")
def _safe_softmax(op: Any, self: Any, dim: int, dtype: Any = None) -> Any:
    if dtype is not None:
        raise op.refusal(f"dtype must be None, got {dtype!r}; convert before")
    soft = op.Softmax(self, axis=axis_of(self, dim))
    low = op.CastLike(op.Not(op.And(op.IsInf(self), op.Less(self, 0.0))), self)
    some = op.ReduceSum(low, [dim], keepdims=1)
    return op.Where(op.Equal(some, 0.0), 0.0, soft)
