"""What was cut out of a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Extraction:
    """A piece of a model, written to a file.

    Attributes:
        path: The file.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        nodes: Number of its nodes.
        of: Number of nodes of the model's main graph.
        initializers: Number of its initializers.
        data: The file beside it that holds its weights, where the model had them in one too.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    of: int
    initializers: int
    data: Path | None = None

    def __str__(self) -> str:
        nodes = f"{self.nodes:,} of {self.of:,} node{'s' * (self.of != 1)}"
        stored = f"{self.initializers:,} initializer{'s' * (self.initializers != 1)}"
        lines = [
            f"{self.path}: {nodes}, {stored}",
            f"  inputs   {', '.join(self.inputs) or 'none'}",
            f"  outputs  {', '.join(self.outputs)}",
        ]
        if self.data is not None:
            lines.append(f"  weights  {self.data}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Returns the extraction in the types of JSON."""
        return {
            "path": str(self.path),
            "data": None if self.data is None else str(self.data),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "nodes": self.nodes,
            "of": self.of,
            "initializers": self.initializers,
        }
