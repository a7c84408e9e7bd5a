"""Exports every op of torch's list and of torchvision's, with the pack of mappings and without.

    python tools/coverage.py run [--exporter E] [--pack with|without] [--op PATTERN] [--again]
    python tools/coverage.py write

`run` asks child processes, which are started anew when an entry kills them, and keeps each answer
in a file of the results folder as it comes: a run that was stopped goes on where it was, and
`--again` with a pattern runs some entries anew. `write` makes docs/coverage.md, and the data that
`custom-ops doctor --torch` reads, out of the answers. All of it takes some 12 minutes on two idle
cores, nearly all in the dynamo exporter.
"""

import argparse
import json
import lzma
import os
import re
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import torch
import torchvision
from coverage_child import ATOL, OPSET, RTOL

ROOT = Path(__file__).parents[1]
CHILD = Path(__file__).parent / "coverage_child.py"
RESULTS = Path.home() / ".cache" / "custom_ops" / "coverage"
PAGE = ROOT / "docs" / "coverage.md"
DATA = ROOT / "custom_ops" / "onnx" / "_mappings" / "coverage.json.xz"
EXPORTERS = {"dynamo": "the dynamo exporter", "torchscript": "the TorchScript exporter"}
STATUSES = ("right", "wrong", "refused", "fails", "crash")
_LIMIT_S = 120

Answer = dict[str, str]


