"""What `replace` has done."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from custom_ops.onnx._model import write, written_beside
from custom_ops.onnx._proof import Proof


@dataclass(frozen=True)
class Change:
    """A node that was replaced.

    Attributes:
        node: Its name, else that of its first output.
        was: What it was, for example "mmcv::MMCVDeformConv2d" or "decomposed MulAdd".
        became: What stands in its place.
    """

    node: str
    was: str
    became: str

    def __str__(self) -> str:
        return f"{self.node}: {self.was} -> {self.became}"


@dataclass(frozen=True)
class Replacement:
    """A model in which nodes were replaced; true where there was something to replace.

    Attributes:
        graph: The model, as a graph of onnx-ir.
        changes: The nodes that were replaced.
        notes: What was left as it was, and why.
        proof: Whether both models compute the same; None where that was not asked.
    """

    graph: ir.Model
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    proof: Proof | None

    @property
    def model(self) -> onnx.ModelProto:
        """The model as a message; data in other files is not loaded, `save` writes it too."""
        return ir.to_proto(self.graph)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Writes the model.

        Args:
            path: The file; it appears when it is complete.
            force: Whether to overwrite a file that is there.

        Raises:
            ValueError: There is a file, and `force` is false.
        """
        if Path(path).exists() and not force:
            raise ValueError(
                f"replace: path must be a new file, got {os.fspath(path)!r}, which is there; name "
                "another, or overwrite it with force (--force)"
            )
        with written_beside(path) as file:
            write(self.graph, file)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        count = len(self.changes)
        lines = [f"{count or 'no'} node{'s' * (count != 1)} replaced", *map(str, self.changes)]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"proof: {self.proof}"] if self.proof is not None else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Returns what was done, without the model, in the types of JSON."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "notes": list(self.notes),
            "proof": None
            if self.proof is None
            else {**asdict(self.proof), "verdict": str(self.proof.verdict)},
        }
