"""Moves numbers by half a unit in the last place, as rounding does."""

import math

import torch


def moved(wide: torch.Tensor, eps: float, generator: torch.Generator) -> torch.Tensor:
    """Moves numbers by half a unit in the last place of a dtype, up or down at random.

    Those whose significand needs half of its bits at most stay: zeros, counts, masks and powers
    of two are no results of rounding, and an index moved below its integer would be another one.
    What is not finite stays too.

    Args:
        wide: The numbers, in float64 or complex128.
        eps: The relative spacing of the numbers of the dtype.
        generator: Draws the signs.

    Example:
        >>> numbers = torch.tensor([0.0, 2.0, 1 / 3], dtype=torch.float64)
        >>> change = moved(numbers, 2.0**-10, torch.Generator().manual_seed(0)) - numbers
        >>> change.abs().tolist() == [0, 0, 2.0**-13]
        True
    """
    if wide.is_complex():
        parts = torch.view_as_real(wide.resolve_conj())
        return torch.view_as_complex(moved(parts, eps, generator).contiguous())
    bits = 1 - round(math.log2(eps))  # of a significand, the hidden one included
    fraction, exponent = torch.frexp(wide)
    short = torch.remainder(torch.ldexp(fraction, torch.tensor(bits)), 2.0 ** (bits // 2)) == 0
    signs = torch.randint(0, 2, wide.shape, generator=generator, dtype=torch.float64) - 0.5
    step = torch.ldexp(signs.to(wide.device), exponent - bits)
    return torch.where(short, wide, wide + step)
