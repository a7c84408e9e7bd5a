"""Kernels: what the release knows, and has CPU kernels for, at the opset and the element types."""

from collections.abc import Iterator

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.nodes import node_form
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._kernels import advice
from custom_ops.onnx._kernels.judge import Outcome, Verdict
from custom_ops.ops._registry import ops


def unknown_op(subject: Subject) -> Iterator[Finding]:
    """The target has each op of ONNX, and of its own, at the opset of the model."""
    yield from _findings(subject, Outcome.UNKNOWN, "unknown-op")


def op_call(subject: Subject) -> Iterator[Finding]:
    """The target's version of each op has the node's inputs and attributes; functions inlined."""
    if next(node_form(subject), None) is None:  # else that is why
        yield from _findings(subject, Outcome.CALL, "op-call")


def kernel(subject: Subject) -> Iterator[Finding]:
    """The target has a CPU kernel, or a body, for each op at its opset and types."""
    yield from _findings(subject, Outcome.KERNEL, "kernel")


def kernel_casts(subject: Subject) -> Iterator[Finding]:
    """Ops in float16 have kernels of their own; else they run in float32, between casts."""
    yield from _findings(subject, Outcome.CASTS, "kernel-casts")


def function_overloads(subject: Subject) -> Iterator[Finding]:
    """No two functions differ by their overload alone; releases before 1.27 do not look at it."""
    wrong = not subject.target.at_least("1.27")
    counts: dict[tuple[str, str], int] = {}
    for domain, name, _ in subject.functions:
        counts[domain, name] = counts.get((domain, name), 0) + 1
    for located in subject.nodes():
        key = (_walk.domain(located.node.domain), located.node.op_type)
        if counts.get(key, 0) > 1 and subject.runs(located.function):
            del counts[key]  # one finding for each
            yield Finding(
                Severity.ERROR if wrong else Severity.NOTE,
                "function-overloads",
                located.name,
                f"function {key[1]!r} must have one body for onnxruntime before 1.27, which looks "
                "at no overload and computes wrong numbers, got several",
                "give each overload a name, or inline the functions"
                + ", as custom-ops fix does, or deploy onnxruntime 1.27" * wrong,
                fixable=wrong,
            )


def function_outputs(subject: Subject) -> Iterator[Finding]:
    """A call of a function names each of its outputs, "" for one that is not used."""
    if subject.libraries:
        return  # a kernel may take the call
    for located in subject.nodes():
        function = subject.functions.get(_guarded.function_key(located.node))
        if function is not None and len(located.node.output) < len(function.output):
            yield Finding(
                Severity.ERROR if subject.runs(located.function) else Severity.WARNING,
                "function-outputs",
                located.name,
                f"a call of function {function.name!r} must name its {len(function.output)} "
                f"outputs for onnxruntime, got {len(located.node.output)}",
                "add the others, with an empty name where they are not used, as custom-ops fix "
                "does",
                fixable=True,
            )


def _findings(subject: Subject, outcome: Outcome, code: str) -> Iterator[Finding]:
    """Yields one finding for all nodes of which the same is to be said."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in subject.verdicts:
        domain = _walk.domain(verdict.node.node.domain)
        if verdict.outcome is not outcome or (subject.libraries and domain):
            continue  # a library may have it
        groups.setdefault(advice.sentence(verdict, subject.schema_of), []).append(verdict)
    for said, verdicts in groups.items():
        others = len(verdicts) - 1
        more = f" (and in {others} more node{'s' * (others > 1)})" if others else ""
        remedy = advice.remedy(verdicts[0], subject.schema_of)
        if outcome is not Outcome.CASTS and _turns_into_ours(verdicts[0].node.node):
            remedy = f"turn it into ours with custom-ops convert, or {remedy}"
        yield Finding(
            Severity.NOTE if outcome is Outcome.CASTS else Severity.ERROR,
            code,
            verdicts[0].node.name,
            said + more,
            remedy,
        )


def _turns_into_ours(node: onnx.NodeProto) -> bool:
    """Returns whether `custom-ops convert` gives a node the form of ours, which runs everywhere."""
    wanted = (_walk.domain(node.domain), node.op_type)
    return any(
        (form.domain, form.op_type) == wanted for op in ops().values() for form in op.onnx.nodes
    )


RULES: tuple[Rule, ...] = (
    unknown_op,
    op_call,
    kernel,
    kernel_casts,
    function_overloads,
    function_outputs,
)
