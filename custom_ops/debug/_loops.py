"""Runs the loops of torch in Python, so that each op in their bodies is seen."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def _while(
    condition: Callable[..., Any], body: Callable[..., Any], carried: Any, more: Any
) -> Sequence[Any]:
    while bool(condition(*carried, *more)):
        carried = body(*carried, *more)
    return list(carried)


def _scan(body: Callable[..., Any], carried: Any, scanned: Any, more: Any) -> Sequence[Any]:
    count, rows = len(carried), []
    for i in range(len(scanned[0])):
        given = body(*carried, *(each[i] for each in scanned), *more)
        carried = given[:count]
        rows.append(given[count:])
    return [*carried, *map(torch.stack, zip(*rows, strict=True))]


LOOPS = {"while_loop": _while, "scan": _scan}
