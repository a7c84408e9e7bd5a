"""torchvision's deform_conv2d on our kernels: they take its op's place in torch's dispatcher.

There, not in torchvision's functions: whatever calls the op is served, a function imported
earlier, a scripted model, a compiled graph. And whatever traces the op still sees torchvision's,
so that a program captured or exported meanwhile is the one it would be without us.
"""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from custom_ops.ops._wiring import call
from custom_ops.ops.deform_conv2d.arguments import from_torchvision

_FORWARD, _BACKWARD = "deform_conv2d", "_deform_conv2d_backward"
# What stands below Autograd where the op is traced, or a mode or a subclass wants to see it.
_OBSERVERS = (torch._C.DispatchKey.Python, torch._C.DispatchKey.Functionalize)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

_lock = threading.Lock()
_active: set["Acceleration"] = set()
_library: torch.library.Library | None = None


class Acceleration:
    """What `accelerate_torchvision` returns: ends with `undo`, or with the block of a ``with``."""

    def undo(self) -> None:
        """Gives torchvision its kernels back, once no other acceleration is left.

        A second call does nothing.
        """
        with _lock:
            if self in _active:
                _active.remove(self)
                if not _active:
                    _restore()

    def __enter__(self) -> "Acceleration":
        if self not in _active:
            raise RuntimeError(
                "accelerate_torchvision: acceleration must be entered before it is undone, got "
                "one that is undone; call custom_ops.accelerate_torchvision() again"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"<Acceleration of torchvision, {'on' if self in _active else 'undone'}>"


def accelerate_torchvision() -> Acceleration:
    """Runs `torchvision.ops.deform_conv2d` and `torchvision.ops.DeformConv2d` on our kernels.

    On CPU tensors, forward and backward, for every caller in the process: also functions
    imported earlier, subclasses of the module, ``torch.ops.torchvision.deform_conv2d``, and
    programs that `torch.jit`, `torch.export` or `torch.compile` made before or make meanwhile;
    those hold torchvision's op as always, and run on its kernels again afterwards. Tensors of
    other devices are left to torchvision.

    What changes beside the speed: bfloat16 works. NaN, infinite and far-away offsets are
    defined, see `deform_conv2d`. Under CPU autocast half inputs compute in float32 and the
    result has the dtype of the input, as torchvision does on CUDA. `torch.func.grad` works, and
    bad arguments get the sentences of `deform_conv2d`, but for those that torchvision's function
    finds before it calls its op. What autograd records meanwhile is differentiated by our kernels
    even after the end.

    The switch is for the whole process and all its threads. Threads may begin and undo their
    own accelerations at any time; but no thread may be inside the op, without an acceleration of
    its own, while the first begins or the last is undone. Begin before starting such threads.

    Returns:
        A handle: its ``undo()``, or the end of its ``with`` block, also by an exception, restores
        torchvision's kernels. Without either they stay replaced. Of several accelerations, the
        last to be undone, in any order, restores.

    Raises:
        ImportError: torchvision is not installed, or does not fit this torch.

    Example:
        >>> import torch, torchvision, custom_ops
        >>> layer = torchvision.ops.DeformConv2d(4, 8, kernel_size=3)
        >>> with custom_ops.accelerate_torchvision():
        ...     layer(torch.ones(1, 4, 5, 5), torch.zeros(1, 18, 3, 3)).shape
        torch.Size([1, 8, 3, 3])
        >>> acceleration = custom_ops.accelerate_torchvision()  # until the end of the program, or
        >>> acceleration.undo()
    """
    forward = _forward_op()
    with _lock:
        acceleration = Acceleration()
        if not _active:
            _replace(forward)
        _active.add(acceleration)
    return acceleration


def _forward_op() -> Any:
    """Returns torchvision's op, or raises the sentence that says why there is none."""
    try:
        import torchvision  # noqa: F401

        return torch.ops.torchvision.deform_conv2d.default
    except (ImportError, RuntimeError, AttributeError) as error:  # the latter two: another torch
        raise ImportError(
            f"accelerate_torchvision: torchvision must be installed and fit torch "
            f"{torch.__version__}, got {error}; pip install the torchvision of that release"
        ) from error


def _replace(forward: Any) -> None:
    global _library
    kernels = torch.library.Library("torchvision", "IMPL")
    try:
        theirs = torch.library.get_kernel(forward, "AutogradCPU")
        with warnings.catch_warnings():
            # torch 2.13 warns, once, that a kernel is overridden: that is what we are here for.
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            kernels.impl(_FORWARD, _autograd_kernel(theirs), "AutogradCPU", with_keyset=True)
            kernels.impl(_FORWARD, _autocast_kernel(forward), "AutocastCPU")
            kernels.impl(_FORWARD, _forward_kernel, "CPU")
            kernels.impl(_BACKWARD, _backward_kernel, "CPU")
    except BaseException:
        kernels._destroy()
        raise
    _library = kernels
    _forget_resolved_keys()


def _restore() -> None:
    global _library
    if _library is not None:
        _library._destroy()
    _library = None
    _forget_resolved_keys()


def _forget_resolved_keys() -> None:
    """Empties a cache that torch does not: which kernel a key of an op leads to while tracing.

    With a stale one torch.compile finds no gradient for the op, and only warns.
    """
    for name in (_FORWARD, _BACKWARD):
        getattr(torch.ops.torchvision, name).default._dispatch_cache.clear()


def _autograd_kernel(theirs: Any) -> Callable[..., Any]:
    def kernel(keys: torch._C.DispatchKeySet, *args: Any) -> Any:
        if any(keys.has(key) for key in _OBSERVERS):
            return theirs.call_boxed(keys, *args)
        return call(_FORWARD, from_torchvision(*args))

    return kernel


def _autocast_kernel(forward: Any) -> Callable[..., Tensor]:
    def kernel(input: Tensor, *args: Any) -> Tensor:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            output: Tensor = forward(*(_widened(arg) for arg in (input, *args)))
        return output if output.dtype is input.dtype else output.to(input.dtype)

    return kernel


def _widened(arg: Any) -> Any:
    half = isinstance(arg, Tensor) and arg.dtype in (torch.float16, torch.bfloat16)
    return arg.float() if half else arg


def _forward_kernel(*args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return call(_FORWARD, from_torchvision(*args))


def _backward_kernel(grad: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """Computes all gradients: torchvision's op does not tell which are needed."""
    mask, use_mask = args[3], args[-1]
    needs = [1, 1, 1, 1, int(use_mask)]
    with torch._C._AutoDispatchBelowAutograd():
        grads = call(_BACKWARD, (grad, *from_torchvision(*args), needs))
    of_input, of_weight, of_offset, of_bias, of_mask = grads
    return of_input, of_weight, of_offset, of_mask if use_mask else torch.zeros_like(mask), of_bias
