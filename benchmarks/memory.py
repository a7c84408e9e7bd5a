"""Measures the memory that each contender takes for a case, beyond inputs and outputs.

    python benchmarks/memory.py [--case 3x3-64@128] [--threads 2] [--backward] [--json memory.json]

Each contender runs once in a process of its own, after a call of a few elements has loaded what it
loads; what a session makes of the weights when it opens is not counted.
"""

import ctypes
import gc
import json as jsons
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from script import show, start

from custom_ops._bench import selection
from custom_ops._bench.checking import arrays
from custom_ops._bench.contenders import Contender, forward
from custom_ops._bench.contenders import backward as differentiated
from custom_ops._bench.results import BACKWARD, FORWARD
from custom_ops._cli.bench import Backward, Cases, select
from custom_ops._cli.output import progress
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._samples import Sample

_CASES = ["3x3-64@128", "7x7-64@128"]
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """What a contender took for a case; None where it could not run, and why."""

    op: str
    case: str
    direction: str
    threads: int
    contender: str
    mebibytes: float | None = None
    reason: str = ""


def kilobytes(field: str) -> int:
    """Returns a field of /proc/self/status, for example VmHWM, the most memory so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def everybody(op: Op, call: Sample, threads: int, direction: str) -> list[Contender]:
    """Returns who computes a call, here in this process."""
    if direction == BACKWARD:
        return differentiated(op, call)
    return forward(op, call, threads, python=True, apart=False)


def measure(op: Op, call: Sample, tiny: Sample, row: Row) -> float:
    """Returns the MiB that a contender takes in this process, which has done nothing before."""
    torch.set_num_threads(row.threads)

    def prepared(call: Sample) -> Any:
        floats = call.map(lambda t: t.float())
        candidates = everybody(op, floats, row.threads, row.direction)
        return next(each for each in candidates if each.name == row.contender).prepare()

    prepared(tiny)()
    run = prepared(call)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else the run may find room that the set-up has left
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM becomes VmRSS
        before, result = kilobytes("VmRSS"), run()
        peak = kilobytes("VmHWM")
    except PermissionError:  # then the most memory since the start, at least what was before
        before, result = kilobytes("VmRSS"), run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outputs = sum(array.size for array in arrays(result)) * torch.float32.itemsize
    return max(0.0, (peak - before) * 1024 - outputs) / _MIB


def in_child(row: Row) -> Row:
    """Returns the row with what its contender takes in a process of its own, or why nothing."""
    command = [sys.executable, __file__, "--child", row.contender, "--op", row.op]
    command += ["--case", row.case, "--threads", str(row.threads)]
    command += ["--backward"] * (row.direction == BACKWARD)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return replace(row, mebibytes=float(done.stdout.splitlines()[-1]))
    ended = f"ended with {done.returncode}"
    return replace(row, reason=(done.stderr.strip().splitlines() or [ended])[-1])


def shown(rows: Sequence[Row]) -> Table:
    """Returns the rows as a table, a line for each case and a column for each contender."""
    first = rows[0]
    title = f"{first.op}, {first.direction}, float32, {first.threads} threads: MiB beyond inputs "
    title += "and outputs"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    names = list(dict.fromkeys(row.contender for row in rows))
    for name in names:
        table.add_column(name, justify="right")
    for case in dict.fromkeys(row.case for row in rows):
        found = {row.contender: row for row in rows if row.case == case}
        values = (found[name].mebibytes for name in names)
        table.add_row(case, *("-" if value is None else f"{value:.1f}" for value in values))
    return table


def main(
    case: Cases = None,
    op: Annotated[str, typer.Option(help="The op.")] = "deform_conv2d",
    threads: Annotated[int, typer.Option(min=1, help="Of torch and of each session.")] = 2,
    backward: Backward = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it.")] = None,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measures the memory of each contender."""
    cases = select([op], case or _CASES, quick=False)
    direction = BACKWARD if backward else FORWARD
    if child:
        (chosen,) = cases
        tiny = next(chosen[0].samples(torch.Generator().manual_seed(0)))
        call = chosen[1].make(torch.Generator().manual_seed(0))
        print(measure(chosen[0], call, tiny, Row(op, chosen[1].name, direction, threads, child)))
        return
    rows = []
    tiny = next(ops()[op].samples(torch.Generator().manual_seed(0)))
    names = [each.name for each in everybody(ops()[op], tiny, threads, direction)]
    with progress("Measuring") as tell:
        for index, (_, one) in enumerate(cases):
            for name in names:
                tell(f"{one.name}, {name}", index, len(cases))
                rows.append(in_child(Row(op, one.name, direction, threads, name)))
    show(shown(rows))
    if json is not None:
        content = {
            "schema": 1,
            "facts": selection.facts([]),
            "memory": [asdict(row) for row in rows],
        }
        json.write_text(jsons.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    start(main)
