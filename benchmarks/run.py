"""Times every op beside what a user would pick instead, interleaved in one run, results verified.

    python benchmarks/run.py [--threads 2] [--rounds 15] [--op NAME] [--output results.json]

Each contender runs once a round, in turn; the table shows medians in milliseconds. A contender
whose result differs from ours is an error, not a row.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
import typer
from rich.console import Console
from rich.table import Table

import custom_ops
from custom_ops.onnx._lowering import lower
from custom_ops.onnx._targets import target
from custom_ops.onnx._verify import to_array
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._samples import Sample

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from single_node import single_node

Contender = Callable[[], np.ndarray[Any, Any]]


def in_onnxruntime(
    model: onnx.ModelProto, feeds: dict[str, Any], kernels: str, threads: int
) -> Contender:
    """Returns a run of a model; its threads do not spin, to leave the peers alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = custom_ops.onnx.session(model, kernels=kernels, sess_options=options)
    return lambda: session.run(None, feeds)[0]  # type: ignore[no-any-return]


def contenders(op: Op, sample: Sample, threads: int) -> dict[str, Contender]:
    """Returns who computes the call, by name; ours in torch comes first."""

    def in_torch(function: Callable[..., torch.Tensor]) -> Contender:
        return lambda: to_array(function(*sample.args, **sample.kwargs))

    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs))
    found = {"custom_ops in torch": in_torch(op.public)}
    found |= {name: in_torch(peer) for name, peer in op.peers().items()}
    found["custom_ops in ONNX Runtime"] = in_onnxruntime(model, feeds, "native", threads)
    body = custom_ops.onnx.embed(model)
    found["its body in ONNX Runtime"] = in_onnxruntime(body, feeds, "none", threads)
    native = op.onnx.native
    if native is not None and target().why_not_native(native.op_type, 20, "float32") is None:
        standard = ir.to_proto(lower(model, "native"))
        name = f"{native.op_type} of ONNX Runtime"
        found[name] = in_onnxruntime(standard, feeds, "none", threads)
    return found


def measure(op: Op, sample: Sample, threads: int, rounds: int) -> dict[str, float]:
    """Returns the median milliseconds of each contender."""
    runs = contenders(op, sample, threads)
    results = {name: run() for name, run in runs.items()}
    ours = results["custom_ops in torch"]
    tolerance = op.tolerances["float32"]
    for name, result in results.items():
        scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
        difference = float(np.abs(result - ours).max(initial=0.0))
        if difference > tolerance.atol + tolerance.rtol * scale:
            raise RuntimeError(f"{op.name}: {name} must compute what we do, is off {difference}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main(
    threads: Annotated[int, typer.Option(help="Threads of torch and of ONNX Runtime.")] = 2,
    rounds: Annotated[int, typer.Option(help="Runs of each contender.")] = 15,
    op: Annotated[str, typer.Option(help="Only this op.")] = "",
    output: Annotated[str, typer.Option(help="Where to write the figures as JSON.")] = "",
) -> None:
    """Times every op beside its peers."""
    torch.set_num_threads(threads)
    console, records = Console(), []
    for one in ops().values():
        if op and one.name != op:
            continue
        table = Table(title=f"{one.name}, float32, {threads} threads, median ms of {rounds}")
        for sample in one.benchmarks(torch.Generator().manual_seed(0)):
            sample = sample.map(lambda t: t.float())
            found = measure(one, sample, threads, rounds)
            if not table.columns:
                table.add_column("case")
                for name in found:
                    table.add_column(name, justify="right")
            table.add_row(sample.name, *(f"{value:.3f}" for value in found.values()))
            records.append({"op": one.name, "case": sample.name, "milliseconds": found})
        console.print(table)
    if output:
        versions = {m.__name__: m.__version__ for m in (custom_ops, torch, onnxruntime, onnx)}
        facts = {"threads": threads, "rounds": rounds, "machine": platform.machine(), **versions}
        Path(output).write_text(json.dumps({**facts, "results": records}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
