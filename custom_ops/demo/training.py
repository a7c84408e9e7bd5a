"""Trains the demo's network, and its twin beside it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from custom_ops.demo.network import Ordinary, Straighten
from custom_ops.demo.water import Views, draw

Report = Callable[[str, int, int], None]  # what is done, how many steps are done, of how many

_STEPS = 200
_BATCH = 4
_POOL = 64
_SIZE = 40
_RATE = 0.02
_FEW = 10  # losses are averaged over so many steps: each is of other pictures
_MUST_FALL_TO = 0.5


@dataclass(frozen=True)
class Loss:
    """Mean squared errors of one network.

    Attributes:
        steps: One for each step of the training.
        unseen: On pictures that the training did not use.
    """

    steps: tuple[float, ...]
    unseen: float

    @property
    def first(self) -> float:
        """The mean over the first steps."""
        return sum(self.steps[:_FEW]) / _FEW

    @property
    def last(self) -> float:
        """The mean over the last steps."""
        return sum(self.steps[-_FEW:]) / _FEW

    @property
    def fell(self) -> bool:
        """Whether the last losses are at most half of the first."""
        return self.last <= _MUST_FALL_TO * self.first


@dataclass(frozen=True)
class Training:
    """What was trained.

    Attributes:
        network: The network, in evaluation mode.
        loss: Its loss.
        ordinary: The loss of the twin without deformable sampling.
        untouched: The loss of returning what is seen, on the pictures of `Loss.unseen`.
    """

    network: Straighten
    loss: Loss
    ordinary: Loss
    untouched: float


def train(report: Report) -> Training:
    """Trains both networks on pictures drawn for it.

    Args:
        report: Told of each step.

    Returns:
        The trained network and the losses; the same on each run, up to rounding.
    """
    generator = torch.Generator().manual_seed(0)
    seen, unseen = draw(_POOL, _SIZE, _SIZE, generator), draw(8, 64, 64, generator)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network, ordinary = Straighten(), Ordinary()
    loss = _fit(network, seen, unseen, "Training", report)
    twin = _fit(ordinary, seen, unseen, "Training the twin", report)
    return Training(network.eval(), loss, twin, _error(unseen.seen, unseen.truth).item())


def _fit(network: nn.Module, seen: Views, unseen: Views, name: str, report: Report) -> Loss:
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=_STEPS, pct_start=0.15
    )
    losses = []
    for i in range(_STEPS):
        report(name, i, _STEPS)
        views = seen.pick(torch.randint(_POOL, (_BATCH,), generator=generator))
        loss = _error(network(views.seen, views.height), views.truth)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        remains = _error(network(unseen.seen, unseen.height), unseen.truth)
    return Loss(tuple(losses), remains.item())


def _error(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (actual - expected).square().mean()
