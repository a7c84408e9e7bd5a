"""Breaks models in thousands of ways, and gives them to every tool.

    python tools/fuzz.py [--count 10000] [--seed 0] [--workers 1] [--tool NAME ...] [--case N]

Half of the changes are of bytes, half of the structure: names, edges, types, opsets, attributes,
nesting. Each tool has to give a result, or to raise UnreadableModel or ValueError with one
sentence; what is no model has to be refused by all. No other error, no crash, no tool that takes
longer than its limit, nothing written where a tool refuses, no file changed, and none opened
outside the model's folder (a pipe stands there, whose reader would wait for ever). Ends with exit
code 1, and with the cases, where that is not so.
"""

import argparse
import faulthandler
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import onnx
from models_to_break import DATA, seeds
from mutations import mutated
from onnx_server import OnnxServer

import custom_ops.onnx
from custom_ops.onnx import UnreadableModel, _guarded
from custom_ops.onnx._reading import read

SECONDS = 30.0  # for a tool on a model of a few kB, on a busy machine
_ONNX_SECONDS = 5.0  # for onnx's C++, which refuses by its limit in one of many cases
_LONGEST_SENTENCE = 40_000  # it has up to five names, and the mutations make some of 6,000


@dataclass(frozen=True)
class Fault:
    """What a tool did that it must not do.

    Attributes:
        case: Number of the model.
        tool: Name of the tool.
        what: What it did.
    """

    case: int
    tool: str
    what: str


def _inspect(model: Path, output: Path) -> None:
    found = custom_ops.onnx.inspect(model)
    json.dumps(found.as_dict(nodes=True))
    str(found)
    found.write_html(output)


def _doctor(model: Path, output: Path) -> None:
    report = custom_ops.onnx.doctor(model, target="onnxruntime==1.20")
    json.dumps(report.as_dict())
    str(report)


def _set_ir_version(model: Path, output: Path) -> None:
    custom_ops.onnx.set_ir_version(model, 9, output)


def _fix(model: Path, output: Path) -> None:
    str(custom_ops.onnx.fix(model, output, target="onnxruntime==1.20", opset=18, verify=False))


def _embed(model: Path, output: Path) -> None:
    custom_ops.onnx.fix(model, output, embed=True, verify=False)


def _extract(model: Path, output: Path) -> None:
    names = [node.output[0] for node in read(model).proto.graph.node if node.output]
    custom_ops.onnx.extract(model, output, outputs=names[-1:])


def _extract_module(model: Path, output: Path) -> None:
    paths = [node.module for node in custom_ops.onnx.inspect(model).nodes if node.module]
    custom_ops.onnx.extract(model, output, module=paths[0] if paths else "layer")


def _replace(model: Path, output: Path) -> None:
    result = custom_ops.onnx.replace(model, "decomposed", verify=False)
    str(result)
    result.save(output)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "inspect": _inspect,
    "doctor": _doctor,
    "set_ir_version": _set_ir_version,
    "fix": _fix,
    "embed": _embed,
    "extract": _extract,
    "extract_module": _extract_module,
    "replace": _replace,
}


class Fuzzer:
    """Gives broken models to tools, in this process.

    Args:
        folder: An empty folder to work in.
        seed: What decides about the changes.
        tools: Names of the tools.
    """

    def __init__(self, folder: Path, seed: int, tools: Sequence[str]) -> None:
        self.home, self.out, self.scratch = (folder / name for name in ("home", "out", "scratch"))
        for each in (self.home, self.out, self.scratch):
            each.mkdir(parents=True)
        tempfile.tempdir = str(self.scratch)
        self.outside = folder / "outside"
        os.mkfifo(self.outside)
        self.model = self.home / "model.onnx"
        places = [self.home, self.out, self.scratch, Path(os.devnull), Path(sys.prefix)]
        places += [Path(sys.base_prefix) / "lib", *(Path(entry or ".") for entry in sys.path)]
        self.allowed = {each.resolve() for each in places}
        self.seed, self.tools = seed, tools
        self.seeds = seeds()
        self.opened: list[str] = []
        self.watching = False
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "open" and isinstance(arguments[0], (str, bytes)):
            self.opened.append(os.fsdecode(arguments[0]))

    def model_of(self, case: int) -> bytes:
        """Returns the broken model of a number; the even ones are of bytes."""
        source = random.Random(f"{self.seed} {case}")
        of_bytes = case % 2 == 0
        return mutated(source.choice(self.seeds), of_bytes, source, str(self.outside))

    def run(self, case: int, begins: Callable[[str], None] = lambda tool: None) -> Iterator[Fault]:
        """Yields what the tools do that they must not do.

        Args:
            case: Number of the model.
            begins: Is told the name of each tool before it runs.
        """
        content = self.model_of(case)
        self.model.write_bytes(content)
        (self.home / DATA).write_bytes(bytes(64))
        is_none = not _parses(content)
        for tool in self.tools:
            begins(tool)
            output = self.out / "result"
            error = self._error_of(tool, output)
            what = fault_of(error, is_none)
            written = sorted(each.name for each in self.out.iterdir())
            if not what and error is not None and written:
                what = f"refused the model, but wrote {written}"
            if not what and not set(written) <= {"result", "result.data"}:
                what = f"left {written}"
            if not what and self._changed(content):
                what = "changed the folder of the model"
            strange = [path for path in dict.fromkeys(self.opened) if not self._may_be_opened(path)]
            if not what and strange:
                what = f"opened {strange[0]!r}"
            if what:
                yield Fault(case, tool, what)
            for each in self.out.iterdir():
                each.unlink()

    def _error_of(self, tool: str, output: Path) -> Exception | None:
        self.opened.clear()
        self.watching = True
        try:
            TOOLS[tool](self.model, output)
        except Exception as error:
            return error
        finally:
            self.watching = False
        return None

    def _changed(self, content: bytes) -> bool:
        files = {each.name: each.read_bytes() for each in self.home.iterdir()}
        return files != {self.model.name: content, DATA: bytes(64)}

    def _may_be_opened(self, path: str) -> bool:
        """Code of Python and its packages aside, only what lies beside the model or the result."""
        found = Path(path).resolve()
        return any(parent in self.allowed for parent in (found, *found.parents))


