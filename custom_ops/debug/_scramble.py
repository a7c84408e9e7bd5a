"""Puts other weights into the evidence of a fault, in the model and in torch's ops alike."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch.utils import _pytree as pytree

from custom_ops._errors import first_line
from custom_ops.debug import _difference
from custom_ops.debug._arrays import Array
from custom_ops.debug._evidence import Evidence, Op, run_ops, stands
from custom_ops.debug._metrics import measure
from custom_ops.debug._weights import Weight, put_in_other_places, tells
from custom_ops.onnx import _walk
from custom_ops.onnx._session import session
from custom_ops.onnx._verify import run, to_array

if TYPE_CHECKING:
    from custom_ops.debug._result import Fault


def scrambled(evidence: Evidence, fault: "Fault") -> tuple[Evidence, "Fault"]:
    """Returns the same fault with the numbers of each weight in other places.

    What the weights of the model and of torch differ by is there again, where the numbers went.

    Returns:
        The evidence, and the fault as it is then.

    Raises:
        ValueError: The reference is no torch module, a weight is not found on both sides, or the
            fault does not show any more.
    """
    if not evidence.ops:
        raise ValueError(
            "bundle: scramble must be of a comparison with a torch module, got one of two models; "
            "leave it out"
        )
    model = onnx.ModelProto()
    model.CopyFrom(evidence.model)
    tensors = _tensors(model)
    ours = [Weight("the model", numpy_helper.to_array(tensor)) for tensor in tensors]
    theirs = _of_torch(evidence)
    put_in_other_places(ours, theirs)
    for tensor, weight in zip(tensors, ours, strict=True):
        assert weight.after is not None
        tensor.CopyFrom(numpy_helper.from_array(weight.after, tensor.name))
    ops = _replaced(evidence.ops, theirs)
    try:
        with torch.random.fork_rng(devices=()):
            expected = to_array(run_ops(ops)[-1][evidence.result])
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        runner = session(model, sess_options=options)
        actual = run(runner, dict(evidence.feeds), [evidence.output])[0]
    except Exception as error:  # of torch or of the runtime, which may raise anything
        raise ValueError(
            f"bundle: scramble must be of a region that runs by itself, got {type(error).__name__}"
            f": {first_line(error)}; leave it out"
        ) from error
    metrics, limit = measure(expected, actual), fault.limit
    if fault.limit_by != "tolerance" and fault.metrics is not None and fault.metrics.largest:
        limit *= max(1.0, metrics.largest / fault.metrics.largest)
    if metrics.within(limit):
        raise ValueError(
            f"bundle: scramble must keep the fault, got a difference of {metrics.max_abs:.3g} with "
            f"other weights, limit {limit:.3g}; leave it out"
        )
    difference = _difference.without_numbers(fault.difference)
    fault = replace(fault, metrics=metrics, limit=limit, difference=difference)
    return replace(evidence, model=model, ops=ops, expected=expected), fault


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Returns the tensors of a model that tell something of weights; lists become tensors."""
    for scope in _walk.scopes(model):
        for node in (each for each in scope.node if each.op_type == "Constant"):
            for attribute in node.attribute:
                if attribute.name == "value_floats":
                    values = numpy_helper.from_array(np.asarray(attribute.floats, np.float32))
                    attribute.CopyFrom(onnx.helper.make_attribute("value", values))
                if attribute.name == "value":
                    attribute.t.name = node.output[0]
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    sizes = {name for node in resizes for name in node.input[1:]}  # which are no weights
    return [
        each
        for each in _walk.tensors(model)
        if each.name not in sizes and tells(numpy_helper.to_array(each))
    ]


def _of_torch(evidence: Evidence) -> list[Weight]:
    """Returns the weights among the arguments of torch's ops, each once."""
    found: list[Weight] = []
    for leaf in _leaves(evidence.ops):
        array = to_array(leaf)
        fed = any(_same(array, each) for each in evidence.feeds.values())
        if not fed and tells(array) and not any(_same(array, each.before) for each in found):
            found.append(Weight("torch", array))
    return found


def _replaced(ops: Sequence[Op], weights: Sequence[Weight]) -> tuple[Op, ...]:
    def other(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            array = to_array(leaf)
            for weight in weights:
                if _same(array, weight.before):
                    return _tensor(weight.after, leaf.dtype)
        return leaf

    return tuple(
        op | {name: pytree.tree_map(other, op[name], is_leaf=stands) for name in ("args", "kwargs")}
        for op in ops
    )


def _tensor(array: Array | None, dtype: torch.dtype) -> torch.Tensor:
    assert array is not None
    if dtype == torch.bfloat16:  # which NumPy has not
        return torch.from_numpy(array.view(np.int16)).view(dtype)
    return torch.from_numpy(array)


def _leaves(ops: Sequence[Op]) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves([(op["args"], op["kwargs"]) for op in ops], is_leaf=stands)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
