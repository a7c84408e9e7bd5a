"""Runs the demo from training to page."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from custom_ops._machine import torch_threads
from custom_ops.demo import page
from custom_ops.demo.lowerings import Comparison, compare
from custom_ops.demo.training import Loss, Report, Training, train
from custom_ops.demo.water import Views, draw

_AXES = {0: "N", 2: "H", 3: "W"}
_TIMED = (1, 96, 96)  # N, H, W
_EXPORTED_WITH = (2, 40, 48)
_COMPARED = (3, 33, 64)


@dataclass(frozen=True)
class Result:
    """What the demo found; true where the loss fell and all ways agree.

    Attributes:
        training: The network and its losses.
        comparison: Each way of running it beside torch.
        page: The HTML page written.
        seconds: What the whole took.
    """

    training: Training
    comparison: Comparison
    page: Path
    seconds: float

    def __bool__(self) -> bool:
        return self.training.loss.fell and bool(self.comparison)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result for JSON."""
        return {
            "ok": bool(self),
            "loss": {
                **_loss(self.training.loss),
                "ordinary": _loss(self.training.ordinary),
                "untouched": self.training.untouched,
            },
            "threads": self.comparison.threads,
            "rounds": self.comparison.rounds,
            "sizes": [list(size) for size in self.comparison.sizes],
            "torch_milliseconds": self.comparison.torch_milliseconds,
            "rows": [{**vars(row), "passed": row.passed} for row in self.comparison.rows],
            "models": [str(file) for file in self.comparison.files],
            "page": str(self.page),
            "seconds": self.seconds,
        }


def _loss(loss: Loss) -> dict[str, Any]:
    return {"first": loss.first, "last": loss.last, "unseen": loss.unseen, "fell": loss.fell}


def run(output: Path, threads: int, report: Report) -> Result:
    """Trains the network, exports and runs it in every way, and writes the page.

    Args:
        output: Folder for the models and the page; made if missing.
        threads: Of torch and of each session of ONNX Runtime, in the timing.
        report: Told of each step: what is done, how many steps are done, of how many.

    Returns:
        What was found.
    """
    begin = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with torch_threads(1):  # the steps are too short to share
        training = train(report)
    generator = torch.Generator().manual_seed(5)
    inputs = [_inputs(draw(*size, generator)) for size in (_TIMED, _EXPORTED_WITH, _COMPARED)]
    with torch_threads(threads):
        comparison = compare(training.network, inputs, (_AXES, _AXES), output / "models", report)
    path = output / "index.html"
    report("Drawing", 0, 1)
    path.write_text(page.build(training, comparison), encoding="utf-8")
    return Result(training, comparison, path, time.perf_counter() - begin)


def _inputs(views: Views) -> tuple[torch.Tensor, torch.Tensor]:
    return views.seen, views.height
