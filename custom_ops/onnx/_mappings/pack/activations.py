"""Activations."""

from typing import Any

from custom_ops.onnx._mappings.pack.elementwise import log1p
from custom_ops.onnx._mappings.registry import packed


@packed("aten::softplus", since_opset=12)
def softplus(op: Any, x: Any, beta: Any, threshold: Any) -> Any:
    """log(1 + exp(beta x)) / beta, and x itself beyond the threshold.

    TorchScript refuses any beta but 1 and forgets the threshold; dynamo writes Softplus in float64.
    """
    scaled = op.Mul(x, beta)
    # Not Softplus: runtimes have no kernel of it in float64, and it loses the small results. exp
    # stays finite up to the threshold; log(1 + u) is exact to some ulps by the quotient.
    u = op.Exp(op.Min(scaled, threshold))
    rounded = op.Add(u, 1.0)
    rest = op.Sub(rounded, 1.0)
    lost = op.Equal(rest, 0.0)
    log1p = op.Div(op.Mul(u, op.Log(rounded)), op.Where(lost, 1.0, rest))
    soft = op.Div(op.Where(lost, u, log1p), beta)
    return op.Where(op.Greater(scaled, threshold), x, soft)


@packed("aten::log_sigmoid", since_opset=12)
def log_sigmoid(op: Any, x: Any) -> Any:
    """Returns log(1 / (1 + exp(-x))), finite wherever it is; the exporters take Log of Sigmoid."""
    return op.Sub(op.Min(x, 0.0), log1p(op, op.Exp(op.Neg(op.Abs(x)))))


@packed("aten::rrelu_with_noise_functional", since_opset=6)
def _rrelu_with_noise(
    op: Any, self: Any, noise: Any, lower: float, upper: float, training: bool
) -> Any:
    if training:
        raise op.refusal("training must be False in a model, got True; call eval()")
    return op.LeakyRelu(self, alpha=(lower + upper) / 2), noise
