"""What a run of the benchmarks found, to and from JSON."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custom_ops._bench.timing import Timing

SCHEMA = 1
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


@dataclass
class Report:
    """A run.

    Attributes:
        facts: Versions, commit, processor and settings.
        records: The cases.
        refused: Those without figures.
    """

    facts: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def add(self, outcome: Record | Refused) -> None:
        """Adds a case."""
        if isinstance(outcome, Record):
            self.records.append(outcome)
        else:
            self.refused.append(outcome)

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it in the types of JSON, the ratios and the summary included."""
        from custom_ops._bench.summary import summarise

        return {
            "schema": SCHEMA,
            "facts": self.facts,
            "records": [_record_as_dict(record) for record in self.records],
            "refused": [dataclasses.asdict(refused) for refused in self.refused],
            "summary": [dataclasses.asdict(line) for line in summarise(self.records)],
        }

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Report:
    """Reads what `Report.write` wrote.

    Raises:
        ValueError: The file is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, got {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path} must be a report of schema {SCHEMA}, got schema {schema}")
    records = [_record_from_dict(record) for record in content["records"]]
    refused = [Refused(**each) for each in content["refused"]]
    return Report(content["facts"], records, refused)


def _record_as_dict(record: Record) -> dict[str, Any]:
    result = dataclasses.asdict(record)
    for entry, shown in zip(record.entries, result["entries"], strict=True):
        shown["over_bound"] = record.over_bound(entry)
        shown["over_ours"] = record.over_ours(entry)
        shown["share_of_peak"] = record.share_of_peak(entry)
    return result


def _record_from_dict(given: Mapping[str, Any]) -> Record:
    entries = tuple(
        Entry(e["name"], e["runtime"], e["kind"], Timing(**e["timing"]), e["difference"])
        for e in given["entries"]
    )
    bound = Timing(**given["bound"]) if given["bound"] is not None else None
    return Record(**{**given, "entries": entries, "bound": bound})
