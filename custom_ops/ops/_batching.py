"""Moves batch dimensions about, for batching rules."""

from torch import Tensor


def align(tensor: Tensor, dim: int | None, to: int, size: int) -> Tensor:
    """Returns a view of `tensor` whose batch dimension, of `size`, stands at `to`.

    Args:
        tensor: Any tensor.
        dim: Where its batch dimension is; None if it has none, then it is repeated (without
            a copy).
        to: Where it goes.
        size: Size of the batch.
    """
    if dim is not None:
        return tensor.movedim(dim, to)
    shape = list(tensor.shape)
    shape.insert(to, size)
    return tensor.unsqueeze(to).expand(shape)
