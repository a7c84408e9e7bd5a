"""Copies of models in bfloat16 that run where the runtime has no kernels for it: in float32.

Each node without a kernel reads float32 and its results are rounded to bfloat16. Values keep their
names and types, so that all else goes as with a model that runs.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from custom_ops.onnx import _walk
from custom_ops.onnx._kernels.judge import Outcome, judge_model, takes
from custom_ops.onnx._kernels.table import table
from custom_ops.onnx._kernels.typed import SchemaOf, TypedNode, flat, typed
from custom_ops.onnx._targets import target

_BFLOAT16 = "tensor(bfloat16)"
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})


def lacking(model: onnx.ModelProto) -> list[str]:
    """Returns the ops that the installed runtime has no kernel for in bfloat16, each once."""
    if not _mentions(model.graph):
        return []
    found = (
        verdict.node
        for verdict in judge_model(model, _schemas(model))
        if verdict.outcome is Outcome.KERNEL and _in_bfloat16(verdict.node)
    )
    return list(dict.fromkeys(each.node.op_type for each in found))


def simulated(model: onnx.ModelProto, ops: Collection[str]) -> onnx.ModelProto:
    """Returns a copy that runs: nodes without a kernel in bfloat16 compute in float32.

    Args:
        model: A model; its large weights may be elsewhere.
        ops: Those that have no kernel, as `lacking` found them.
    """
    # In this process: onnx has managed the model before, when it was asked for what is lacking.
    known = flat(model) if model.functions else onnx.shape_inference.infer_shapes(model)
    schemas = _schemas(known)
    nodes = {}
    for each in typed(known.graph, schemas):
        schema = schemas(each.node)
        named = each.node.op_type in ops and _in_bfloat16(each)
        if named and schema is not None and not takes(schema, each, schemas):
            nodes[id(each.node)] = each
    _rewrite(known.graph, nodes, itertools.count())
    return known


def _schemas(model: onnx.ModelProto) -> SchemaOf:
    opsets = {_walk.domain(each.domain): each.version for each in model.opset_import}
    return SchemaOf(table(target().release), opsets)


def _in_bfloat16(node: TypedNode) -> bool:
    return _BFLOAT16 in (*node.inputs, *node.outputs)


def _rewrite(
    graph: onnx.GraphProto, nodes: Mapping[int, TypedNode], numbers: "itertools.count[int]"
) -> None:
    written: list[onnx.NodeProto] = []
    for node in graph.node:
        for inner in _walk.subgraphs(node):
            _rewrite(inner, nodes, numbers)
        found = nodes.get(id(node))
        written += [node] if found is None else _in_float(found, numbers)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in written]
    del graph.node[:]
    graph.node.extend(kept)


def _in_float(found: TypedNode, numbers: "itertools.count[int]") -> Iterator[onnx.NodeProto]:
    """Yields a node in float32, between casts."""
    node = onnx.NodeProto()
    node.CopyFrom(found.node)
    for attribute in node.attribute:
        if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.BFLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.BFLOAT16:
            wide = numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(numpy_helper.from_array(wide))
    for i, name in enumerate(found.node.input):
        if found.inputs[i] == _BFLOAT16:
            node.input[i] = f"custom_ops.simulated.{next(numbers)}"
            yield helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT)
    for i, kind in enumerate(found.outputs):
        if kind == _BFLOAT16:
            node.output[i] = f"custom_ops.simulated.{next(numbers)}"
    yield node
    for i, name in enumerate(found.node.output):
        if name != node.output[i]:
            yield helper.make_node("Cast", [node.output[i]], [name], to=TensorProto.BFLOAT16)


def _mentions(graph: onnx.GraphProto) -> bool:
    """Returns whether something in a graph says that it is in bfloat16."""
    if any(tensor.data_type == TensorProto.BFLOAT16 for tensor in graph.initializer):
        return True
    values = (*graph.input, *graph.output, *graph.value_info)
    if any(v.type.tensor_type.elem_type == TensorProto.BFLOAT16 for v in values):
        return True
    return any(
        (attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.BFLOAT16)
        or attribute.t.data_type == TensorProto.BFLOAT16
        or any(_mentions(inner) for inner in (attribute.g, *attribute.graphs) if inner.node)
        for node in graph.node
        for attribute in node.attribute
    )
