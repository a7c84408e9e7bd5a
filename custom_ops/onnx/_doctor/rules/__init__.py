"""The rules of the doctor, by what they are about; `ALL` has them in the order of the report."""

from custom_ops.onnx._doctor.rules import (
    functions,
    kernels,
    nodes,
    tensors,
    types,
    values,
    versions,
)
from custom_ops.onnx._doctor.rules.rule import Rule

ALL: tuple[Rule, ...] = (
    *versions.RULES,
    *functions.RULES,
    *values.RULES,
    *nodes.RULES,
    *tensors.RULES,
    *types.RULES,
    *kernels.RULES,
)


def code(rule: Rule) -> str:
    """Returns the code of the findings of a rule, for example "ir-version" of `ir_version`."""
    return rule.__name__.replace("_", "-")


def meaning(rule: Rule) -> str:
    """Returns what a rule asks for: the first line of its docstring."""
    return (rule.__doc__ or "").strip().splitlines()[0]
