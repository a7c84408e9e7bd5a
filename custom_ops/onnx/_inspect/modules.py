"""The tree of torch modules that the nodes of a model come from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from custom_ops.onnx._inspect.inspection import Module
from custom_ops.onnx._scopes import Scope

# Of an initializer: its elements and bytes.
Size = tuple[int, int]


@dataclass
class _Growing:
    """A module of which not all nodes have been seen."""

    path: str
    parent: "_Growing | None"
    type: str
    calls: int = 0
    nodes: int = 0
    ops: Counter[str] = field(default_factory=Counter)
    elements: int = 0
    bytes: int = 0
    inside: "list[_Growing]" = field(default_factory=list)


def tree(
    nodes: Iterable[tuple[str, Sequence[str], Scope | None]], weights: Mapping[str, Size]
) -> tuple[Module, ...]:
    """Returns the modules, each before those inside it.

    Args:
        nodes: Op, names of inputs, and scope of each node.
        weights: The initializers by name.
    """
    root = _Growing("", None, "")
    modules = {"": root}
    owners: dict[str, tuple[str, ...]] = {}  # of each weight the modules around all its users
    for op, inputs, scope in nodes:
        if scope is None:
            continue
        around = [root]
        for called in scope.modules:
            module = modules.get(called.path)
            if module is None:
                module = _Growing(called.path, around[-1], called.type)
                modules[called.path] = module
                around[-1].inside.append(module)
            module.type = module.type or called.type
            module.calls = max(module.calls, called.call + 1)
            if module is not around[-1]:
                around.append(module)
        around[-1].ops[op] += 1
        paths = tuple(dict.fromkeys(module.path for module in around))
        for path in paths:
            modules[path].nodes += 1
        for name in inputs:
            if name in weights:
                owners[name] = _common(owners[name], paths) if name in owners else paths
    if not root.nodes:
        return ()
    for name, (elements, size) in weights.items():
        for path in owners.get(name, ("",)):
            modules[path].elements += elements
            modules[path].bytes += size
    return tuple(_in_order(root))


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return a[:same]


def _in_order(root: _Growing) -> Iterable[Module]:
    waiting = [(root, 0)]
    while waiting:
        module, depth = waiting.pop()
        parent = module.parent.path if module.parent is not None else None
        yield Module(
            module.path,
            parent,
            depth,
            module.type,
            max(module.calls, 1),
            module.nodes,
            dict(module.ops.most_common()),
            module.elements,
            module.bytes,
        )
        waiting.extend((inner, depth + 1) for inner in reversed(module.inside))
