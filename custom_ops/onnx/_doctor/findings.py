"""What the doctor finds, and how it is shown."""

from collections import Counter
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How bad a finding is.

    ERROR: the target refuses the model, or computes wrong numbers. WARNING: against the rules of
    ONNX, or another tool will refuse it, but the target runs it. NOTE: a trap.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor has found.

    Attributes:
        severity: How bad it is for the target.
        code: Code of the rule, for example "ir-version".
        where: Name of the node or value that it is about; "" for the whole model.
        sentence: What is wrong.
        remedy: What to do.
        fixable: Whether `custom_ops.onnx.fix` does it.
    """

    severity: Severity
    code: str
    where: str
    sentence: str
    remedy: str
    fixable: bool = False

    @property
    def advice(self) -> str:
        """Where, what is wrong and what to do, in one line whatever the names of the model are."""
        where = f"{self.where}: " if self.where else ""
        text = f"{where}{self.sentence}; {self.remedy}"
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.advice}{' (fixable)' * self.fixable}"


@dataclass(frozen=True)
class Report:
    """What the doctor says of a model.

    Attributes:
        model: What the model is called.
        target: The release that it was judged for, as "onnxruntime==1.32".
        findings: The worst first; within a severity in the order of the rules.
    """

    model: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        counts = Counter(str(finding.severity) for finding in self.findings)
        found = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] > 1)}" for s in counts) or "nothing"
        return "\n".join([f"{self.model} for {self.target}: {found}", *map(str, self.findings)])

    def as_dict(self) -> dict[str, Any]:
        """Returns the report in the types of JSON."""
        findings = [{**asdict(each), "severity": str(each.severity)} for each in self.findings]
        return {"ok": self.ok, "model": self.model, "target": self.target, "findings": findings}
