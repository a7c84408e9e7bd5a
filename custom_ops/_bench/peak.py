"""The speed of the machine's multiply-add units, where the kernel library can measure it."""

from concurrent.futures import ThreadPoolExecutor

from custom_ops import _library

_SECONDS = 0.05


def peak(threads: int) -> float | None:
    """Returns the FLOP/s in float32 of so many threads at once; None where nobody measures it."""
    measure = getattr(_library.core(), "measure_fma_peak", None)
    if measure is None:
        return None
    with ThreadPoolExecutor(threads) as pool:
        return float(sum(pool.map(measure, [_SECONDS] * threads)))
