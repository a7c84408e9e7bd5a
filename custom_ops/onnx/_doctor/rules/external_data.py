"""External data: it is there, as large as it should be, and in the folder of the model."""

from collections.abc import Iterator
from pathlib import Path

from custom_ops.onnx import _external
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject


def external_missing(subject: Subject) -> Iterator[Finding]:
    """The file that a tensor names for its data is there."""
    tensors: dict[tuple[str, str], list[str]] = {}
    for fault in subject.external_faults:
        if fault.code == _external.MISSING:
            tensors.setdefault((fault.rule, fault.remedy), []).append(fault.tensor)
    for (rule, remedy), names in tensors.items():  # one finding for each file
        more = f" (and that of {len(names) - 1} more)" if len(names) > 1 else ""
        sentence = f"tensor {names[0]!r}: external data {rule}{more}"
        yield Finding(Severity.ERROR, _external.MISSING, names[0], sentence, remedy)


def external_truncated(subject: Subject) -> Iterator[Finding]:
    """That file has the bytes that the tensor needs, and the tensor names as many."""
    yield from _found(subject, _external.TRUNCATED)


def external_outside(subject: Subject) -> Iterator[Finding]:
    """That file lies in the folder of the model; another one is never read."""
    yield from _found(subject, _external.OUTSIDE)


def external_link(subject: Subject) -> Iterator[Finding]:
    """That file is no symbolic link; releases from 1.24 on refuse one that leaves the folder."""
    yield from _found(subject, _external.LINK)


def _found(subject: Subject, code: str) -> Iterator[Finding]:
    for fault in subject.external_faults:
        if fault.code == code:
            taken = fault.leads_to is not None and not _refused(subject, fault.leads_to)
            severity = Severity.WARNING if taken else Severity.ERROR
            sentence = f"tensor {fault.tensor!r}: external data {fault.rule}"
            yield Finding(severity, code, fault.tensor, sentence, fault.remedy)


def _refused(subject: Subject, file: Path) -> bool:
    """Returns whether onnxruntime refuses a link to a file for leaving the folder.

    In the caches of model hubs, model and data are links to files of one folder, which it takes.
    """
    model = subject.document.path
    if model is None or not subject.target.at_least("1.24"):
        return False
    folders = model.parent.resolve(), model.resolve().parent
    return not any(file.is_relative_to(folder) for folder in folders)


RULES: tuple[Rule, ...] = (external_missing, external_truncated, external_outside, external_link)
