"""Will an op of torch, or a model, convert? The three conditions, exporter by exporter."""

import difflib
import json
import lzma
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from custom_ops.onnx import _child
from custom_ops.onnx._mappings.schema import overloads

_EXPORTERS = ("dynamo", "torchscript")
_COVERAGE = Path(__file__).parents[1] / "_mappings" / "coverage.json.xz"
_SECONDS = 300.0
_OPSET = 20


@dataclass(frozen=True)
class Trial:
    """What became of one way to export.

    Attributes:
        exporter: "dynamo" or "torchscript".
        mapped: Whether it had the mappings of custom_ops.
        status: "right", "wrong", "refused" (by onnxruntime), "fails" (to export), "crashes", or
            "not known".
        why: The reason, where it is not right.
        source: "trial", or the coverage table of which torch; "" where nothing is known.
    """

    exporter: str
    mapped: bool
    status: str
    why: str
    source: str

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        mapped = "with mappings" if self.mapped else "alone"
        return f"{self.exporter} {mapped}: {self.status}{': ' * bool(self.why)}{self.why}{source}"


@dataclass(frozen=True)
class Conversion:
    """Whether something converts.

    Attributes:
        subject: The op or the model.
        in_torch: Whether torch has it.
        in_onnx: The op of ONNX of the same name, with its first opset, if there is one.
        arguments: What it was tried with.
        trials: By exporter, alone and with the mappings.
        remedy: What to do where it does not convert.
    """

    subject: str
    in_torch: bool
    in_onnx: str
    arguments: str
    trials: tuple[Trial, ...]
    remedy: str

    def __bool__(self) -> bool:
        return any(trial.status == "right" for trial in self.trials)

    def __str__(self) -> str:
        lines = [f"{self.subject}: torch {'has' if self.in_torch else 'does not have'} it"]
        if self.in_onnx:
            lines[0] += f"; ONNX has {self.in_onnx}"
        if self.arguments:
            lines[0] += f"; tried with {self.arguments}"
        return "\n".join([*lines, *map(str, self.trials), *([self.remedy] * bool(self.remedy))])

    def as_dict(self) -> dict[str, Any]:
        """Returns it in the types of JSON."""
        return {**asdict(self), "ok": bool(self), "trials": [asdict(each) for each in self.trials]}


def convertible(
    subject: str | torch.nn.Module,
    args: Sequence[Any] | None = None,
    *,
    opset_version: int = _OPSET,
) -> Conversion:
    """Asks whether an op or a module converts to ONNX and runs in the installed ONNX Runtime.

    Both exporters of torch are tried, alone and with the mappings. An op is tried in another
    process, as some end it (which has the mappings of packages, not those of this one), with the
    arguments given or a sample of torch's own tests. Where there is no sample the coverage table
    answers, if it is of this torch.

    Args:
        subject: An op, for example "aten::asinh", or a module in evaluation mode.
        args: The arguments; a module needs them.
        opset_version: The opset to write.

    Returns:
        The answer, which is true where an exporter is right.

    Raises:
        ValueError: A module without arguments, a name that is none of an op, or arguments that
            the op does not take.

    Example:
        >>> import torch, custom_ops
        >>> print(custom_ops.onnx.convertible(torch.nn.ReLU().eval(), (torch.ones(2),)))
        ReLU: torch has it; tried with [2]
        dynamo alone: right (trial)
        dynamo with mappings: right (trial)
        torchscript alone: right (trial)
        torchscript with mappings: right (trial)
    """
    if isinstance(subject, torch.nn.Module):
        return _of_module(subject, args, opset_version)
    namespace, _, name = subject.partition("::")
    if not namespace or not name:
        raise ValueError(
            f"convertible: subject must be a module or an op like 'aten::asinh', got {subject!r}"
        )
    if namespace == "torchvision":
        import torchvision  # noqa: F401  # it registers its ops
    op = f"{namespace}::{name.partition('.')[0]}"
    packet = getattr(getattr(torch.ops, namespace), name.partition(".")[0], None)
    if packet is None:
        known = {each.partition(".")[0] for each in torch._C._dispatch_get_all_op_names()}
        near = difflib.get_close_matches(op, known, 3)
        remedy = f"did you mean {', '.join(near)}?" if near else "import the library that has it"
        return Conversion(subject, False, "", "", (), remedy)
    trials, arguments = _tried(subject, args, opset_version)
    if not trials:
        trials, arguments = _looked_up(op)
    if not trials:
        trials = [Trial(e, m, "not known", "", "") for e in _EXPORTERS for m in (False, True)]
        return Conversion(subject, True, _same_name(name), "", tuple(trials), "give it arguments")
    return Conversion(
        subject, True, _same_name(name), arguments, tuple(trials), _remedy(subject, trials)
    )


