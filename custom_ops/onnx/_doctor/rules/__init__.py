"""The rules of the doctor, by what they are about; `ALL` has them in the order of the report."""

from custom_ops.onnx._doctor.rules import (
    checker,
    external_data,
    faulty_kernels,
    functions,
    kernels,
    libraries,
    nodes,
    sizes,
    tensors,
    traps,
    types,
    values,
    versions,
    weights,
)
from custom_ops.onnx._doctor.rules.rule import Rule

ALL: tuple[Rule, ...] = (
    *versions.RULES,
    *libraries.RULES,
    *functions.RULES,
    *values.RULES,
    *nodes.RULES,
    *tensors.RULES,
    *external_data.RULES,
    *types.RULES,
    *sizes.RULES,
    *kernels.RULES,
    *checker.RULES,
    *faulty_kernels.RULES,
    *weights.RULES,
    *traps.RULES,
)


def code(rule: Rule) -> str:
    """Returns the code of the findings of a rule, for example "ir-version" of `ir_version`."""
    return rule.__name__.replace("_", "-")


def meaning(rule: Rule) -> str:
    """Returns what a rule asks for: the first line of its docstring."""
    return (rule.__doc__ or "").strip().splitlines()[0]


def table() -> str:
    """Returns the rules as a table of Markdown."""
    rows = [f"| `{code(rule)}` | {meaning(rule)} |" for rule in ALL]
    return "\n".join(["| rule | what it asks for |", "|---|---|", *rows])
