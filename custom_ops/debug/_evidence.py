"""What proves a fault: the nodes of its region as a model, what is fed to it, what torch does."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
import torch
from google.protobuf.message import Message
from onnx import helper, numpy_helper
from torch.utils import _pytree as pytree

from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._recording import Recording, Ref, Step
from custom_ops.debug._regions import inputs_of
from custom_ops.onnx import _walk

Op: TypeAlias = dict[str, Any]  # "op", "args" and "kwargs"

MOST = 8  # faults of one comparison that are proven: their arrays stay in memory


@dataclass(frozen=True)
class Evidence:
    """A fault by itself.

    Attributes:
        model: Its region, with its weights.
        feeds: What is fed to it, by name.
        output: The value that is wrong.
        expected: What it should be.
        ops: The ops of torch that give it; () where another model is the reference.
        result: Which of the tensors that the last of them gives it is.
    """

    model: onnx.ModelProto
    feeds: Mapping[str, Array]
    output: str
    expected: Array
    ops: tuple[Op, ...] = ()
    result: int = 0


def of_region(
    graph: Graph,
    region: Sequence[Node],
    name: str,
    known: Mapping[str, Array],
    expected: Array,
    ops: Sequence[Op],
    result: int,
) -> Evidence:
    """Returns the evidence of a fault.

    Args:
        graph: The model.
        region: The nodes that make the value, in order.
        name: Of the value.
        known: What is fed for the inputs of the model and the values that are compared.
        expected: What the value should be, of whatever dtype.
        ops: The ops of torch that give it.
        result: Which of the tensors that the last of them gives it is.
    """
    model = onnx.ModelProto(ir_version=graph.proto.ir_version, producer_name="custom_ops")
    model.opset_import.extend(graph.proto.opset_import)
    model.graph.name = "fault"
    feeds: dict[str, Array] = {}
    for value in inputs_of(region):
        if value in graph.weights:
            model.graph.initializer.append(numpy_helper.from_array(graph.weights[value], value))
        elif value in graph.initializers:
            model.graph.initializer.append(graph.initializers[value])
        elif value in known:
            feeds[value] = known[value]
            kind = helper.np_dtype_to_tensor_dtype(known[value].dtype)
            model.graph.input.append(helper.make_tensor_value_info(value, kind, known[value].shape))
    model.graph.node.extend(node.proto for node in region)
    model.functions.extend(_used(graph.proto.functions, model.graph))
    _strip(model)
    kind = helper.np_dtype_to_tensor_dtype(known[name].dtype)
    model.graph.output.append(helper.make_tensor_value_info(name, kind, expected.shape))
    return Evidence(model, feeds, name, expected, tuple(ops), result)


def _used(
    functions: Iterable[onnx.FunctionProto], graph: onnx.GraphProto
) -> list[onnx.FunctionProto]:
    """Returns the functions that a graph calls, and those that they call."""
    known = {(each.domain, each.name, each.overload): each for each in functions}
    found: dict[tuple[str, str, str], onnx.FunctionProto] = {}
    waiting: list[_walk.Scope] = [graph]
    while waiting:
        for scope in _walk.within(waiting.pop()):
            for node in scope.node:
                key = (node.domain, node.op_type, node.overload)
                if key in known and key not in found:
                    found[key] = known[key]
                    waiting.append(known[key])
    return list(found.values())


def _strip(message: Message) -> None:
    """Takes out all texts about a model, in which lines and paths of the user's code are."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                _strip(each)


def plain_ops(recording: Recording, steps: Sequence[Step]) -> tuple[Op, ...]:
    """Returns ops of torch in plain types that `torch.save` keeps and `torch.load` takes back.

    A result is ("result", place in the list, output); one of an op that is not in the list is
    the tensor that was recorded. A memory format, which cannot be written, is ("torch", name).
    """
    places = {step.index: i for i, step in enumerate(steps)}

    def plain(leaf: Any) -> Any:
        if isinstance(leaf, torch.memory_format):
            return ("torch", str(leaf).removeprefix("torch."))
        if not isinstance(leaf, Ref):
            return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf
        if leaf.step in places:
            return ("result", places[leaf.step], leaf.output)
        return recording.value(leaf)

    def resolved(arguments: Any) -> Any:
        return pytree.tree_map(plain, arguments, is_leaf=lambda leaf: isinstance(leaf, Ref))

    return tuple(
        {
            "op": f"{step.func._schema.name}.{step.func._overloadname}",
            "args": resolved(step.args),
            "kwargs": resolved(step.kwargs),
        }
        for step in steps
    )


def stands(leaf: Any) -> bool:
    """Returns whether an argument of an op in plain types stands for something else."""
    return isinstance(leaf, tuple) and leaf[:1] in (("result",), ("torch",))


def run_ops(ops: Sequence[Op]) -> list[list[torch.Tensor]]:
    """Runs ops in plain types; returns the tensors that each gives."""
    results: list[list[torch.Tensor]] = []

    def given(leaf: Any) -> Any:
        if stands(leaf):
            return results[leaf[1]][leaf[2]] if leaf[0] == "result" else getattr(torch, leaf[1])
        return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf

    with torch.no_grad():
        for op in ops:
            space, _, name = op["op"].partition("::")
            name, _, overload = name.partition(".")
            function = getattr(getattr(getattr(torch.ops, space), name), overload or "default")
            args, kwargs = pytree.tree_map(given, (op["args"], op["kwargs"]), is_leaf=stands)
            outputs = pytree.tree_leaves(function(*args, **kwargs))
            results.append([each for each in outputs if isinstance(each, torch.Tensor)])
    return results
