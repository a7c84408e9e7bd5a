"""The inputs of a module as a model has them: flat and named; and inputs of other sizes."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Call:
    """The arguments of a module.

    Attributes:
        args: The positional ones.
        kwargs: The others.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(
        cls, args: Sequence[Any] | torch.Tensor, kwargs: Mapping[str, Any] | None = None
    ) -> "Call":
        """Returns the arguments as users give them: one tensor stands for itself."""
        given = (args,) if isinstance(args, torch.Tensor) else tuple(args)
        return cls(given, dict(kwargs or {}))

    @property
    def leaves(self) -> list[Any]:
        """All values inside the arguments, however they are nested."""
        return list(pytree.tree_leaves((self.args, dict(self.kwargs))))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among them, which are the inputs of a model."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def flat(self) -> bool:
        """Whether the arguments are positional tensors and nothing else."""
        return not self.kwargs and all(isinstance(a, torch.Tensor) for a in self.args)

    @property
    def sizes(self) -> str:
        """The shapes of the tensors, as text."""
        return ", ".join(str(list(tensor.shape)) for tensor in self.tensors)

    def with_leaves(self, leaves: Sequence[Any]) -> "Call":
        """Returns the same arguments with other values inside."""
        _, spec = pytree.tree_flatten((self.args, dict(self.kwargs)))
        return Call(*pytree.tree_unflatten(list(leaves), spec))

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> "Call":
        """Returns the same arguments with other tensors inside."""
        left = iter(tensors)
        return self.with_leaves(
            [next(left) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        )


def _paths(model: torch.nn.Module, call: Call) -> Iterator[tuple[list[Any], Any]]:
    """Yields the leaves with their places: first the parameter of forward, then keys inside."""
    try:
        bound = inspect.signature(model.forward).bind_partial(*call.args).arguments
    except (TypeError, ValueError):  # a scripted module has no signature
        bound = {f"input_{i}": arg for i, arg in enumerate(call.args)}
    for parameter, value in [*bound.items(), *call.kwargs.items()]:
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            keys = [getattr(k, "idx", getattr(k, "key", getattr(k, "name", k))) for k in path]
            yield [parameter, *keys], leaf


def input_names(model: torch.nn.Module, call: Call) -> list[str]:
    """Returns a name for each tensor: the parameter of forward, and the keys inside it."""
    return [
        "_".join(str(key) for key in path)
        for path, leaf in _paths(model, call)
        if isinstance(leaf, torch.Tensor)
    ]


def dynamic_axes(
    model: torch.nn.Module, call: Call, dynamic_shapes: Any, names: Sequence[str]
) -> dict[str, dict[int, str]]:
    """Returns `dynamic_shapes`, in any of torch.export's forms, as TorchScript's dynamic axes.

    Args:
        model: The module.
        call: Its arguments.
        dynamic_shapes: A sequence in the order of the arguments, or a dict by their names,
            nested as they are; for each tensor a dict from axis to a name or Dim, or a sequence.
        names: Names of the tensors.
    """
    if not isinstance(dynamic_shapes, (Mapping, Sequence)):
        return {}
    if not isinstance(dynamic_shapes, Mapping):
        parameters = list(dict.fromkeys(path[0] for path, _ in _paths(model, call)))
        dynamic_shapes = dict(zip(parameters, dynamic_shapes, strict=False))
    axes: dict[str, dict[int, str]] = {}
    left = iter(names)
    for path, leaf in _paths(model, call):
        if not isinstance(leaf, torch.Tensor):
            continue
        name, spec = next(left), dynamic_shapes
        for key in path:
            if isinstance(spec, Mapping):
                spec = spec.get(key)
            elif spec is not None:
                spec = spec[key]
        for axis, dim in spec.items() if isinstance(spec, Mapping) else enumerate(spec or ()):
            if dim is None or isinstance(dim, int) or dim == torch.export.Dim.STATIC:
                continue
            label = dim if isinstance(dim, str) else getattr(dim, "__name__", f"{name}_{axis}")
            axes.setdefault(name, {})[axis] = label
    return axes


def check_dynamic_shapes(model: torch.nn.Module, call: Call, dynamic_shapes: Any) -> None:
    """Refuses names, entries and axes that the inputs do not have.

    Args:
        model: The module.
        call: Its arguments.
        dynamic_shapes: As for `dynamic_axes`.

    Raises:
        ValueError: One sentence.
    """
    parameters = list(dict.fromkeys(path[0] for path, _ in _paths(model, call)))
    known = ", ".join(map(str, parameters))
    if isinstance(dynamic_shapes, Mapping):
        unknown = [name for name in dynamic_shapes if name not in parameters]
        if unknown:
            raise ValueError(
                f"export: dynamic_shapes must name inputs ({known}), got {unknown[0]!r}"
            )
        entries = dict(dynamic_shapes)
    elif isinstance(dynamic_shapes, (list, tuple)):
        if len(dynamic_shapes) != len(parameters):
            raise ValueError(
                f"export: dynamic_shapes must have one entry for each input ({known}), got "
                f"{len(dynamic_shapes)}; None stands for an input of fixed sizes"
            )
        entries = dict(zip(parameters, dynamic_shapes, strict=True))
    else:
        return
    for path, leaf in _paths(model, call):
        spec = entries.get(path[0])
        if len(path) > 1 or not isinstance(leaf, torch.Tensor) or not isinstance(spec, Mapping):
            continue
        for axis in spec:
            if not 0 <= axis < leaf.dim():
                raise ValueError(
                    f"export: dynamic_shapes of {path[0]} must name axes 0 to {leaf.dim() - 1}, "
                    f"got {axis}"
                )


def name_axes(model: ir.Model, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Gives the sizes of a model the names of `axes`; torch loses them in nested inputs."""
    names: dict[str, str] = {}
    for given in model.graph.inputs:
        for axis, name in axes.get(given.name or "", {}).items():
            dim = given.shape[axis] if given.shape is not None else None
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                names[dim.value] = name
    if all(old == new for old, new in names.items()):
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    values = [*model.graph.inputs]
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        values += node.outputs
    for value in values:
        for i, dim in enumerate(value.shape or ()):
            if value.shape is not None and isinstance(dim, ir.SymbolicDim) and dim.value:
                value.shape[i] = pattern.sub(lambda found: names[found[0]], dim.value)


def resized(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Returns a tensor of other sizes, filled with the values of this one over and over."""
    if tensor.numel() == 0:
        return tensor.new_zeros(list(sizes))
    for axis, size in enumerate(sizes):
        places = torch.arange(size, device=tensor.device) % tensor.shape[axis]
        tensor = tensor.index_select(axis, places)
    return tensor


# From a size to the others that a model is tried on: one that is odd where it is even, and one
# that a network takes which halves its image.
_OTHER_SIZES = ((1, 1), (2, 0))


def other_sizes(
    call: Call, axes: Mapping[str, Mapping[int, str]], names: Sequence[str]
) -> list[Call]:
    """Returns the call with every dynamic size one larger, and doubled; nothing, if none is."""
    if not axes:
        return []
    calls = []
    for times, more in _OTHER_SIZES:
        tensors = []
        for name, tensor in zip(names, call.tensors, strict=True):
            dynamic = axes.get(name, ())
            sizes = [
                size * times + more if axis in dynamic else size
                for axis, size in enumerate(tensor.shape)
            ]
            tensors.append(resized(tensor, sizes))
        calls.append(call.with_tensors(tensors))
    return _distinct(calls)


def _distinct(calls: Sequence[Call]) -> list[Call]:
    by_sizes = {tuple(tuple(t.shape) for t in call.tensors): call for call in calls}
    return list(by_sizes.values())


def drawn(program: Any, call: Call) -> list[Call]:
    """Returns calls with sizes drawn within the ranges of an exported program.

    Each symbolic size takes two other values: a little more, and about twice, as far as its
    range allows.
    """
    user = set(program.graph_signature.user_inputs)
    shapes = {
        node.name: node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)
    }
    shapes_of_tensors = [shape for name, shape in shapes.items() if name in user]
    pairs = list(zip(shapes_of_tensors, call.tensors, strict=True))
    hints: dict[Any, int] = {}
    for shape, tensor in pairs:
        for size, actual in zip(shape, tensor.shape, strict=True):
            if isinstance(size, torch.SymInt):
                expr = size.node.expr
                factor = int(expr.subs(dict.fromkeys(expr.free_symbols, 1)))  # as in 32 * h
                for symbol in expr.free_symbols:
                    hints[symbol] = max(int(actual) // max(factor, 1), 1)
    if not hints:
        return []
    calls = []
    for times, more in _OTHER_SIZES:
        choice = {}
        for symbol, hint in hints.items():
            bounds = program.range_constraints[symbol]
            choice[symbol] = int(min(max(hint * times + more, bounds.lower), bounds.upper))
        tensors = [resized(t, [_evaluated(size, choice) for size in s]) for s, t in pairs]
        calls.append(call.with_tensors(tensors))
    return _distinct(calls)


def _evaluated(size: Any, choice: Mapping[Any, int]) -> int:
    return int(size.node.expr.subs(choice)) if isinstance(size, torch.SymInt) else int(size)
