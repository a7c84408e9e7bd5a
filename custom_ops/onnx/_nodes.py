"""The nodes of our ops in a model, and what is known of their inputs."""

from collections.abc import Collection, Iterator
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from custom_ops._errors import UnreadableModel, first_line, root
from custom_ops.ops._body import DOMAIN, VERSION
from custom_ops.ops._registry import Op, by_onnx_name

_FUNCTION_DEFAULTS_IR_VERSION = 9  # the first that has attribute defaults in functions
_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def our_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, Op]]:
    """Yields the nodes of our ops with the ops, in subgraphs and in functions of others too."""
    yield from _nodes_of(model.graph)
    for function in model.functions.values():
        if function.domain != DOMAIN:
            yield from _nodes_of(function)


def _nodes_of(graph: ir.Graph | ir.Function) -> Iterator[tuple[ir.Node, Op]]:
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        op = by_onnx_name(node.op_type) if node.domain == DOMAIN else None
        if op is not None:
            yield node, op


def label(node: ir.Node) -> str:
    """Returns what to call a node in a sentence: its name, else that of its first output."""
    name = node.name or next((output.name for output in node.outputs if output.name), "")
    return f"{node.op_type} {name!r}"


def opset_of(model: ir.Model) -> int:
    """Returns the opset of the standard ops in a model."""
    return model.opset_imports.get("", 1)


def inline_callers(model: ir.Model, among: Collection[ir.OperatorIdentifier] = ()) -> None:
    """Inlines the functions that hold our nodes, or those of `among`.

    Only a call tells the types of their inputs, and ONNX Runtime refuses a function that has a
    standard op after a node without a body.
    """
    callers: set[ir.OperatorIdentifier] = set()
    while True:
        found = {
            key
            for key, function in model.functions.items()
            if function.domain != DOMAIN
            and (
                any(True for _ in _nodes_of(function))
                or any(
                    n.op_identifier() in callers or n.op_identifier() in among
                    for n in function.all_nodes()
                )
            )
        }
        if found == callers:
            break
        callers = found
    if callers:
        try:
            InlinePass(criteria=lambda function: function.identifier() in callers)(model)
        except RuntimeError as error:
            raise _invalid("must have functions that can be inlined", error) from error


def complete(model: ir.Model, inputs: Literal["all", "between", "none"] = "all") -> None:
    """Writes every attribute, and neutral values for inputs that are left out.

    Args:
        model: Changed in place.
        inputs: Which of them: all, those before one that is given, or none.
    """
    for node, op in our_nodes(model):
        for given in op.spec.attributes:
            if given.onnx_name not in node.attributes:
                value = list(given.default) if isinstance(given.default, list) else given.default
                value = int(value) if isinstance(value, bool) else value
                node.attributes.add(ir.convenience.convert_attribute(given.onnx_name, value))
        if inputs == "none":
            continue
        if inputs == "all":
            node.resize_inputs(len(op.spec.inputs))
        last = max((i for i, value in enumerate(node.inputs) if value is not None), default=0)
        for i, given in enumerate(op.spec.inputs):
            wanted = inputs == "all" or i < last
            if wanted and node.inputs[i] is None and given.optional:
                node.replace_input_with(i, _neutral_value(node, given))


def _neutral_value(node: ir.Node, given: Any) -> ir.Value:
    """Adds, before the node, the value of an input left out, in the type of the first input."""
    value, rank = given.neutral
    filled = np.full([1] * rank, value, dtype=np.float32)
    constant = ir.node("Constant", [], {"value": ir.tensor(filled)})
    cast = ir.node("CastLike", [constant.outputs[0], first_input(node)])
    assert node.graph is not None
    node.graph.insert_before(node, [constant, cast])
    for i, added in enumerate((constant, cast)):
        added.name = f"{node.name or node.outputs[0].name}/{given.name}{i}"
        added.outputs[0].name = f"{added.name}_value"
    dtype = first_input(node).dtype
    if dtype is not None:
        cast.outputs[0].dtype = dtype
    return cast.outputs[0]


