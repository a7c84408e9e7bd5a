"""Records one eager pass of a module: every result of an aten op, and where it comes from."""

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from custom_ops.debug._loops import LOOPS
from custom_ops.debug._recording import ModuleCall, Recording, Ref, Step
from custom_ops.debug._tensors import (
    leaves_in,
    memory_of,
    on_tensors,
    overwritten,
    tensors_in,
)
from custom_ops.onnx._exporters import without_fast_path
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._unchanged import unchanged

_PACKAGE = __name__.rpartition(".")[0]


def record(module: torch.nn.Module, call: Call) -> Recording:
    """Runs a module once, without gradients, and records what its ops give.

    Results are kept, not copied; one that an op is about to overwrite is copied before. The
    arguments are copied, so that the module may overwrite them; its buffers are put back.

    Args:
        module: The module, as it is: in training mode dropout draws.
        call: Its arguments.
    """
    recording = Recording()
    first: dict[int, str] = {}
    for path, each in module.named_modules(remove_duplicate=False):
        recording.aliases[path] = first.setdefault(id(each), path)
    own = call.with_tensors([tensor.detach().clone() for tensor in call.tensors])
    recorder = _Recorder(recording)
    recorder.vary(own.tensors)
    buffers = [buffer for buffer in module.buffers() if not torch.nn.parameter.is_lazy(buffer)]
    with torch.no_grad(), unchanged(module):
        with (
            without_fast_path(),
            torch.compiler.set_stance("force_eager"),  # also of what torch.cond compiles
            recorder.watching(module),
            _Units(recorder),
            recorder,
        ):
            returned = module(*own.args, **own.kwargs)
            for leaf in pytree.tree_leaves(returned):
                if isinstance(leaf, torch.Tensor):
                    recording.outputs.append(recorder.result(leaf))
        recorder.keep_overwritten(buffers)
    return recording


