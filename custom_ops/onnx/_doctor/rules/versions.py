"""Versions: of the file format and of the operator sets."""

from collections.abc import Iterator

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject


def ir_version(subject: Subject) -> Iterator[Finding]:
    """The target reads the IR version of the file."""
    found, newest = subject.model.ir_version, subject.target.ir_version
    if not 3 <= found <= newest:
        yield Finding(
            Severity.ERROR,
            "ir-version",
            "",
            f"the IR version must be 3 to {newest} for {subject.target}, got {found}",
            f"set it with custom_ops.onnx.set_ir_version(model, {newest})",
            fixable=True,
        )


def opset(subject: Subject) -> Iterator[Finding]:
    """The target knows the opset of ai.onnx."""
    found, newest = subject.opsets.get(""), subject.target.opset
    if found is not None and found > newest:
        known = onnx.defs.onnx_opset_version()
        unknown = f", which is newer than onnx {onnx.__version__} knows too" * (found > known)
        yield Finding(
            Severity.ERROR,
            "opset",
            "",
            f"the opset must be at most {newest} for {subject.target}, got {found}{unknown}",
            f"lower it with custom-ops fix --target {subject.target}, export at opset {newest}, "
            "or deploy a newer release",
            fixable=found <= known,
        )
    elif found is not None and found < 1:
        yield Finding(
            Severity.ERROR,
            "opset",
            "",
            f"the opset must be 1 or later, got {found}",
            "export the model again",
        )


def domain_import(subject: Subject) -> Iterator[Finding]:
    """Each domain of a node is imported, by the model and by the function that has the node."""
    seen: set[tuple[str, str]] = set()
    for located in subject.nodes():
        domain = _walk.domain(located.node.domain)
        function = located.function
        holder = function.name if function is not None else ""
        if (holder, domain) in seen or subject.opset(domain, function) is not None:
            continue
        seen.add((holder, domain))
        who = f"function {holder!r}" if holder else "the model"
        yield Finding(
            Severity.ERROR,
            "domain-import",
            located.name,
            f"{who} must import the domain {domain or 'ai.onnx'!r} of {located.node.op_type}, got "
            "no import of it",
            "add the opset import that the op was written for",
            fixable=False,
        )


RULES: tuple[Rule, ...] = (ir_version, opset, domain_import)
