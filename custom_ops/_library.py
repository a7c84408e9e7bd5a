"""Loads the kernel library and its doors, and says in one sentence why they do not load."""

import functools
import importlib
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

OLDEST_TORCH = "2.13"
_FOLDER = Path(__file__).parent

# Here and at once: the modules that follow use what an older torch does not have.
if Version(Version(torch.__version__).base_version) < Version(OLDEST_TORCH):
    raise ImportError(
        f"custom_ops: torch must be {OLDEST_TORCH} or later, got {torch.__version__}; "
        f"run `pip install -U 'torch>={OLDEST_TORCH}'`"
    )


def library_path() -> Path:
    """Returns where the kernel library is."""
    return _FOLDER / "lib" / "libcustom_ops.so"


def _load(name: str) -> Any:
    try:
        return importlib.import_module(f"custom_ops.{name}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"custom_ops: the extension {name} must be built for this Python, got none in "
            f"{_FOLDER}; run `pip install -e .` in the repository, or install a wheel"
        ) from error
    except ImportError as error:
        raise ImportError(
            f"custom_ops: the extension {name} must load, got: {error}; "
            "reinstall with `pip install --force-reinstall --no-deps custom-ops`"
        ) from error


@functools.cache
def core() -> Any:
    """Returns the Python door: specs, shape rules, and functions on NumPy arrays."""
    return _load("_core")


@functools.cache
def specs() -> dict[str, Any]:
    """Returns the spec of every op of the kernel library, private ones too, by name."""
    return {spec.name: spec for spec in core().specs()}


@functools.cache
def load_torch_ops() -> None:
    """Registers ``torch.ops.custom_ops.*``."""
    _load("_torch")
