"""Compares `custom_ops.debug.compare` with other tools that look for the layer that differs.

    python benchmarks/debug_others.py [--case NAME] [--tool NAME] [--seconds 300]

Three models, each with one fault. Each tool runs in a process of its own; time and memory are those
of its comparison, beyond what loading and exporting took. The other tools name no culprit: for them
counts the first node, in the order of the graph, whose value differs by more than 1e-3 times its
largest number (1e-4 where torch tells the difference alone). torch's tool compares the program with
the module. Polygraphy (1) and the reference
evaluator of onnx (2) know no module: they get a right model beside the wrong one, which a user
who has only the wrong one lacks; 1 runs both in ONNX Runtime, 2 in the evaluator.
"""

import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
import typer
from rich.table import Table
from script import show, start
from torch import nn

import custom_ops.debug
import custom_ops.onnx
from custom_ops._cli.output import Failure

_OFF, _ALONE = 1e-3, 1e-4


class _Custom(nn.Module):
    """A network with one of our ops."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolves, multiplies and adds, and convolves again."""
        y = self.first(x)
        last: torch.Tensor = self.last(custom_ops.mul_add(y, y)).relu()
        return last


def _mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(weights=None)  # type: ignore[no-any-return]


def _scaled(name: str, place: int) -> Callable[[ir.Model], str]:
    """Returns what makes a weight wrong, and gives the name of the node that has it."""

    def spoil(model: ir.Model) -> str:
        node = [each for each in model.graph if each.op_type == name][place]
        weight = node.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.5))
        return str(node.name)

    return spoil


def _epsilon(model: ir.Model) -> str:
    (node,) = [each for each in model.graph if each.op_type == "InstanceNormalization"]
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-5)
    return str(node.name)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[ir.Model], str]]] = {
    "mobilenet_v3_small, a weight": (_mobilenet, (1, 3, 224, 224), _scaled("Conv", 20)),
    "custom op, a weight after it": (_Custom, (1, 3, 16, 16), _scaled("Conv", 1)),
    "GroupNorm, its epsilon": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8, eps=1e-3), nn.ReLU()),
        (1, 3, 16, 16),
        _epsilon,
    ),
}


class Subject:
    """A module, its model, and a program whose model is wrong."""

    def __init__(self, case: str) -> None:
        make, shape, spoil = CASES[case]
        torch.manual_seed(0)
        self.module, self.x = make().eval(), torch.randn(shape) / 10
        program = torch.onnx.export(
            self.module, (self.x,), dynamo=True, verbose=False,
            custom_translation_table=custom_ops.onnx.translation_table(),
        )  # fmt: skip
        assert program is not None
        self.program = program
        self.right = self.program.model_proto
        self.guilty = spoil(self.program.model)
        self.wrong = self.program.model_proto
        self.feeds = {self.right.graph.input[0].name: self.x.numpy()}

    def first(self, values: Mapping[str, tuple[float, float]]) -> str:
        """Returns the first node one of whose values differs.

        Args:
            values: The difference of each value, and its largest number.
        """
        for node in self.wrong.graph.node:
            for name in node.output:
                if name in values and not values[name][0] <= _OFF * values[name][1]:
                    return str(node.name)
        return "none"

    def first_of(self, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        """Returns the first node whose values differ."""
        return self.first(
            {
                name: (float(np.abs(found[name] - array).max()), float(np.abs(array).max()))
                for name, array in wanted.items()
                if name in found and np.size(array) and np.asarray(array).dtype.kind == "f"
            }
        )


def _ours(subject: Subject) -> str:
    fault = custom_ops.debug.compare(subject.module, subject.wrong, subject.x).first_fault
    return fault.node if fault is not None else "none"


def _torch(subject: Subject) -> str:
    from torch.onnx.verification import verify_onnx_program

    infos = verify_onnx_program(subject.program, (subject.x,), compare_intermediates=True)
    if not infos:
        raise RuntimeError("no value is compared")
    return subject.first({each.name: (each.max_abs_diff, _ALONE / _OFF) for each in infos})


def _polygraphy(subject: Subject) -> str:
    from polygraphy import constants
    from polygraphy.backend.onnx import modify_outputs
    from polygraphy.backend.onnxrt import OnnxrtRunner
    from polygraphy.comparator import Comparator

    def runner(name: str, model: onnx.ModelProto) -> Any:
        marked = modify_outputs(model, outputs=constants.MARK_ALL)
        return OnnxrtRunner(lambda: custom_ops.onnx.session(marked), name=name)

    runners = [runner("right", subject.right), runner("wrong", subject.wrong)]
    results = Comparator.run(runners, data_loader=[subject.feeds])
    (_, (right,)), (_, (wrong,)) = results
    Comparator.compare_accuracy(results)
    return subject.first_of(dict(right), dict(wrong))


def _evaluator(subject: Subject) -> str:
    from onnx.reference import ReferenceEvaluator

    right, wrong = (
        dict(ReferenceEvaluator(model).run(None, subject.feeds, intermediate=True))
        for model in (subject.right, subject.wrong)
    )
    return subject.first_of(right, wrong)


TOOLS: dict[str, Callable[[Subject], str]] = {
    "custom_ops.debug.compare": _ours,
    "torch verify_onnx_program": _torch,
    "Polygraphy (1)": _polygraphy,
    "onnx.reference (2)": _evaluator,
}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _alone(case: str, tool: str) -> dict[str, Any]:
    """Runs a tool in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        subject = Subject(case)
        before, begin = _peak(), time.perf_counter()
        try:
            named = TOOLS[tool](subject)
        except Exception as error:  # of another's tool, which may raise anything
            named = f"{type(error).__name__}: {error}".splitlines()[0][:60]
        seconds = time.perf_counter() - begin
    verdict = "right" if named == subject.guilty else named
    return {"named": verdict, "seconds": seconds, "memory": max(_peak() - before, 0.0)}


def _rows(cases: list[str], tools: list[str], seconds: float) -> Iterator[tuple[str, ...]]:
    for case in cases:
        for tool in tools:
            command = [sys.executable, "-W", "ignore", __file__, "--child", case, tool]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=seconds, check=True
                )
            except subprocess.TimeoutExpired:
                yield case, tool, "no answer", f"over {seconds:g}", ""
                continue
            except subprocess.CalledProcessError as error:
                raise Failure(f"debug_others: {tool} must run, got {error.stderr}") from error
            found = json.loads(done.stdout.splitlines()[-1])
            yield case, tool, found["named"], f"{found['seconds']:.1f}", f"{found['memory']:.0f}"


def main(
    case: Annotated[list[str] | None, typer.Option(help="Which cases; all if left out.")] = None,
    tool: Annotated[list[str] | None, typer.Option(help="Which tools; all if left out.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each may take.")] = 300.0,
) -> None:
    """Shows whether each tool names the guilty node, and what it costs."""
    for given, known in ((case, CASES), (tool, TOOLS)):
        for name in given or ():
            if name not in known:
                raise Failure(f"debug_others: must be one of {', '.join(known)}, got {name!r}")
    table = Table()
    for heading in ("case", "tool", "named", "seconds", "MiB"):
        table.add_column(heading)
    for row in _rows(case or list(CASES), tool or list(TOOLS), seconds):
        table.add_row(*row)
    show(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_alone(*sys.argv[2:])))
    else:
        start(main)
