"""Finds the torch module that MODULE:FACTORY names, with its example inputs."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_ops._cli.output import Usage, note
from custom_ops._cli.tensors import draw
from custom_ops._errors import first_line

if TYPE_CHECKING:
    import torch

FACTORY_HELP = (
    "Where the torch module is: MODULE is an importable name, the current folder included, or a "
    "path ending in .py; FACTORY is a torch module, or gives, when called, a module, or a tuple "
    "(module, example_args) or (module, example_args, dynamic_shapes)."
)
ARGS_HELP = (
    "Sizes of an example input, for example 2x3x8x8 or 2x3x8x8:float16; once for each input. "
    "Random values; needed where the factory gives no example_args."
)


@dataclass(frozen=True)
class Found:
    """A torch module with what it is called with.

    Attributes:
        module: In evaluation mode.
        args: Example inputs.
        dynamic_shapes: Which sizes may change, as for `custom_ops.onnx.export`.
    """

    module: "torch.nn.Module"
    args: tuple[Any, ...]
    dynamic_shapes: Any


def find(name: str, args: Sequence[str], given: "Sequence[torch.Tensor] | None" = None) -> Found:
    """Finds a module.

    Args:
        name: ``MODULE:FACTORY``.
        args: Sizes of example inputs; those of the factory where there are none.
        given: The example inputs themselves.

    Raises:
        Usage: The name leads to no torch module, or there are no example inputs.
    """
    import torch

    made = _made(name)
    module, *others = made if isinstance(made, tuple) else (made,)
    if not isinstance(module, torch.nn.Module) or len(others) > 2:
        raise Usage(
            f"{name} must give a torch module, or (module, example_args[, dynamic_shapes]), got "
            f"{_described(made)}"
        )
    if any(each.training for each in module.modules()):
        note(f"{type(module).__name__} is put into evaluation mode")
        module.eval()
    if given is not None:
        examples = tuple(given)
    elif args:
        parameter = next((each for each in module.parameters() if each.is_floating_point()), None)
        examples = draw(args, torch.float32 if parameter is None else parameter.dtype)
    elif others:
        examples = (others[0],) if isinstance(others[0], torch.Tensor) else tuple(others[0])
    else:
        raise Usage(f"{name} gives no example_args, so --args must be given, for example 2x3x8x8")
    return Found(module, examples, others[1] if len(others) == 2 else None)


def _described(made: Any) -> str:
    if isinstance(made, tuple):
        return f"({', '.join(type(each).__name__ for each in made)})"
    return f"{type(made).__name__} {made!r}"[:80]


def _made(name: str) -> Any:
    import torch

    where, separator, attribute = name.rpartition(":")
    if not separator or not where or not attribute:
        raise Usage(f"MODULE:FACTORY must be two names with a colon between, got {name!r}")
    try:
        holder = _load(where)
    except Usage:
        raise
    except Exception as error:
        raise Usage(
            f"{where} must be importable, got {type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        found = functools.reduce(getattr, attribute.split("."), holder)
    except AttributeError as error:
        raise Usage(f"{where} must have {attribute}, got none") from error
    if not callable(found) or isinstance(found, torch.nn.Module):
        return found
    try:
        return found()
    except Exception as error:
        raise Usage(
            f"{name} must be callable without arguments, got {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def _load(where: str) -> Any:
    if not where.endswith(".py"):
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(where)
    path = Path(where)
    if not path.is_file():
        raise Usage(f"MODULE must be an importable name or a Python file, got {where!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
