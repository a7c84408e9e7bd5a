"""Which sizes of the inputs may change, and inputs of other sizes to verify a model on."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def dynamic_axes(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any,
    input_names: Sequence[str] | None,
) -> dict[str, dict[int, str]]:
    """Returns `dynamic_shapes`, in any of torch.export's forms, as TorchScript's dynamic axes.

    Args:
        model: The module.
        args: Its inputs.
        kwargs: Its keyword inputs.
        dynamic_shapes: A sequence in the order of the inputs, or a dict by their names; for each
            a dict from axis to a name or Dim, or a sequence of them.
        input_names: Names of the model's inputs.

    Raises:
        ValueError: The inputs are not single tensors, or have no names.
    """
    if not dynamic_shapes:
        return {}
    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    if input_names is None or not all(isinstance(v, torch.Tensor) for v in bound.values()):
        raise ValueError(
            "export: inputs must be single tensors for dynamic_shapes with "
            "exporter='torchscript', got nested ones; use exporter='dynamo'"
        )
    if isinstance(dynamic_shapes, Mapping):
        given = [dynamic_shapes.get(name) for name in bound]
    else:
        given = list(dynamic_shapes)
    axes: dict[str, dict[int, str]] = {}
    for name, spec in zip(input_names, given, strict=False):
        pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec or ())
        for axis, dim in pairs:
            if dim is None or isinstance(dim, int):
                continue
            label = dim if isinstance(dim, str) else getattr(dim, "__name__", f"{name}_{axis}")
            axes.setdefault(name, {})[axis] = label
    return axes


def resized(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Returns a tensor of other sizes, filled with the values of this one over and over."""
    if tensor.numel() == 0:
        return tensor.new_zeros(list(sizes))
    for axis, size in enumerate(sizes):
        places = torch.arange(size, device=tensor.device) % tensor.shape[axis]
        tensor = tensor.index_select(axis, places)
    return tensor


def doubled(inputs: Sequence[Any], axes: Mapping[str, Mapping[int, str]]) -> list[list[Any]]:
    """Returns the inputs with every dynamic size doubled; nothing, if no size is dynamic."""
    if not axes:
        return []
    changed = list(inputs)
    for i, named in enumerate(axes.values()):
        sizes = list(changed[i].shape)
        for axis in named:
            sizes[axis] *= 2
        changed[i] = resized(changed[i], sizes)
    return [changed]


def further_sizes(program: Any, inputs: Sequence[Any]) -> list[list[Any]]:
    """Returns inputs with sizes drawn within the ranges of an exported program.

    Each symbolic size takes two other values: a little more, and about twice, as far as its
    range allows.
    """
    if program is None:
        return []
    user = set(program.graph_signature.user_inputs)
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in user]
    values = [node.meta["val"] for node in nodes]
    leaves = torch.utils._pytree.tree_leaves(list(inputs))
    symbols = {
        symbol
        for value in values
        if isinstance(value, torch.Tensor)
        for size in value.shape
        if isinstance(size, torch.SymInt)
        for symbol in size.node.expr.free_symbols
    }
    if not symbols or len(leaves) != len(inputs) or len(leaves) != len(values):
        return []
    results = []
    for step in (lambda n: n + 1, lambda n: 2 * n):
        choice = {}
        for symbol in symbols:
            bounds = program.range_constraints[symbol]
            hint = _hint(symbol, values, leaves)
            choice[symbol] = int(min(max(step(hint), bounds.lower), bounds.upper))
        drawn = [
            resized(leaf, [_evaluate(size, choice) for size in value.shape])
            if isinstance(leaf, torch.Tensor)
            else leaf
            for leaf, value in zip(leaves, values, strict=True)
        ]
        results.append(drawn)
    return results


def _evaluate(size: Any, choice: Mapping[Any, int]) -> int:
    return int(size.node.expr.subs(choice)) if isinstance(size, torch.SymInt) else int(size)


def _hint(symbol: Any, values: Sequence[Any], leaves: Sequence[Any]) -> int:
    """Returns the value that a symbol has in the example inputs."""
    for value, leaf in zip(values, leaves, strict=True):
        for size, actual in zip(getattr(value, "shape", ()), getattr(leaf, "shape", ()), strict=True):
            if isinstance(size, torch.SymInt) and size.node.expr == symbol:
                return int(actual)
    return 4
