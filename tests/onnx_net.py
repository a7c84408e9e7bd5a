"""What the tests of both ways to export share: a network with both ops, and torch's export."""

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

import custom_ops
from custom_ops.onnx import translation_table


class Net(torch.nn.Module):
    """Both ops; a deformable convolution with a mask and one without mask and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(3, 27, 3, padding=1)
        self.first = custom_ops.DeformConv2d(3, 4, 3, padding=1)
        self.second = custom_ops.DeformConv2d(4, 4, 1, groups=2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        offset, mask = self.head(image).split([18, 9], 1)
        x = torch.relu(self.first(image, offset, mask.sigmoid()))
        return custom_ops.mul_add(self.second(x, offset[:, :2]), x, alpha=0.5)


IMAGE = (torch.randn(2, 3, 6, 5),)
DYNAMIC = ({0: "batch", 2: "height", 3: "width"},)


def net(dtype: torch.dtype = torch.float32) -> Net:
    return Net().to(dtype).eval()


def mul_add_args(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape), torch.randn(*shape)


def domains(model: onnx.ModelProto) -> set[str]:
    nodes = ir.traversal.RecursiveGraphIterator(ir.from_proto(model).graph)
    return {node.domain for node in nodes}


def plain(model: torch.nn.Module, args: Any, path: Path, exporter: str, **options: Any) -> None:
    with torch.no_grad():
        if exporter == "dynamo":
            torch.onnx.export(
                model,
                args,
                path,
                dynamo=True,
                verbose=False,
                custom_translation_table=translation_table(),
                **options,
            )
        else:
            torch.onnx.export(model, args, path, dynamo=False, **options)
