"""What was cut out of a model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custom_ops.onnx._extract.samples import Sample


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
        module: Path of the torch module that was asked for; None where the cut is by names.
        call: Which call of the module it is, from 0.
        calls: How often the model calls the module.
        merged: The module and those that the exporter has merged with it, all of them in the piece,
            in the order of torch's calls; () where there is none.
        notes: What else is to be known of the piece.
        sample: Inputs of the piece with torch's outputs, where the arguments of the torch module
            were given.

    It is true where ONNX Runtime's outputs are torch's, or there is no sample.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    of: int
    initializers: int
    data: Path | None = None
    module: str | None = None
    call: int = 0
    calls: int = 1
    merged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sample: Sample | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return self.sample is None or bool(self.sample)

    def __str__(self) -> str:
        nodes = f"{self.nodes:,} of {self.of:,} node{'s' * (self.of != 1)}"
        stored = f"{self.initializers:,} initializer{'s' * (self.initializers != 1)}"
        lines = [
            f"{self.path}: {nodes}, {stored}",
            *self._of_module(),
            f"  inputs   {', '.join(self.inputs) or 'none'}",
            f"  outputs  {', '.join(self.outputs)}",
        ]
        if self.data is not None:
            lines.append(f"  weights  {self.data}")
        lines += (f"  note     {note}" for note in self.notes)
        if self.sample is not None:
            lines.append(f"  sample   {self.sample}")
        return "\n".join(lines)

    def _of_module(self) -> list[str]:
        if self.module is None:
            return []
        call = f", call {self.call} of 0 to {self.calls - 1}" if self.calls > 1 else ""
        lines = [f"  module   {self.module}{call}"]
        if self.merged:
            lines.append(f"  merged   {', '.join(self.merged)}: one piece")
        return lines

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
            "module": self.module,
            "call": self.call,
            "calls": self.calls,
            "merged": list(self.merged),
            "notes": list(self.notes),
            "sample": None if self.sample is None else self.sample.as_dict(),
        }
