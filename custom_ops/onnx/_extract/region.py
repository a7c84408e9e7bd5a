"""The true bounds of some nodes: with what is between them and what they need of constants."""

from collections.abc import Iterable

import onnx

from custom_ops.onnx._extract.bounds import Bounds
from custom_ops.onnx._extract.index import Index


def bounds_of(index: Index, nodes: Iterable[int]) -> Bounds:
    """Returns the bounds of the smallest piece that has some nodes and stands on its own.

    It has, too: the constants that the nodes use, however they are computed; the sizes that follow
    from the shapes of its own inputs, which exporters compute once for several modules; and nodes
    on a way from one of its nodes to another. Its outputs are what others use of it, without sizes.

    Args:
        index: The main graph.
        nodes: Indices of nodes, at least one.
    """
    inside = set(nodes)
    after = index.ahead(name for i in inside for name in index.makes[i])
    without_data = index.maker.keys() - index.data
    while True:
        made = {name for i in inside for name in index.makes[i]}
        needed = _needed(index, inside, made)
        own = made | (needed.keys() & index.data)
        more: set[int] = set()
        for name in needed:
            if name in after:
                more |= index.behind([name], made, after)[0]
            elif name not in index.varying or (name not in index.data and is_size(index, name)):
                chain, ends = index.behind([name], own, without_data)
                if not ends:
                    more |= chain
        if not more:
            break
        inside |= more
    outputs = [
        name
        for i in sorted(inside)
        for name in index.makes[i]
        if name in index.outputs or any(user not in inside for user in index.users.get(name, ()))
    ]
    data = [n for n in outputs if n in index.varying and (n in index.data or not is_size(index, n))]
    return Bounds(tuple(needed), tuple(data or outputs), frozenset(inside))


def _needed(index: Index, inside: set[int], made: set[str]) -> dict[str, None]:
    """Returns the values that nodes need from others, in the order in which they need them."""
    return {
        name: None
        for i in sorted(inside)
        for name in index.needs[i]
        if name not in made and not index.is_stored(name)
    }


def is_size(index: Index, name: str) -> bool:
    """Returns whether a value can be sizes: whole numbers, one or a list of them."""
    info = index.infos.get(name)
    if info is None or not info.type.HasField("tensor_type"):
        return True
    kind = info.type.tensor_type
    whole = kind.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return whole and (not kind.HasField("shape") or len(kind.shape.dim) <= 1)
