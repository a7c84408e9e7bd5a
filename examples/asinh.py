"""Three ways to give torch's TorchScript exporter an op that it lacks, shown on asinh.

    python examples/asinh.py

ONNX has Asinh from opset 9 on and ONNX Runtime runs it, but the TorchScript exporter does not know
aten::asinh. The dynamo exporter does, and needs none of this.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from onnxscript import opset18

import custom_ops

IMAGE = torch.linspace(-3, 3, 12).reshape(3, 4)


class Model(torch.nn.Module):
    """The op, and one around it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns 2 asinh(x)."""
        return 2 * torch.asinh(x)


def export(path: Path, dynamo: bool = False) -> None:
    """Exports the model with torch alone."""
    torch.onnx.export(
        Model().eval(), (IMAGE,), path, input_names=["x"], opset_version=18, dynamo=dynamo,
        verbose=False,
    )  # fmt: skip


def without_help(path: Path) -> str:
    """Shows what is missing."""
    try:
        export(path)  # torch prints the graph where it fails
    except torch.onnx.errors.UnsupportedOperatorError as error:
        return str(error)
    raise AssertionError("the exporter knows asinh")


def by_symbolic_function(path: Path) -> None:
    """The first way: torch's own registration, for the standard op."""
    torch.onnx.register_custom_op_symbolic("aten::asinh", lambda g, x: g.op("Asinh", x), 9)
    try:
        export(path)
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::asinh", 9)


def by_mapping(path: Path) -> None:
    """The second way: a mapping, which serves both exporters and goes with the block.

    It refuses opsets that it is not for, and `custom_ops.onnx.export` compares the file with torch.
    """

    def asinh(op: Any, x: Any) -> Any:
        return op.Asinh(x)

    with custom_ops.onnx.register_mapping("aten::asinh", asinh, since_opset=9):
        print(
            "mapping:",
            custom_ops.onnx.export(Model().eval(), (IMAGE,), path, exporter="torchscript"),
        )


@onnxscript.script(onnxscript.values.Opset("example", 1), default_opset=opset18)
def Asinh(x):  # type: ignore[no-untyped-def]  # types of onnxscript are none of mypy
    """The body of a function of the model: sign(x) log(|x| + sqrt(x^2 + 1))."""
    size = opset18.Abs(x)
    one = opset18.CastLike(opset18.Constant(value_float=1.0), x)  # type: ignore[type-var]
    return opset18.Sign(x) * opset18.Log(size + opset18.Sqrt(size * size + one))


def by_onnxscript(path: Path) -> None:
    """The third way: an onnxscript function, which the file carries as a function."""
    with (
        custom_ops.onnx.register_mapping("aten::asinh", Asinh, since_opset=18),
        custom_ops.onnx.install_mappings(),  # for plain torch.onnx.export
    ):
        export(path)


def check(path: Path) -> str:
    """Runs a file, compares it with torch, and returns its ops."""
    model = onnx.load(path)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": IMAGE.numpy()})
    np.testing.assert_allclose(found, Model()(IMAGE).numpy(), rtol=1e-5, atol=1e-6)
    ops = [f"{node.domain}{'::' * bool(node.domain)}{node.op_type}" for node in model.graph.node]
    return ", ".join(op for op in ops if op != "Constant")


def main() -> None:
    """Goes through the three ways."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        print("without help:", without_help(path))
        for way in (by_symbolic_function, by_mapping, by_onnxscript):
            way(path)
            print(f"{way.__name__}: {check(path)}")
        export(path, dynamo=True)
        print("dynamo, without help:", check(path))


if __name__ == "__main__":
    main()
