"""Exports one entry of torch's list of ops after another, as `coverage.py` asks, and compares.

    python tools/coverage_child.py EXPORTER WITH_PACK

Reads the number of an entry a line, answers with one line of JSON; to a number with a question
mark, whether the entry calls an op of the pack. A process of its own, since
some entries kill it. Without the pack nothing of custom_ops is imported: it is torch as it is.
"""

import functools
import itertools
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import torch
from torch.utils import _pytree as pytree

from custom_ops.onnx._doctor.conversion_trial import Call

OPSET = 18
# float32 sums in another order differ in the last bits; OpInfo's own comparisons allow as much.
RTOL, ATOL = 1e-4, 1e-5
_LONGEST_REASON = 160


@dataclass(frozen=True)
class Entry:
    """An op of the list.

    Attributes:
        name: Its name, with the variant of the test in brackets.
        aten: Name of the torch op, "aten::asinh".
        call: What is called with the sample's arguments.
        samples: Gives the samples: positional and keyword arguments.
    """

    name: str
    aten: str
    call: Callable[..., Any]
    samples: Callable[[], Iterator[tuple[tuple[Any, ...], dict[str, Any]]]]


def entries() -> list[Entry]:
    """Returns every entry of torch's list with its overloads, then torchvision's ops."""
    from torch.testing._internal.common_methods_invocations import op_db

    return [_of_torch(info) for info in op_db] + _of_torchvision()


def _of_torch(info: Any) -> Entry:
    def samples() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        if torch.float32 in info.dtypes:
            for sample in info.sample_inputs("cpu", torch.float32, requires_grad=False):
                yield (sample.input, *sample.args), sample.kwargs

    name = f"{info.name} ({info.variant_test_name})" if info.variant_test_name else info.name
    return Entry(name, f"aten::{info.aten_name or info.name}", info.op, samples)


def _of_torchvision() -> list[Entry]:
    import torchvision

    make = torch.rand
    image, boxes = make(1, 8, 10, 10), torch.tensor([[0.0, 1, 1, 7, 6], [0, 0, 2, 9, 9]])
    five = make(5, 4).sort().values[:, [0, 1, 2, 3]] * 10
    calls: dict[str, tuple[Any, ...]] = {
        "nms": (five, make(5), 0.3),
        "roi_align": (image, boxes, (2, 2), 0.5, 2, True),
        "roi_pool": (image, boxes, (2, 2), 0.5),
        "ps_roi_align": (image, boxes, (2, 2), 0.5, 2),
        "ps_roi_pool": (image, boxes, (2, 2), 0.5),
        "deform_conv2d": (image, make(1, 18, 8, 8), make(4, 8, 3, 3), make(4)),
    }

    def entry(name: str, args: tuple[Any, ...]) -> Entry:
        call = getattr(torchvision.ops, name)
        return Entry(
            f"torchvision.{name}", f"torchvision::{name}", call, lambda: iter([(args, {})])
        )

    return [entry(name, args) for name, args in calls.items()]