class _Recorder(TorchDispatchMode):
    """Writes down each op that torch dispatches."""

    supports_higher_order_operators = True

    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording
        self.unit, self.function, self.loops = 0, "", 0
        self._modules: list[ModuleCall] = []
        self._calls: Counter[str] = Counter()
        # Of each living tensor: the result that it is, its version then, and itself, so that its
        # place in memory is not given to another one.
        self._known: dict[int, tuple[Ref, int, torch.Tensor]] = {}
        self._at: dict[int, list[Ref]] = {}  # the results that lie in one memory
        self._read: dict[int, list[int]] = {}  # the steps that read a memory that is no result's
        self._overwritten: set[int] = set()  # the memories that an op has overwritten
        # The inputs and what depends on them: their places in memory, and themselves, so that no
        # place is given to another one.
        self._varying: dict[int, torch.Tensor] = {}

    @contextlib.contextmanager
    def watching(self, module: torch.nn.Module) -> Iterator[None]:
        """Keeps the stack of module calls while the module runs."""
        with contextlib.ExitStack() as stack:
            for path, each in module.named_modules():
                enter = functools.partial(self._enter, path)
                handles = (
                    each.register_forward_pre_hook(enter, prepend=True),
                    each.register_forward_hook(self._leave, always_call=True),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            yield

    def _enter(self, path: str, _module: torch.nn.Module, _args: Any) -> None:
        self._modules.append(ModuleCall(path, self._calls[path]))
        self._calls[path] += 1

    def _leave(self, _module: torch.nn.Module, _args: Any, _result: Any) -> None:
        self._modules.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return self._higher_order(func, args, kwargs)
        depends = self._varies((args, kwargs))
        recorded = on_tensors(self._recorded, (args, kwargs))
        written = overwritten(func, args, kwargs)
        for tensor in written:
            recorded = self._save(memory_of(tensor), recorded)
            self._overwritten.add(memory_of(tensor))
        returned = func(*args, **kwargs)
        outputs = tensors_in(returned)
        if outputs:
            self._add(func, recorded, outputs, depends, {id(tensor) for tensor in written})
        return returned

    def ref(self, value: Any) -> Ref | None:
        """Returns which result a value is; None where it is none, or was changed since."""
        known = self._known.get(id(value))
        return known[0] if known is not None and known[1] == value._version else None

    def result(self, tensor: torch.Tensor) -> Ref:
        """Returns which result a tensor is; of one that is none, as an input is, a copy is one."""
        found = self.ref(tensor) or self.ref(tensor.clone())
        assert found is not None  # what an op has just made is known
        return found

    def _recorded(self, tensor: torch.Tensor) -> Any:
        found = self.ref(tensor)
        if found is not None:
            return found
        return tensor.clone() if id(tensor) in self._known else tensor

    def vary(self, tensors: Iterable[torch.Tensor]) -> None:
        """Takes note that tensors depend on the inputs, or are them."""
        self._varying.update({memory_of(tensor): tensor for tensor in tensors})

    def keep_overwritten(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copies what was recorded and lies where these do, if an op has overwritten it."""
        for memory in self._overwritten & {memory_of(tensor) for tensor in tensors}:
            self._save(memory, ())

    def _varies(self, tree: Any) -> bool:
        return any(memory_of(tensor) in self._varying for tensor in tensors_in(tree))

    def _add(
        self,
        func: Any,
        recorded: Any,
        outputs: list[torch.Tensor],
        depends: bool,
        overwritten: set[int],
    ) -> None:
        index = len(self.recording.steps)
        modules = tuple(self._modules) or (ModuleCall("", 0),)
        args, kwargs = recorded
        leaves = list(leaves_in(recorded))
        self.recording.steps.append(
            Step(
                index, func, args, kwargs, list(outputs), modules, self.unit, self.function,
                _source(), depends, tuple(leaf for leaf in leaves if isinstance(leaf, Ref)),
                self.loops > 0,
            )
        )  # fmt: skip
        if depends:
            self.vary(outputs)
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                self._read.setdefault(memory_of(leaf), []).append(index)
        for i, tensor in enumerate(outputs):
            # torch counts an overwriting only when the op has returned to it.
            version = tensor._version + (id(tensor) in overwritten)
            self._known[id(tensor)] = (Ref(index, i), version, tensor)
            self._at.setdefault(memory_of(tensor), []).append(Ref(index, i))

    def _save(self, memory: int, recorded: Any) -> Any:
        """Copies what was recorded and lies in a memory that is about to be overwritten.

        Args:
            memory: The memory.
            recorded: The arguments of the op that overwrites it.

        Returns:
            Those arguments, with copies of what lies there.
        """

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone() if memory_of(tensor) == memory else tensor

        steps = self.recording.steps
        for ref in self._at.pop(memory, ()):
            steps[ref.step].outputs[ref.output] = steps[ref.step].outputs[ref.output].clone()
        for index in self._read.pop(memory, ()):
            given = steps[index].args, steps[index].kwargs
            steps[index].args, steps[index].kwargs = on_tensors(copied, given)
        return on_tensors(copied, recorded)

    def _higher_order(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Runs a control flow op; what its branch or the body of its loop does is recorded too."""
        if func is torch.ops.higher_order.cond:
            predicate, then_branch, else_branch, operands = args
            with self:
                return (then_branch if bool(predicate) else else_branch)(*operands)
        loop = LOOPS.get(func.name())
        depends = self._varies((args, kwargs))
        if loop is not None and not kwargs:
            self.loops += 1
            try:
                with self:
                    results = loop(*args)
            finally:
                self.loops -= 1
            # How often it runs may depend on an input, and with that all that it gives.
            depends = depends or any(
                memory_of(each) in self._varying for each in tensors_in(results)
            )
            return tuple(self._given(func, each, depends) for each in results)
        returned = func(*args, **kwargs)
        if depends:
            self.vary(tensors_in(returned))
        return returned

    def _given(self, func: Any, result: Any, depends: bool) -> Any:
        """Records what a loop gives at last, as a step of its own: a copy of what its body made."""
        if not isinstance(result, torch.Tensor):
            return result
        around = self.unit, self.function
        self.unit, self.function = -1 - len(self.recording.steps), func.name()
        clone = torch.ops.aten.clone.default
        copy = clone(result)
        self._add(clone, ((self._recorded(result),), {}), [copy], depends, set())
        self.unit, self.function = around
        return copy


class _Units(TorchFunctionMode):
    """Tells the recorder which call of a function of torch an op is a part of."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        recorder = self._recorder
        around = recorder.unit, recorder.function
        self._count += 1
        recorder.unit, recorder.function = self._count, getattr(func, "__name__", "")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            recorder.unit, recorder.function = around


def _source() -> str:
    """Returns the innermost line that is neither torch's nor ours, as "net.py:12"."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("torch.", _PACKAGE)) and name != "torch":
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
