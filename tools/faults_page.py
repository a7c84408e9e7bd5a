"""What was found of faults that were put into models, and the page that shows it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import onnxruntime
import torch

from custom_ops import _machine


def _now() -> str:
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    return f"{date.today()} with {versions}, commit {_machine.commit()}"


@dataclass
class Clean:
    """What became of comparisons of a model without fault.

    Attributes:
        dtype: Of the model.
        comparisons: How many.
        wrong: The false alarms.
        paired: How many values of the file have a partner, in the first comparison.
        without: How many have none.
        inside: How many of these lie inside one op of torch.
        lacking: Why torch does not run it in this dtype; "" if it does.
    """

    dtype: str
    comparisons: int = 0
    wrong: list[str] = field(default_factory=list)
    paired: int = 0
    without: int = 0
    inside: int = 0
    lacking: str = ""


@dataclass
class Found:
    """What became of the faults of one kind in one model.

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


@dataclass(frozen=True)
class Result:
    """What was measured of a model by one exporter.

    Attributes:
        name: Of the model.
        exporter: What wrote the file.
        clean: Comparisons without a fault.
        faults: Those with one, by its kind.
        measured: The day, the versions of torch and onnxruntime, and the commit.
    """

    name: str
    exporter: str
    clean: list[Clean]
    faults: dict[str, Found]
    measured: str = field(default_factory=_now)

    def wrong(self) -> list[str]:
        """Returns a line for each false alarm, and for each fault that was not found as it is."""
        lines = [line for each in self.clean for line in each.wrong]
        lines += [line for each in self.faults.values() for line in each.wrong]
        return [f"{self.name} by {self.exporter}: {line}" for line in lines]

    def as_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "Result":
        """Returns what `as_dict` was made of."""
        clean = [Clean(**each) for each in given["clean"]]
        faults = {kind: Found(**each) for kind, each in given["faults"].items()}
        return cls(**{**given, "clean": clean, "faults": faults})


def _without(results: Sequence[Result]) -> list[str]:
    lines = [
        "## Models without fault",
        "",
        "Comparisons over several inputs and weights, BatchNorm as after training; an alarm is a",
        "value above its limit. *Paired*: values of the file with a partner, of those and the ones",
        "without; most of these lie inside one op of torch (`inside`), and are judged with it.",
        "",
        "| model | exporter | dtype | comparisons | alarms | paired | without | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for each in result.clean:
            if each.lacking:
                continue
            share = each.paired / (each.paired + each.without)
            lines.append(
                f"| {result.name} | {result.exporter} | {each.dtype} | {each.comparisons} | "
                f"{len(each.wrong)} | {100 * share:.1f}% | {each.without} | {each.inside} |"
            )
    return lines


def _with(results: Sequence[Result]) -> list[str]:
    lines = [
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
    total = Counter[str]()
    for result in results:
        for kind, f in result.faults.items():
            numbers = (f.all_put, f.all_found, f.all_false, f.tried, f.region, f.node, f.small)
            cells = " | ".join(map(str, numbers))
            lines.append(f"| {result.name} | {result.exporter} | {kind} | {cells} |")
            total.update(tried=f.tried, region=f.region, node=f.node, small=f.small)
    return [
        *lines,
        "",
        f"Of {total['tried']} faults, one at a time, {total['small']} are below the limit; of the "
        f"{total['tried'] - total['small']} others {total['region']} were found in the right "
        f"region alone, and {total['node']} at the right node.",
    ]


def page(results: Sequence[Result], left_out: Sequence[str]) -> str:
    """Returns the page.

    Args:
        results: What was measured.
        left_out: What was not, a line each.
    """
    measured = "; ".join(sorted({each.measured for each in results}))
    lines = [
        "# What the precision debugger finds",
        "",
        f"Measured on {measured}, by `tools/faults.py`,",
        "which puts faults into exported models and compares each with its module.",
        "",
        *_without(results),
        "",
        *_with(results),
    ]
    wrong = [line for each in results for line in each.wrong()]
    lacking = [
        f"{each.name} by {each.exporter} in {clean.dtype}: {clean.lacking}"
        for each in results
        for clean in each.clean
        if clean.lacking
    ]
    for title, each in (("What is wrong", wrong), ("What was not tried", [*left_out, *lacking])):
        if each:
            lines += ["", f"## {title}", "", *(f"- {line}" for line in each)]
    return "\n".join(lines) + "\n"