def _parses(content: bytes) -> bool:
    try:
        return bool(onnx.load_from_string(content).HasField("graph"))
    except Exception:  # protobuf has errors of its own
        return False


def fault_of(error: Exception | None, is_none: bool) -> str:
    """Returns what is wrong with how a tool ended; "" where nothing is."""
    if is_none and not isinstance(error, UnreadableModel):
        return f"took what is no model: {error!r}"
    if error is None:
        return ""
    text = str(error)
    if type(error) not in (ValueError, UnreadableModel):
        return "".join(traceback.format_exception(error))
    if "\n" in text or not text or len(text) > _LONGEST_SENTENCE:
        return f"did not say one sentence: {text[:500]!r}"
    return ""


def _work(
    pipe: Connection, cases: Sequence[int], folder: str, seed: int, tools: Sequence[str]
) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)  # C++ writes what it thinks of a model
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    faulthandler.disable()  # a crash is told of by its exit code
    _guarded._in_child = OnnxServer(_ONNX_SECONDS)
    fuzzer = Fuzzer(Path(folder) / "fuzz", seed, tools)
    for case in cases:
        for fault in fuzzer.run(case, lambda tool, case=case: pipe.send((case, tool))):  # type: ignore[misc]
            pipe.send(fault)
        pipe.send((case, None))


def fuzz(
    cases: Sequence[int], seed: int, tools: Sequence[str], seconds: float
) -> Iterator[Fault | int]:
    """Yields faults, and the numbers of the cases that are done.

    Each run of tools is in a process, which is replaced where it crashes or takes too long.
    """
    context = multiprocessing.get_context("fork")
    remaining = list(cases)
    while remaining:
        with tempfile.TemporaryDirectory(prefix="custom_ops_fuzz_") as folder:
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(sender, remaining, folder, seed, tools))
            worker.start()
            sender.close()
            case, tool = remaining[0], "begin"
            try:
                while remaining:
                    if not receiver.poll(seconds):
                        yield Fault(case, tool, f"took longer than {seconds:g} s")
                        break
                    message = receiver.recv()
                    if isinstance(message, Fault):
                        yield message
                        continue
                    case, tool = message
                    if tool is None:
                        remaining.remove(case)
                        yield case
            except EOFError:
                worker.join()
                yield Fault(case, tool, f"ended the process with {worker.exitcode}")
            if remaining and tool is not None:
                remaining.remove(case)  # the other tools of this case are lost
            worker.kill()
            worker.join()


def main() -> int:
    """Runs the cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of a tool on a model")
    parser.add_argument("--tool", action="append", choices=[*TOOLS], help="repeatable; all if none")
    parser.add_argument("--case", type=int, help="write the model of this case to case.onnx")
    arguments = parser.parse_args()
    tools = arguments.tool or [*TOOLS]
    if arguments.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            content = Fuzzer(Path(folder) / "f", arguments.seed, tools).model_of(arguments.case)
        Path("case.onnx").write_bytes(content)
        return 0
    begin, done, found = time.monotonic(), 0, Counter[str]()
    cases = range(arguments.first, arguments.first + arguments.count)
    for event in fuzz(cases, arguments.seed, tools, arguments.seconds):
        if isinstance(event, Fault):
            found[event.tool] += 1
            print(json.dumps(asdict(event)), flush=True)
        else:
            done += 1
            if done % 500 == 0:
                print(f"{done} done, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    counts = ", ".join(f"{tool} {count}" for tool, count in found.items()) or "none"
    print(f"{done} of {arguments.count} models through {', '.join(tools)}: faults: {counts}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
