"""Functions of torch that torch.export does not take, computed so that it does."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Traceable(TorchFunctionMode):
    """Within a block, calls of such functions are computed by ours.

    Example:
        >>> import torch
        >>> loss, ones = torch.nn.functional.gaussian_nll_loss, torch.ones(3)
        >>> with Traceable():
        ...     program = torch.export.export(torch.nn.GaussianNLLLoss(), (ones, ones, ones))
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls a function, or what we have for it."""
        return _ours.get(func, func)(*args, **(kwargs or {}))


def _gaussian_nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> torch.Tensor:
    """Leaves out that torch looks at the variances, and raises where one is negative."""
    if isinstance(var, float):
        return functional.gaussian_nll_loss(input, target, var, full, eps, reduction)
    if var.size() != input.size() and input.size()[:-1] == var.size():
        var = var.unsqueeze(-1)
    bounded = var.clamp(min=eps)
    loss = 0.5 * (torch.log(bounded) + (input - target) ** 2 / bounded)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


_ours: dict[Any, Callable[..., Any]] = {functional.gaussian_nll_loss: _gaussian_nll_loss}