class Child:
    """A process that examines entries, started anew where one kills it."""

    def __init__(self, exporter: str, with_pack: bool) -> None:
        """Starts the process; `names` are those of the entries, in order."""
        self._command = [sys.executable, str(CHILD), exporter, str(int(with_pack))]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # some samples come out of sets
        )
        line = self._line()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} does not start")
        self.names: list[str] = json.loads(line)

    def _line(self) -> str:
        """Returns the next line; an empty one where the process ended or took too long."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if selector.select(_LIMIT_S) else ""

    def _ask(self, question: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self._line()

    def calls_pack(self, index: int) -> bool:
        """Returns whether an entry calls an op of the pack; True where the process died of it."""
        line = self._ask(f"{index} ?")
        if not line:
            self.close()
            self._start()
        return not line or bool(json.loads(line)["calls"])

    def examine(self, index: int) -> Answer:
        """Returns the answer about one entry."""
        line = self._ask(str(index))
        if line:
            answer: Answer = json.loads(line)
            return answer
        slow = False
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            slow = True
        self.close()
        why = f"took over {_LIMIT_S} s" if slow else f"signal {-self._process.returncode}"
        self._start()
        return {"name": self.names[index], "aten": "", "args": "", "status": "crash", "why": why}

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def file_of(folder: Path, exporter: str, with_pack: bool) -> Path:
    """Returns the file with the answers of an exporter."""
    return folder / f"{exporter}-{'with' if with_pack else 'without'}.jsonl"


def answers_of(folder: Path, exporter: str, with_pack: bool) -> dict[str, Answer]:
    """Returns the answers by entry; the last one counts."""
    path = file_of(folder, exporter, with_pack)
    lines = path.read_text().splitlines() if path.exists() else []
    return {answer["name"]: answer for answer in map(json.loads, lines)}


def run(options: argparse.Namespace, exporter: str, with_pack: bool) -> None:
    """Examines the entries that have no answer yet."""
    done = {} if options.again else answers_of(options.results, exporter, with_pack)
    children = [Child(exporter, with_pack) for _ in range(options.jobs)]
    todo = [
        index
        for index, name in enumerate(children[0].names)
        if re.search(options.op, name) and name not in done
    ]
    other = answers_of(options.results, exporter, not with_pack)  # what may be gained comes first
    todo.sort(key=lambda i: other.get(children[0].names[i], {}).get("status") == "right")
    total, lock, start = len(todo), threading.Lock(), time.monotonic()
    print(f"{EXPORTERS[exporter]}, {'with' if with_pack else 'without'} the pack: {total} entries")
    options.results.mkdir(parents=True, exist_ok=True)
    with file_of(options.results, exporter, with_pack).open("a") as file:

        def work(child: Child) -> None:
            while True:
                with lock:
                    if not todo:
                        return
                    index = todo.pop(0)
                before = other.get(child.names[index], {})
                right = before.get("status") == "right"
                if with_pack and right and not child.calls_pack(index):
                    answer = before  # the pack has no part in it
                else:
                    answer = child.examine(index)
                with lock:
                    file.write(json.dumps(answer) + "\n")
                    file.flush()
                    if options.op or (total - len(todo)) % 50 == 0:
                        at = f"{total - len(todo)}/{total}, {time.monotonic() - start:.0f} s"
                        print(f"{at}: {answer['name']}: {answer['status']} {answer['why']}")

        threads = [threading.Thread(target=work, args=[child]) for child in children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for child in children:
        child.close()
    counts = Counter(a["status"] for a in answers_of(options.results, exporter, with_pack).values())
    print(", ".join(f"{status} {counts[status]}" for status in (*STATUSES, "skipped")))


def write(folder: Path) -> None:
    """Writes the page and the data."""
    found = {
        exporter: (answers_of(folder, exporter, False), answers_of(folder, exporter, True))
        for exporter in EXPORTERS
    }
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(_page(found)) + "\n")
    rows = [
        [name, answer["aten"], answer["args"]]
        + [
            [side.get(name, {}).get("status", ""), side.get(name, {}).get("why", "")]
            for sides in found.values()
            for side in sides
        ]
        for name, answer in found["torchscript"][0].items()
    ]
    data = {
        "torch": torch.__version__.partition("+")[0],
        "opset": OPSET,
        "columns": ["name", "aten", "args"]
        + [f"{exporter} {side}" for exporter in EXPORTERS for side in ("without", "with")],
        "rows": rows,
    }
    DATA.write_bytes(lzma.compress(json.dumps(data).encode(), preset=9))
    print(f"{PAGE}, {DATA}: {DATA.stat().st_size} bytes")


def _page(found: dict[str, tuple[dict[str, Answer], dict[str, Answer]]]) -> list[str]:
    versions = (
        f"torch {torch.__version__.partition('+')[0]}, torchvision "
        f"{torchvision.__version__.partition('+')[0]}, onnxruntime {onnxruntime.__version__}"
    )
    lines = [
        "# What the exporters map",
        "",
        "Every op of torch's own list for tests (OpInfo) and of torchvision, exported alone in",
        f"float32 at opset {OPSET}, run in ONNX Runtime, and compared with torch (rtol {RTOL:g},",
        f"atol {ATOL:g}; shapes and types too; complex numbers as pairs). Of each entry the first",
        "sample with tensors in and out is taken: right means right for these arguments. Left out:",
        "ops with random results, and those without such a sample. What is right without the pack",
        "and calls none of its ops is not exported a second time.",
        "",
        f"Measured by `python tools/coverage.py run` with {versions}.",
        "",
        "| | right | wrong | refused by onnxruntime | fails to export | kills the process | of |",
        "|---|---|---|---|---|---|---|",
    ]
    for exporter, sides in found.items():
        for side, words in zip(sides, ("alone", "with the pack"), strict=True):
            counts = Counter(answer["status"] for answer in side.values())
            of = sum(counts[status] for status in STATUSES)
            numbers = " | ".join(str(counts[status]) for status in STATUSES)
            lines.append(f"| {exporter} {words} | {numbers} | {of} |")
    for exporter, (without, with_pack) in found.items():
        title = f"## {EXPORTERS[exporter][4:].capitalize()}".replace("Torchscript", "TorchScript")
        lines += ["", title, "", "| op | arguments | alone | with the pack | why not |"]
        lines += ["|---|---|---|---|---|"]
        lines += [
            _row(name, answer, with_pack.get(name, {}))
            for name, answer in sorted(without.items())
            if answer["status"] != "skipped"
        ]
    return lines


def _row(name: str, before: Answer, after: Answer) -> str:
    now = after or before
    why = "" if now["status"] == "right" else now["why"]
    args = before["args"] or now["args"]
    cells = [f"`{name}`", f"`{args}`" * bool(args), before["status"], after.get("status", ""), why]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "write"])
    parser.add_argument("--exporter", choices=list(EXPORTERS), help="one exporter only")
    parser.add_argument("--pack", choices=["with", "without"], help="one side only")
    parser.add_argument("--op", default="", help="a regular expression: only these entries")
    parser.add_argument("--again", action="store_true", help="also those that have an answer")
    parser.add_argument("--jobs", type=int, default=2, help="processes; 2 unless told")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the answers")
    options = parser.parse_args(argv)
    if options.action == "write":
        write(options.results)
        return
    for exporter in EXPORTERS:
        for side in ("without", "with"):
            if options.exporter in (None, exporter) and options.pack in (None, side):
                run(options, exporter, side == "with")


if __name__ == "__main__":
    main()