class Module(Call):
    """Calls an op with the tensors given and the other arguments of a sample."""

    def __init__(self, call: Callable[..., Any], args: Any) -> None:
        """Takes the sample apart: its tensors become the inputs."""
        super().__init__(call, *args)
        self.as_pairs = False

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Returns the tensors among what the op returns."""
        outputs = super().forward(*tensors)
        if self.as_pairs:  # TorchScript has no complex outputs
            return tuple(
                torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in outputs
            )
        return outputs

    def eager(self, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Returns what torch computes; inputs stay, where the op writes to them."""
        torch.manual_seed(seed)
        # Entries that draw numbers set one seed themselves, and would not look random.
        with torch.no_grad(), mock.patch.object(torch, "manual_seed"):
            outputs: tuple[torch.Tensor, ...] = self(*(t.clone() for t in self.tensors))
        return outputs

    @property
    def usable(self) -> bool:
        """Whether ONNX Runtime can take and give the tensors, and not all are empty."""
        outputs = self.eager()
        plain = all(
            tensor.layout == torch.strided and tensor.dtype != torch.bfloat16
            for tensor in (*self.tensors, *outputs)
        )
        return plain and all(any(t.numel() for t in ts) for ts in (self.tensors, outputs))

    def __str__(self) -> str:
        """Returns the arguments, tensors by their shapes."""
        leaves = [_shown(leaf) for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        words = [_joined(arg) for arg in args]
        return ", ".join(words + [f"{name}={_joined(arg)}" for name, arg in kwargs.items()])


def _shown(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        kind = str(leaf.dtype).removeprefix("torch.")
        return f"{kind if kind != 'float32' else ''}{list(leaf.shape)}"
    return repr(leaf)


def _joined(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_joined(element) for element in value) + ")"
    return str(value)


def examine(entry: Entry, exporter: str, table: Callable[[], Any]) -> dict[str, str]:
    """Exports an entry and compares; returns its name, arguments, status, and why.

    Args:
        entry: The entry.
        exporter: "dynamo" or "torchscript".
        table: Gives the translation table of the dynamo exporter, or None.
    """
    answer = {"name": entry.name, "aten": entry.aten, "args": "", "status": "skipped"}
    torch.manual_seed(0)
    try:
        module = _usable(entry)
    except Exception as error:
        return answer | {"why": f"the sample fails in torch: {first_line(error)}"}
    if module is None:
        return answer | {"why": "no sample in float32 with tensors in and out"}
    answer["args"] = str(module)
    module.as_pairs = exporter == "torchscript"
    wanted = module.eager()
    if any(_differ(a, b) for a, b in zip(wanted, module.eager(seed=1), strict=True)):
        return answer | {"why": "random"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            _export(module, path, exporter, table)
        except Exception as error:
            return answer | {"status": "fails", "why": _cause(error)}
        try:
            found = _run(path, module.tensors)
        except Exception as error:
            return answer | {"status": "refused", "why": first_line(error)}
    for index, (value, right) in enumerate(itertools.zip_longest(found, wanted)):
        reason = "another number of outputs" if value is None or right is None else ""
        if reason := reason or _differ(torch.from_numpy(np.asarray(value)), right):
            return answer | {"status": "wrong", "why": f"output {index}: {reason}"}
    return answer | {"status": "right", "why": ""}


def calls_any(entry: Entry, ops: set[str]) -> bool:
    """Returns whether torch calls some of the ops where it computes an entry."""
    torch.manual_seed(0)
    module = _usable(entry)
    if module is None:
        return False
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        module.eager()
    return bool(ops & {entry.aten, *(event.key for event in profile.key_averages())})


def _usable(entry: Entry) -> Module | None:
    """Returns the first usable sample; one of numbers alone counts only where there is no other."""
    numbers = None
    for sample in entry.samples():
        module = Module(entry.call, sample).eval()
        if module.tensors and (numbers is None or module.tensors[0].dim()) and module.usable:
            if module.tensors[0].dim():
                return module
            numbers = module
    return numbers


def _export(module: Module, path: Path, exporter: str, table: Callable[[], Any]) -> None:
    options: dict[str, Any] = {"opset_version": OPSET, "dynamo": exporter == "dynamo"}
    if exporter == "dynamo":
        options |= {"verbose": False, "custom_translation_table": table()}
    else:
        options["input_names"] = [f"input_{i}" for i in range(len(module.tensors))]
    torch.onnx.export(module, module.tensors, str(path), **options)


def _run(path: Path, tensors: tuple[torch.Tensor, ...]) -> list[Any]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    given = [_real(tensor).numpy() for tensor in tensors]
    names = [value.name for value in session.get_inputs()]
    if len(names) == len(given):
        return list(session.run(None, dict(zip(names, given, strict=True))))
    # TorchScript leaves out inputs that the result does not depend on.
    feeds = {name: given[int(name.rpartition("_")[2])] for name in names}
    return list(session.run(None, feeds))


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a complex tensor as pairs of real numbers, the form that ONNX has for it."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return torch.view_as_real(plain) if plain.is_complex() else plain


def _differ(found: torch.Tensor, right: torch.Tensor) -> str:
    found, right = _real(found), _real(right)
    if found.shape != right.shape:
        return f"shape {list(found.shape)} instead of {list(right.shape)}"
    if found.dtype != right.dtype:
        return f"{found.dtype} instead of {right.dtype}".replace("torch.", "")
    if not torch.allclose(found, right, RTOL, ATOL, equal_nan=True):
        with np.errstate(all="ignore"):
            gap = np.nanmax(np.abs(found.double().numpy() - right.double().numpy()))
        return f"off by {gap:.2g}"
    return ""


def first_line(error: BaseException) -> str:
    """Returns the first line of a message, shortened, without paths and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"\x1b\[\d+m|\[ONNXRuntimeError\] : \d+ : ", "", text)
    text = re.sub(r"(/[\w.+-]+){2,}", "FILE", re.sub(r"0x[0-9a-f]+", "ADDRESS", text))
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _cause(error: BaseException) -> str:
    """Returns what lies behind an exporter's long account of a failure."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _keep_registry() -> None:
    """Lets the dynamo exporter build its list of functions once: that is half of the time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    build = functools.cache(ONNXRegistry.from_torchlib)

    def copied(*args: Any, **kwargs: Any) -> Any:
        built, copy = build(*args, **kwargs), ONNXRegistry()
        copy._opset_version = built._opset_version
        copy.functions = {name: list(metas) for name, metas in built.functions.items()}
        return copy

    setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))  # noqa: B010, as mypy wants it


def _torch_alone() -> None:
    """Gives no translation table: the dynamo exporter as it is."""


def _prepare(exporter: str, with_pack: bool) -> Callable[[], Any]:
    if not with_pack:
        return _torch_alone
    import custom_ops.onnx

    if exporter == "torchscript":
        custom_ops.onnx.install_mappings()
    else:  # as custom_ops.onnx.export does
        from custom_ops.onnx._mappings import Traceable

        torch.overrides._push_mode(Traceable())
    return lambda: custom_ops.onnx.translation_table(opset_version=OPSET)


def _ops_of_pack(exporter: str) -> set[str]:
    from custom_ops.onnx._mappings import registry

    return registry.names(exporter)


def main() -> None:
    """Answers until the input ends. What exporters print must not get between the answers."""
    exporter, with_pack = sys.argv[1], sys.argv[2] == "1"
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    listed, table = entries(), _prepare(exporter, with_pack)
    ops = _ops_of_pack(exporter) if with_pack else set()
    if exporter == "dynamo":
        _keep_registry()
    answers.write(json.dumps([entry.name for entry in listed]) + "\n")
    for line in sys.stdin:
        entry = listed[int(line.strip(" ?\n"))]
        if "?" in line:
            answer: Any = {"calls": calls_any(entry, ops)}
        else:
            answer = examine(entry, exporter, table)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
