"""Pictures for a page that needs no other file: PNG as data URIs, arrows as SVG."""

import base64
import struct
import zlib
from collections.abc import Iterable

import torch
from torch import Tensor

# Deep water to crest, as red, green and blue.
_WATER = ((14, 42, 71), (31, 111, 139), (126, 190, 197), (240, 246, 240))
_SHORTEST_ARROW = 0.35  # pixels; below it is a dot


def png(picture: Tensor) -> str:
    """Returns a picture [3, H, W] of 0 to 1 as the data URI of a PNG."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def water(height: Tensor) -> Tensor:
    """Returns heights [H, W] in colours, [3, H, W], low to high."""
    low, high = height.min(), height.max()
    place = (height - low) / (high - low).clamp(min=1e-6) * (len(_WATER) - 1)
    below = place.floor().clamp(max=len(_WATER) - 2).long()
    colours = torch.tensor(_WATER, dtype=torch.float32) / 255
    return torch.lerp(colours[below], colours[below + 1], (place - below)[..., None]).permute(
        2, 0, 1
    )


def arrows(displacement: Tensor, css_class: str, step: int = 12) -> str:
    """Returns arrows for displacements [2, H, W], y before x, as SVG in pixels of the picture."""
    _, height, width = displacement.shape
    drawn = []
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            down, right = (float(value) for value in displacement[:, y, x])
            drawn.append(_arrow(x + 0.5, y + 0.5, right, down))
    return f'<path class="{css_class}" d="{"".join(drawn)}"/>'


def _arrow(x: float, y: float, right: float, down: float) -> str:
    length = (right**2 + down**2) ** 0.5
    if length < _SHORTEST_ARROW:
        return f"M{x:.1f} {y:.1f}h.01"
    head = min(2.4, 0.6 * length) / length
    end = (x + right, y + down)
    sides = [
        (end[0] - head * (right + turn * down), end[1] - head * (down - turn * right))
        for turn in (0.6, -0.6)
    ]
    return f"M{x:.1f} {y:.1f}L{_points([end])}M{_points([sides[0], end, sides[1]])}"


def _points(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
