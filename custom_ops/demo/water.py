"""Draws pictures, and what a camera sees of them through moving water.

Both are drawn from formulas at exact places, so the bent picture needs no resampling: a pixel p
of it shows the place q with ``q + displacement(q) = p``, and sampling it at ``q + displacement(q)``
gives the picture back.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

REFRACTION = 4.0  # pixels of displacement for a slope of 1
_WAVES = 3
_SHAPES = 6
_TILE = 9.0  # pixels
_EDGE = 2.0  # how sharp outlines are; offsets learn from the slope of the picture


@dataclass(frozen=True)
class Views:
    """Pictures and what is seen of them.

    Attributes:
        seen: The pictures through the water, float32 [N, 3, H, W], 0 to 1.
        height: The height of the water, float32 [N, 1, H, W].
        truth: The pictures themselves, float32 [N, 3, H, W], 0 to 1.
        displacement: Where in `seen` a pixel of `truth` is found, relative to the pixel, in
            pixels, y before x, float32 [N, 2, H, W].
    """

    seen: Tensor
    height: Tensor
    truth: Tensor
    displacement: Tensor

    def pick(self, indices: Tensor) -> "Views":
        """Returns those at `indices`."""
        return Views(
            self.seen[indices],
            self.height[indices],
            self.truth[indices],
            self.displacement[indices],
        )


def draw(count: int, height: int, width: int, generator: torch.Generator) -> Views:
    """Draws pictures and water.

    Args:
        count: How many.
        height: Of a picture, in pixels.
        width: Of a picture, in pixels.
        generator: Where the randomness comes from.

    Returns:
        Pictures of tiles and shapes, each through waves of its own.
    """
    y, x = torch.arange(float(height)), torch.arange(float(width))
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).expand(count, -1, -1, -1)
    water, scene = _Water(count, generator), _Scene(count, height, width, generator)
    shown = places
    for _ in range(12):  # solves shown + displacement(shown) = places
        shown = places - water.displacement(shown)
    return Views(
        scene.colours(shown),
        water.height(places)[:, None],
        scene.colours(places),
        water.displacement(places).permute(0, 3, 1, 2).contiguous(),
    )


class _Water:
    """A sum of waves; its displacement is its slope times `REFRACTION`."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, _WAVES, generator=generator)

        number = 2 * math.pi / uniform(34.0, 60.0)  # of the wave, in radians for a pixel
        direction = uniform(0.0, 2 * math.pi)
        # Three waves whose displacements stay below 1 / number never fold the picture.
        reach = uniform(0.2, 0.36) / number
        self.vector = number[..., None] * torch.stack([direction.sin(), direction.cos()], -1)
        self.amplitude = reach / (REFRACTION * number)
        self.phase = uniform(0.0, 2 * math.pi)

    def _angle(self, places: Tensor) -> Tensor:
        return torch.einsum("nhwc,nkc->nhwk", places, self.vector) + self.phase[:, None, None]

    def height(self, places: Tensor) -> Tensor:
        return (self.amplitude[:, None, None] * self._angle(places).sin()).sum(-1)

    def displacement(self, places: Tensor) -> Tensor:
        slopes = self.amplitude[:, None, None] * self._angle(places).cos()
        return REFRACTION * torch.einsum("nhwk,nkc->nhwc", slopes, self.vector)


class _Scene:
    """Discs, squares and rings on a floor of tiles."""

    def __init__(self, count: int, height: int, width: int, generator: torch.Generator) -> None:
        def uniform(*sizes: int) -> Tensor:
            return torch.rand(count, *sizes, generator=generator)

        self.centre = uniform(_SHAPES, 2) * torch.tensor([float(height), float(width)])
        self.radius = (0.1 + 0.1 * uniform(_SHAPES)) * min(height, width) + 2
        self.turn = math.pi * uniform(_SHAPES)
        self.kind = torch.randint(3, (count, _SHAPES), generator=generator)
        self.colour = uniform(_SHAPES, 3)
        self.floor = uniform(2, 3)
        self.floor_turn = math.pi * uniform()

    def colours(self, places: Tensor) -> Tensor:
        """Returns the colours at places [N, H, W, 2] as [N, 3, H, W]."""
        y, x = _turned(places, self.floor_turn)
        tile = torch.sigmoid(3 * _EDGE * (y * math.pi / _TILE).sin() * (x * math.pi / _TILE).sin())
        bright = 0.7 + 0.3 * self.floor[:, 0, None, None]
        dark = 0.25 + 0.3 * self.floor[:, 1, None, None]
        result = torch.lerp(dark.expand(*places.shape[:3], 3), bright, tile[..., None])
        for i in range(_SHAPES):
            cover = torch.sigmoid(_EDGE * self._inside(i, places))[..., None]
            result = torch.lerp(result, self.colour[:, i, None, None], cover)
        return result.permute(0, 3, 1, 2).contiguous()

    def _inside(self, i: int, places: Tensor) -> Tensor:
        """Returns how far inside shape `i` places are, in pixels; negative outside."""
        y, x = _turned(places - self.centre[:, i, None, None], self.turn[:, i])
        distance, radius = torch.hypot(y, x), self.radius[:, i, None, None]
        disc = radius - distance
        square = 0.85 * radius - torch.maximum(y.abs(), x.abs())
        ring = 0.22 * radius - (distance - 0.8 * radius).abs()
        kind = self.kind[:, i, None, None]
        return torch.where(kind == 0, disc, torch.where(kind == 1, square, ring))


def _turned(places: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    y, x = places.unbind(-1)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return y * cosine - x * sine, x * cosine + y * sine
