"""Whether other processes take the processor away: a steady thief leaves no trace in the spread."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SECONDS = 0.1


def disturbance(run: Callable[[], Any]) -> float:
    """Returns how long threads of this process wait for a core while a function runs.

    Args:
        run: The function, repeated for a tenth of a second.

    Returns:
        Seconds of waiting, summed over the threads, for each second of running; 0 where the system
        does not tell.
    """
    before, start = _waited(), time.perf_counter()
    passed = 0.0
    while passed < _SECONDS:
        run()
        passed = time.perf_counter() - start
    return (_waited() - before) / passed


def _waited() -> float:
    """Returns the seconds that the threads of this process have waited for a core so far."""
    total = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(file.read_text(encoding="utf-8").split()[1])
        except (OSError, IndexError):  # a thread that has ended, or a system that keeps no count
            continue
    return total * 1e-9
