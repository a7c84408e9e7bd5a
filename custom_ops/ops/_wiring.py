"""Makes an op of the C++ library a full citizen of torch; `call` runs it.

C++ gives a torch op its schema and its CPU kernel. `register_torch` adds what torch asks beyond
that, all from the `TorchOp` that the op's file declares: the fake function, the gradient, the
batching rule of `torch.vmap` and the autocast policy.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from custom_ops import _library
from custom_ops.ops._function import OpFunction

_library.load_torch_ops()

# Private in torch, but what torch.library and torch.func themselves are made of.
_any_requires_grad = torch._C._any_requires_grad
_below_autograd = torch._C._AutoDispatchBelowAutograd
_in_transform = torch._C._are_functorch_transforms_active
_is_tracing = torch._C._is_tracing
_has_torch_function = torch._C._has_torch_function
_is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
_set_excluded = torch._C._dispatch_tls_set_dispatch_key_excluded
_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality

_GRADIENT_METHODS = ("setup_context", "backward", "jvp")
_AUTOCAST_DEVICES = ("cpu", "cuda")
_library_of_ops = torch.library.Library("custom_ops", "FRAGMENT")

Kernel: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class TorchOp:
    """What the Python half of an op tells torch.

    Attributes:
        name: Name of the op in torch, for example "mul_add".
        function: Its gradient.
        batch: Its batching rule ``batch(size, dims, *args) -> (outputs, out_dims)``: `size` is
            the size of the batch, `dims` holds the position of the batch dimension in each
            argument, or None, and `args` are all arguments, defaults filled in.
        autocast: "lower" casts floating-point inputs to the dtype of the autocast region, as
            for convolutions; "promote" to the widest dtype among them, as for additions; None
            leaves them alone. float64 is never cast.
    """

    name: str
    function: type[OpFunction]
    batch: Callable[..., tuple[Any, Any]]
    autocast: Literal["lower", "promote"] | None = None


# Dictionaries, not cached functions: torch.compile reads them as constants.
_OVERLOADS: dict[str, OpOverload] = {
    name: getattr(torch.ops.custom_ops, name).default for name in _library.specs()
}
# What an overload calls in turn, after a frame of Python of its own.
_DISPATCHER: dict[str, Kernel] = {name: op._op for name, op in _OVERLOADS.items()}
_REQUIRED: dict[str, tuple[int, ...]] = {
    name: tuple(i for i, given in enumerate(spec.inputs) if not given.optional)
    for name, spec in _library.specs().items()
}


def call(name: str, args: tuple[Any, ...]) -> Any:
    """Returns ``torch.ops.custom_ops.<name>(*args)``.

    Some microseconds sooner where no derivative is in play: the kernel on the Autograd key is
    Python, and torch runs it whether it is needed or not.
    """
    for i in _REQUIRED[name]:
        if not isinstance(args[i], Tensor):
            _refuse(name, i, args)
    if (
        torch.compiler.is_compiling()
        or _is_tracing()
        or _in_transform()
        or _has_torch_function(args)
        or forward_ad._current_level >= 0
        or (torch.is_grad_enabled() and _any_requires_grad(*args))
    ):
        return _OVERLOADS[name](*args)
    # As under `_below_autograd`, half a microsecond sooner.
    before = _is_excluded(_AUTOGRAD)
    try:
        _set_excluded(_AUTOGRAD, True)
        return _DISPATCHER[name](*args)
    finally:
        _set_excluded(_AUTOGRAD, before)


def _refuse(name: str, index: int, args: tuple[Any, ...]) -> None:
    """Says what a required input must be."""
    if args[index] is None:
        _output_dtypes(name, args)  # says what is missing
    given = _library.specs()[name].inputs[index].name
    kind = type(args[index]).__name__
    remedy = f"custom_ops.numpy.{name} takes arrays" if kind == "ndarray" else "make it a tensor"
    raise TypeError(f"{name}: {given} must be a Tensor, got {kind}; {remedy}")


def register_torch(spec: TorchOp) -> None:
    """Registers on an op everything that `spec` tells."""
    name = f"custom_ops::{spec.name}"
    op = _OVERLOADS[spec.name]
    library = _library_of_ops
    torch.library.register_fake(name, _fake(spec.name), lib=library)
    torch.library.register_vmap(name, _batching_rule(op, spec), lib=library)
    library.impl(spec.name, _autograd_kernel(op, spec), "Autograd")
    if spec.autocast is not None:
        for device in _AUTOCAST_DEVICES:
            kernel = _autocast_kernel(op, spec.autocast, device)
            library.impl(spec.name, kernel, f"Autocast{device.upper()}")


def _fill(op: OpOverload, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns all arguments: the dispatcher drops trailing ones that equal their defaults."""
    return args + tuple(a.default_value for a in op._schema.arguments[len(args) :])


