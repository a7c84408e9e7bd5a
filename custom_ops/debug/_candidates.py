"""The results of torch that may be the partners of values."""

from collections import defaultdict
from dataclasses import dataclass

from custom_ops.debug._graph import Array
from custom_ops.debug._kinds import VIEWS, torch_kind
from custom_ops.debug._recording import Recording, Ref, Step
from custom_ops.debug._sketch import Form, sketch_of_tensor


@dataclass(frozen=True)
class Candidate:
    """A result of torch that may be a partner.

    Attributes:
        ref: The result.
        step: Its step.
        leaves: Whether it is used outside the module call that makes it.
        kinds: What it may be the result of.
        form: Its dtype and shape.
        sketch: Some of its elements.
    """

    ref: Ref
    step: Step
    leaves: bool
    kinds: frozenset[str]
    form: Form
    sketch: Array

    @property
    def call(self) -> int:
        """Which call of its module it is in."""
        return self.step.modules[-1].call


def candidates_of(recording: Recording) -> list[Candidate]:
    """Returns the results of torch that depend on the inputs, in order."""
    units: dict[int, list[Step]] = defaultdict(list)
    for step in recording.steps:
        units[step.unit].append(step)
    leaving = _leaving(recording)
    found = []
    for step in recording.steps:
        if not step.depends or step.in_loop:  # it works on weights alone, or often
            continue
        kinds = {torch_kind(step.name)}
        if units[step.unit][-1] is step:  # what the whole function gives
            inner = {torch_kind(each.name) for each in units[step.unit]}
            kinds |= inner - VIEWS
            if step.function and "addmm" not in inner:
                kinds.add(torch_kind(step.function))
        for i, tensor in enumerate(step.outputs):
            form = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            ref = Ref(step.index, i)
            some = sketch_of_tensor(tensor)
            found.append(Candidate(ref, step, ref in leaving, frozenset(kinds), form, some))
    return found


def _leaving(recording: Recording) -> set[Ref]:
    """Returns the results that are used outside the module call that makes them."""
    leaving = set(recording.outputs)
    for step in recording.steps:
        inside = step.modules[-1]
        leaving |= {ref for ref in step.refs if recording.steps[ref.step].modules[-1] != inside}
    return leaving
