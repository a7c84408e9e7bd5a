"""Runs every tool on a model of each family of torchvision, and on models that are odd or large.

    python tools/robustness.py [--models FOLDER] [--only odd|large|torchvision ...]
        [--exporter NAME ...] [--made-only] [--records FILE [--recorded]]
        [--tool NAME ...] [--output docs/robustness.md]

Each tool runs in a process of its own, and has a result or says in one sentence why not. The tables
give the seconds of processor time, child processes included, and the growth of memory. Ends with
exit code 1 where a tool ends in another way, where its time is not linear in the nodes, or its
memory not bounded.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import onnx
from fuzz import TOOLS, fault_of
from models_to_measure import WEIGHT, WEIGHTS, chain, large, odd
from torchvision_models import EXPORTERS, exported

SECONDS = 600.0
SIZES = (12_500, 50_000)  # nodes of a chain
_STEEPEST = 2.5  # times as long for a node of the longer chain
_MOST_MEMORY = WEIGHT / 1e6 + 200.0  # MB: one of the weights may be mapped, which counts too


@dataclass(frozen=True)
class Outcome:
    """What became of a tool on a model.

    Attributes:
        seconds: Processor time.
        megabytes: How far the memory of its process grew, or that of a child beyond it.
        refused: What it said, if it refused the model.
        fault: What it did that it must not do.
    """

    seconds: float
    megabytes: float
    refused: str = ""
    fault: str = ""


Row = tuple[str, dict[str, Outcome]]


def measured(tool: str, model: Path) -> Outcome:
    """Runs a tool on a model, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="robustness_", dir=model.parent.parent) as folder:
        process = context.Process(target=_measure, args=(sender, tool, model, Path(folder)))
        process.start()
        sender.close()
        try:
            if receiver.poll(SECONDS):
                outcome: Outcome = receiver.recv()
                return outcome
            return Outcome(SECONDS, 0.0, fault=f"no end within {SECONDS:g} s")
        except EOFError:
            process.join()
            return Outcome(0.0, 0.0, fault=f"ended the process with {process.exitcode}")
        finally:
            process.kill()
            process.join()


def _measure(pipe: Connection, tool: str, model: Path, folder: Path) -> None:
    before = _resident()
    error: Exception | None = None
    try:
        TOOLS[tool](model, folder / "result")
    except Exception as raised:
        error = raised
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in used)
    # A child begins with the size of its parent, as far as this number goes.
    grown = max(*(each.ru_maxrss / 1000 - before for each in used), 0.0)
    fault = fault_of(error, is_none=False)
    if error is not None and not fault and list(folder.iterdir()):
        fault = "refused the model, but wrote a file"
    said = str(error).replace(str(model), model.name) if error is not None else ""
    pipe.send(Outcome(seconds, grown, said, fault))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Records:
    """What is measured, kept in a file line by line: a run that is stopped goes on where it was.

    Args:
        file: The file; None for a run that keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._rows: dict[str, dict[str, Outcome]] = {}
        if file is not None and file.exists():
            for name, tool, fields in map(json.loads, file.read_text("utf-8").splitlines()):
                self._rows.setdefault(name, {})[tool] = Outcome(**fields)

    def row(self, name: str, model: Path, tools: Iterable[str]) -> Row:
        """Returns what is known of a model, after the tools named are measured on it."""
        known = self._rows.setdefault(name, {})
        for tool in tools:
            if tool in known:
                continue
            known[tool] = measured(tool, model)
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([name, tool, asdict(known[tool])]) + "\n")
        return name, known


def _table(rows: Sequence[Row], memory: bool, notes: list[str]) -> str:
    lines = [f"| {' | '.join(['model', *TOOLS])} |", "|---" * (1 + len(TOOLS)) + "|"]
    for name, outcomes in rows:
        cells = [_cell(outcomes.get(tool), memory, notes) for tool in TOOLS]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _cell(outcome: Outcome | None, memory: bool, notes: list[str]) -> str:
    if outcome is None:
        return ""
    if outcome.fault:
        return "**FAULT**"
    if not outcome.refused:
        grown = f" s, {outcome.megabytes:.0f} MB" if memory else ""
        return f"{outcome.seconds:.2f}{grown}"
    said = " ".join(outcome.refused.replace("|", "\\|").split())
    if len(said) > 240:
        said = f"{said[:237]}..."
    if said not in notes:
        notes.append(said)
    return f"refused ({notes.index(said) + 1})"


def main() -> int:
    """Measures, and writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of the models, kept; else a new one")
    parser.add_argument("--only", action="append", choices=("odd", "large", "torchvision"))
    parser.add_argument("--exporter", action="append", choices=EXPORTERS, help="of torchvision's")
    parser.add_argument("--records", type=Path, help="what is measured; not measured again")
    parser.add_argument("--recorded", action="store_true", help="measure nothing more")
    parser.add_argument("--tool", action="append", choices=TOOLS, help="measure these alone")
    parser.add_argument("--made-only", action="store_true", help="no export: only what is there")
    parser.add_argument("--output", type=Path, help="the page; else it is printed")
    arguments = parser.parse_args()
    folder = arguments.models or Path(tempfile.mkdtemp(prefix="robustness_"))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments.only or ("odd", "large", "torchvision")
    parts: list[tuple[str, str]] = []
    faults: list[str] = []
    records = Records(arguments.records)
    tools = () if arguments.recorded else arguments.tool or tuple(TOOLS)

    def run(name: str, model: Path) -> Row:
        row = records.row(name, model, tools)
        faults.extend(f"{name}: {t}: {o.fault}" for t, o in row[1].items() if o.fault)
        print(f"{time.strftime('%X')} {name}", file=sys.stderr, flush=True)
        return row

    def add(title: str, text: str, rows: Sequence[Row], memory: bool) -> None:
        notes: list[str] = []
        table = _table([row for row in rows if row[1]], memory, notes)
        missing = [name for name, outcomes in rows if not outcomes]
        if missing:
            text += f"\n\nNot measured: {', '.join(missing)}."
        said = "".join(f"\n{i}. {note}" for i, note in enumerate(notes, 1))
        parts.append((title, f"{text}\n\n{table}\n{said}"))

    try:
        if "odd" in wanted:
            rows = [run(name, path) for name, path in odd(folder / "odd")]
            add("Odd models", "Seconds of processor time.", rows, memory=False)
        if "large" in wanted:
            rows = []
            for op in ("Add", "MulAdd"):
                pair = [run(f"{n:,} nodes of {op}", _chain(folder, n, op)) for n in SIZES]
                faults += _not_linear(op, *(outcomes for _, outcomes in pair))
                rows += pair
            (folder / "large").mkdir(exist_ok=True)
            large(folder / "large")
            row = run(f"{WEIGHTS * WEIGHT / 1e9:.1f} GB in a file", folder / "large" / "model.onnx")
            faults += [
                f"{row[0]}: {tool}: {outcome.megabytes:.0f} MB"
                for tool, outcome in row[1].items()
                if outcome.megabytes > _MOST_MEMORY
            ]
            text = (
                "Seconds of processor time, and by how much the memory of the tool grew. "
                f"Of the {WEIGHTS} weights in a file each has {WEIGHT / 1e6:,.0f} MB; one that is "
                "mapped counts as memory. `replace` decomposes the nodes of MulAdd."
            )
            add("Large models", text, [*rows, row], memory=True)
        if "torchvision" in wanted:
            exporters = tuple(arguments.exporter or EXPORTERS)
            made = exported(folder / "torchvision", exporters, make=not arguments.made_only)
            add(*_torchvision(made, run), memory=False)
    finally:
        if arguments.models is None:
            shutil.rmtree(folder)
    page = _page(parts)
    if arguments.output is not None:
        arguments.output.write_text(page, "utf-8")
    else:
        print(page)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def _chain(folder: Path, count: int, op: str) -> Path:
    place = folder / f"chain_{op}_{count}"
    place.mkdir(exist_ok=True)
    # In a process of its own: what is free in this one would hide the growth of a tool.
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_save_chain, args=(count, op, place / "model.onnx"))
    child.start()
    child.join()
    return place / "model.onnx"


