"""From the path of a torch module to the bounds of its nodes."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from custom_ops.onnx._extract.bounds import Bounds, unknown
from custom_ops.onnx._extract.folding import by_folding
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.merges import Merge, by_weights, owners
from custom_ops.onnx._extract.region import bounds_of
from custom_ops.onnx._scopes import Scope, scopes


@dataclass(frozen=True)
class Located:
    """A torch module in a model.

    Attributes:
        path: Its path.
        call: Which call of it.
        calls: How often the model calls it.
        merged: It and the modules that the exporter merged with it, in order of the torch model;
            () where none lies outside of it.
        bounds: Where its nodes begin and end.
        notes: What else is to be known of it.
    """

    path: str
    call: int
    calls: int
    merged: tuple[str, ...]
    bounds: Bounds
    notes: tuple[str, ...] = ()


class Modules:
    """The torch modules that a model tells of.

    Args:
        index: The main graph of the model.
        torch_module: The torch module that was exported, if at hand.
        folder: Where external data of the model lies.

    Raises:
        UnreadableModel: A weight that the torch module is compared with must not be read.
    """

    def __init__(
        self, index: Index, torch_module: torch.nn.Module | None, folder: Path | None
    ) -> None:
        self.index = index
        self.torch_module = torch_module
        self.scopes = _scopes(index)
        self.paths = {m.path for s in self.scopes if s is not None for m in s.modules} - {""}
        self.merges = by_weights(index, self.scopes, self.paths)
        if torch_module is not None:
            self.merges += by_folding(index, self.scopes, self.paths, torch_module, folder)

    def locate(self, path: str, call: int | None) -> Located:
        """Finds the nodes of a module.

        Args:
            path: The path, as "layer3.0".
            call: Which call of the module, from 0; None where it is called once.

        Raises:
            ValueError: There is no such module, it left no node, or is called another number of
                times.
        """
        by_call = self._nodes(path)
        if not by_call:
            raise ValueError(self._absent(path))
        calls = sorted(by_call)
        if call is None and len(calls) == 1:
            call = 0
        if call is None or not 0 <= call < len(calls):
            several = f"one of the {len(calls)} calls" if len(calls) > 1 else "the only call"
            numbers = f"0 to {len(calls) - 1}" if len(calls) > 1 else "0"
            got = "none" if call is None else call
            raise ValueError(
                f"extract: call must choose {several} of {path!r}, got {got}; give {numbers}"
            )
        nodes = by_call[calls[call]]
        merged = {name: None for m in self._of(path) if m.node in nodes for name in m.modules}
        if all(_within(name, path) for name in merged):
            merged = {}
        bounds = bounds_of(self.index, nodes)
        weight = self.computed_weight(path)
        notes = (
            f"the weight of {path} is computed ({weight}), so it may hold the BatchNorm behind it "
            "too; torch_module tells which",
        )
        unsaid = weight is not None and not merged
        return Located(path, call, len(calls), tuple(merged), bounds, notes if unsaid else ())

    def _of(self, path: str) -> list[Merge]:
        return [m for m in self.merges if any(_within(name, path) for name in m.modules)]

    def _nodes(self, path: str) -> dict[int, set[int]]:
        """Returns the nodes of each call of a module, those merged with others included."""
        by_call: dict[int, set[int]] = {}
        for i, scope in enumerate(self.scopes):
            for module in scope.modules if scope is not None else ():
                if module.path == path:
                    by_call.setdefault(module.call, set()).add(i)
        for merge in self._of(path):
            scope = self.scopes[merge.node]
            if scope is not None and not any(merge.node in nodes for nodes in by_call.values()):
                by_call.setdefault(scope.call, set()).add(merge.node)
        return by_call

    def computed_weight(self, path: str) -> str | None:
        """Returns the weight of a module's Conv where the exporter has computed it.

        So does TorchScript. What was merged into the module then is not said in the model.
        """
        for i, scope in enumerate(self.scopes):
            node = self.index.nodes[i]
            if scope is not None and scope.path == path and node.op_type == "Conv":
                return next((name for name in node.input[1:2] if "::" in name), None)
        return None

    def _absent(self, path: str) -> str:
        """Returns why a module has no nodes, and what to do."""
        if not self.paths:
            return (
                f"extract: module must be one that the model tells of, got {path!r} and a model "
                "without torch modules; export it with torch.onnx.export, or cut by names"
            )
        users = {
            scope.path
            for scope, owned in zip(self.scopes, owners(self.index), strict=True)
            if scope is not None and any(_within(owner, path) for owner in owned.values())
        }
        if users:
            around = sorted(users)[0]
            return (
                f"extract: module must have nodes of its own, got {path!r}, whose weights "
                f"{repr(around) if around else 'the whole model'} uses; cut that, or by names"
            )
        parent = path.rpartition(".")[0]
        known = self.paths if self.torch_module is None else dict(self.torch_module.named_modules())
        if self.torch_module is not None and path not in known:
            return unknown("module must be one of torch_module", path, known)
        if parent and parent not in self.paths:
            return unknown("module must be one that the model tells of", path, known)
        near = difflib.get_close_matches(path, self.paths, n=1)
        like = f" (did you mean {near[0]!r}?)" if near and self.torch_module is None else ""
        return (
            f"extract: module must have nodes in the model, got {path!r}, which has none{like}: "
            "modules that do nothing in evaluation leave none, nor do those that are merged into "
            f"another or not called; {self._instead(parent)}"
        )

    def _instead(self, parent: str) -> str:
        """Returns what to cut instead of a module without nodes."""
        around = f"cut {parent!r}" if parent else "cut by names"
        convs = [
            path
            for path in sorted(self.paths)
            if path.rpartition(".")[0] == parent and self.computed_weight(path)
        ]
        if not convs or self.torch_module is not None:
            return around
        listed = ", ".join(map(repr, convs[:5]))
        return f"{around}, or, for a BatchNorm, the Conv that it is merged into ({listed})"


def _scopes(index: Index) -> Sequence[Scope | None]:
    """Returns where the nodes come from; of modules that work on data, those of data alone.

    Constants and sizes stand where an exporter has put them, maybe within another module, which
    would look as if it were left and entered again. What a piece needs of them it gets anyway.
    """
    weights = list(index.initializers)
    is_data = [any(name in index.data for name in names) for names in index.makes]
    own = [i for i, node in enumerate(index.nodes) if is_data[i] or node.op_type == "Identity"]
    found = dict(zip(own, scopes([index.nodes[i] for i in own], weights), strict=True))
    paths = {m.path for scope in found.values() if scope is not None for m in scope.modules}
    every = scopes(index.nodes, weights)
    return [
        scope if scope is not None and scope.path not in paths else found.get(i)
        for i, scope in enumerate(every)
    ]


def _within(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")
