"""Puts faults into exported models, and writes how the precision debugger finds them.

    python tools/faults.py --output docs/faults.md [--models M,...] [--kinds K,...] [--seeds 20]
        [--weights 3] [--nodes 3] [--minutes 30] [--exporters E,...]

Models are those of tests/debug_models.py, kinds those of tests/debug_faults.py. Ends with exit code
1 where a fault is missed, put down to another node, or seen where there is none. What is not tried
within the minutes is left out, and the page says so.
"""

import argparse
import math
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import torch

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from debug_faults import KINDS, Placed, one_each, put
from debug_models import MODELS, inputs, module

import custom_ops.debug
import custom_ops.onnx
from custom_ops.debug import Comparison, _fresh, _graph, _runs
from custom_ops.onnx._reading import read


@dataclass
class Case:
    """A model by one exporter.

    Attributes:
        name: Of the model.
        exporter: What wrote the file.
        path: The file.
        module: The module.
        args: Its inputs.
        known: The fresh export, which is the same for every fault.
    """

    name: str
    exporter: str
    path: Path
    module: torch.nn.Module
    args: tuple[Any, ...]
    known: list[Any] = field(default_factory=list)

    def compare(self, model: onnx.ModelProto | Path) -> Comparison:
        """Compares a file with the module, which is exported afresh only once."""

        def once(*args: Any) -> Any:
            if not self.known:
                self.known.append(fresh(*args))
            return self.known[0]

        fresh = _fresh.fresh
        with mock.patch("custom_ops.debug._compare.fresh", once):
            return custom_ops.debug.compare(self.module, model, self.args)


@dataclass
class Found:
    """What became of the faults of one kind in one case.

    Attributes:
        all_put: In how many nodes at once.
        all_found: How many of them had a fault then.
        all_false: How many faults were at other nodes then.
        tried: How many were put in one at a time.
        region: How many of them were found in the right region, and nowhere else.
        node: How many were found at the right node.
        small: How many change their node's result by less than its limit.
        wrong: What was missed, or seen elsewhere.
    """

    all_put: int = 0
    all_found: int = 0
    all_false: int = 0
    tried: int = 0
    region: int = 0
    node: int = 0
    small: int = 0
    wrong: list[str] = field(default_factory=list)


def made(name: str, exporter: str, folder: Path, seed: int = 0, half: bool = False) -> Case:
    """Exports a model."""
    dtype = torch.float16 if half else torch.float32
    part, args = module(name, seed).to(dtype), inputs(name, 0, dtype)
    path = folder / f"{list(MODELS).index(name)}.{exporter}.{seed}.{half}.onnx"
    custom_ops.onnx.export(part, args, path, exporter=exporter, verify=False)
    return Case(name, exporter, path, part, args)


def values(case: Case, model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Any]:
    """Returns values of a model that runs as a whole."""
    graph = _graph.of_document(read(model))
    given = [each.numpy() for each in case.args]
    found = _runs.instrumented(graph, dict(zip(graph.inputs, given, strict=True)))
    return {name: found[name] for name in names if name in found}


