"""Measures contests: everybody who computes a call, checked and timed in one run."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from custom_ops._bench.checking import ELEMENTS, NEARLY_ALL, Differs, arrays, difference
from custom_ops._bench.contenders import Contender, backward, forward
from custom_ops._bench.disturbance import disturbance
from custom_ops._bench.peak import peak
from custom_ops._bench.results import BACKWARD, FORWARD, Entry, Record, Refused
from custom_ops._bench.timing import Clock, Run, Timing, interleave
from custom_ops._errors import first_line
from custom_ops._machine import torch_threads
from custom_ops.ops._registry import Op
from custom_ops.ops._samples import Benchmark, Bound, Tolerance

_BOUND = "the bound"
_ATTEMPTS = 3


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Of torch and of each session.
        dtype: Of the tensors.
        backward: Whether to time forward and backward together, else forward alone.
        python: Whether our Python kernels join in every case; else in the quick ones.
        rounds: Turns of each contender.
        seconds: What one contender may take in all; slow ones get fewer turns.
        spread: The largest range between the quartiles of the bound's times, as a share of their
            median; where a third attempt exceeds it the machine is too noisy for figures.
        waiting: The same for the seconds that the bound's threads wait for a core, for each second.
        noisy: Whether to give figures of a noisy machine all the same.
    """

    threads: int = 2
    dtype: str = "float32"
    backward: bool = False
    python: bool = False
    rounds: int = 15
    seconds: float = 3.0
    spread: float = 0.25
    waiting: float = 0.15
    noisy: bool = False


@dataclass(frozen=True)
class Contest:
    """What is measured.

    Attributes:
        op: Name of the op.
        case: Name of the case.
        dense: Whether it is summed up with the dense ones.
        direction: "forward", "forward+backward" or what else the contenders do.
        contenders: Who takes part; the first is ours.
        tolerance: How far their results may lie from ours.
        bound: The least work behind it.
        compared: How results are compared; see `custom_ops._bench.checking`.
    """

    op: str
    case: str
    dense: bool
    direction: str
    contenders: Sequence[Contender]
    tolerance: Tolerance
    bound: Bound | None = None
    compared: str = ELEMENTS


def measure_all(
    cases: Sequence[tuple[Op, Benchmark]],
    settings: Sequence[Settings],
    report: Callable[[str, int, int], None],
) -> Iterator[Record | Refused]:
    """Measures each case in each of the settings; one case at a time is in memory.

    Raises:
        Differs: A contender computes something else than we do.
    """
    done, count = 0, len(cases) * len(settings)
    for setting in settings:
        for op, case in cases:
            report(f"{op.name} {case.name}", done, count)
            yield compete(contest(op, case, setting), setting)
            done += 1


def contest(op: Op, case: Benchmark, settings: Settings) -> Contest:
    """Draws a case and gathers those who compute it."""
    dtype = getattr(torch, settings.dtype)
    call = case.make(torch.Generator().manual_seed(0))
    call = call.map(lambda t: t.to(dtype) if t.is_floating_point() else t)
    if settings.backward:
        contenders = backward(op, call)
    else:
        contenders = forward(op, call, settings.threads, settings.python or case.quick)
    return Contest(
        op.name,
        case.name,
        case.dense,
        BACKWARD if settings.backward else FORWARD,
        contenders,
        op.tolerances[settings.dtype],
        op.bound(*call.args, **call.kwargs) if op.bound is not None else None,
        NEARLY_ALL if settings.backward else ELEMENTS,
    )


def compete(
    contest: Contest, settings: Settings, clock: Clock = time.perf_counter
) -> Record | Refused:
    """Checks and times the contenders.

    Raises:
        Differs: A contender computes something else than we do.
    """
    with torch_threads(settings.threads):
        runs, differences, absent = _prepare(contest, settings.dtype)
        timings = _timed(contest.bound, runs, settings, clock)
        # Products in float64 have another peak; those of half types are done in float32.
        speed = peak(settings.threads) if settings.dtype != "float64" else None
    if isinstance(timings, str):
        sentence = f"{contest.op} {contest.case}: {timings}"
        return Refused(
            contest.op,
            contest.case,
            contest.direction,
            settings.dtype,
            settings.threads,
            sentence,
        )
    bound = contest.bound
    return Record(
        op=contest.op,
        case=contest.case,
        dense=contest.dense,
        direction=contest.direction,
        dtype=settings.dtype,
        threads=settings.threads,
        # The gradients of the inputs and of the weights are products of the forward's size.
        flops=bound.flops * (3 if contest.direction == BACKWARD else 1) if bound else 0,
        bytes=bound.bytes if bound else 0,
        bound_name=bound.name if bound else None,
        bound=timings[_BOUND] if bound else None,
        peak=speed,
        entries=tuple(
            Entry(each.name, each.runtime, each.kind, timings[each.name], differences[each.name])
            for each in contest.contenders
            if each.name in runs
        ),
        absent=absent,
    )


def _prepare(
    contest: Contest, dtype: str
) -> tuple[dict[str, Run], dict[str, float], dict[str, str]]:
    """Returns those that compute it, how far each is from ours, and why others do not."""
    runs: dict[str, Run] = {}
    differences: dict[str, float] = {}
    absent: dict[str, str] = {}
    ours: list[Any] | None = None
    for contender in contest.contenders:
        try:
            run = contender.prepare()
            result = arrays(run())
        except Exception as error:
            if contender.kind == "kernel":
                raise
            absent[contender.name] = first_line(error)
            continue
        ours = ours if ours is not None else result
        title = f"{contest.op} {contest.case}: {contender.name}"
        try:
            differences[contender.name] = difference(
                title, result, ours, contest.tolerance, contest.compared
            )
        except Differs as error:
            # In half types others round on the way, so theirs is another computation.
            if contender.kind != "peer" or dtype in ("float32", "float64"):
                raise
            absent[contender.name] = str(error)
            continue
        runs[contender.name] = run
    return runs, differences, absent


def _timed(
    bound: Bound | None, runs: dict[str, Run], settings: Settings, clock: Clock
) -> dict[str, Timing] | str:
    """Returns the times, or why there are none."""
    # Without a bound our own times tell how steady the machine is.
    yardstick = next(iter(runs)) if bound is None else _BOUND
    everybody = dict(runs) if bound is None else {_BOUND: bound.run, **runs}
    name = bound.name if bound else yardstick
    reason = ""
    for _ in range(_ATTEMPTS):
        everybody[yardstick]()
        waiting = 0.0 if settings.noisy else disturbance(everybody[yardstick])
        timings = interleave(everybody, settings.rounds, settings.seconds, clock)
        if settings.noisy:
            return timings
        waiting = max(waiting, disturbance(everybody[yardstick]))
        spread = timings[yardstick].spread
        if spread > settings.spread:
            reason = f"the times of {name} must spread by at most {settings.spread:.0%}, got "
            reason += f"{spread:.0%}"
        elif waiting > settings.waiting:
            reason = f"{name} must wait for a core at most {settings.waiting:.0%} of its time, got "
            reason += f"{waiting:.0%}"
        else:
            return timings
    return f"{reason} in the last of {_ATTEMPTS} attempts; stop what else runs on the machine"
