"""Reads tensors, sizes and dynamic axes from the command line, and draws what is not given."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_ops._cli.output import Usage

if TYPE_CHECKING:
    import numpy as np
    import torch


def chosen(option: str, value: str, known: Sequence[str]) -> str:
    """Returns a value that must be one of those known."""
    if value not in known:
        raise Usage(f"{option} must be one of {', '.join(known)}, got {value!r}")
    return value


def sizes(option: str, text: str) -> list[int]:
    """Reads sizes like ``2x3x8x8``; empty text and ``scalar`` are a scalar's."""
    if text in ("", "scalar"):
        return []
    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise Usage(f"{option} must be sizes like 2x3x8x8, got {text!r}")
    return [int(size) for size in text.split("x")]


def named(option: str, texts: Sequence[str], form: str) -> dict[str, str]:
    """Reads ``name<separator>value`` texts; `form` shows one, for the error."""
    result = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise Usage(f"{option} must be like {form}, got {text!r}")
        result[name] = value
    return result


def draw(texts: Sequence[str], default: "torch.dtype") -> tuple["torch.Tensor", ...]:
    """Draws tensors of sizes like ``2x3x8x8`` or, with a dtype, ``2x3x8x8:float16``.

    Args:
        texts: The sizes.
        default: The dtype where none is given.

    Returns:
        Normal random numbers, or 0 and 1 for integers and bool; the same on each run.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = []
    for text in texts:
        shape, _, name = text.partition(":")
        dtype = getattr(torch, name, None) if name else default
        if not isinstance(dtype, torch.dtype):
            raise Usage(f"--args must have a dtype of torch after the colon, got {text!r}")
        dims = sizes("--args", shape)
        if dtype.is_floating_point:
            tensors.append(torch.randn(dims, generator=generator).to(dtype))
        else:
            tensors.append(torch.randint(2, dims, generator=generator).to(dtype))
    return tuple(tensors)


def dynamic_axes(texts: Sequence[str]) -> dict[str, dict[int, str]]:
    """Reads dynamic axes like ``x:0=N,2=H``, one text for each input."""
    result: dict[str, dict[int, str]] = {}
    for text in texts:
        name, separator, axes = text.partition(":")
        pairs = [pair.partition("=") for pair in axes.split(",")]
        if not separator or not all(
            axis.strip().isdecimal() and label.strip().isidentifier() for axis, _, label in pairs
        ):
            raise Usage(f"--dynamic must be like x:0=N,2=H, got {text!r}")
        result.setdefault(name, {}).update({int(axis): label.strip() for axis, _, label in pairs})
    return result


def feeds(
    inputs: Sequence[Any], shapes: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, "np.ndarray[Any, Any]"]:
    """Returns an array for each input of a session.

    Args:
        inputs: As `InferenceSession.get_inputs` gives them.
        shapes: Sizes by name, like ``2x3x8x8``.
        files: Paths of .npy files by name.

    Returns:
        The file's array, else a random one. A size that the model leaves open is, where no shape
        is given, that of another input's axis of the same name, else 1 for the first axis and 16
        for the others.
    """
    import numpy as np

    names = [given.name for given in inputs]
    for option, values in (("--shape", shapes), ("--input", files)):
        for name in values:
            if name not in names:
                raise Usage(f"{option} must name an input ({', '.join(names)}), got {name!r}")
    known: dict[str, int] = {}
    loaded = {name: _load(path) for name, path in files.items()}
    given_sizes = {name: sizes("--shape", text) for name, text in shapes.items()}
    given_sizes |= {name: list(array.shape) for name, array in loaded.items()}
    for given in inputs:
        for label, size in zip(given.shape, given_sizes.get(given.name, ()), strict=False):
            if isinstance(label, str):
                known.setdefault(label, size)
    generator = np.random.default_rng(0)
    result = {}
    for given in inputs:
        if given.name in loaded:
            result[given.name] = loaded[given.name]
            continue
        shape = given_sizes.get(given.name)
        if shape is None:
            shape = [_size(dim, axis, known) for axis, dim in enumerate(given.shape)]
        result[given.name] = _random(given, shape, generator)
    return result


def arrays(option: str, texts: Sequence[str]) -> dict[str, "np.ndarray[Any, Any]"]:
    """Reads arrays from ``name=file.npy`` texts."""
    return {name: _load(path) for name, path in named(option, texts, "x=file.npy").items()}


def _load(path: str) -> "np.ndarray[Any, Any]":
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Usage(f"--input must be a .npy file, got {path!r}: {error}") from error
    if not isinstance(array, np.ndarray):
        raise Usage(f"--input must be a .npy file of one array, got {path!r}")
    return array


def _size(dim: Any, axis: int, known: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    size = 1 if axis == 0 else 16
    return known.setdefault(dim, size) if isinstance(dim, str) else size


def _random(given: Any, shape: list[int], generator: Any) -> "np.ndarray[Any, Any]":
    dtype = dtype_of(given.type)
    if dtype is None:
        raise Usage(f"--input must be given for {given.name}: its type is {given.type}")
    if dtype.kind in "biu":
        array: np.ndarray[Any, Any] = generator.integers(0, 2, shape).astype(dtype)
    else:
        array = generator.standard_normal(shape).astype(dtype)
    return array


def dtype_of(kind: str) -> "np.dtype[Any] | None":
    """Returns the dtype of a session's type, for example ``tensor(float)``; None for others."""
    import ml_dtypes
    import numpy as np

    name = kind.removeprefix("tensor(").removesuffix(")")
    name = {"float": "float32", "double": "float64"}.get(name, name)
    try:
        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    except TypeError:
        return None
    return dtype if name == "bfloat16" or dtype.kind in "biuf" else None


def save_arrays(folder: Path, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, str]:
    """Writes arrays to a folder, each as NAME.npy.

    Args:
        folder: Made where there is none.
        names: Their names; a slash becomes an underscore.
        arrays: The arrays.

    Returns:
        The files by name.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    saved = {}
    for name, array in zip(names, arrays, strict=True):
        file = folder / f"{name.replace('/', '_')}.npy"
        np.save(file, array)
        saved[name] = str(file)
    return saved