def changed(one: Any, other: Any) -> float:
    """Returns the largest difference; infinity where one is no number."""
    with np.errstate(all="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(apart.max()) if np.isfinite(apart).all() else math.inf


def judge(case: Case, clean: Comparison, right: dict[str, Any], placed: Placed) -> Found:
    """Puts one fault in, and says what became of it.

    How much it changes is measured without the debugger: in a run of the whole model beside the
    clean one. What counts is the first value with a partner that its node is a part of.
    """
    found = Found(tried=1)
    what = f"{placed.kind} in {', '.join(sorted(placed.nodes))}"
    seen = case.compare(placed.model)
    regions = [value for value in seen.values if placed.nodes & set(value.nodes)]
    names = {fault.name for fault in seen.faults if fault.kind == "nodes"}
    elsewhere = names.difference(value.name for value in regions)
    if elsewhere:
        found.wrong.append(f"{what}: a fault at {', '.join(sorted(elsewhere)[:3])}")
    guilty = next((f for f in seen.faults if f.name in names and f.name not in elsewhere), None)
    if guilty is None:
        found.small = 1
        shown = values(case, placed.model, [value.name for value in regions])
        for value in regions:
            size = changed(shown[value.name], right[value.name]) if value.name in right else 0.0
            before = next((v.introduced or 0.0 for v in clean.values if v.name == value.name), 0.0)
            if size - before > value.limit:
                found.small = 0
                found.wrong.append(f"{what}: missed; changes {size:.3g}, limit {value.limit:.3g}")
                break
        return found
    found.region = int(not elsewhere)
    found.node = int(guilty.node in placed.nodes)
    if not found.node:
        found.wrong.append(f"{what}: put down to {guilty.node}: {guilty.difference}")
    return found


def together(case: Case, placed: Placed) -> Found:
    """Puts a fault into every node that it fits, and counts the faults that one comparison sees."""
    seen = case.compare(placed.model)
    regions = {value.name for value in seen.values if placed.nodes & set(value.nodes)}
    names = {fault.name for fault in seen.faults if fault.kind == "nodes"}
    return Found(
        all_put=len(regions), all_found=len(regions & names), all_false=len(names - regions)
    )


def tried(case: Case, kinds: Sequence[str], most: int) -> Iterator[tuple[str, Found]]:
    """Yields what became of each kind of fault that a model has nodes for."""
    model = onnx.load(case.path)
    clean = case.compare(model)
    right = values(case, model, [value.name for value in clean.values])
    for kind in kinds:
        singles = list(one_each(model, kind))
        if not singles:
            continue
        found = together(case, put(model, kind))
        step = max(1, len(singles) // most)
        for placed in singles[::step][:most]:
            one = judge(case, clean, right, placed)
            for name in ("tried", "region", "node", "small", "wrong"):
                setattr(found, name, getattr(found, name) + getattr(one, name))
        yield kind, found


def share(found: Comparison) -> tuple[float, int, int]:
    """Returns the share of the file's values with a partner, the others, and those inside an op."""
    mine = [each for each in found.unmatched if each.side == "model"]
    inside = sum(each.reason.startswith("is a part of what gives") for each in mine)
    return len(found.values) / (len(found.values) + len(mine)), len(mine), inside


def alarms(
    name: str, exporter: str, folder: Path, seeds: int, weights: int, half: bool, until: float
) -> tuple[int, list[str], Comparison | None]:
    """Compares clean models; returns how many comparisons, the false alarms and the first one."""
    count, first = 0, None
    wrong: list[str] = []
    for weight in range(weights):
        case = made(name, exporter, folder, weight, half)
        for seed in range(seeds):
            if time.monotonic() > until and count:
                return count, wrong, first
            args = inputs(name, seed, torch.float16 if half else torch.float32)
            found = custom_ops.debug.compare(case.module, case.path, args, explain=False)
            first, count = first or found, count + 1
            dtype = "float16" if half else "float32"
            wrong += [
                f"{name} by {exporter}, {dtype}, weights {weight}, input {seed}: "
                f"{fault.op_type} {fault.node} introduces {fault.introduced:.3g}, "
                f"limit {fault.limit:.3g}"
                for fault in found.faults
            ]
    return count, wrong, first


def page(
    clean: Sequence[tuple[str, ...]],
    rows: Sequence[tuple[str, str, str, Found]],
    wrong: Sequence[str],
    left_out: Sequence[str],
) -> str:
    """Returns the page."""
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    lines = [
        "# What the precision debugger finds",
        "",
        f"Measured on {date.today()} with {versions}, by `tools/faults.py`,",
        "which puts faults into exported models and compares each with its module.",
        "",
        "## Models without fault",
        "",
        "Comparisons over several inputs and weights, BatchNorm as after training; an alarm is a",
        "value above its limit. *Paired*: values of the file with a partner, of those and the ones",
        "without; most of these lie inside one op of torch (`inside`), and are judged with it.",
        "",
        "| model | exporter | dtype | comparisons | alarms | paired | without | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in clean]
    lines += [
        "",
        "## Models with faults",
        "",
        "*At once*: the fault in every node that it fits, in one comparison; of so many regions so",
        "many had a fault, and so many others had one. *One at a time*: put into so many nodes; so",
        "many found in the right region alone; so many put down to the right node; so many change",
        "what their node gives by less than its limit, and are no faults. Nodes whose result hangs",
        "on shapes and weights alone are left out.",
        "",
        "| model | exporter | fault | at once | found | others | one at a time | region | node "
        "| small |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, exporter, kind, f in rows:
        numbers = (f.all_put, f.all_found, f.all_false, f.tried, f.region, f.node, f.small)
        lines.append(f"| {name} | {exporter} | {kind} | {' | '.join(map(str, numbers))} |")
    total = Counter[str]()
    for *_, f in rows:
        total.update(tried=f.tried, region=f.region, node=f.node, small=f.small)
    lines += [
        "",
        f"Of {total['tried']} faults, one at a time, {total['small']} are below the limit; of the "
        f"{total['tried'] - total['small']} others {total['region']} were found in the right "
        f"region alone, and {total['node']} at the right node.",
    ]
    for title, each in (("What is wrong", wrong), ("What was not tried", left_out)):
        if each:
            lines += ["", f"## {title}", "", *(f"- {line}" for line in each)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Tries the faults and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--exporters", default="torchscript,dynamo")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--weights", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.monotonic()
    end = begin + 60 * arguments.minutes
    clean: list[tuple[str, ...]] = []
    rows: list[tuple[str, str, str, Found]] = []
    wrong: list[str] = []
    chosen = [
        (name, exporter)
        for exporter in arguments.exporters.split(",")
        for name in arguments.models.split(",")
        if exporter in MODELS[name][2]
    ]
    left_out = [
        f"{name} by {exporter}"
        for name, (_, _, exporters) in MODELS.items()
        for exporter in exporters
        if (name, exporter) not in chosen
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for i, (name, exporter) in enumerate(chosen):
            if time.monotonic() > end:
                left_out.append(f"{name} by {exporter}")
                continue
            each = (end - time.monotonic()) / (len(chosen) - i)
            until = time.monotonic() + each / 4
            for half in (False, True):
                seeds, weights = arguments.seeds, arguments.weights
                count, found, first = alarms(
                    name, exporter, folder, seeds, weights, half, until + half * each / 4
                )
                wrong += found
                assert first is not None
                part, without, inside = share(first)
                clean.append(
                    (
                        name, exporter, "float16" if half else "float32", str(count),
                        str(len(found)), f"{100 * part:.1f}%", str(without), str(inside),
                    )
                )  # fmt: skip
            case = made(name, exporter, folder)
            for kind, found_one in tried(case, arguments.kinds.split(","), arguments.nodes):
                rows.append((name, exporter, kind, found_one))
                wrong += [f"{name} by {exporter}: {line}" for line in found_one.wrong]
            print(
                f"{time.monotonic() - begin:.0f} s: {name} by {exporter}",
                *wrong,
                sep="\n  ",
                flush=True,
            )
    if arguments.output is not None:
        arguments.output.write_text(page(clean, rows, wrong, left_out))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