def _output_dtypes(name: str, args: tuple[Any, ...]) -> list[torch.dtype]:
    """Returns the outputs' dtypes, or raises the sentence that says what is wrong."""
    tensors = args[: len(_library.specs()[name].inputs)]
    given = [None if t is None else str(t.dtype).removeprefix("torch.") for t in tensors]
    return [getattr(torch, dtype) for dtype in _library.core().output_dtypes(name, given)]


def _fake(name: str) -> Kernel:
    spec = _library.specs()[name]
    count = len(spec.inputs)

    def fake(*args: Any) -> Any:
        args = _fill(_OVERLOADS[name], args)
        dtypes = _output_dtypes(name, args)
        for given, tensor in zip(spec.inputs, args, strict=False):
            if tensor is not None and tensor.device != args[0].device:
                raise ValueError(
                    f"{name}: {given.name} must be on the device of {spec.inputs[0].name} "
                    f"({args[0].device}), got {tensor.device}; move it first"
                )
        shapes = [None if t is None else t.shape for t in args[:count]]
        results = _library.core().infer(name, shapes, args[count:])
        if spec.like_first_input:
            outputs = tuple(torch.empty_like(args[0], dtype=dtype) for dtype in dtypes)
        else:
            pairs = zip(results, dtypes, strict=True)
            outputs = tuple(args[0].new_empty(shape, dtype=dtype) for shape, dtype in pairs)
        return outputs if len(outputs) > 1 else outputs[0]

    return fake


def _batching_rule(op: OpOverload, spec: TorchOp) -> Kernel:
    def rule(info: Any, dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        args = _fill(op, args)
        dims += (None,) * (len(args) - len(dims))
        return spec.batch(info.batch_size, dims, *args)

    return rule


class _OneLevel(_SingleLevelFunction):
    """The part of `torch.autograd.Function` that acts on one level of differentiation.

    ``Function.apply`` handles the levels of torch.func itself; a kernel is called once for each.
    """

    @staticmethod
    def _compiled_autograd_key(ctx: Any) -> tuple[int]:
        """As in `torch.autograd.Function`; torch asks for it under compiled autograd."""
        return (ctx._autograd_function_id,)


def _autograd_kernel(op: OpOverload, spec: TorchOp) -> Kernel:
    """Returns the kernel of the Autograd key.

    The one of `torch.library.register_autograd` gives zeros in forward mode, and
    `torch.func.grad` refuses it.
    """

    def forward(*args: Any) -> Any:
        with _below_autograd():
            if not _in_transform():
                return op(*args)
            # Function.apply turned both off, for the outer levels of torch.func too.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return op(*args)

    methods = {name: staticmethod(getattr(spec.function, name)) for name in _GRADIENT_METHODS}
    methods["forward"] = staticmethod(forward)
    function: Any = type(spec.function.__name__, (_OneLevel,), {**methods, "op_name": spec.name})

    def kernel(*args: Any) -> Any:
        if not ((torch.is_grad_enabled() and _any_requires_grad(*args)) or _any_dual(args)):
            with _below_autograd():
                return op(*args)
        if not _in_transform():
            return function.apply(*_fill(op, args))
        with enable_single_level_autograd_function():
            return function.apply(*_fill(op, args))

    return kernel


def _any_dual(args: tuple[Any, ...]) -> bool:
    """Returns whether forward mode is on and some argument has a tangent."""
    return (
        forward_ad._current_level >= 0
        and torch._C._is_fwd_grad_enabled()
        and any(
            forward_ad.unpack_dual(a).tangent is not None for a in args if isinstance(a, Tensor)
        )
    )


def _autocast_kernel(op: OpOverload, policy: Literal["lower", "promote"], device: str) -> Kernel:
    """Returns the kernel of one Autocast key: casts, then runs the op without autocast.

    `torch.library.register_autocast` fixes the dtype when it registers.
    """
    key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")
    keys = torch._C.DispatchKeySet(key)

    def castable(arg: Any) -> bool:
        return (
            isinstance(arg, Tensor)
            and arg.device.type == device
            and arg.is_floating_point()
            and arg.dtype is not torch.float64
        )

    def kernel(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        if policy == "promote":
            dtypes = [a.dtype for a in args if castable(a)]
            dtype = functools.reduce(torch.promote_types, dtypes, dtypes[0] if dtypes else dtype)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(a.to(dtype) if castable(a) else a for a in args))

    return kernel
