"""Puts faults into exported models, and writes how the precision debugger finds them.

    python tools/faults.py RESULTS --output docs/faults.md [--models M,...] [--exporters E,...]
        [--seeds 20] [--weights 3] [--nodes 3] [--minutes 30]

Models are those of tests/debug_models.py, kinds those of tests/debug_faults.py. What is measured of
a model is a file in the folder RESULTS; what lies there already is not measured again, so that the
whole may be measured in parts. Ends with exit code 1 where a fault is missed, put down to another
node, or seen where there is none.
"""

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]
from debug_faults import KINDS, Placed, places, put
from debug_models import MODELS, inputs, module
from faults_page import Clean, Found, Result, page

import custom_ops.debug
import custom_ops.onnx
from custom_ops._errors import first_line
from custom_ops.debug import Comparison, _fresh, _graph, _runs
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._model import written_beside
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

        def once(*args: Any, **options: Any) -> Any:
            if not self.known:
                self.known.append(fresh(*args, **options))
            return self.known[0]

        fresh = _fresh.fresh
        with mock.patch("custom_ops.debug._compare.fresh", once):
            return custom_ops.debug.compare(self.module, model, self.args)


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
    given = [each.numpy() for each in Call(case.args, {}).tensors]
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
            before = next((v.introduced for v in clean.values if v.name == value.name), 0.0)
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
        fitting = places(model, kind)
        if not fitting:
            continue
        found = together(case, put(model, kind))
        step = max(1, len(fitting) // most)
        for place in fitting[::step][:most]:
            placed = put(model, kind, [place])
            one = judge(case, clean, right, placed)
            for name in ("tried", "region", "node", "small", "wrong"):
                setattr(found, name, getattr(found, name) + getattr(one, name))
        yield kind, found


def share(found: Comparison) -> tuple[int, int, int]:
    """Counts the file's values with a partner, those without, and those inside an op of torch."""
    mine = [each for each in found.unmatched if each.side == "model"]
    inside = sum(each.reason.startswith("is a part of what gives") for each in mine)
    return len(found.values), len(mine), inside


def alarms(name: str, exporter: str, folder: Path, seeds: int, weights: int, half: bool) -> Clean:
    """Compares models without fault."""
    dtype = "float16" if half else "float32"
    clean = Clean(dtype)
    kind = torch.float16 if half else torch.float32
    try:
        with torch.no_grad():
            module(name, 0).to(kind)(*inputs(name, 0, kind))
    except RuntimeError as error:  # an op that the CPU has not in float16
        return replace(clean, lacking=first_line(error))
    for weight in range(weights):
        case = made(name, exporter, folder, weight, half)
        for seed in range(seeds):
            args = inputs(name, seed, kind)
            found = custom_ops.debug.compare(case.module, case.path, args, explain=False)
            clean.comparisons += 1
            if clean.comparisons == 1:
                clean.paired, clean.without, clean.inside = share(found)
            clean.wrong += [
                f"{dtype}, weights {weight}, input {seed}: {fault.op_type} {fault.node} introduces "
                f"{fault.introduced:.3g}, limit {fault.limit:.3g}"
                for fault in found.faults
            ]
    return clean


def measured(name: str, exporter: str, seeds: int, weights: int, nodes: int) -> Result:
    """Tries a model by one exporter."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clean = [alarms(name, exporter, folder, seeds, weights, half) for half in (False, True)]
        case = made(name, exporter, folder)
        return Result(name, exporter, clean, dict(tried(case, list(KINDS), nodes)))


def main() -> None:
    """Tries the faults and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--exporters", default="torchscript,dynamo")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--weights", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    begin = time.monotonic()
    arguments.results.mkdir(parents=True, exist_ok=True)
    models, chosen = arguments.models.split(","), arguments.exporters.split(",")
    results: list[Result] = []
    left_out: list[str] = []
    for name, (_, _, exporters) in MODELS.items():
        for exporter in exporters:
            path = arguments.results / f"{list(MODELS).index(name):02}.{exporter}.json"
            wanted = name in models and exporter in chosen
            late = time.monotonic() - begin > 60 * arguments.minutes
            if not path.exists() and wanted and not late:
                found = measured(
                    name, exporter, arguments.seeds, arguments.weights, arguments.nodes
                )
                with written_beside(path) as beside:
                    beside.write_text(json.dumps(found.as_dict(), indent=1))
                lines = [f"{time.monotonic() - begin:.0f} s: {name} by {exporter}", *found.wrong()]
                print(*lines, sep="\n  ", flush=True)
            if path.exists():
                results.append(Result.from_dict(json.loads(path.read_text())))
            else:
                left_out.append(f"{name} by {exporter}")
    if arguments.output is not None:
        arguments.output.write_text(page(results, left_out))
    sys.exit(any(result.wrong() for result in results))


if __name__ == "__main__":
    main()
