"""Lets a module run and leaves its buffers, and torch's random numbers, as they were."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Lets a module write to its buffers, as running statistics and caches are, and undoes that.

    Buffers are put back in place, so that what else looks at their memory, as a view in an
    attribute does, sees the same before and after. Copy results that may lie there while you
    are inside. What the module draws, as dropout does, is drawn again by who comes next.
    Parameters and other attributes that the module changes stay changed.

    Args:
        module: The module; buffers that it has yet to make, as lazy modules do, stay as made.
    """
    tensors = itertools.chain(module.parameters(), module.buffers())
    devices = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
    places = [(each, dict(each._buffers)) for each in module.modules()]
    buffers = {id(b): b for _, own in places for b in own.values() if b is not None}
    known = [buffer for buffer in buffers.values() if not torch.nn.parameter.is_lazy(buffer)]
    views = [(buffer, buffer.detach()) for buffer in known if _has_bytes(buffer)]
    storages = {view.untyped_storage()._cdata: view.untyped_storage() for _, view in views}
    saved = [(storage, _bytes(storage).clone()) for storage in storages.values()]
    # Those whose memory cannot be looked at, as that of sparse ones, are copied themselves.
    copies = {id(buffer): buffer.detach().clone() for buffer in known if not _has_bytes(buffer)}
    for each, own in places:
        for name, buffer in own.items():
            if id(buffer) in copies:
                each._buffers[name] = copies[id(buffer)]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for each, own in places:
            _put_back(each._buffers, own)
        for buffer, view in views:
            if _place(buffer) != _place(view):
                buffer.data = view
        for storage, content in saved:
            if storage.nbytes() != content.numel():
                storage.resize_(content.numel())
            now = _bytes(storage)
            if not torch.equal(now, content):  # memory that may not be written to has not changed
                now.copy_(content)


def _put_back(buffers: Any, before: dict[str, torch.Tensor | None]) -> None:
    """Makes the buffers of a module, which may be scripted, those that it had."""
    now = dict(buffers)
    for name in now.keys() - before.keys():
        del buffers[name]
    for name, buffer in before.items():
        if name not in now or now[name] is not buffer:
            buffers[name] = buffer


def _has_bytes(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return plain and tensor.layout == torch.strided and not tensor.is_meta


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    """Returns a memory as bytes, so that what is no number, or lies there twice, is like others."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()
