"""What is recorded of an eager pass: the ops, their results, and where they come from."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


class Ref(NamedTuple):
    """A result: which step, and which of its tensors."""

    step: int
    output: int


class ModuleCall(NamedTuple):
    """A call of a module: its path, as `named_modules` gives it first, and which call it is."""

    path: str
    call: int


@dataclass
class Step:
    """One op of torch that ran.

    Attributes:
        index: Its place in the recording.
        func: The op.
        args: Its arguments; a `Ref` stands where a recorded result was given.
        kwargs: Its keyword arguments, likewise.
        outputs: The tensors among its results, as they were then.
        modules: The module calls around it, that of the whole module first.
        unit: The call of torch's Python functions that it is a part of; several steps may be.
        function: Name of that function, as "linear".
        source: File and line of the user's code; "" where there is none.
        depends: Whether it depends on an input; others work on weights alone.
        refs: The recorded results among its arguments.
        in_loop: Whether it ran in the body of a loop, which the model keeps as one node.
    """

    index: int
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[torch.Tensor]
    modules: tuple[ModuleCall, ...]
    unit: int
    function: str
    source: str
    depends: bool
    refs: tuple[Ref, ...]
    in_loop: bool = False

    @property
    def name(self) -> str:
        """The op, as "aten.convolution"."""
        namespace, _, name = self.func._schema.name.partition("::")
        return f"{namespace}.{name}"

    @property
    def path(self) -> str:
        """Path of the innermost module."""
        return self.modules[-1].path


@dataclass
class Recording:
    """An eager pass.

    Attributes:
        steps: The ops, in order.
        outputs: The results returned; of a tensor that no op has made, a copy.
        aliases: Each path of a module, and the path it goes by here: that of the first, where a
            module has several.
    """

    steps: list[Step] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def value(self, ref: Ref) -> torch.Tensor:
        """Returns a result as it was when the op had made it."""
        return self.steps[ref.step].outputs[ref.output]

    def size(self) -> int:
        """Returns how many bytes the results that depend on the inputs take."""
        found = (each for step in self.steps if step.depends for each in step.outputs)
        return sum(each.numel() * each.element_size() for each in found)
