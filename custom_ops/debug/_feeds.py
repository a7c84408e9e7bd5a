"""Makes what a comparison is given the inputs of a model: by name, in its dtypes."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from custom_ops.debug._graph import Array, Graph, numpy_type
from custom_ops.debug._overflow import overflowing, rounded
from custom_ops.onnx._verify import to_array


def arrays_of(given: Mapping[str, Any]) -> dict[str, Array]:
    """Returns arrays, tensors and numbers as arrays."""
    return {
        name: to_array(each) if isinstance(each, torch.Tensor) else np.asarray(each)
        for name, each in given.items()
    }


def of_models(theirs: Graph, ours: Graph, given: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Returns what is given as two models take it, whatever its own order.

    Where one lacks its names, the order counts: that of the inputs of the model that has them.

    Raises:
        ValueError: Something else is given than their inputs.
    """
    for graph in (ours, theirs):  # the last has the last word
        given = {name: given[name] for name in graph.inputs if name in given} | dict(given)
    return [named(graph, given) for graph in (theirs, ours)]


def named(graph: Graph, given: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what is given as a graph takes it: by name, else by order.

    Raises:
        ValueError: Something else is given than its inputs.
    """
    names = graph.inputs
    if set(names) <= set(given):
        return {name: given[name] for name in names}
    if len(names) == len(given):
        return dict(zip(names, given.values(), strict=True))
    raise ValueError(
        f"compare: args must hold the inputs {', '.join(names)}, got {', '.join(given)}"
    )


def typed(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Returns inputs in the dtypes of a graph: floats rounded, integers where they fit.

    Raises:
        ValueError: One is of another kind, as floats for integers.
    """
    found = dict(feeds)
    for name, dtype in types(graph, feeds).items():
        array = feeds[name]
        found[name] = rounded(array, dtype)
        if {dtype.kind, array.dtype.kind} <= set("iu"):
            found[name] = array.astype(dtype, copy=False)
        if found[name].dtype != dtype or (dtype.kind in "iu" and (found[name] != array).any()):
            raise ValueError(
                f"compare: args must be of {dtype} for the input {name}, got {array.dtype}; "
                "convert it first"
            )
    return found


def too_large(graph: Graph, feeds: Mapping[str, Array]) -> Iterator[str]:
    """Yields which inputs are infinite in the dtype of a graph alone, a sentence each."""
    for name, dtype in types(graph, feeds).items():
        count = overflowing(feeds[name], dtype)
        if count:
            yield f"input {name}: {count} of {feeds[name].size} numbers are infinite in {dtype}"


def types(graph: Graph, names: Container[str]) -> dict[str, np.dtype[Any]]:
    """Returns the dtypes of some inputs: of those that are tensors of numbers."""
    given = (each for each in graph.proto.graph.input if each.name in names)
    kinds = {each.name: each.type.tensor_type.elem_type for each in given}
    found = {name: numpy_type(kind) for name, kind in kinds.items() if kind}
    return {name: dtype for name, dtype in found.items() if dtype.kind != "O"}