def infer_dtypes(model: ir.Model) -> dict[ir.Node, str]:
    """Returns the element type of the first input of each node of our ops.

    Raises:
        ValueError: The model does not tell one.
    """
    nodes = [node for node, _ in our_nodes(model)]
    dtypes = [_dtype(node, op) for node, op in our_nodes(model)]
    if None in dtypes:
        dtypes = [_dtype(node, op) for node, op in our_nodes(with_inferred_types(model))]
    for node, dtype in zip(nodes, dtypes, strict=True):
        if dtype is None:
            raise ValueError(
                f"{node.op_type}: the element type of {first_input(node).name!r} must be known, "
                "got none; give the inputs of the model types"
            )
    known = (dtype_name(dtype) for dtype in dtypes if dtype is not None)
    return dict(zip(nodes, known, strict=True))


def _dtype(node: ir.Node, op: Op) -> ir.DataType | None:
    """Returns the type of the first input, by any value that has it for certain."""
    columns = zip(*op.spec.input_dtypes, strict=True)
    inputs = zip(node.inputs, columns, strict=False)
    values = [value for value, column in inputs if list(column) == op.spec.dtypes]
    values += node.outputs if len(values) == len(op.spec.inputs) else []
    return next((v.dtype for v in values if v is not None and v.dtype is not None), None)


def dtype_name(dtype: ir.DataType) -> str:
    """Returns an element type by the name that it has in torch and NumPy."""
    return _NAMES.get(dtype.name, dtype.name.lower())


def with_inferred_types(model: ir.Model) -> ir.Model:
    """Returns a copy with types and shapes wherever onnx can infer them, through bodies too."""
    copy = copied(model)
    complete(copy)
    # For inference the type that a body computes in does not matter.
    attach_bodies(copy, dict.fromkeys((node for node, _ in our_nodes(copy)), "float32"))
    infer_types(copy)
    return copy


def copied(model: ir.Model) -> ir.Model:
    """Returns a copy.

    Raises:
        UnreadableModel: A node uses a value that nothing makes.
    """
    try:
        return model.clone()
    except RuntimeError as error:
        raise _invalid("must have each value that a node uses", error) from error


def infer_types(model: ir.Model) -> None:
    """Adds the types and shapes that onnx infers.

    Raises:
        UnreadableModel: onnx takes the model for invalid.
    """
    try:
        ShapeInferencePass(strict_mode=False)(model)
    except Exception as error:  # of onnx's C++, wrapped by onnx-ir in one of its own
        raise _invalid("must have types that onnx can infer", error) from error


def _invalid(rule: str, error: BaseException) -> UnreadableModel:
    said = first_line(root(error))
    return UnreadableModel(f"model: the graph {rule}, got: {said}; see `custom-ops doctor`")


def first_input(node: ir.Node) -> ir.Value:
    """Returns the first input of a node of ours, which is always given."""
    value = node.inputs[0] if node.inputs else None
    if value is None:
        raise ValueError(
            f"{node.op_type}: the first input must be given, got none; the model is broken"
        )
    return value


def attach_bodies(model: ir.Model, dtypes: dict[ir.Node, str]) -> None:
    """Adds the function of each op that the model uses, and drops those that it does not.

    Args:
        model: Changed in place.
        dtypes: Element type of each node.
    """
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    used: dict[str, tuple[Op, set[str]]] = {}
    for node, op in our_nodes(model):
        used.setdefault(node.op_type, (op, set()))[1].add(dtypes[node])
    for op, kinds in used.values():
        function = op.onnx.body.function(opset_of(model), frozenset(kinds))
        body = ir.serde.deserialize_function(function.to_function_proto())
        model.functions[body.identifier()] = body
    if used:
        model.opset_imports[DOMAIN] = VERSION
        model.ir_version = max(model.ir_version or 0, _FUNCTION_DEFAULTS_IR_VERSION)
    else:
        model.opset_imports.pop(DOMAIN, None)


def static_shape(value: ir.Value | None) -> list[int | None] | None:
    """Returns a shape with None for each size that is not known; None where nothing is."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else None for dim in value.shape.dims]


def is_neutral(value: ir.Value | None, given: Any) -> bool:
    """Returns whether a value is left out, or the neutral constant of an input, through casts."""
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in ("Cast", "CastLike", "Identity"):
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    if value is None:
        return True
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1:
        return False
    return bool(tensor.numpy().reshape(()) == given.neutral[0])
