"""Finds the tensors among what the ops of torch take and give."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from custom_ops.debug._recording import Ref


def memory_of(tensor: torch.Tensor) -> int:
    """Returns where the numbers of a tensor lie."""
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)  # empty ones have 0
    except (NotImplementedError, RuntimeError):  # sparse and opaque ones have none
        return id(tensor)


def overwritten(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Returns the tensors among the arguments that an op writes to."""
    found: list[torch.Tensor] = []
    if func._schema.is_mutable:
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[i] if i < len(args) else kwargs.get(argument.name)
                found += tensors_in(given)
    return found


def leaves_in(tree: Any) -> Iterator[Any]:
    """Yields what the lists, tuples and dicts hold that ops take and give; they know no others."""
    if isinstance(tree, (list, tuple)) and not isinstance(tree, Ref):
        for each in tree:
            yield from leaves_in(each)
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from leaves_in(each)
    else:
        yield tree


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """Returns the tensors among what an op takes or gives."""
    return [leaf for leaf in leaves_in(tree) if isinstance(leaf, torch.Tensor)]


def on_tensors(function: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """Returns what an op takes or gives, each tensor replaced by what a function makes of it."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, (list, tuple)) and not isinstance(tree, Ref):
        return type(tree)([on_tensors(function, each) for each in tree])
    if isinstance(tree, dict):
        return {key: on_tensors(function, each) for key, each in tree.items()}
    return tree
