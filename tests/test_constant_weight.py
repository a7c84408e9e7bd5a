"""ONNX Runtime: what our kernels keep of a weight that the model holds."""

import threading
from typing import Any

import numpy as np
import pytest
import torch

import custom_ops
from custom_ops.onnx._single_node import single_node
from custom_ops.ops._registry import ops
from custom_ops.ops._samples import Sample
from custom_ops.ops.deform_conv2d.samples import make

CALLS: dict[str, dict[str, Any]] = {
    "dense": {"channels": 40, "outputs": 24},
    "groups": {"channels": 16, "outputs": 32, "groups": 4, "offset_groups": 2},
    "depthwise": {"channels": 16, "outputs": 16, "groups": 16},
}


def model(name: str, constant: tuple[str, ...] = (), **sizes: Any) -> tuple[Any, dict[str, Any]]:
    """A model of one call, and what to feed it; the numbers depend on the sizes alone."""
    args, kwargs = make(torch.Generator().manual_seed(0), **CALLS[name], **sizes)
    call = Sample(name, args, kwargs).map(lambda t: t.float())
    op = ops()["deform_conv2d"]
    arguments = op.arguments(*call.args, **call.kwargs)
    return single_node(op, arguments, dynamic=True, constant=constant)


@pytest.mark.parametrize("name", CALLS)
def test_a_held_weight_gives_the_bits_of_a_fed_one(name: str) -> None:
    """In the first call, which packs it, in later ones, and for other sizes of the image."""
    fed_model, feeds = model(name)
    held_model, rest = model(name, constant=("weight",))
    assert set(feeds) - set(rest) == {"weight"}
    fed, held = custom_ops.onnx.session(fed_model), custom_ops.onnx.session(held_model)
    for sizes in ({}, {"batch": 1, "size": (12, 9)}, {"batch": 3, "size": (3, 3)}, {}):
        given = {key: value for key, value in model(name, **sizes)[1].items() if key != "weight"}
        expected = fed.run(None, {**given, "weight": feeds["weight"]})[0]
        np.testing.assert_array_equal(held.run(None, given)[0], expected)


def test_the_first_calls_of_several_threads_agree() -> None:
    """They race to pack the weight."""
    fed_model, feeds = model("dense")
    held_model, rest = model("dense", constant=("weight",))
    expected = custom_ops.onnx.session(fed_model).run(None, feeds)[0]
    held = custom_ops.onnx.session(held_model)
    results: list[Any] = [None] * 8
    start = threading.Barrier(len(results))

    def run(index: int) -> None:
        start.wait()
        results[index] = held.run(None, rest)[0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)
