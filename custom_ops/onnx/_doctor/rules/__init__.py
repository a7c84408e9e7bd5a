"""The rules of the doctor, by what they are about; `ALL` has them in the order of the report."""

from custom_ops.onnx._doctor.rules import versions
from custom_ops.onnx._doctor.rules.rule import Rule

ALL: tuple[Rule, ...] = (*versions.RULES,)
