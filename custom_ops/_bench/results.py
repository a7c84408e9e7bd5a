"""What a run of the benchmarks found of each case."""

from dataclasses import dataclass, field

from custom_ops._bench.timing import Timing

FORWARD, BACKWARD = "forward", "forward+backward"


@dataclass(frozen=True)
class Entry:
    """What one contender took.

    Attributes:
        name: The contender.
        runtime: "torch" or "onnxruntime".
        kind: "kernel", "variant" or "peer".
        timing: Its times.
        difference: The largest from our result, as a share of the output's scale.
    """

    name: str
    runtime: str
    kind: str
    timing: Timing
    difference: float


@dataclass(frozen=True)
class Record:
    """One case.

    Attributes:
        op: Name of the op.
        case: Name of the case.
        dense: Whether it is summed up with the dense ones.
        direction: "forward" or "forward+backward".
        dtype: Of the tensors.
        threads: Of torch and of each session.
        flops: Floating-point operations of the call; 0 where the op states none.
        bytes: Bytes that the forward call must move.
        bound_name: What the bound is; None where the op has none.
        bound: Its times; always those of the forward's bound.
        peak: FLOP/s that all threads can do, measured beside; None where it cannot be measured.
        entries: Who computed it.
        absent: Who did not, and why.
    """

    op: str
    case: str
    dense: bool
    direction: str
    dtype: str
    threads: int
    flops: int
    bytes: int
    bound_name: str | None
    bound: Timing | None
    peak: float | None
    entries: tuple[Entry, ...]
    absent: dict[str, str] = field(default_factory=dict)

    def kernel(self, runtime: str) -> Entry | None:
        """Returns ours in a runtime."""
        found = (e for e in self.entries if e.kind == "kernel" and e.runtime == runtime)
        return next(found, None)

    def over_bound(self, entry: Entry) -> float | None:
        """Returns how many times as long as the bound a contender takes."""
        return entry.timing.median / self.bound.median if self.bound is not None else None

    def over_ours(self, entry: Entry) -> float | None:
        """Returns how many times as long as ours, in the same runtime, a contender takes."""
        ours = self.kernel(entry.runtime)
        if ours is None or entry.kind == "kernel":
            return None
        return entry.timing.median / ours.timing.median

    def share_of_peak(self, entry: Entry) -> float | None:
        """Returns what share of the machine's FMA peak a contender reaches."""
        if not self.peak or not self.flops:
            return None
        return self.flops / (entry.timing.median * 1e-3) / self.peak


@dataclass(frozen=True)
class Refused:
    """A case without figures, as the machine was too noisy."""

    op: str
    case: str
    direction: str
    dtype: str
    threads: int
    sentence: str
