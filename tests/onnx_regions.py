"""Calls of torchvision's ops on regions of interest, and deformable convolution, to export."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

# Across the border, outside, of no size, and with corners in the wrong order.
REGIONS = torch.tensor(
    [
        [0, 1.0, 2, 9, 11],
        [1, 0, 0, 16, 12],
        [0, -3, -4, 5, 6],
        [1, 14.2, 10.7, 30, 25],
        [0, 4, 4, 4, 4],
        [1, 10, 9, 3, 2.5],
        [0, 40, 40, 50, 50],
    ]
)
SIZES = ({0: "n", 2: "h", 3: "w"}, {0: "k"})


class Calls(torch.nn.Module):
    """A module of one function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor, rois: Tensor) -> Any:
        """Calls it."""
        return self.function(images, rois)


def _nms(images: Tensor, rois: Tensor) -> Tensor:
    corners = rois[:, 1:3]
    boxes = torch.cat([corners, corners + 6.0], 1)
    ops = torch.ops.torchvision
    kept: Tensor = ops.nms(boxes, images[0, 0, 0, 0] + 0.1 * rois[:, 1] - 0.01 * rois[:, 2], 0.25)
    return kept


def _deform_conv2d(images: Tensor, rois: Tensor) -> Tensor:
    import torchvision

    weight = torch.linspace(-1, 1, 4 * 8).reshape(4, 8, 1, 1)
    found: Tensor = torchvision.ops.deform_conv2d(images, 1.5 * images[:, :2], weight)
    return found


def functions() -> dict[str, Function]:
    """Returns the functions by name; torchvision must be there."""
    import torchvision  # noqa: F401  # it registers the ops

    ops = torch.ops.torchvision
    return {
        "nms": _nms,
        "roi_align": lambda x, r: ops.roi_align(x, r, 0.5, 3, 2, 2, False),
        "roi_align aligned": lambda x, r: ops.roi_align(x, r, 0.9, 3, 2, -1, True),
        "roi_pool": lambda x, r: ops.roi_pool(x, r, 0.7, 3, 4)[0],
        "roi_pool with places": lambda x, r: ops.roi_pool(x, r, 0.7, 3, 4),
        "ps_roi_align": lambda x, r: ops.ps_roi_align(x, r, 0.9, 2, 4, -1)[0],
        "ps_roi_align with channels": lambda x, r: ops.ps_roi_align(x, r, 0.9, 2, 4, 2),
        "ps_roi_pool": lambda x, r: ops.ps_roi_pool(x, r, 0.7, 2, 4)[0],
        "ps_roi_pool with channels": lambda x, r: ops.ps_roi_pool(x, r, 0.7, 2, 4),
        "deform_conv2d": _deform_conv2d,
    }


def calls() -> list[tuple[Tensor, Tensor]]:
    """Returns inputs of three sizes, one of no region."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(size, generator=generator) for size in ((2, 8, 13, 17), (2, 8, 5, 9))]
    return [(images[0], REGIONS), (images[1], REGIONS[:3]), (images[0], REGIONS[:0])]
