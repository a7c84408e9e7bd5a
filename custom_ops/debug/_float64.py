"""Runs recorded ops of torch again in float64, from given results to another one."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.utils import _pytree as pytree

from custom_ops.debug._moved import moved
from custom_ops.debug._recording import Recording, Ref, Step

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.float64: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
    torch.complex128: torch.complex128,
}
_FRESH = ("empty", "new_empty")  # their numbers are whatever lay in memory


class Replay:
    """The ops between given results and another one, to run again in float64.

    What is not floating (integers, truth values) stays as recorded, so that the same elements are
    chosen, unless `choosing`; random numbers stay always. An op that float64 lacks runs in its own
    types.

    Attributes:
        recording: The ops that ran.
        target: The result.
        stops: The results that are given.
        steps: The ops, in order.
        choosing: Whether integers and truth values are computed again too.
        lacking: Names of the ops that ran in their own types.
    """

    def __init__(
        self,
        recording: Recording,
        target: Ref,
        stops: Collection[Ref],
        *,
        choosing: bool = False,
    ) -> None:
        """Finds the ops.

        Args:
            recording: The ops that ran.
            target: The result.
            stops: The results that are given.
            choosing: Whether integers and truth values are computed again too.
        """
        self.choosing = choosing
        self.lacking: list[str] = []
        self.recording = recording
        self.target = target
        # Not copied for each of many targets.
        self.stops = stops if isinstance(stops, (set, frozenset)) else frozenset(stops)
        needed, todo = set(), [target.step]
        while todo:
            index = todo.pop()
            if index not in needed:
                needed.add(index)
                refs = recording.steps[index].refs
                todo += [ref.step for ref in refs if ref not in self.stops]
        self.steps = [recording.steps[index] for index in sorted(needed)]

    def run(self, seed: int | None = None) -> torch.Tensor:
        """Runs the ops.

        Args:
            seed: Of the signs by which floating inputs are moved, by half a unit in the last
                place of their own dtype; None leaves them where they are.

        Returns:
            The result, in float64 or complex128.
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        run = _Run(self, generator)
        with torch.no_grad():
            for step in self.steps:
                run.step(step)
        return run.values[self.target]


class _Run:
    """The values of one run."""

    def __init__(self, replay: Replay, generator: torch.Generator | None) -> None:
        self.values: dict[Ref, torch.Tensor] = {}
        self._replay = replay
        self._generator = generator
        self._inputs: dict[Any, torch.Tensor] = {}

    def step(self, step: Step) -> None:
        """Runs an op, and keeps what it gives."""
        results = step.outputs
        if not _stays(step, choosing=self._replay.choosing):
            try:
                results = self._call(_EQUIVALENT.get(step.func, step.func), step, self._wide)
            except (RuntimeError, TypeError, ValueError):
                # It ran before: what it cannot do is float64.
                results = self._call(step.func, step, self._own)
                name = step.func._schema.name.replace("::", ".")
                if name not in self._replay.lacking:
                    self._replay.lacking.append(name)
        # An equivalent may give less than all; nobody reads those.
        for i, (before, now) in enumerate(zip(step.outputs, results, strict=False)):
            wide = _WIDE.get(before.dtype)
            kept = now if self._replay.choosing else before
            value = kept if wide is None else now.to(wide)
            self.values[Ref(step.index, i)] = value

    def _call(self, func: Callable[..., Any], step: Step, resolved: Callable[[Any], Any]) -> Any:
        """Calls an op with copies of what it overwrites; returns the tensors among the results."""
        args, kwargs = pytree.tree_map(
            resolved, (list(step.args), step.kwargs), is_leaf=lambda leaf: isinstance(leaf, Ref)
        )
        for i, argument in enumerate(step.func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                where, key = (args, i) if i < len(args) else (kwargs, argument.name)
                if i < len(args) or key in kwargs:
                    where[key] = pytree.tree_map_only(torch.Tensor, torch.clone, where[key])
        returned = func(*args, **kwargs)
        return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]

    def _wide(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.dtype):
            return _WIDE.get(leaf, leaf)
        if isinstance(leaf, Ref):
            if leaf not in self._replay.stops:
                return self.values[leaf]
            return self._input(leaf, self._replay.recording.value(leaf))
        return self._input(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

    def _own(self, leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return self._wide(leaf).to(self._replay.recording.value(leaf).dtype)
        return self._wide(leaf).to(leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf

    def _input(self, key: Any, tensor: torch.Tensor) -> torch.Tensor:
        if key not in self._inputs:  # what is read twice moves once
            wide = _WIDE.get(tensor.dtype)
            found = tensor if wide is None else tensor.to(wide)
            if wide is not None and self._generator is not None:
                found = moved(found, torch.finfo(tensor.dtype).eps, self._generator)
            self._inputs[key] = found
        return self._inputs[key]


def _stays(step: Step, *, choosing: bool) -> bool:
    """Says whether the results are taken as recorded: no arithmetic, or another one each time."""
    name = step.func._schema.name.partition("::")[2]
    if name.startswith(_FRESH) or step.func is torch.ops.aten.view.dtype:
        return True
    if not choosing and all(output.dtype not in _WIDE for output in step.outputs):
        return True
    return torch.Tag.nondeterministic_seeded in step.func.tags and not _drops_nothing(step)


def _drops_nothing(step: Step) -> bool:
    """Says whether an op that can drop elements at random (attention) drops none."""
    for i, argument in enumerate(step.func._schema.arguments):
        if argument.name == "dropout_p":
            given = step.args[i] if i < len(step.args) else step.kwargs.get("dropout_p", 0.0)
            return bool(given == 0)
    return False


def _lstm_layer(
    x: torch.Tensor,
    weight0: torch.Tensor,
    weight1: torch.Tensor,
    weight2: torch.Tensor,
    weight3: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    *_: bool,
) -> Any:
    """Does what `aten.mkldnn_rnn_layer` does, which knows no float64, for an LSTM."""
    if mode != 2 or batch_sizes:
        raise NotImplementedError("a layer of an LSTM, not packed")
    weights = [weight0, weight1, weight2, weight3] if has_biases else [weight0, weight1]
    given = x.flip(0) if reverse else x
    state = [hidden.unsqueeze(0), cell.unsqueeze(0)]
    y, last, cells = torch.ops.aten.lstm.input(
        given, state, weights, has_biases, 1, 0.0, False, False, False
    )
    return (y.flip(0) if reverse else y), last.squeeze(0), cells.squeeze(0)


# Ops that do the same in float64. The memory order of results may be another one there, which a
# view does not forgive.
_EQUIVALENT: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.mkldnn_rnn_layer.default: _lstm_layer,
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
}
