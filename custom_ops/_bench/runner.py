"""Measures cases: everybody who computes a case, checked and timed in one run."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from custom_ops._bench.checking import Differs, arrays, difference
from custom_ops._bench.contenders import OURS, Contender, backward, forward
from custom_ops._bench.peak import peak
from custom_ops._bench.results import BACKWARD, FORWARD, Entry, Record, Refused
from custom_ops._bench.timing import Clock, Run, Timing, interleave
from custom_ops.onnx._verify import first_line
from custom_ops.ops._registry import Op
from custom_ops.ops._samples import Benchmark

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
    """

    threads: int = 2
    dtype: str = "float32"
    backward: bool = False
    python: bool = False
    rounds: int = 15
    seconds: float = 3.0
    spread: float = 0.25


def measure(
    op: Op, case: Benchmark, settings: Settings, clock: Clock = time.perf_counter
) -> Record | Refused:
    """Measures a case.

    Raises:
        Differs: A contender computes something else than we do.
    """
    with _threads(settings.threads):
        return _measure(op, case, settings, clock)


def _measure(op: Op, case: Benchmark, settings: Settings, clock: Clock) -> Record | Refused:
    direction = BACKWARD if settings.backward else FORWARD
    dtype = getattr(torch, settings.dtype)
    call = case.make(torch.Generator().manual_seed(0))
    call = call.map(lambda t: t.to(dtype) if t.is_floating_point() else t)
    if settings.backward:
        contenders = backward(op, call)
    else:
        python = settings.python or case.quick
        contenders = forward(op, call, settings.threads, python)
    runs, differences, absent = _prepare(op, case, contenders, settings)
    bound = op.bound(*call.args, **call.kwargs) if op.bound is not None else None
    # Without a bound our own times tell how steady the machine is.
    yardstick = OURS if bound is None else _BOUND
    everybody = dict(runs) if bound is None else {_BOUND: bound.run, **runs}
    everybody[yardstick]()
    speed = peak(settings.threads)
    timings: dict[str, Timing] = {}
    for _ in range(_ATTEMPTS):
        timings = interleave(everybody, settings.rounds, settings.seconds, clock)
        if timings[yardstick].spread <= settings.spread:
            break
    else:
        return Refused(
            op.name,
            case.name,
            direction,
            settings.dtype,
            settings.threads,
            f"{op.name} {case.name}: the times of {bound.name if bound else yardstick} must "
            f"spread by at most {settings.spread:.0%}, got {timings[yardstick].spread:.0%} in the "
            f"last of {_ATTEMPTS} attempts; stop what else runs on the machine",
        )
    by_name = {contender.name: contender for contender in contenders}
    return Record(
        op=op.name,
        case=case.name,
        dense=case.dense,
        direction=direction,
        dtype=settings.dtype,
        threads=settings.threads,
        # The gradients of the inputs and of the weights are products of the forward's size.
        flops=bound.flops * (3 if settings.backward else 1) if bound else 0,
        bytes=bound.bytes if bound else 0,
        bound_name=bound.name if bound else None,
        bound=timings[_BOUND] if bound else None,
        peak=speed,
        entries=tuple(
            Entry(name, by_name[name].runtime, by_name[name].kind, timings[name], differences[name])
            for name in runs
        ),
        absent=absent,
    )


def _prepare(
    op: Op, case: Benchmark, contenders: Sequence[Contender], settings: Settings
) -> tuple[dict[str, Run], dict[str, float], dict[str, str]]:
    """Returns those that compute the case, how far each is from ours, and why others do not."""
    runs: dict[str, Run] = {}
    differences: dict[str, float] = {}
    absent: dict[str, str] = {}
    ours: list[Any] = []
    tolerance = op.tolerances[settings.dtype]
    for contender in contenders:
        try:
            run = contender.prepare()
            result = arrays(run())
        except Exception as error:
            if contender.kind == "kernel":
                raise
            absent[contender.name] = first_line(error)
            continue
        ours = ours or result
        title = f"{op.name} {case.name}: {contender.name}"
        try:
            apart = difference(title, result, ours, tolerance, settings.backward)
        except Differs as error:
            # In half types others round on the way, so their results are another computation's.
            if contender.kind != "peer" or settings.dtype in ("float32", "float64"):
                raise
            absent[contender.name] = str(error)
            continue
        runs[contender.name], differences[contender.name] = run, apart
    return runs, differences, absent


@contextlib.contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_all(
    cases: Sequence[tuple[Op, Benchmark]],
    settings: Sequence[Settings],
    report: Callable[[str, int, int], None],
) -> Iterator[Record | Refused]:
    """Measures each case in each of the settings; one case at a time is in memory."""
    done, count = 0, len(cases) * len(settings)
    for setting in settings:
        for op, case in cases:
            report(f"{op.name} {case.name}", done, count)
            yield measure(op, case, setting)
            done += 1
