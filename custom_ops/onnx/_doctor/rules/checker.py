"""onnx's own checker, which stops at the first thing that it does not like."""

from collections.abc import Iterator

import onnx

from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules import (
    external_data,
    functions,
    kernels,
    libraries,
    nodes,
    tensors,
    types,
    values,
    versions,
)
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject

_LONGEST = 200  # characters of what it says
# What the target refuses too, which checks each node in this way; it takes the rest.
_REFUSED = ("Bad node spec", "Field 'name' of 'value_info'")
# The rules that look at what it looks at: where they find something, they have said it.
_SAID_BY: tuple[Rule, ...] = (
    *versions.RULES,
    *functions.RULES,
    *values.RULES,
    *nodes.RULES,
    *tensors.RULES,
    *external_data.RULES,
    types.input_type,
    kernels.unknown_op,
    kernels.op_call,
    libraries.custom_domain,
)


def onnx_checker(subject: Subject) -> Iterator[Finding]:
    """The model passes onnx's checker; what that says is shown where no other rule has said it."""
    newer = subject.opsets.get("", 0) > onnx.defs.onnx_opset_version()
    if newer or subject.model.ir_version > onnx.IR_VERSION:
        return  # the onnx that is installed cannot judge it
    said = " ".join(subject.checked.split())
    if said and not any(True for rule in _SAID_BY for _ in rule(subject)):
        got = said.partition(" ==> Context")[0]
        got = got if len(got) <= _LONGEST else f"{got[: _LONGEST - 4]} ..."
        refused = any(each in said for each in _REFUSED)
        yield Finding(
            Severity.ERROR if refused else Severity.WARNING,
            "onnx-checker",
            "",
            f"the model must pass onnx.checker.check_model, got: {got.rstrip('.')}",
            "correct it, or export the model again",
        )


RULES: tuple[Rule, ...] = (onnx_checker,)
