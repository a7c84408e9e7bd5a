"""Activations."""

from typing import Any

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
