"""What is installed, and what it runs on."""

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from custom_ops import _library

_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl")
_MORE_FLAGS = ("avx512_bf16", "avx512_fp16", "amx_tile", "neon", "asimd", "asimdhp", "sve", "bf16")


def version(package: str) -> str | None:
    """Returns the version of a package, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def instruction_sets() -> dict[str, Any]:
    """Returns the instruction sets of the kernels that this machine has, and the one in use.

    Raises:
        ImportError: The kernels do not load.
        RuntimeError: The environment variable CUSTOM_OPS_ISA names none of them.
    """
    core = _library.core()
    return {"supported": list(core.instruction_sets()), "in_use": str(core.instruction_set())}


def processor() -> dict[str, Any]:
    """Returns the processor's name, cores and instruction sets, and which of those torch uses."""
    import torch

    text = ""
    if Path("/proc/cpuinfo").is_file():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags.group(1).split()) if flags else set()
    return {
        "name": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in (*_FLAGS, *_MORE_FLAGS) if flag in has],
        "torch": torch.backends.cpu.get_cpu_capability(),
    }


def commit() -> str | None:
    """Returns the commit that the package is of, marked where files differ; None elsewhere."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Gives torch so many threads for the length of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
