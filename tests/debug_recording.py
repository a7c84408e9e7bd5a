"""A small recording of torch's ops, made by hand, for tests."""

from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Ref(NamedTuple):
    step: int
    output: int


class Step(NamedTuple):
    index: int
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[torch.Tensor]


class Recorder(TorchDispatchMode):
    """Records what runs in its block; results are kept as they were then."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._known: dict[int, tuple[Ref, torch.Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = pytree.tree_map_only(torch.Tensor, self._given, (args, kwargs or {}))
        returned = func(*args, **(kwargs or {}))
        outputs = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]
        for place, output in enumerate(outputs):
            self._known[id(output)] = Ref(len(self.steps), place), output
        kept = [output.clone() for output in outputs]
        self.steps.append(Step(len(self.steps), func, given[0], given[1], kept))
        return returned

    def _given(self, tensor):
        known = self._known.get(id(tensor))
        return known[0] if known else tensor

    def ref(self, tensor: torch.Tensor) -> Ref:
        return self._known[id(tensor)][0]

    def value(self, ref: Ref) -> torch.Tensor:
        return self.steps[ref.step].outputs[ref.output]
