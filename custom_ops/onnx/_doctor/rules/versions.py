"""Versions: of the file format and of the operator sets."""

from collections.abc import Iterator

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._targets import Target


def ir_version(subject: Subject) -> Iterator[Finding]:
    """The target reads the IR version of the file."""
    found, newest = subject.model.ir_version, subject.target.ir_version
    if not 3 <= found <= newest:
        yield Finding(
            Severity.ERROR if found > newest else Severity.WARNING,  # it takes old ones, and 0
            "ir-version",
            "",
            f"the IR version must be 3 to {newest} for {subject.target}, got {found}",
            f"set it with custom_ops.onnx.set_ir_version(model, {newest})",
            fixable=True,
        )


def opset(subject: Subject) -> Iterator[Finding]:
    """The target knows the opset of ai.onnx, and of the other domains it has, of functions too."""
    called = {(_walk.domain(each.node.domain), each.node.op_type) for each in subject.nodes()}
    holders = [("", subject.opsets)]
    holders += [
        (each.name, {_walk.domain(used.domain): used.version for used in each.opset_import})
        for each in subject.model.functions
        if (_walk.domain(each.domain), each.name) in called
    ]
    for function, opsets in holders:
        for domain, found in opsets.items():
            newest = subject.target.newest(domain)
            if newest is None:
                continue
            what = f"opset of {domain}" if domain else "opset"
            if function:
                what += f" in function {function!r}"
            if found > newest:
                yield _newer(subject.target, function, domain, what, found, newest)
            elif found < 1:
                yield Finding(
                    Severity.ERROR,
                    "opset",
                    function,
                    f"the {what} must be 1 or later, got {found}",
                    "export the model again",
                )


def _newer(
    target: Target, function: str, domain: str, what: str, found: int, newest: int
) -> Finding:
    known = onnx.defs.onnx_opset_version()
    unknown = not domain and found > known
    newer = f", which is newer than onnx {onnx.__version__} knows too" if unknown else ""
    lower = f"lower it with custom-ops fix --target {target}, " if not (domain or function) else ""
    return Finding(
        Severity.ERROR,
        "opset",
        function,
        f"the {what} must be at most {newest} for {target}, got {found}{newer}",
        f"{lower}export at opset {newest}, or deploy a newer release",
        fixable=not domain and not function and not unknown,
    )


def domain_import(subject: Subject) -> Iterator[Finding]:
    """Each domain of a node is imported, by the model and by the function that has the node.

    What onnxruntime has itself it takes without an import in the model, in the newest version, as
    long as the model imports anything.
    """
    seen: set[tuple[str, str]] = set()
    for located in subject.nodes():
        domain = _walk.domain(located.node.domain)
        function = located.function
        holder = function.name if function is not None else ""
        if (holder, domain) in seen or subject.opset(domain, function) is not None:
            continue
        seen.add((holder, domain))
        newest = subject.target.newest(domain)
        taken = function is None and newest is not None and subject.model.opset_import
        who = f"function {holder!r}" if holder else "the model"
        version = implied_version(subject, domain, function)
        yield Finding(
            Severity.WARNING if taken else Severity.ERROR,
            "domain-import",
            located.name,
            f"{who} must import the domain {domain or 'ai.onnx'!r} of {located.node.op_type}, got "
            f"no import of it{f'; {subject.target} takes version {newest}' if taken else ''}",
            "add the opset import that the op was written for"
            if version is None
            else f"add the import of version {version}, as custom-ops fix does",
            fixable=version is not None,
        )


def implied_version(
    subject: Subject, domain: str, function: onnx.FunctionProto | None
) -> int | None:
    """Returns the version of a domain that an import can only mean, where one is missing.

    It is that of the model for a function, that of all functions for the model, 1 for a domain of
    which the target has no other, and 1 for the domain of the model's functions, whose version
    counts nowhere.
    """
    if function is not None and subject.opset(domain) is not None:
        return subject.opset(domain)
    versions = {subject.opset(domain, each) for each in subject.model.functions} - {None}
    if len(versions) == 1:
        return versions.pop()
    newest = subject.target.newest(domain)
    own = any(_walk.domain(each.domain) == domain for each in subject.model.functions)
    return 1 if not versions and (newest == 1 or (own and newest is None)) else None


def domain_twice(subject: Subject) -> Iterator[Finding]:
    """Each domain is imported once; of two versions onnxruntime takes the last."""
    holders = [("the model", subject.model.opset_import)]
    holders += [(f"function {f.name!r}", f.opset_import) for f in subject.model.functions]
    for who, imports in holders:
        versions: dict[str, list[int]] = {}
        for each in imports:
            versions.setdefault(_walk.domain(each.domain), []).append(each.version)
        for domain, found in versions.items():
            if len(found) > 1:
                yield Finding(
                    Severity.WARNING,
                    "domain-twice",
                    "",
                    f"{who} must import the domain {domain or 'ai.onnx'!r} once, got versions "
                    f"{', '.join(map(str, found))}, of which the last counts",
                    "remove the other imports with custom-ops fix",
                    fixable=True,
                )


RULES: tuple[Rule, ...] = (ir_version, opset, domain_import, domain_twice)
