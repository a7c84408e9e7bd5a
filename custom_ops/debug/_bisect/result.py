"""What a search for the smallest submodel found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bisection:
    """The smallest submodel found that shows what the predicate sees, written to a file.

    Attributes:
        path: The file.
        nodes: Number of its nodes.
        of: Number of nodes of the model's main graph.
        names: Names of its nodes.
        op_types: Types of its nodes.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        calls: How often the predicate was called.
        unresolved: Submodels without an answer: the predicate raised or returned None, or there
            were no inputs for them.
        reason: Why the first of them had none; "" if there are none.
        minimal: Whether the predicate is false, or has no answer, without any one of the nodes or
            outputs.
        stopped: The limit that ended the search before that; "" if none.
        values: The file of the values of its inputs, by name; None where the predicate does not
            run the model.
        data: The file of its weights, where the model had them in one too.

    It is true where the search came to its end.
    """

    path: Path
    nodes: int
    of: int
    names: tuple[str, ...]
    op_types: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: int
    unresolved: int = 0
    reason: str = ""
    minimal: bool = True
    stopped: str = ""
    values: Path | None = None
    data: Path | None = None

    def __bool__(self) -> bool:
        return self.minimal

    def __str__(self) -> str:
        calls = f"{self.calls:,} call{'s' * (self.calls != 1)} of the predicate"
        lines = [
            f"{self.path}: {self.nodes:,} of {self.of:,} node{'s' * (self.of != 1)}, {calls}",
            f"  nodes    {self._listed()}",
            f"  inputs   {', '.join(self.inputs) or 'none'}",
            f"  outputs  {', '.join(self.outputs)}",
        ]
        if self.values is not None:
            lines.append(f"  values   {self.values}")
        if self.data is not None:
            lines.append(f"  weights  {self.data}")
        if self.stopped:
            lines.append(f"  note     may not be minimal: stopped by {self.stopped}")
        if self.unresolved:
            lines.append(f"  note     no answer for {self.unresolved:,}, as: {self.reason}")
        return "\n".join(lines)

    def _listed(self) -> str:
        pairs = list(zip(self.op_types, self.names, strict=True))
        shown = ", ".join(f"{kind} {name!r}" if name else kind for kind, name in pairs[:8])
        return f"{shown} and {len(pairs) - 8} more" if len(pairs) > 8 else shown

    def as_dict(self) -> dict[str, Any]:
        """Returns the result in the types of JSON."""
        return {
            "path": str(self.path),
            "values": None if self.values is None else str(self.values),
            "data": None if self.data is None else str(self.data),
            "nodes": self.nodes,
            "of": self.of,
            "names": list(self.names),
            "op_types": list(self.op_types),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "calls": self.calls,
            "unresolved": self.unresolved,
            "reason": self.reason,
            "minimal": self.minimal,
            "stopped": self.stopped,
        }
