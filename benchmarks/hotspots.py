"""Shows where the time of a call goes: the share of each function, by `perf` of Linux.

    python benchmarks/hotspots.py [--case 1x1-256@16] [--threads 1] [--backward] [--seconds 3]

Needs `perf` (`apt install linux-perf`); a table for people, and with ``--markdown`` for docs.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from report import markdown
from rich.table import Table
from script import show, start

from custom_ops._bench.contenders import OURS, backward, forward
from custom_ops._bench.results import BACKWARD, FORWARD
from custom_ops._cli.bench import Backward, Cases, select
from custom_ops._cli.output import Failure

_CASES = ["3x3-256@64", "1x1-256@64", "1x1-256@16", "3x3-512@7"]
_LEAST = 0.02  # share of a function that gets a row of its own


def loop(case: str, threads: int, back: bool) -> None:
    """Runs a call until the process is ended; a line on stdout says that it has begun."""
    torch.set_num_threads(threads)
    ((op, chosen),) = select(["deform_conv2d"], [case], quick=False)
    call = chosen.make(torch.Generator().manual_seed(0))
    call = call.map(lambda t: t.float() if t.is_floating_point() else t)
    everybody = backward(op, call) if back else forward(op, call, threads)
    run = next(each for each in everybody if each.name == OURS).prepare()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        run()
    print("ready", flush=True)
    while True:
        run()


def shares(case: str, threads: int, back: bool, seconds: float) -> dict[str, float]:
    """Returns the share of each function in the processor's time of a call, the largest first."""
    command = [sys.executable, __file__, "--child", "--case", case, "--threads", str(threads)]
    command += ["--backward"] * back
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,
    ):
        try:
            assert child.stdout is not None
            child.stdout.readline()
            data = str(Path(folder) / "perf.data")
            record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-o", data]
            record += ["-p", str(child.pid), "--", "sleep", str(seconds)]
            made = subprocess.run(record, capture_output=True, text=True, check=False)
            if made.returncode:
                raise Failure(f"hotspots: perf must record, got: {made.stderr.strip()}")
        finally:
            child.kill()
        report = ["perf", "report", "-i", data, "--stdio", "--no-children", "-F", "overhead,sym"]
        lines = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = defaultdict(float)
    for percent, symbol in re.findall(r"^\s+([\d.]+)%\s+\[.\] (.+?)\s*$", lines, re.MULTILINE):
        ours = re.search(r"custom_ops::(?:\w+::)*(?:\(anonymous namespace\)::)?(\w+)", symbol)
        found[ours[1] if ours else "other"] += float(percent) / 100
    for name in [name for name, share in found.items() if share < _LEAST and name != "other"]:
        found["other"] += found.pop(name)
    found["other"] = max(0.0, 1.0 - sum(v for name, v in found.items() if name != "other"))
    return dict(sorted(found.items(), key=lambda item: (item[0] == "other", -item[1])))


def main(
    case: Cases = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    back: Backward = False,
    seconds: Annotated[float, typer.Option(help="How long to look.")] = 3.0,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For docs.")] = False,
    child: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Shows where the time of deform_conv2d goes."""
    if child:
        loop((case or _CASES)[0], threads, back)
    if shutil.which("perf") is None:
        raise Failure("hotspots: perf must be installed, got none; run `apt install linux-perf`")
    found = {each: shares(each, threads, back, seconds) for each in case or _CASES}
    functions = dict.fromkeys(name for each in found.values() for name in each if name != "other")
    direction = BACKWARD if back else FORWARD
    with_threads = f"{threads} thread{'s' * (threads > 1)}"
    title = f"deform_conv2d, {direction}, float32, {with_threads}: shares of the time"
    table = Table(title=title, title_justify="left")
    table.add_column("function")
    for each in found:
        table.add_column(each, justify="right")
    for name in [*functions, "other"]:
        table.add_row(name, *(f"{each.get(name, 0.0):.0%}" for each in found.values()))
    if as_markdown:
        print(markdown(table))
    else:
        show(table)


if __name__ == "__main__":
    start(main)
