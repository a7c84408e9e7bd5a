"""Runs what custom_ops exports in releases of ONNX Runtime, and compares with the references.

    python tools/matrix.py [RELEASE ...] [--cache FOLDER]

Each release (1.17, 1.20, 1.23, 1.27 and 1.32, if none is named) gets a virtual environment of its
own, kept in the cache folder. There the samples of every op run in every dtype as custom nodes
with our library, with their bodies with and without it, as standard ops, in further opsets, and
through both exporters at several sizes; bad calls must give our sentence; and the tables of
custom_ops/onnx/_targets.py must agree with what the release takes. Ends with exit code 1 where
anything differs.
"""

import argparse
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from probe_releases import judge, probe_cases
from releases import CACHE, Call, Case, Outcome, environment, run_cases, version, write_cases
from samples import SEED, calls_of

import custom_ops
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.onnx._lowering import lower
from custom_ops.onnx._single_node import single_node
from custom_ops.ops._registry import Op, ops

RELEASES = ("1.17", "1.20", "1.23", "1.27", "1.32")
DTYPES = ("float32", "float64", "float16", "bfloat16")
_NEWEST_OPSET = EXPORTERS["dynamo"][1]
_SHOWN = 10
# Cannot infer a type past an optional input that is left out between others. What we export
# leaves none out: the lowerings write neutral values.
_NEEDS_EVERY_INPUT = ("1.17",)


def forms(group: str, op: Op, dtype: str, model: onnx.ModelProto, calls: list[Call]) -> list[Case]:
    """Returns a model of one of our nodes in each form that does not depend on the release."""
    tolerance = op.tolerances[dtype]
    rest: dict[str, Any] = {"calls": calls, "rtol": tolerance.rtol, "atol": tolerance.atol}
    oldest = custom_ops.onnx.target(f"onnxruntime=={RELEASES[0]}")
    custom = ir.to_proto(lower(model, "custom", oldest))
    portable = ir.to_proto(lower(model, "portable"))
    decomposed = ir.to_proto(lower(model, "decomposed"))
    name = calls[0].name
    return [
        Case(group or "custom", f"custom, {name}", custom, library=True, **rest),
        Case(group or "portable", f"portable with library, {name}", portable, library=True, **rest),
        Case(group or "portable", f"portable, {name}", portable, **rest),
        Case(group or "decomposed", f"decomposed, {name}", decomposed, **rest),
    ]


def sample_cases() -> Iterator[Case]:
    """Yields every sample in every dtype and form; calls that share a model run in one session."""
    for op in ops().values():
        for dtype in DTYPES:
            shared: dict[bytes, tuple[onnx.ModelProto, list[Call]]] = {}
            for model, call in calls_of(op, dtype, dynamic=True):
                shared.setdefault(model.SerializeToString(), (model, []))[1].append(call)
            for model, calls in shared.values():
                yield from forms("", op, dtype, model, calls)
                if any("" in node.input for node in model.graph.node):
                    name, at = f"as it is, {calls[0].name}", op.tolerances[dtype]
                    yield Case("omitted", name, model, calls, True, at.rtol, at.atol)


def opset_cases(opset: int | None, ir_version: int) -> Iterator[Case]:
    """Yields every sample in one opset; None: the oldest that its body can be written in."""
    for op in ops().values():
        for model, call in calls_of(op, "float32", opset=opset or op.onnx.body.min_opset):
            model.ir_version = ir_version
            yield from forms("opsets", op, "float32", model, [call])


def refusal_cases() -> Iterator[Case]:
    """Yields every bad call, with sizes known when the model loads and with open ones."""
    for op in ops().values():
        for bad in op.bad_calls(torch.Generator().manual_seed(SEED)):
            if bad.kind != "shape":
                continue
            arguments = op.arguments(*bad.sample.args, **bad.sample.kwargs)
            for dynamic in (False, True):
                model, feeds = single_node(op, arguments, dynamic)
                name = f"{op.name} {bad.sample.name}, sizes {'open' if dynamic else 'known'}"
                calls = [Call(name, feeds, [])]
                yield Case("refusals", name, model, calls, library=True, refusal=bad.sentence)


class Network(torch.nn.Module):
    """Deformable convolutions with and without mask and bias, of three kernels, and mul_add."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.nn.Conv2d(3, 27, 3, padding=1)
        self.first = custom_ops.DeformConv2d(3, 4, 3, padding=1)
        self.second = custom_ops.DeformConv2d(4, 6, 1, bias=False)
        self.wide = custom_ops.DeformConv2d(6, 6, 7, padding=3, groups=2)
        self.wide_offset = torch.nn.Conv2d(6, 98, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes ``[N, 6, H, W]`` from ``[N, 3, H, W]``."""
        offset = self.offset(x)
        y = self.first(x, offset[:, :18], offset[:, 18:].sigmoid())
        y = self.second(y, offset[:, :2])
        result: torch.Tensor = custom_ops.mul_add(self.wide(y, self.wide_offset(y)), y, alpha=0.5)
        return result


