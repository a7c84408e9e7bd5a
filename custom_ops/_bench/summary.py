"""Sums records up: geometric means and worst cases, of the dense cases and of the others."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from custom_ops._bench.results import Entry, Record

Ratio = Callable[[Record, Entry], float | None]

RATIOS: Mapping[str, Ratio] = {
    "over the bound": Record.over_bound,
    "over ours": Record.over_ours,
    "share of peak": Record.share_of_peak,
}


@dataclass(frozen=True)
class Summary:
    """A contender over the cases of one kind.

    Attributes:
        op: Name of the op.
        dense: Whether these are the dense cases.
        direction: "forward" or "forward+backward".
        dtype: Of the tensors.
        threads: Of torch and of each session.
        name: The contender.
        ratio: "over the bound", "over ours" or "share of peak".
        mean: The geometric mean.
        worst: The one that speaks most against us.
        worst_case: Its case.
        cases: How many there are.
    """

    op: str
    dense: bool
    direction: str
    dtype: str
    threads: int
    name: str
    ratio: str
    mean: float
    worst: float
    worst_case: str
    cases: int


def summarise(records: Iterable[Record]) -> list[Summary]:
    """Returns the lines for each op, setting, kind of case, contender and ratio."""
    groups: dict[tuple[str, str, str, int, bool], list[Record]] = {}
    for record in sorted(records, key=lambda record: not record.dense):
        key = (record.op, record.direction, record.dtype, record.threads, record.dense)
        groups.setdefault(key, []).append(record)
    return [line for group in groups.values() for line in _summarise(group)]


def _summarise(records: Sequence[Record]) -> Iterable[Summary]:
    one = records[0]
    for name in dict.fromkeys(entry.name for record in records for entry in record.entries):
        for ratio, function in RATIOS.items():
            values = {
                record.case: value
                for record in records
                for entry in record.entries
                if entry.name == name and (value := function(record, entry)) is not None
            }
            if not values:
                continue
            pick = max if ratio == "over the bound" else min
            worst = pick(values, key=lambda case: values[case])
            yield Summary(
                op=one.op,
                dense=one.dense,
                direction=one.direction,
                dtype=one.dtype,
                threads=one.threads,
                name=name,
                ratio=ratio,
                mean=statistics.geometric_mean(values.values()),
                worst=values[worst],
                worst_case=worst,
                cases=len(values),
            )
