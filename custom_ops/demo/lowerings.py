"""Exports a module in every way, runs each file in every way, and compares with torch."""

import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
import torch

import custom_ops
from custom_ops._errors import first_line
from custom_ops.demo.training import Report
from custom_ops.onnx import export, session, verify
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.onnx._lowering import LOWERINGS
from custom_ops.onnx._nodes import our_nodes
from custom_ops.onnx._session import KERNELS

_ROUNDS = 15
_SECONDS = 6.0  # of timing; slow machines get fewer rounds
_FEWEST_ROUNDS = 3
# What a release may lack, since it is the release's own kernel.
_MAY_BE_REFUSED = "native"
EQUAL, DIFFERS, FAILS, REFUSED, NEEDS_LIBRARY = (
    "equal",
    "differs",
    "fails",
    "refused",
    "needs the library",
)


@dataclass(frozen=True)
class Row:
    """One way of running the network.

    Attributes:
        lowering: What became of our ops.
        exporter: Who wrote the file.
        kernels: Who runs the nodes of our ops; None where the file has none.
        verdict: "equal", "differs", "fails", "refused" or "needs the library".
        difference: The largest from torch, over all sizes; None where it did not run.
        milliseconds: The median time; None where it did not run.
        note: Why it was refused, or what differs.
    """

    lowering: str
    exporter: str
    kernels: str | None
    verdict: str
    difference: float | None = None
    milliseconds: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether this is as it should be."""
        return self.verdict in (EQUAL, NEEDS_LIBRARY) or (
            self.verdict == REFUSED and self.lowering == _MAY_BE_REFUSED
        )


@dataclass(frozen=True)
class Comparison:
    """All ways of running the network.

    Attributes:
        rows: One for each.
        files: The models written.
        torch_milliseconds: The median time of torch, measured in turn with the others.
        threads: Of torch, and of each session.
        rounds: How often each was timed.
        sizes: The shape of the first input in the timing, and in the comparisons.
    """

    rows: tuple[Row, ...]
    files: tuple[Path, ...]
    torch_milliseconds: float
    threads: int
    rounds: int
    sizes: tuple[tuple[int, ...], ...]

    def __bool__(self) -> bool:
        return all(row.passed for row in self.rows)


def compare(
    module: torch.nn.Module,
    inputs: Sequence[Sequence[torch.Tensor]],
    dynamic_shapes: Any,
    folder: Path,
    report: Report,
) -> Comparison:
    """Exports a module through each exporter and lowering, and runs each file.

    Args:
        module: In evaluation mode.
        inputs: Its inputs, in several sizes; the first are timed, the second exported with.
        dynamic_shapes: As for `custom_ops.onnx.export`.
        folder: Where the models go.
        report: Told of each step.
    """
    threads = torch.get_num_threads()
    ways = [(exporter, lowering) for exporter in EXPORTERS for lowering in LOWERINGS]
    rows: list[Row] = []
    files: list[Path] = []
    timed: list[tuple[int, Callable[[], Any]]] = []
    with _quiet(), _numpy_threads(threads):
        for i, (exporter, lowering) in enumerate(ways):
            report("Exporting", i, len(ways))
            path = folder / f"{lowering}_{exporter}.onnx"
            try:
                export(
                    module,
                    inputs[1],
                    path,
                    lowering=lowering,
                    exporter=exporter,
                    dynamic_shapes=dynamic_shapes,
                    verify=False,  # below, with every kind of kernels
                )
            except Exception as error:
                path.unlink(missing_ok=True)  # of an earlier run
                verdict = REFUSED if isinstance(error, ValueError) else FAILS
                rows.append(Row(lowering, exporter, None, verdict, note=first_line(error)))
                continue
            files.append(path)
            for kernels in _kinds_of_kernels(path):
                report("Comparing", i, len(ways))
                row = _compared(path, lowering, exporter, kernels, module, inputs)
                if row.difference is not None:
                    runner = session(
                        path, kernels=kernels or "none", sess_options=_options(threads)
                    )
                    timed.append((len(rows), _call(runner, inputs[0])))
                rows.append(row)
        calls = [lambda: module(*inputs[0]), *(call for _, call in timed)]
        times = _timed(calls, report)
    medians = [1000 * statistics.median(each) for each in times]
    for (i, _), median in zip(timed, medians[1:], strict=True):
        rows[i] = Row(**{**vars(rows[i]), "milliseconds": median})
    sizes = tuple(tuple(each[0].shape) for each in inputs)
    return Comparison(tuple(rows), tuple(files), medians[0], threads, len(times[0]), sizes)


def _kinds_of_kernels(path: Path) -> Sequence[str | None]:
    """Returns the kinds that make a difference: none do where no node is ours."""
    return KERNELS if any(True for _ in our_nodes(ir.load(path))) else (None,)


def _compared(
    path: Path,
    lowering: str,
    exporter: str,
    kernels: str | None,
    module: torch.nn.Module,
    inputs: Sequence[Sequence[torch.Tensor]],
) -> Row:
    alone = kernels == "none" and not ir.load(path).functions
    try:
        found = verify(path, module, inputs[0], more_args=inputs[1:], kernels=kernels or "none")
    except Exception as error:
        verdict = NEEDS_LIBRARY if alone else FAILS
        return Row(lowering, exporter, kernels, verdict, note="" if alone else first_line(error))
    differences = [check.difference for check in found.checks if check.difference is not None]
    note = "; ".join(check.note for check in found.checks if check.note)
    if alone:
        return Row(lowering, exporter, kernels, FAILS, note="it must need the library")
    complete = bool(found) and len(differences) == len(inputs)
    verdict = EQUAL if complete else DIFFERS
    return Row(lowering, exporter, kernels, verdict, max(differences), note=note)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning would slow down whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _call(
    runner: onnxruntime.InferenceSession, inputs: Sequence[torch.Tensor]
) -> Callable[[], Any]:
    names = [given.name for given in runner.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return lambda: runner.run(None, feeds)


@torch.no_grad()
def _timed(calls: Sequence[Callable[[], Any]], report: Report) -> list[list[float]]:
    """Times the calls interleaved, so that what else the machine does meets all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    begin, order = time.perf_counter(), random.Random(0)
    for i in range(_ROUNDS):
        report("Timing", i, _ROUNDS)
        # Another order each time: what a call leaves behind, in caches and queues, meets all.
        for j in order.sample(range(len(calls)), len(calls)):
            start = time.perf_counter()
            calls[j]()
            times[j].append(time.perf_counter() - start)
        if i + 1 >= _FEWEST_ROUNDS and time.perf_counter() - begin > _SECONDS:
            break
    return times


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the warnings of exporters and runtimes off the table."""
    onnxruntime.set_default_logger_severity(4)  # fatal: refusals are shown in the table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # warnings, its default


@contextmanager
def _numpy_threads(threads: int) -> Iterator[None]:
    before = custom_ops.numpy.get_num_threads()
    custom_ops.numpy.set_num_threads(threads)
    try:
        yield
    finally:
        custom_ops.numpy.set_num_threads(before)
