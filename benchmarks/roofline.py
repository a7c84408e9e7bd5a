"""Draws the cases below what the machine can do: its multiply-adds and its memory."""

from collections.abc import Sequence
from pathlib import Path

from custom_ops._bench.plot import pyplot
from custom_ops._bench.results import FORWARD, Record


def bandwidth(records: Sequence[Record]) -> float | None:
    """Returns the bytes a second of the largest copy among the bounds."""
    copies = [r for r in records if r.bound_name == "memory copy" and r.bound is not None]
    largest = max(copies, key=lambda record: record.bytes, default=None)
    if largest is None or largest.bound is None:
        return None
    return largest.bytes / (largest.bound.median * 1e-3)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draws the forward cases of the most threads.

    Args:
        records: The cases; the largest memory copy among them gives the slope, the FMA peak that
            was measured with them the ceiling, or where there is none the fastest product.
        path: The picture to write.

    Raises:
        ValueError: There are no cases, or matplotlib is missing.
    """
    threads = max((record.threads for record in records), default=0)
    kept = [r for r in records if r.threads == threads and r.direction == FORWARD and r.flops]
    if not kept:
        raise ValueError("--roofline needs forward cases, got none")
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 5))
    for name in dict.fromkeys(entry.name for record in kept for entry in record.entries):
        points = [
            (record.flops / record.bytes, record.flops / entry.timing.median / 1e6)
            for record in kept
            for entry in record.entries
            if entry.name == name
        ]
        axis.plot(*zip(*points, strict=True), "o", label=name, markersize=4, alpha=0.7)
    peaks = [record.peak for record in kept if record.peak]
    fastest = max(r.flops / r.bound.median for r in kept if r.bound is not None) * 1e3
    ceiling = max(peaks, default=fastest)
    intensities = [record.flops / record.bytes for record in kept]
    ends = min(intensities) / 2, max(intensities) * 2
    slope = bandwidth(kept)
    corner = ceiling / slope if slope else ends[0]
    label = "FMA peak" if peaks else "the fastest bound"
    axis.plot([corner, ends[1]], [ceiling / 1e9] * 2, "k-", label=label)
    if slope:
        axis.plot([ends[0], corner], [ends[0] * slope / 1e9, ceiling / 1e9], "k--", label="memory")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("FLOP per byte of inputs and outputs")
    axis.set_ylabel("GFLOP/s")
    axis.set_title(f"float32, forward, {threads} threads", fontsize=10)
    axis.grid(which="both", linewidth=0.3)
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
