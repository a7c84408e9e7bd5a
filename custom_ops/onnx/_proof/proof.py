"""How far it is proven that a changed model computes what it did."""

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """How a comparison of a model before and after ended.

    EQUAL: Both ran, and gave the same. ONLY_AFTER: The original does not run here, the new model
    does. NOT_COMPARED: Neither runs here, or nothing could be compared. SKIPPED: Not asked for.
    """

    EQUAL = "equal"
    ONLY_AFTER = "only the new model runs"
    NOT_COMPARED = "not compared"
    SKIPPED = "skipped"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Proof:
    """How the outputs before and after compare; true where both ran and gave the same.

    Attributes:
        verdict: How it ended.
        note: Why it was not compared; or, of opened sizes, how the model runs at others.
        sizes: The shapes of the random inputs that both ran on, one text for each run.
        difference: The largest absolute difference of any output, with the optimizations of the
            session off; None where nothing was compared.
        release: The onnxruntime that ran them.
    """

    verdict: Verdict
    note: str = ""
    sizes: tuple[str, ...] = ()
    difference: float | None = None
    release: str = ""

    def __bool__(self) -> bool:
        return self.verdict is Verdict.EQUAL

    def __str__(self) -> str:
        if self.verdict is Verdict.EQUAL:
            runs = "; ".join(self.sizes)
            same = "bit for bit" if not self.difference else f"within {self.difference:.3g}"
            more = f"; {self.note}" if self.note else ""
            return f"outputs equal {same} in onnxruntime {self.release} on {runs}{more}"
        return f"{self.verdict}: {self.note}" if self.note else str(self.verdict)
