"""Lets a module run and leaves it, and torch's random numbers, as they were."""

import contextlib
import itertools
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Lets a module work on copies of its buffers, as running statistics and caches are.

    What it draws, as dropout does, is drawn again by who comes next.

    Args:
        module: The module; buffers of those that are scripted are not copied.
    """
    tensors = itertools.chain(module.parameters(), module.buffers())
    devices = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
    owners = (m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule))
    places = [(each, dict(each._buffers)) for each in owners]
    copies: dict[int, torch.Tensor] = {}
    for each, buffers in places:
        for name, buffer in buffers.items():
            if buffer is not None:
                each._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for each, buffers in places:
            each._buffers.clear()
            each._buffers.update(buffers)
