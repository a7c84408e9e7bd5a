"""A run of the benchmarks, to and from JSON."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custom_ops._bench.results import Entry, Record, Refused
from custom_ops._bench.summary import summarise
from custom_ops._bench.timing import Timing

SCHEMA = 1


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
