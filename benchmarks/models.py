"""Times whole models: a ResNet-50 with deformable convolutions, in every way it can run.

    python benchmarks/models.py [--batch 1 --batch 8] [--threads 2] [--no-training] [--json FILE]

The model is torchvision's; ours is the same after ``custom_ops.convert``, and in ONNX Runtime the
file that `custom_ops.onnx.export` makes of it, in each lowering.
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import onnx_ir as ir
import torch
import typer
from deformable_resnet import deformable_resnet50
from script import show, start
from torch import Tensor, nn

import custom_ops
from custom_ops._bench import selection
from custom_ops._bench.checking import NORM
from custom_ops._bench.contenders import (
    KERNEL,
    ONNXRUNTIME,
    OURS,
    PEER,
    TORCH,
    VARIANT,
    Contender,
)
from custom_ops._bench.report import Report
from custom_ops._bench.results import FORWARD
from custom_ops._bench.runner import Contest, compete
from custom_ops._bench.sessions import session_run
from custom_ops._bench.table import shown
from custom_ops._bench.timing import Run
from custom_ops._cli.bench import Noisy, Threads
from custom_ops._cli.output import end, progress
from custom_ops.ops._samples import Tolerance

_NAME = "deformable ResNet-50"
_SIZE = 224
# Rounding grows from layer to layer.
_FORWARD, _GRADIENTS = Tolerance(rtol=1e-3, atol=0.0), Tolerance(rtol=2e-2, atol=0.0)


def exported(model: nn.Module, size: int, folder: Path) -> Path:
    """Exports a model with our nodes alone, for any batch."""
    path = folder / "custom.onnx"
    images = torch.randn(2, 3, size, size)
    custom_ops.onnx.export(
        model, (images,), path, lowering="custom", dynamic_shapes=({0: "N"},), verify=False
    )
    return path


def inference(
    model: nn.Module, ours: nn.Module, path: Path, images: Tensor, threads: int
) -> list[Contender]:
    """Returns everybody who runs the model.

    Args:
        model: The model in torchvision's layers.
        ours: The same in ours.
        path: The exported file.
        images: The input.
        threads: Of each session.
    """

    def in_torch(name: str, kind: str, module: nn.Module) -> Contender:
        def run() -> Any:
            with torch.inference_mode():
                return module(images)

        return Contender(name, TORCH, kind, lambda: run)

    def in_onnxruntime(name: str, kind: str, lowering: str, kernels: str) -> Contender:
        def prepare() -> Run:
            lowered = ir.to_proto(custom_ops.onnx.lower(path, lowering))
            feeds = {lowered.graph.input[0].name: images.numpy()}
            return session_run(lowered, feeds, kernels, threads)

        return Contender(name, ONNXRUNTIME, kind, prepare)

    return [
        in_torch(OURS, KERNEL, ours),
        in_onnxruntime("ours in ONNX Runtime", KERNEL, "custom", "native"),
        in_torch("torchvision", PEER, model),
        in_onnxruntime("DeformConv of ONNX Runtime", PEER, "native", "none"),
        in_onnxruntime("our body", VARIANT, "decomposed", "none"),
    ]


def training(model: nn.Module, ours: nn.Module, images: Tensor) -> list[Contender]:
    """Returns torchvision's layers and ours, each for one step of gradient descent."""
    labels = torch.arange(len(images)) % 10

    def step(name: str, kind: str, module: nn.Module) -> Contender:
        def prepare() -> Run:
            own = copy.deepcopy(module).train()
            optimizer = torch.optim.SGD(own.parameters(), lr=1e-4)

            def run() -> list[Tensor]:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(own(images), labels)
                loss.backward()
                optimizer.step()
                return [loss, *(p.grad for p in own.parameters() if p.grad is not None)]

            return run

        return Contender(name, TORCH, kind, prepare)

    return [step(OURS, KERNEL, ours), step("torchvision", PEER, model)]


def contests(
    batches: list[int], threads: int, train: int, size: int, folder: Path
) -> Iterator[Contest]:
    """Yields each batch of images, then the step of training.

    Args:
        batches: Numbers of images.
        threads: Of each session.
        train: Images of the step; 0 for no step.
        size: Height and width of the images.
        folder: Where to put the exported model.
    """
    model = deformable_resnet50(size=size)
    ours = custom_ops.convert(copy.deepcopy(model))
    path = exported(model, size, folder)
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        images = torch.randn(batch, 3, size, size, generator=generator)
        everybody = inference(model, ours, path, images, threads)
        yield Contest(_NAME, f"batch {batch}", True, FORWARD, everybody, _FORWARD)
    if train:
        images = torch.randn(train, 3, size, size, generator=generator)
        both = training(model, ours, images)
        case = f"batch {train}"
        yield Contest(_NAME, case, True, "training step", both, _GRADIENTS, compared=NORM)


def main(
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Images; repeatable.")] = None,
    threads: Threads = None,
    train: Annotated[int, typer.Option(min=0, help="Images of the training step; 0: none.")] = 8,
    size: Annotated[int, typer.Option(min=32, help="Height and width of the images.")] = _SIZE,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 9,
    seconds: Annotated[float, typer.Option(help="What one contender may take for a case.")] = 10.0,
    noisy: Noisy = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it.")] = None,
) -> None:
    """Times a ResNet-50 with deformable convolutions."""
    settings = selection.settings_of(
        threads or [2], quick=False, rounds=rounds, seconds=seconds, noisy=noisy
    )
    report = Report(selection.facts(settings))
    with progress("Making the model") as tell, tempfile.TemporaryDirectory() as folder:
        for each in settings:
            for one in contests(batch or [1, 8], each.threads, train, size, Path(folder)):
                tell(f"{one.direction}, {one.case}, {each.threads} threads", 0, 0)
                report.add(compete(one, each))
                if json is not None:
                    report.write(json)
    show(shown(report))
    end(not report.refused)


if __name__ == "__main__":
    start(main)