def exporter_cases(folder: Path) -> Iterator[Case]:
    """Yields a network through each exporter and lowering, run at several sizes."""
    torch.manual_seed(SEED)
    network = Network().eval()
    sizes = [(2, 3, 12, 10), (1, 3, 9, 16), (3, 3, 7, 7), (0, 3, 8, 8)]
    inputs = [torch.randn(size) for size in sizes]
    with torch.no_grad():
        calls = [Call(str(list(x.shape)), {"x": x.numpy()}, [network(x).numpy()]) for x in inputs]
    for exporter in EXPORTERS:
        for lowering in ("custom", "portable", "decomposed"):
            path = folder / f"{exporter}-{lowering}.onnx"
            custom_ops.onnx.export(
                network,
                (inputs[0],),
                path,
                exporter=exporter,
                lowering=lowering,
                target=f"onnxruntime=={RELEASES[0]}",
                dynamic_shapes=({0: "n", 2: "h", 3: "w"},),
                verify=False,
            )
            for library in (False, True):
                if library or lowering != "custom":
                    name = f"{exporter}, {lowering}{' with library' if library else ''}"
                    model = onnx.load(path)
                    yield Case("exported", name, model, calls, library, rtol=1e-4, atol=1e-4)


def complaint(case: Case, outcome: Outcome) -> str:
    """Returns what is wrong with an outcome; an empty string, if nothing."""
    if case.refusal is None:
        return outcome.wrong or outcome.raised or ""
    if outcome.raised is None:
        return f"runs, but must be refused with {case.refusal!r}"
    return "" if re.search(case.refusal, outcome.raised) else f"refused with {outcome.raised!r}"


@dataclass(frozen=True)
class Report:
    """What one release does.

    Attributes:
        release: Its exact version.
        passed: By group, how many cases are as they should be.
        total: By group, how many there are.
        complaints: What is wrong.
        seconds: How long it took.
    """

    release: str
    passed: Counter[str]
    total: Counter[str]
    complaints: list[str]
    seconds: float


def examine(release: str, cache: Path, common: Sequence[Case], folder: Path) -> Report:
    """Runs everything in one release.

    Args:
        release: Major and minor version.
        cache: Where the environments are kept.
        common: The cases of every release, written to ``folder / "common"``.
        folder: Where to write those of this release.
    """
    started = time.monotonic()
    python, library = environment(release, cache), custom_ops.get_library_path()
    target = custom_ops.onnx.target(f"onnxruntime=={release}")
    own = list(opset_cases(min(target.opset, _NEWEST_OPSET), target.ir_version))
    write_cases(own, folder / release)
    outcomes = run_cases(python, folder / "common", len(common), library)
    outcomes += run_cases(python, folder / release, len(own), library)
    passed, total, complaints = Counter[str](), Counter[str](), []
    for case, outcome in zip([*common, *own], outcomes, strict=True):
        if case.group == "omitted" and release in _NEEDS_EVERY_INPUT:
            continue
        wrong = complaint(case, outcome)
        total[case.group] += 1
        passed[case.group] += not wrong
        if wrong:
            complaints.append(f"{case.name}: {wrong}")

    probes = probe_cases()
    write_cases(probes, folder / f"{release}-probes")
    found = judge(release, probes, run_cases(python, folder / f"{release}-probes", len(probes)))
    total["tables"], passed["tables"] = 1, int(not found.contradictions)
    complaints += found.contradictions
    return Report(version(python), passed, total, complaints, time.monotonic() - started)


def show(reports: Sequence[Report]) -> None:
    """Prints the table, and below it what is wrong."""
    groups = list(dict.fromkeys(group for report in reports for group in report.total))
    rows = [["onnxruntime", *groups, "seconds"]]
    for report in reports:
        counts = [f"{report.passed[g]}/{report.total[g]}" for g in groups]
        rows.append([report.release, *counts, f"{report.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    for report in reports:
        for wrong in report.complaints[:_SHOWN]:
            print(f"onnxruntime {report.release}: {wrong[:500]}")
        if len(report.complaints) > _SHOWN:
            print(f"onnxruntime {report.release}: and {len(report.complaints) - _SHOWN} more")


def main() -> int:
    """Runs the releases that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="*", default=RELEASES, help="as 1.20")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = [*sample_cases(), *opset_cases(None, 8), *refusal_cases()]
        common += exporter_cases(folder)
        write_cases(common, folder / "common")
        print(f"{len(common)} models made in {time.monotonic() - started:.0f} s", flush=True)
        with ThreadPoolExecutor(2) as pool:
            reports = list(
                pool.map(lambda r: examine(r, arguments.cache, common, folder), arguments.release)
            )
    show(reports)
    return 1 if any(report.complaints for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
