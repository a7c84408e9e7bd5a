"""The gradient of an op: the `torch.autograd.Function` that its file fills in."""

from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor


class OpFunction(torch.autograd.Function):
    """Gradient of one op; registering the op adds its ONNX ``symbolic``.

    A subclass gives the ``op_name`` and writes ``setup_context(ctx, inputs, output)`` and
    ``backward(ctx, *grads)`` as static methods, as for `torch.autograd.Function`: ``inputs`` are
    all arguments of the C++ op, and ``backward`` returns a gradient or None for each.
    """

    op_name: ClassVar[str]
    generate_vmap_rule = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

        # torch calls it without the class, so each subclass gets its own.
        def forward(*args: Any) -> Any:
            return getattr(torch.ops.custom_ops, cls.op_name).default(*args)

        if "forward" not in cls.__dict__:
            cls.forward = staticmethod(forward)  # type: ignore[method-assign]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves nothing; see `torch.autograd.Function.setup_context`."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        """Refuses forward mode, where torch would give zeros; an op may override it."""
        raise NotImplementedError(
            f"{ctx._forward_cls.op_name}: forward-mode derivatives are not implemented; "
            "use reverse mode (backward, torch.func.grad, torch.func.vjp)"
        )


def no_gradient(op: str, message: str) -> type[OpFunction]:
    """Returns the gradient of an op that has none: differentiating it raises.

    Args:
        op: Name of the op.
        message: One sentence and the remedy.

    Returns:
        A class that raises ``NotImplementedError(message)`` in reverse and in forward mode.
    """

    class NoGradient(OpFunction):
        op_name = op

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> NoReturn:
            raise NotImplementedError(message)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> NoReturn:
            raise NotImplementedError(message)

    return NoGradient
