"""Modules that the precision debugger is proved on: their weights and inputs come from seeds."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import custom_ops


class Cnn(nn.Module):
    """A plain CNN: merged BatchNorm, another activation in each block, resized at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.pool = nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.bn(self.first(x)).relu()
        y = nn.functional.hardswish(self.norm(self.second(x)))
        y = self.pool(x - 0.3 * y) / 1.7
        large = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(y.mean((2, 3))).softmax(1), large.sigmoid()


class Deformed(nn.Module):
    """Our ops between those of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.offset = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 18, 3, padding=1)
        self.deform = custom_ops.DeformConv2d(8, 8, 3, padding=1)
        self.bn, self.add = nn.BatchNorm2d(8), custom_ops.MulAdd(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu()
        y = self.add(x, self.bn(self.deform(x, self.offset(x))))
        return nn.functional.interpolate(y, size=(15, 18), mode="bicubic", align_corners=True)


class Recurrent(nn.Module):
    """A bidirectional LSTM of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.lstm(x)[0])[:, -1])  # type: ignore[no-any-return]


class Detector(nn.Module):
    """Boxes and scores from a grid of anchors; another branch for bright and for dark images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.SiLU(),
        )
        self.near, self.far = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.box, self.score = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x)

        def bright(x: torch.Tensor) -> torch.Tensor:
            return self.near(x).relu() + x  # type: ignore[no-any-return]

        def dark(x: torch.Tensor) -> torch.Tensor:
            return self.far(x).tanh() * 2  # type: ignore[no-any-return]

        x = torch.cond(x.mean() > 0, bright, dark, (x,))
        boxes = self.box(x).flatten(2).transpose(1, 2)
        scores = self.score(x).flatten(2).transpose(1, 2).softmax(-1)
        return torch.cat([boxes[..., :2], boxes[..., 2:].exp()], -1), scores


def encoder() -> nn.Module:
    """Returns a transformer encoder."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def of_torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    """Returns a maker of a model of torchvision with random weights."""

    def make() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]

    return make


# Name: what makes it, the shapes of its inputs, the exporters that take it.
BOTH = ("dynamo", "torchscript")
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], tuple[str, ...]]] = {
    "plain CNN": (Cnn, ((2, 3, 12, 14),), BOTH),
    "ResNet-18": (of_torchvision("resnet18"), ((1, 3, 64, 64),), BOTH),
    "ResNet-50": (of_torchvision("resnet50"), ((1, 3, 64, 64),), BOTH),
    "DeformConv2d": (Deformed, ((1, 3, 12, 12),), BOTH),
    "MobileNetV3": (of_torchvision("mobilenet_v3_small"), ((1, 3, 64, 64),), BOTH),
    "RegNet": (of_torchvision("regnet_y_400mf"), ((1, 3, 64, 64),), BOTH),
    "Swin-T": (of_torchvision("swin_t"), ((1, 3, 64, 64),), BOTH),
    "encoder": (encoder, ((2, 7, 32),), BOTH),
    "LSTM": (Recurrent, ((2, 5, 8),), BOTH),
    "detector with torch.cond": (Detector, ((1, 3, 16, 16),), ("dynamo",)),
    "SSDlite": (
        of_torchvision("ssdlite320_mobilenet_v3_large", weights_backbone=None),
        ((3, 96, 96),),
        ("torchscript",),
    ),
}


def module(name: str, seed: int) -> nn.Module:
    """Returns a module for inference, its normalisations as if it had been trained."""
    torch.manual_seed(seed)
    made = MODELS[name][0]().eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.1)
        elif name == "SSDlite" and isinstance(part, nn.Conv2d):
            # As it comes without training, nothing of an image is left in the scores.
            nn.init.kaiming_normal_(part.weight)
    return made


def inputs(name: str, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Returns inputs of a module."""
    generator = torch.Generator().manual_seed(seed)
    shapes = MODELS[name][1]
    if name == "SSDlite":  # which takes a list of images
        return ([torch.rand(shape, generator=generator).to(dtype) for shape in shapes],)
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