def _of_module(module: torch.nn.Module, args: Sequence[Any] | None, opset: int) -> Conversion:
    from custom_ops.onnx._doctor.conversion_trial import attempt

    if args is None:
        raise ValueError("convertible: args must be given for a module, got None; pass its inputs")
    trials = [
        Trial(exporter, mapped, status, why, "trial")
        for exporter in _EXPORTERS
        for mapped in (False, True)
        for status, why in [attempt(module, tuple(args), exporter, opset, mapped)]
    ]
    shapes = [list(each.shape) for each in args if isinstance(each, torch.Tensor)]
    name = type(module).__name__
    return Conversion(
        name, True, "", ", ".join(map(str, shapes)), tuple(trials), _remedy(name, trials)
    )


def _tried(op: str, args: Sequence[Any] | None, opset: int) -> tuple[list[Trial], str]:
    """Tries an op in other processes; no trials where there is no sample."""
    trials, arguments = [], ""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        if args is not None:
            files.append(str(Path(folder) / "args.pt"))
            torch.save(list(args), files[0])
        for exporter in _EXPORTERS:
            module = f"{__name__}_trial"
            done = _child.run(["-m", module, op, exporter, str(opset), *files], b"", _SECONDS)
            if done.code == 0 and not done.answers:
                return [], ""
            if done.answers and "not taken" in done.answers[-1]:
                raise _not_taken(op, done.answers[-1]["not taken"])
            answers = [answer for answer in done.answers if "status" in answer]
            why = (done.errors.strip().splitlines() or [f"the process ended with {done.code}"])[-1]
            if done.code is None:
                why = f"no answer in {_SECONDS:.0f} s"
            answers += [{"status": "crashes", "why": why}] * (2 - len(answers))
            arguments = next((a["arguments"] for a in answers if "arguments" in a), arguments)
            trials += [
                Trial(exporter, mapped, answer["status"], answer["why"], "trial")
                for mapped, answer in zip((False, True), answers, strict=True)
            ]
    return trials, arguments


def _not_taken(op: str, why: str) -> ValueError:
    namespace, _, rest = op.partition("::")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), name)
    schema = getattr(packet, overload or packet.overloads()[0])._schema
    return ValueError(
        f"convertible: args must be those of {schema}, got others: {why.rstrip(':')}; give all "
        "that it needs, or leave args (--args) out to try a sample of torch's own tests"
    )


def _looked_up(op: str) -> tuple[list[Trial], str]:
    """Returns what the coverage table says of an op, if it is of this torch."""
    if not _COVERAGE.is_file():
        return [], ""
    table = json.loads(lzma.decompress(_COVERAGE.read_bytes()))
    if table["torch"] != torch.__version__.partition("+")[0]:
        return [], ""
    source = f"coverage table of torch {table['torch']}"
    for _, aten, arguments, *found in table["rows"]:
        if aten == op and all(status and status != "skipped" for status, _ in found):
            sides = [(exporter, mapped) for exporter in _EXPORTERS for mapped in (False, True)]
            trials = [
                Trial(*side, status, why, source)
                for side, (status, why) in zip(sides, found, strict=True)
            ]
            return trials, arguments
    return [], ""


def _same_name(name: str) -> str:
    """Returns the op of ONNX that has the name of a torch op, with its first opset."""
    plain = name.partition(".")[0].replace("_", "").lower()
    since = [
        (schema.since_version, schema.name)
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain == "" and schema.name.lower() == plain and not schema.deprecated
    ]
    return f"{min(since)[1]} from opset {min(since)[0]} on" if since else ""


def _remedy(subject: str, trials: Sequence[Trial]) -> str:
    """Returns what to do about an exporter that is not right."""
    right = [trial for trial in trials if trial.status == "right"]
    if len(right) == len(trials):
        return ""
    of_op = "::" in subject and next(iter(overloads(subject.partition(".")[0])), None) is not None
    mapping = f"custom_ops.onnx.register_mapping({subject!r}, ...)" if of_op else "a mapping"
    if not right:
        return f"give the exporters {mapping}"
    best = right[0]
    if all(trial.mapped for trial in right):
        return "export with custom_ops.onnx.export, which has the mappings"
    wrong = [e for e in _EXPORTERS if not any(t.exporter == e for t in right)]
    if wrong:
        return f"export with exporter={best.exporter!r}, or give {wrong[0]} {mapping}"
    return "export with custom_ops.onnx.export, which has the mappings"
