"""What a Debugger gives: the outputs it made, the markers it took out, how the marks compare."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from custom_ops.debug._metrics import Metrics


@dataclass(frozen=True)
class Missing:
    """A mark that is no output.

    Attributes:
        name: Its name.
        reason: Why it is none.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Extracted:
    """A model whose marks are outputs, written to a file; true where no mark is missing.

    Attributes:
        path: The file.
        outputs: The outputs by the names of the marks; they differ where the model has an input,
            an output or an initializer of that name.
        missing: The marks that are no outputs.
        data: The file beside it that holds the weights, where the model had them in one.
    """

    path: Path
    outputs: dict[str, str]
    missing: tuple[Missing, ...] = ()
    data: Path | None = None

    def __bool__(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        pairs = self.outputs.items()
        named = [mark if mark == output else f"{mark} as {output}" for mark, output in pairs]
        lines = [f"{self.path}: {', '.join(named)}"]
        lines += [f"  missing {each}" for each in self.missing]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Returns it in the types of JSON."""
        return {
            "path": str(self.path),
            "data": None if self.data is None else str(self.data),
            "outputs": dict(self.outputs),
            "missing": [asdict(each) for each in self.missing],
        }


@dataclass(frozen=True)
class Stripped:
    """A model without markers, written to a file.

    Attributes:
        path: The file.
        markers: How many were taken out.
        data: The file beside it that holds the weights, where the model had them in one.
    """

    path: Path
    markers: int
    data: Path | None = None

    def __str__(self) -> str:
        return f"{self.path}: took out {self.markers} marker{'s' * (self.markers != 1)}"

    def as_dict(self) -> dict[str, Any]:
        """Returns it in the types of JSON."""
        return {**asdict(self), "path": str(self.path), "data": self.data and str(self.data)}


@dataclass(frozen=True)
class Mark:
    """What a model gives at a mark, beside what torch gives there.

    Attributes:
        name: Its name; of a repeat with its number.
        shape: Of torch's value.
        dtype: Of torch's value, as "float32".
        metrics: How the model's value differs, by all that is computed before it.
        allowed: The largest difference that counts as equal.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    metrics: Metrics
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the values are equal, but for rounding."""
        return self.metrics.within(self.allowed)

    def __str__(self) -> str:
        found = self.metrics
        verdict = "equal" if self.ok else "DIFFERS"
        if found.mismatch:
            told = f"{found.mismatch} instead"
        else:
            told = f"largest difference {found.max_abs:.3g}, {self.allowed:.3g} allowed"
        if found.disagree:
            told += f", {found.disagree} not finite on one side alone"
        return f"{self.name} ({self.dtype}{list(self.shape)}): {verdict} ({told})"


@dataclass(frozen=True)
class MarkReport:
    """The marks of a run, in the order of torch's calls; true where all that compare are equal.

    Attributes:
        marks: Those that were compared.
        missing: Those that were not, with the reason.
    """

    marks: tuple[Mark, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether some were compared, and all of those are equal."""
        return bool(self.marks) and all(mark.ok for mark in self.marks)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def first(self) -> Mark | None:
        """The first mark that differs; None where there is none."""
        return next((mark for mark in self.marks if not mark.ok), None)

    def __str__(self) -> str:
        lines = [str(mark) for mark in self.marks]
        lines += [f"{each.name}: not compared, {each.reason}" for each in self.missing]
        return "\n".join(lines) or "no marks: nothing was compared"

    def as_dict(self) -> dict[str, Any]:
        """Returns it in the types of JSON."""
        return {
            "ok": self.ok,
            "first": None if self.first is None else self.first.name,
            "marks": [{**asdict(each), "ok": each.ok} for each in self.marks],
            "missing": [asdict(each) for each in self.missing],
        }
