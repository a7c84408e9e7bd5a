"""What `fix` has done to a model, and how far that is proven."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx

from custom_ops.onnx import _external
from custom_ops.onnx._doctor import Finding, Severity
from custom_ops.onnx._proof import Proof


@dataclass(frozen=True)
class Change:
    """One thing that was done.

    Attributes:
        code: Code of the doctor's finding that it mends, or the name of the option that asked.
        sentence: What was done.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


@dataclass(frozen=True)
class Fixed:
    """A fixed model; true where the target has nothing left to refuse.

    Attributes:
        model: The fixed model; data in other files is not loaded.
        path: The file that was written, or None.
        target: The release that it was fixed for, as "onnxruntime==1.32".
        changes: What was done, in order.
        proof: How the outputs before and after compare.
        left: What the doctor still finds, the worst first.
    """

    model: onnx.ModelProto = field(repr=False)
    path: Path | None
    target: str
    changes: tuple[Change, ...]
    proof: Proof
    left: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no error is left for the target."""
        return all(finding.severity is not Severity.ERROR for finding in self.left)

    @property
    def data(self) -> Path | None:
        """The file beside `path` that has data of the model, if there is one."""
        if self.path is None:
            return None
        names = {each.location for each in _external.entries(self.model)}
        return self.path.parent / names.pop() if names else None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [*map(str, self.changes)] or ["nothing to change"]
        lines.append(f"proof: {self.proof}")
        lines += [f"left: {finding}" for finding in self.left]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Returns all but the model in the types of JSON."""
        return {
            "ok": self.ok,
            "path": None if self.path is None else str(self.path),
            "data": None if self.data is None else str(self.data),
            "target": self.target,
            "changes": [asdict(change) for change in self.changes],
            "proof": {
                **asdict(self.proof),
                "verdict": str(self.proof.verdict),
                "sizes": list(self.proof.sizes),
            },
            "left": [{**asdict(each), "severity": str(each.severity)} for each in self.left],
        }
