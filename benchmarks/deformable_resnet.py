"""A ResNet-50 with deformable convolutions in its last three stages, in torchvision's layers.

As in "Deformable ConvNets v2" (https://arxiv.org/abs/1811.11168): the 3 x 3 convolution of each
bottleneck of the stages conv3 to conv5 is a modulated deformable one.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

_TAPS = 9
_OFFSETS = 2.0  # standard deviation in pixels, over the taps
_VARIATION = 0.5  # the same over the pixels
# Random features are rough, so a deformable layer magnifies rounding several times; branches that
# weigh little beside the shortcuts, as those of trained networks, keep the model comparable.
_BRANCH = 0.2


class Deformable(nn.Module):
    """A 3 x 3 convolution that predicts its own offsets and masks.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Pixels between the output's samples.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        from torchvision.ops import DeformConv2d

        super().__init__()
        self.predict = nn.Conv2d(inputs, 3 * _TAPS, 3, stride, padding=1)
        self.deform = DeformConv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        # The input is normalised and rectified, so its squares have the mean 1/2.
        nn.init.normal_(self.predict.weight, std=_VARIATION / math.sqrt(inputs * _TAPS / 2))
        assert self.predict.bias is not None
        nn.init.normal_(self.predict.bias, std=_OFFSETS)
        nn.init.kaiming_normal_(self.deform.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        """Convolves [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        offset, mask = self.predict(input).split([2 * _TAPS, _TAPS], dim=1)
        result: Tensor = self.deform(input, offset, mask.sigmoid())
        return result


def deformable_resnet50(seed: int = 0, size: int = 224) -> nn.Module:
    """Makes the network, with random weights and in evaluation mode.

    Args:
        seed: Of the weights.
        size: Height and width of the random images that its batch norms learn their statistics
            from; with random statistics the activations would leave the range of numbers.

    Returns:
        A module from [N, 3, H, W] to [N, 1000].
    """
    from torchvision.models import resnet50

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = resnet50(weights=None)
        for stage in (model.layer2, model.layer3, model.layer4):
            for block in stage:
                own = block.conv2
                block.conv2 = Deformable(own.in_channels, own.out_channels, own.stride[0])
                nn.init.constant_(block.bn3.weight, _BRANCH)
        _calibrate(model, torch.randn(2, 3, size, size))
    result: nn.Module = model.eval()
    return result


def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Sets the statistics of the batch norms to those of some images."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
