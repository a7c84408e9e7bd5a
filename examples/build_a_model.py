"""Builds an ONNX model from its parts: tensors, nodes, a graph, a model; checks, saves, runs it.

    python examples/build_a_model.py [--target onnxruntime==1.20] [--output FILE]

docs/build-a-model.md goes through it step by step.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import custom_ops


def build(weight: np.ndarray, bias: np.ndarray, target: str | None) -> onnx.ModelProto:
    """Returns a model of softmax(relu(x @ weight + bias)).

    Args:
        weight: Shape (C, K), float32.
        bias: Shape (K), float32.
        target: The release of ONNX Runtime that is to run it; the one installed if None.
    """
    # Tensors. What the model holds is an initializer: an array with a name.
    initializers = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(bias, "bias"),
    ]

    # Nodes. Each names its op, its inputs and its outputs; values are joined by name alone.
    # Attributes are keyword arguments: Gemm computes alpha * A @ B + beta * C.
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["linear"], name="linear"),
        helper.make_node("Relu", ["linear"], ["hidden"], name="act"),
        helper.make_node("Softmax", ["hidden"], ["y"], name="softmax", axis=-1),
    ]

    # The graph. Its inputs and outputs need types; a size with a name, "N", is left open.
    channels, classes = weight.shape
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
    graph = helper.make_graph(nodes, "classify", [x], [y], initializers)

    # The model. Two versions say who can read it. The opset says which ops there are and what they
    # mean; the IR version is that of the file format. `make_model` writes the newest that onnx
    # knows, which a released ONNX Runtime may not know yet. So both are no newer than the target
    # takes, and no newer than these nodes need.
    release = custom_ops.onnx.target(target)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", min(release.opset, 20))],
        ir_version=min(release.ir_version, 10),
        producer_name="build_a_model",
    )


def show_what_is_refused(model: onnx.ModelProto) -> None:
    """Shows what ONNX Runtime says of an IR version that is too new, and what the doctor says."""
    newest = custom_ops.onnx.target().ir_version
    too_new = onnx.ModelProto()
    too_new.CopyFrom(model)
    too_new.ir_version = newest + 1
    try:
        onnxruntime.InferenceSession(too_new.SerializeToString())
    except Exception as error:  # onnxruntime has a class of its own for each reason
        print(f"\nWith IR version {newest + 1} the session says:\n  {error}")
    print(f"The doctor says:\n  {custom_ops.onnx.doctor(too_new).findings[0]}")
    # The remedy, where the model uses nothing that came with the newer format:
    too_new.ir_version = newest
    onnxruntime.InferenceSession(too_new.SerializeToString())
    print(f"With IR version {newest} it loads.")


def main() -> None:
    """Goes through all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", help="as onnxruntime==1.20; the one installed if left out")
    parser.add_argument("--output", type=Path, default=Path("classify.onnx"))
    arguments = parser.parse_args()

    random = np.random.default_rng(0)
    weight = random.standard_normal((4, 3), dtype=np.float32)
    bias = random.standard_normal(3, dtype=np.float32)
    model = build(weight, bias, arguments.target)

    # The checker looks at each node's attributes and, with full_check, infers types and shapes.
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, arguments.output)
    print(custom_ops.onnx.inspect(arguments.output))

    session = onnxruntime.InferenceSession(arguments.output)
    for rows in (1, 5):  # N is open
        x = random.standard_normal((rows, 4), dtype=np.float32)
        (y,) = session.run(None, {"x": x})
        hidden = np.maximum(x @ weight + bias, 0)
        exponents = np.exp(hidden - hidden.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(y, exponents / exponents.sum(-1, keepdims=True), rtol=1e-5)
        print(f"\n{rows} rows: the same as NumPy, {np.round(y[0], 3)} first")

    show_what_is_refused(model)


if __name__ == "__main__":
    main()
