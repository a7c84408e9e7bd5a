"""Runs every tool on a model of each family of torchvision, and on models that are odd or large.

    python tools/robustness.py [--models FOLDER] [--only odd|large|torchvision ...]
        [--exporter NAME ...] [--made-only] [--records FILE [--recorded]]
        [--output docs/robustness.md]

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

import numpy as np
import onnx
from fuzz import TOOLS, fault_of
from models_to_break import DATA, seeds
from onnx import TensorProto, helper, numpy_helper
from torchvision_models import EXPORTERS, exported

SECONDS = 600.0
SIZES = (12_500, 50_000)  # nodes of a chain
_STEEPEST = 2.5  # times as long for a node of the longer chain
_EXTERNAL = 3  # GB
_MOST_MEMORY = 1_074.0 + 200.0  # MB: one of the three weights may be mapped, which counts too


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
    pipe.send(Outcome(seconds, grown, str(error) if error is not None else "", fault))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def chain(count: int, unicode: bool = False) -> onnx.ModelProto:
    """Returns a model of nodes that each use what the one before made, and a weight."""
    value = helper.make_tensor_value_info
    mark = "Größe/层/" if unicode else ""
    nodes, weights = [], []
    for i in range(count):
        scope = f"/layers/layers.{i // 50}/add_{i % 50}"
        inputs, outputs = [f"{mark}v{i}", f"{mark}w{i}"], [f"{mark}v{i + 1}"]
        nodes.append(helper.make_node("Add", inputs, outputs, f"{mark}{scope}/Add"))
        weights.append(numpy_helper.from_array(np.ones(1, np.float32), f"{mark}w{i}"))
    first, last = ([value(f"{mark}v{i}", TensorProto.FLOAT, [1])] for i in (0, count))
    graph = helper.make_graph(nodes, "chain", first, last, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def large(folder: Path) -> None:
    """Writes a model of three products with weights of 1 GB each, in a file that takes no room."""
    size = 1 << 14
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1, {size}] x) => (float[1, {size}] y)
        {{ a = MatMul (x, w0) b = MatMul (a, w1) y = MatMul (b, w2) }}"""
    )
    for i in range(_EXTERNAL):
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[size, size])
        weight.data_location = TensorProto.EXTERNAL
        length = 4 * size * size
        for key, text in {"location": "w.data", "offset": i * length, "length": length}.items():
            weight.external_data.add(key=key, value=str(text))
        model.graph.initializer.append(weight)
    with open(folder / "w.data", "wb") as file:
        file.truncate(_EXTERNAL * 4 * size * size)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def quantised(folder: Path, float_model: onnx.ModelProto) -> None:
    """Writes what ONNX Runtime's dynamic quantisation makes of a model."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as other:
        path = Path(other) / "float.onnx"
        onnx.save(float_model, path)
        quantize_dynamic(path, folder / "model.onnx")


_ODD = (
    "If, Loop, functions in functions",
    "DeformConv",
    "QuantizeLinear, DequantizeLinear",
    "MMCV's node",
    "Scan, a sequence",
    "an empty graph",
    "sparse initializer, data in a file",
    "names and metadata of the exporters",
    "functions nested 4 deep, each calling twice",
)


def odd(folder: Path) -> list[tuple[str, Path]]:
    """Writes models of unusual parts; returns what each has."""
    made = []
    for i, (name, model) in enumerate(zip(_ODD, seeds(), strict=True)):
        place = folder / f"odd{i}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_bytes(model.SerializeToString())
        (place / DATA).write_bytes(bytes(64))
        made.append((name, place / "model.onnx"))
    (folder / "unicode").mkdir(exist_ok=True)
    onnx.save(chain(100, unicode=True), folder / "unicode" / "model.onnx")
    made.append(("unicode names", folder / "unicode" / "model.onnx"))
    (folder / "quantised").mkdir(exist_ok=True)
    product = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]> g (float[N, 3] x) => (float[N, 3] y)
        <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> { a = MatMul (x, w) y = Relu (a) }"""
    )
    quantised(folder / "quantised", product)
    made.append(("quantised by ONNX Runtime", folder / "quantised" / "model.onnx"))
    return made


def _read(records: Path | None) -> dict[str, dict[str, Outcome]]:
    if records is None or not records.exists():
        return {}
    entries = [json.loads(line) for line in records.read_text().splitlines()]
    return {
        entry["name"]: {tool: Outcome(**fields) for tool, fields in entry["outcomes"].items()}
        for entry in entries
    }


def _table(rows: Sequence[Row], memory: bool, notes: list[str]) -> str:
    heading = ["model", *TOOLS] + ["memory, MB"] * memory
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for name, outcomes in rows:
        cells = [_cell(outcomes.get(tool), notes) for tool in TOOLS]
        grown = max(outcome.megabytes for outcome in outcomes.values())
        lines.append(f"| {' | '.join([name, *cells, *[f'{grown:.0f}'] * memory])} |")
    return "\n".join(lines)


def _cell(outcome: Outcome | None, notes: list[str]) -> str:
    if outcome is None:  # of a record older than the tool
        return ""
    if outcome.fault:
        return "**FAULT**"
    if not outcome.refused:
        return f"{outcome.seconds:.2f}"
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
    parser.add_argument("--made-only", action="store_true", help="no export: only what is there")
    parser.add_argument("--output", type=Path, help="the page; else it is printed")
    arguments = parser.parse_args()
    folder = arguments.models or Path(tempfile.mkdtemp(prefix="robustness_"))
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments.only or ("odd", "large", "torchvision")
    parts: list[tuple[str, str]] = []
    faults: list[str] = []

    records = _read(arguments.records)

    def run(name: str, model: Path) -> Row:
        if arguments.recorded and name not in records:
            return name, {}
        outcomes = records.get(name) or {tool: measured(tool, model) for tool in TOOLS}
        if arguments.records is not None and name not in records:
            with arguments.records.open("a") as file:
                entry = {tool: asdict(outcome) for tool, outcome in outcomes.items()}
                file.write(json.dumps({"name": name, "outcomes": entry}) + "\n")
        faults.extend(f"{name}: {t}: {o.fault}" for t, o in outcomes.items() if o.fault)
        print(f"{time.strftime('%X')} {name}", file=sys.stderr, flush=True)
        return name, outcomes

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
            for count in SIZES:
                place = folder / f"chain{count}"
                place.mkdir(exist_ok=True)
                onnx.save(chain(count), place / "model.onnx")
                rows.append(run(f"{count:,} nodes", place / "model.onnx"))
            for tool in TOOLS if all(outcomes for _, outcomes in rows) else ():
                short, long = (row[1][tool].seconds for row in rows)
                if long / short > _STEEPEST * SIZES[1] / SIZES[0]:
                    faults.append(f"{tool}: not linear: {short:.1f} s and {long:.1f} s")
            (folder / "large").mkdir(exist_ok=True)
            if not arguments.recorded:
                large(folder / "large")
            row = run(f"{_EXTERNAL} GB in a file", folder / "large" / "model.onnx")
            faults += [
                f"{row[0]}: {tool}: {outcome.megabytes:.0f} MB"
                for tool, outcome in row[1].items()
                if outcome.megabytes > _MOST_MEMORY
            ]
            text = "Seconds of processor time, and the most by which the memory of a tool grew."
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
