"""Times `custom_ops.debug.compare` beside what it cannot do without.

    python benchmarks/debug.py [--rounds 5] [--threads 1] [--size 224] [--json FILE]

The unit is torch's forward pass, the creation of a session of ONNX Runtime and its run, on a
ResNet-50 with one image. Unit and comparison take turns; both are warm. Each comparison must find
the model right, and once that it is wrong where a weight is. Processor time is shown beside the
time of the clock: on a machine that has other work the clock says little.
"""

import json as jsons
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import onnx
import torch
import typer
from rich.table import Table
from rich.text import Text
from script import show, start
from torch import nn

import custom_ops.debug
import custom_ops.onnx
from custom_ops._cli.output import Failure, progress


def resnet50() -> nn.Module:
    """Returns the network with random weights, and statistics as training leaves them."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    module: nn.Module = resnet50(weights=None).eval()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.normal_(each.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(each.running_var, 0.5, 2)  # type: ignore[arg-type]
    return module


def with_fault(path: Path) -> tuple[onnx.ModelProto, str]:
    """Returns a copy of a model in which a weight is wrong, and the name of the guilty node."""
    model = onnx.load(path)
    node = [each for each in model.graph.node if each.op_type == "Conv"][20]
    (weight,) = [each for each in model.graph.initializer if each.name == node.input[1]]
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] += abs(array).max()
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return model, node.name


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Returns how long a function takes: by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - clock, time.process_time() - processor


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    size: Annotated[int, typer.Option(min=32, help="Height and width of the image.")] = 224,
    json: Annotated[Path | None, typer.Option(help="Where to write the numbers.")] = None,
) -> None:
    """Times a comparison."""
    torch.set_num_threads(threads)
    module, image = resnet50(), torch.randn(1, 3, size, size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        custom_ops.onnx.export(module, image, path, verify=False)

        def unit() -> None:
            with torch.no_grad():
                module(image)
            session = custom_ops.onnx.session(path)
            session.run(None, {session.get_inputs()[0].name: image.numpy()})

        def compare() -> None:
            if not custom_ops.debug.compare(module, path, image):
                raise Failure("debug: compare must find the model right, got a fault")

        wrong, guilty = with_fault(path)
        faults = custom_ops.debug.compare(module, wrong, image, explain=False).faults
        if [fault.node for fault in faults] != [guilty]:
            raise Failure(f"debug: compare must find {guilty}, got {faults}")
        unit()
        compare()
        units, comparisons = [], []
        with progress("comparing") as report:
            for i in range(rounds):
                report("comparing", i, rounds)
                units.append(timed(unit))
                comparisons.append(timed(compare))
    table = Table()
    for heading in ("", "unit s", "compare s", "compare / unit"):
        table.add_column(heading, justify="right" if heading else "left")
    found: dict[str, dict[str, float]] = {}
    for i, name in enumerate(("clock", "processor")):
        ratio = statistics.median(c[i] / u[i] for u, c in zip(units, comparisons, strict=True))
        one, other = (statistics.median(each[i] for each in all) for all in (units, comparisons))
        found[name] = {"unit": one, "compare": other, "ratio": ratio}
        table.add_row(name, f"{one:.3f}", f"{other:.3f}", f"{ratio:.2f}")
    show(table)
    show(Text(f"torch {torch.__version__}, {threads} thread(s), medians of {rounds}", style="dim"))
    if json is not None:
        json.write_text(jsons.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    start(main)