def _save_chain(count: int, op: str, path: Path) -> None:
    onnx.save(chain(count, op), path)


def _not_linear(op: str, short: dict[str, Outcome], long: dict[str, Outcome]) -> list[str]:
    """Returns the tools that take longer for a node of the longer chain."""
    times = {tool: (short[tool].seconds, long[tool].seconds) for tool in short if tool in long}
    return [
        f"{tool}: not linear in {op}: {few:.1f} s and {many:.1f} s"
        for tool, (few, many) in times.items()
        if many > _STEEPEST * few * SIZES[1] / SIZES[0]
    ]


def _torchvision(
    models: Iterable[tuple[str, str, Path]], run: Callable[[str, Path], Row]
) -> tuple[str, str, list[Row]]:
    rows, left_out = [], []
    for family, exporter, path in models:
        refused = path.with_name("refused")
        if path.exists():
            rows.append(run(f"{family} by {exporter}", path))
        elif refused.exists():
            left_out.append(f"- {family} by {exporter}: {refused.read_text().split('. ')[0]}")
        else:
            rows.append((f"{family} by {exporter}", {}))
    text = "Random weights, small inputs, opset 18. Seconds of processor time."
    if left_out:
        text += "\n\nWhat plain `torch.onnx.export` did not write:\n\n" + "\n".join(left_out)
    return "A model of each family of torchvision", text, rows


def _page(parts: Sequence[tuple[str, str]]) -> str:
    command = "python tools/robustness.py --output docs/robustness.md"
    head = f"""# Robustness

Every tool on models of all kinds, written by `{command}`.
Each tool runs in a process of its own; it gives a result, or refuses the model in one sentence,
given below the table, and then leaves no file. `set_ir_version` asks for version 9, `fix` for
`onnxruntime==1.20` at opset 18, `embed` is `fix(embed=True)`, `extract` cuts out what the last node
needs, `replace` asks for the form "decomposed". Nothing is run in a session here. An empty
cell is not measured.

What no tool may do with a broken model is checked by `python tools/fuzz.py`: no error but one
sentence, no crash, no hang, nothing written, no file changed or opened outside the model's folder.
"""
    return head + "".join(f"\n## {title}\n\n{text.rstrip()}\n" for title, text in parts)


if __name__ == "__main__":
    sys.exit(main())
