"""Times functions in turns, so that whatever the machine does meets all of them alike."""

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from custom_ops._garbage import garbage_kept

Run = Callable[[], Any]
Clock = Callable[[], float]


@runtime_checkable
class TimesItself(Protocol):
    """A function elsewhere: what it takes to reach it is not to be timed."""

    def time(self, count: int, clock: Clock) -> float:
        """Runs so many times, and returns the seconds of one run."""


# Seconds at least of a turn; what is faster is repeated: threads that have slept take some runs to
# find a core each.
_TURN = 15e-3
_WARM = 20e-3  # seconds; what is faster runs before its turn too, as the one before left the caches
# Seconds after which the threads of whoever had the last turn no longer spin: those of OpenMP do
# for some milliseconds, on the cores that the threads of ONNX Runtime would wake up on.
_REST = 0.01
_FEWEST = 5


@dataclass(frozen=True)
class Timing:
    """The times of one function, in milliseconds.

    Attributes:
        median: The middle one.
        low: The lower quartile.
        high: The upper quartile.
        fastest: The least.
        turns: How many there are.
    """

    median: float
    low: float
    high: float
    fastest: float
    turns: int

    @property
    def spread(self) -> float:
        """The range between the quartiles, as a share of the median."""
        return (self.high - self.low) / self.median if self.median > 0 else 0.0


def interleave(
    runs: Mapping[str, Run],
    rounds: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Times each function in turns: one turn of each a round, in an order that changes.

    Args:
        runs: The functions, which have run before.
        rounds: How many rounds.
        seconds: What one function may take in all; a slow one sits rounds out, evenly spread, and
            still gets five turns.
        clock: Gives the time in seconds.

    Returns:
        The times by name.
    """
    names = list(runs)
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    with garbage_kept():
        once = {name: _time(run, 1, clock) for name, run in runs.items()}
        turns = {name: turns_of(once[name], rounds, seconds) for name in names}
        for index in range(rounds):
            order.shuffle(names)
            for name in names:
                if not _takes_part(index, turns[name], rounds):
                    continue
                time.sleep(_REST)
                count = max(1, math.ceil(_TURN / max(once[name], 1e-9)))
                if once[name] < _WARM:
                    _time(runs[name], count, clock)
                times[name].append(_time(runs[name], count, clock) * 1e3)
    return {name: summarise(values) for name, values in times.items()}


def turns_of(once: float, rounds: int, seconds: float) -> int:
    """Returns how many turns a function gets that takes `once` seconds."""
    affordable = rounds if once <= 0 else int(seconds / once)
    return min(rounds, max(_FEWEST, affordable))


def summarise(times: Sequence[float]) -> Timing:
    """Returns the middle and the spread of times in milliseconds."""
    if len(times) > 1:
        low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    else:
        low = high = times[0]
    return Timing(statistics.median(times), low, high, min(times), len(times))


def _takes_part(index: int, turns: int, rounds: int) -> bool:
    return (index + 1) * turns // rounds > index * turns // rounds


def _time(run: Run, count: int, clock: Clock) -> float:
    if isinstance(run, TimesItself):
        return run.time(count, clock)
    start = clock()
    for _ in range(count):
        run()
    return (clock() - start) / count
