"""Which cases to measure, and what to say of the run."""

import dataclasses
import fnmatch
import os
import platform
from collections.abc import Sequence
from typing import Any

import custom_ops
from custom_ops import _machine
from custom_ops._bench.runner import Settings
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._samples import Benchmark

_PACKAGES = ("torch", "torchvision", "onnxruntime", "onnx", "numpy")
_QUICK_ROUNDS = 5


def select(
    names: Sequence[str], patterns: Sequence[str], quick: bool
) -> list[tuple[Op, Benchmark]]:
    """Returns the cases to measure.

    Args:
        names: Names of ops; all, if empty.
        patterns: Names of cases, or patterns like ``3x3-*``; all, if empty.
        quick: Whether to take only the quick ones, where no patterns are given.

    Raises:
        ValueError: An op is not there, or a pattern fits no case.
    """
    for name in names:
        if name not in ops():
            raise ValueError(f"--op must be one of {', '.join(ops())}, got {name!r}")
    chosen = [op for op in ops().values() if not names or op.name in names]
    cases = [(op, case) for op in chosen for case in op.benchmarks]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(case.name, pattern) for _, case in cases):
            known = ", ".join(case.name for _, case in cases)
            raise ValueError(f"--case must fit one of {known}, got {pattern!r}")
    if patterns:
        return [
            (op, case)
            for op, case in cases
            if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns)
        ]
    return [(op, case) for op, case in cases if case.quick or not quick]


def settings_of(threads: Sequence[int], quick: bool, **given: Any) -> list[Settings]:
    """Returns how to measure, for each number of threads; quickly takes fewer rounds."""
    changed = {name: value for name, value in given.items() if value is not None}
    if quick:
        changed = {"rounds": _QUICK_ROUNDS, "seconds": 0.5, **changed}
    return [dataclasses.replace(Settings(**changed), threads=each) for each in threads]


def facts(settings: Sequence[Settings]) -> dict[str, Any]:
    """Returns versions, commit, processor, its load before the run, and settings."""
    return {
        "custom_ops": custom_ops.__version__,
        "commit": _machine.commit(),
        "packages": {name: _machine.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _machine.processor(),
        "kernels": _machine.instruction_sets(),
        "load": os.getloadavg()[0],
        "sessions_spin": False,
        "settings": [dataclasses.asdict(each) for each in settings],
    }
