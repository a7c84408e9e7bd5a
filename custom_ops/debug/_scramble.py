"""Replaces the weights of a fault by others, in the model and in torch's ops alike."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.utils import _pytree as pytree

from custom_ops.debug._evidence import Evidence, run_ops, stands
from custom_ops.debug._graph import Array
from custom_ops.debug._metrics import measure
from custom_ops.onnx._session import session
from custom_ops.onnx._verify import run, to_array

if TYPE_CHECKING:
    from custom_ops.debug._result import Fault


def scrambled(evidence: Evidence, fault: "Fault") -> Evidence:
    """Returns the same fault with other weights: those of torch in another order.

    What the weights of the model and of torch differ by stays where it is.

    Raises:
        ValueError: The reference is no torch module, or the fault does not show any more.
    """
    if not evidence.ops:
        raise ValueError(
            "bundle: scramble must be of a comparison with a torch module, got one of two models; "
            "leave it out"
        )
    model = onnx.ModelProto()
    model.CopyFrom(evidence.model)
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    generator = np.random.default_rng(0)
    others: dict[int, torch.Tensor] = {}

    def other(leaf: Any) -> Any:
        if stands(leaf) or not isinstance(leaf, torch.Tensor) or leaf.numel() < 2:
            return leaf
        if not leaf.is_floating_point() or any(_same(leaf, fed) for fed in evidence.feeds.values()):
            return leaf
        if id(leaf) not in others:
            before = leaf.numpy()
            after = generator.permutation(before.reshape(-1)).reshape(before.shape)
            others[id(leaf)] = torch.from_numpy(after)
            _change(own, before, after)
        return others[id(leaf)]

    ops = tuple(
        {
            "op": op["op"],
            "args": pytree.tree_map(other, op["args"], is_leaf=stands),
            "kwargs": pytree.tree_map(other, op["kwargs"], is_leaf=stands),
        }
        for op in evidence.ops
    )
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(own[tensor.name], tensor.name))
    expected = to_array(run_ops(ops)[-1][evidence.result])
    actual = run(session(model), dict(evidence.feeds), [evidence.output])[0]
    found = measure(expected, actual)
    if found.within(fault.limit):
        raise ValueError(
            f"bundle: scramble must keep the fault, got a difference of {found.max_abs:.3g} with "
            f"other weights, limit {fault.limit:.3g}; leave it out"
        )
    return replace(evidence, model=model, ops=ops, expected=expected)


def _same(tensor: torch.Tensor, array: Array) -> bool:
    return tuple(tensor.shape) == array.shape and np.array_equal(tensor.numpy(), array)


def _change(own: dict[str, Array], before: Array, after: Array) -> None:
    """Changes the weight of the model that is most like one of torch, as that has changed."""
    turns: list[tuple[float, str, Array, Array]] = []
    for name, array in own.items():
        for one, two in ((before, after), (before.T, after.T)):
            if array.shape == one.shape and array.dtype == one.dtype:
                turns.append((float(np.abs(array - one).mean()), name, one, two))
    if turns:
        _, name, one, two = min(turns, key=lambda turn: turn[:2])
        own[name] = np.where(own[name] == one, two, own[name] - one + two)
