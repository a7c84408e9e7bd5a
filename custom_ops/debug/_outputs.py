"""Tells which outputs of a model are not among the values that are judged, and not right."""

from collections.abc import Iterator, Sequence

from custom_ops.debug._arrays import alone
from custom_ops.debug._graph import Array
from custom_ops.debug._judge import Judge
from custom_ops.debug._limit import cheap
from custom_ops.debug._metrics import measure
from custom_ops.debug._overflow import rounded


def uncompared(judge: Judge, wanted: Sequence[Array | None], *, cast: bool) -> Iterator[str]:
    """Yields what is wrong with the outputs beside the values that are judged, a sentence each.

    An output that depends on no input is none of these values, and is compared here.

    Args:
        judge: Judges the values.
        wanted: The outputs of the reference, in order; None for one that is no tensor.
        cast: Whether the model may give floats of another dtype than the reference.
    """
    names, runs, allowed = judge.graph.outputs, judge.runs, judge.allowed
    if len(names) != len(wanted):
        yield (
            f"the reference and the model must have as many outputs, got {len(wanted)} and "
            f"{len(names)}; compare those that give the same"
        )
        return
    for name, expected in zip(names, wanted, strict=True):
        if name in runs.expected:
            right = runs.expected[name]
            if right.size and alone(right)[1] == right.size:
                yield (
                    f"output {name} is NaN throughout in the reference, which tells nothing; "
                    "compare on inputs that give numbers"
                )
            continue
        if name not in runs.plain or expected is None:
            yield f"output {name} is not compared: it is no tensor"
            continue
        given = runs.plain[name]
        metrics = measure(rounded(expected, given.dtype) if cast else expected, given)
        limit = allowed.tolerance
        if limit is None:
            limit = allowed.factor * max(cheap(each, metrics.largest) for each in (expected, given))
        if not metrics.within(limit):
            why = metrics.mismatch or f"{metrics.max_abs:.3g}, limit {limit:.3g}"
            yield f"output {name}, which is no layer's result on both sides, differs: {why}"
