"""Models of one deformable convolution with every size open, and what to do with a model."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from custom_ops.onnx import session


def parse(text: str, opset: int = 20) -> onnx.ModelProto:
    header = f'<ir_version: 9, opset_import: ["": {opset}, "custom_ops": 1]>'
    return onnx.parser.parse_model(f"{header} {text}")


def deform_model(
    opset: int = 20, kind: str = "float", bias: bool = True, mask: bool = True, attributes: str = ""
) -> onnx.ModelProto:
    """One node with every size open."""
    given = [f"{kind}[n, c, h, w] x", f"{kind}[o, i, p, q] weight", f"{kind}[n, t, u, v] offset"]
    given += [f"{kind}[o] bias"] * bias + [f"{kind}[n, s, u, v] mask"] * mask
    call = "x, weight, offset" + (", bias" if bias else ", " if mask else "")
    call += ", mask" if mask else ""
    return parse(
        f"g ({', '.join(given)}) => ({kind}[n, o, u, v] y) "
        f"{{ y = custom_ops.DeformConv2d {attributes} ({call}) }}",
        opset,
    )


def deform_feeds(
    n: int = 2,
    bias: bool = True,
    mask: bool = True,
    size: tuple[int, int] = (6, 5),
    dtype: Any = "f4",
) -> dict[str, np.ndarray[Any, Any]]:
    """Feeds for a 3x3 kernel without padding, two groups and two offset groups."""
    draw = np.random.default_rng(n + size[0]).standard_normal
    h, w = size[0] - 2, size[1] - 2
    feeds = {
        "x": draw((n, 4, *size)),
        "weight": draw((6, 2, 3, 3)),
        "offset": draw((n, 36, h, w)),
        **({"bias": draw(6)} if bias else {}),
        **({"mask": draw((n, 18, h, w))} if mask else {}),
    }
    return {name: value.astype(dtype) for name, value in feeds.items()}


def run(model: Any, feeds: dict[str, Any], kernels: str) -> Any:
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return session(model, kernels=kernels).run(None, feeds)[0]


def check(model: onnx.ModelProto | ir.Model) -> onnx.ModelProto:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    return proto
