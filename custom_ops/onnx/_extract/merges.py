"""Modules that an exporter has merged into one node, as a Conv with the BatchNorm behind it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._scopes import Scope


@dataclass(frozen=True)
class Merge:
    """A node that does what several modules do.

    Attributes:
        node: Its index.
        modules: Their paths, in the order in which torch calls them.
    """

    node: int
    modules: tuple[str, ...]


def owners(index: Index) -> list[dict[str, str]]:
    """Returns for each node which module each of its weights is of, by the weight's name."""
    return [
        {
            name: name.rpartition(".")[0]
            for name in needs
            if index.is_stored(name) and "." in name and "::" not in name
        }
        for needs in index.needs
    ]


def by_weights(index: Index, scopes: Sequence[Scope | None], paths: Collection[str]) -> list[Merge]:
    """Finds nodes of one module that use the weights of another, which has no node of its own.

    The dynamo exporter merges so: the node is the BatchNorm's, the weight is called as the Conv's.

    Args:
        index: The main graph.
        scopes: Where its nodes come from.
        paths: Paths of all modules that have nodes.
    """
    merges = []
    for i, (scope, owned) in enumerate(zip(scopes, owners(index), strict=True)):
        if scope is None:
            continue
        for name, owner in owned.items():
            # Equal weights of several modules are stored once, by the name of the first of them.
            users = {_path(scopes[user]) for user in index.users[name]}
            apart = owner not in paths and not owner.startswith(f"{scope.path}.") and scope.path
            if apart and users == {scope.path}:
                merges.append(Merge(i, (owner, scope.path)))
                break
    return merges


def _path(scope: Scope | None) -> str | None:
    return scope.path if scope is not None else None
