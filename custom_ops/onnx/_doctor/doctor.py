"""Examines a model by every rule."""

import os
from collections.abc import Sequence

from custom_ops.onnx._doctor import rules
from custom_ops.onnx._doctor.findings import Finding, Report, Severity
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._doctor.trial import trial
from custom_ops.onnx._reading import ModelLike, read
from custom_ops.onnx._targets import target as find_target

_ORDER = list(Severity)


def doctor(
    model: ModelLike,
    target: str | None = None,
    libraries: Sequence[str | os.PathLike[str]] = (),
    *,
    run: bool = False,
) -> Report:
    """Examines a model: what will a release of ONNX Runtime refuse, and what is a trap?

    No session is opened unless asked for, and weights in other files are read piece by piece.

    Args:
        model: Path or ModelProto.
        target: The release, as "onnxruntime==1.20"; the one installed if left out.
        libraries: Libraries of custom ops that the session will register.
        run: Whether to open a session too, in a process of its own, where the target is installed;
            what it says is a finding.

    Returns:
        The report, which is true where there is no error.

    Raises:
        UnreadableModel: The file is no model.
        ValueError: The target is no release of onnxruntime.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 11, opset_import: ["": 18]>
        ...     g (float[N] x) => (float[N] y) { y = Relu(x) }
        ... ''')
        >>> print(custom_ops.onnx.doctor(model, target="onnxruntime==1.20"))
        g for onnxruntime==1.20: 1 error
        error ir-version: the IR version must be 3 to 10 for onnxruntime==1.20, got 11; set it
        with custom_ops.onnx.set_ir_version(model, 10) (fixable)
    """
    document = read(model)
    chosen = find_target(target)
    subject = Subject(document, chosen, libraries)
    findings = examine(subject)
    if run:
        findings += trial(subject, {finding.code for finding in findings})
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))  # stable
    return Report(document.name, str(chosen), tuple(findings))


def examine(subject: Subject) -> list[Finding]:
    """Returns what the rules find, the worst first."""
    findings = [finding for rule in rules.ALL for finding in rule(subject)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))  # stable
