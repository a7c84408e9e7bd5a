"""Turns the deformable convolutions of torchvision that a model holds into ours."""

import sys
import warnings
from typing import Any, TypeVar

import torch
from torch.nn.utils import parametrize

from custom_ops.ops.deform_conv2d.module import DeformConv2d

_Model = TypeVar("_Model", bound=torch.nn.Module)


def convert(model: _Model) -> _Model:
    """Turns each `torchvision.ops.DeformConv2d` in a model into a `custom_ops.DeformConv2d`.

    In place: a layer gets our class and stays the same object. So its parameters are the same
    too, as are its hooks, its parametrizations, its dtype and device and its training flag;
    optimizers stay valid, a layer that stands in several places is converted in all of them, and
    state dicts keep their keys. The saved model needs no torchvision any more.

    A layer of a subclass has a forward of its own, which would be lost, so a model with one is
    refused, before anything is changed. That, calls of the function
    `torchvision.ops.deform_conv2d`, and models for `torch.jit.script`, which cannot compile our
    layer, are what `accelerate_torchvision` is for.

    Args:
        model: Any module; it may be such a layer itself.

    Returns:
        `model`. Where it holds no deformable convolution, of either kind, it is unchanged and a
        warning says so; without torchvision that is so for every model.

    Raises:
        TypeError: `model` is not a `torch.nn.Module`, or a layer's class is a subclass of
            `torchvision.ops.DeformConv2d`.
        ValueError: A layer's ``forward`` was replaced on the object.

    Example:
        >>> import torch, torchvision, custom_ops
        >>> layer = torchvision.ops.DeformConv2d(4, 8, kernel_size=3)
        >>> model = custom_ops.convert(torch.nn.Sequential(layer))
        >>> isinstance(model[0], custom_ops.DeformConv2d), model[0] is layer
        (True, True)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"convert: model must be a torch.nn.Module, got {type(model).__name__}; "
            "custom_ops.accelerate_torchvision() serves functions"
        )
    # A model that holds layers of torchvision has loaded it; nothing else need.
    theirs = getattr(sys.modules.get("torchvision.ops"), "DeformConv2d", ())
    layers = {name: m for name, m in model.named_modules() if isinstance(m, theirs)}
    for name, layer in layers.items():
        _check(name or "model", layer, theirs)
    for layer in layers.values():
        layer.__class__ = _our_class(layer)
    if not layers and not any(isinstance(m, DeformConv2d) for m in model.modules()):
        warnings.warn(
            f"convert: model must hold a torchvision.ops.DeformConv2d to be changed, got "
            f"{type(model).__name__} with none; custom_ops.accelerate_torchvision() serves calls "
            "of the function and scripted models",
            stacklevel=2,
        )
    return model


def _check(name: str, layer: torch.nn.Module, theirs: Any) -> None:
    kind = parametrize.type_before_parametrizations(layer)
    if kind is not theirs:
        raise TypeError(
            f"convert: {name} must be a torchvision.ops.DeformConv2d itself, got its subclass "
            f"{kind.__module__}.{kind.__qualname__}; custom_ops.accelerate_torchvision() serves "
            "it as it is"
        )
    if "forward" in vars(layer):
        raise ValueError(
            f"convert: {name} must have the forward of its class, got {layer.forward!r}; convert "
            "before replacing it, or use custom_ops.accelerate_torchvision()"
        )


def _our_class(layer: torch.nn.Module) -> type:
    """Returns our class, derived from as the layer's own is where it is parametrized."""
    if not parametrize.is_parametrized(layer):
        return DeformConv2d
    own = type(layer)  # torch makes one for each layer, with properties for the parameters
    members = {k: v for k, v in vars(own).items() if k not in ("__dict__", "__weakref__")}
    return type(own.__name__, (DeformConv2d,), members)
