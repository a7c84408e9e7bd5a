"""deform_conv2d as a module, with the constructor and the state of torchvision's."""

import math

import torch
from torch import Tensor

from custom_ops.ops.deform_conv2d.arguments import pair
from custom_ops.ops.deform_conv2d.function import deform_conv2d


class DeformConv2d(torch.nn.Module):
    """Deformable convolution with a weight and a bias of its own; see `deform_conv2d`.

    The constructor, the initialisation and the state are those of
    `torchvision.ops.DeformConv2d`, whose checkpoints load unchanged.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Height and width of the kernel; one int for both.
        stride: Pixels between the output's samples.
        padding: Zeros around the input.
        dilation: Pixels between the kernel's taps.
        groups: Groups of channels that the kernel keeps apart.
        bias: Whether there is a bias.

    Raises:
        ValueError: `groups` does not divide the channels.

    Example:
        >>> import torch, custom_ops
        >>> layer = custom_ops.DeformConv2d(4, 8, kernel_size=3, padding=1)
        >>> layer(torch.ones(1, 4, 5, 5), torch.zeros(1, 18, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels % groups != 0:
                raise ValueError(
                    f"DeformConv2d: {name} must be divisible by groups ({groups}), got {channels}"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple(pair("kernel_size", kernel_size))
        self.stride = tuple(pair("stride", stride))
        self.padding = tuple(pair("padding", padding))
        self.dilation = tuple(pair("dilation", dilation))
        self.groups = groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape))
        if bias:
            self.bias = torch.nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias as torch's convolutions do."""
        torch.nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolves `input`; see `deform_conv2d` for the shapes."""
        return deform_conv2d(
            input,
            offset,
            self.weight,
            self.bias,
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            mask=mask,
        )

    def extra_repr(self) -> str:
        """Shows what differs from the defaults, as torchvision does."""
        shown = [
            f"{self.in_channels}",
            f"{self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding != (0, 0):
            shown.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            shown.append(f"dilation={self.dilation}")
        if self.groups != 1:
            shown.append(f"groups={self.groups}")
        if self.bias is None:
            shown.append("bias=False")
        return ", ".join(shown)
