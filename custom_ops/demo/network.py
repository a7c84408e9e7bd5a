"""The network of the demo, and its twin without deformable sampling."""

import torch
from torch import Tensor, nn

import custom_ops

_TAPS = 9  # of the 3x3 kernel
_CENTRE = _TAPS // 2


class Straighten(nn.Module):
    """Straightens a picture that is seen through water of a known height.

    A convolution on the height predicts where each tap of a deformable convolution samples the
    picture, and how much the tap counts; a small convolution then adds detail. At first the
    network returns the picture unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.predict = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3 * _TAPS, 3, padding=1)
        )
        self.sample = custom_ops.DeformConv2d(3, 3, 3, padding=1)
        self.detail = _detail(3)
        self.add = custom_ops.MulAdd(alpha=0.5)
        _pass_through(self.predict[2], None)
        _pass_through(self.sample, nn.init.dirac_)

    def forward(self, picture: Tensor, height: Tensor) -> Tensor:
        """Straightens pictures.

        Args:
            picture: What is seen, [N, 3, H, W].
            height: The height of the water, [N, 1, H, W].

        Returns:
            The pictures, [N, 3, H, W].
        """
        predicted = self.predict(height)
        offset, mask = predicted[:, : 2 * _TAPS], 2 * predicted[:, 2 * _TAPS :].sigmoid()
        sampled = self.sample(picture, offset, mask)
        added: Tensor = self.add(self.detail(sampled), sampled)
        return added

    def displacement(self, height: Tensor) -> Tensor:
        """Returns the learnt offset of the centre tap, y before x, [N, 2, H, W], in pixels."""
        predicted: Tensor = self.predict(height)
        return predicted[:, 2 * _CENTRE : 2 * _CENTRE + 2]


class Ordinary(nn.Module):
    """The twin: it has the same inputs and more weights, but its taps stay where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.sample = nn.Conv2d(4, 3, 3, padding=1)
        self.detail = _detail(4, 16)
        self.add = custom_ops.MulAdd(alpha=0.5)
        _pass_through(self.sample, nn.init.dirac_)

    def forward(self, picture: Tensor, height: Tensor) -> Tensor:
        """Has the inputs and outputs of `Straighten`."""
        both = torch.cat([picture, height], 1)
        added: Tensor = self.add(self.detail(both), self.sample(both))
        return added


def _detail(channels: int, hidden: int = 8) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 3, 3, padding=1)
    )
    _pass_through(layers[2], None)
    return layers


def _pass_through(layer: nn.Module, weight: object) -> None:
    """Makes a layer return its input, or zeros where `weight` is None."""
    for name, parameter in layer.named_parameters():
        if name == "weight" and weight is nn.init.dirac_:
            nn.init.dirac_(parameter)
        else:
            nn.init.zeros_(parameter)
