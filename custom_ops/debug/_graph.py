"""The main graph of a model: a small message beside weights that stay where they lie."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

import custom_ops.onnx
from custom_ops.debug import _simulated
from custom_ops.onnx import _scopes, _storage
from custom_ops.onnx._reading import Document
from custom_ops.onnx._running import LEVELS
from custom_ops.onnx._scopes import Scope
from custom_ops.onnx._walk import used

Array: TypeAlias = np.ndarray[Any, Any]

_LARGE = 1 << 12  # bytes, from which on a weight is not copied
# Notes of nodes that stand for the call of a function: that call, and what its result goes by.
FUNCTION, RESULT = "custom_ops.function", "custom_ops.result"


@dataclass(frozen=True)
class Node:
    """A node of the main graph.

    Attributes:
        index: Its place.
        proto: The node.
        scope: Where it comes from; None where it does not say.
        target: The op of torch that it is a part of, as "aten.conv2d", or the function whose result
            it makes; "" where unknown.
        unit: What is the same for all nodes of one op of torch; None where unknown.
        constant: Whether its results depend on no value of an input, but at most on shapes.
        inner: Whether its results stay inside the op of torch that it is a part of.
        function: The call and the function that it stands for a part of; "" for none.
    """

    index: int
    proto: onnx.NodeProto
    scope: Scope | None
    target: str
    unit: object
    constant: bool
    inner: bool
    function: str = ""


@dataclass(frozen=True)
class Graph:
    """The main graph of a model, without its large weights.

    Attributes:
        proto: The model; in place of a large weight stands a tensor whose data is elsewhere.
        weights: The large weights, mapped or shared, never copied.
        nodes: Its nodes, in an order in which they can run.
        producer: The node of each value.
        simulated: Ops without a kernel in bfloat16 that sessions run in float32.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, Array]
    nodes: Sequence[Node]
    producer: Mapping[str, Node] = field(repr=False)
    simulated: frozenset[str] = frozenset()

    @functools.cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The initializers by name; the large ones without data."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that have no default."""
        given = self.proto.graph.input
        return [each.name for each in given if each.name not in self.initializers]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [each.name for each in self.proto.graph.output]

    def session(
        self,
        proto: onnx.ModelProto,
        libraries: Iterable[str] = (),
        providers: Sequence[Any] | None = None,
        level: str = "disabled",
    ) -> onnxruntime.InferenceSession:
        """Opens a session on a copy of the model, with our library and those given.

        Args:
            proto: The copy.
            libraries: Files of further libraries of custom ops.
            providers: As for `onnxruntime.InferenceSession`.
            level: How far it optimizes the graph, one of `LEVELS`.
        """
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[level]
        options.log_severity_level = 4
        # Each runs once: threads that spin after a node would slow down what comes next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for library in libraries:
            options.register_custom_ops_library(library)
        if self.simulated:
            proto = _simulated.simulated(proto, self.simulated)
        held = {each.name for each in proto.graph.initializer}
        weights = {name: weight for name, weight in self.weights.items() if name in held}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in weights.values()]
        options.add_external_initializers(list(weights), values)
        # The class knows the names of the inputs that the kernels of the library have.
        return custom_ops.onnx.session(
            proto.SerializeToString(), sess_options=options, providers=providers
        )


def of_document(document: Document) -> Graph:
    """Returns the graph of a model."""
    ir_model = document.graph()
    values = ir_model.graph.initializers
    proto = onnx.ModelProto()
    small = onnx.GraphProto()
    weights: dict[str, Array] = {}
    stubs: list[onnx.TensorProto] = []
    read_by = {name for node in document.proto.graph.node for name in used(node)}
    read_by.update(each.name for each in document.proto.graph.output)
    for tensor in document.proto.graph.initializer:
        if tensor.name not in read_by:  # the runtime drops it, and then refuses its data
            continue
        value = values[tensor.name].const_value
        assert value is not None
        if value.nbytes < _LARGE or not _known_to_numpy(value.dtype):
            small.initializer.add().CopyFrom(tensor)
            continue
        weights[tensor.name] = np.ascontiguousarray(value.numpy())
        stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        stub.data_location = onnx.TensorProto.EXTERNAL
        stub.external_data.add(key="location", value=f"{tensor.name}.weight")
        stubs.append(stub)
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        setattr(proto, name, getattr(document.proto, name))
    proto.opset_import.extend(document.proto.opset_import)
    proto.functions.extend(document.proto.functions)
    proto.metadata_props.extend(document.proto.metadata_props)
    given = document.proto.graph
    small.name = given.name
    for field_name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(small, field_name).extend(getattr(given, field_name))
    proto.graph.CopyFrom(small)
    _storage.embed("compare", proto, document.folder)  # what is left is small, or in a subgraph
    proto.graph.initializer.extend(stubs)
    return of_proto(proto, weights)


def of_proto(
    proto: onnx.ModelProto,
    weights: Mapping[str, Array],
    simulated: frozenset[str] = frozenset(),
) -> Graph:
    """Returns the graph of a copy, with the weights of another one."""
    graph = proto.graph
    scopes = _scopes.scopes(graph.node, [tensor.name for tensor in graph.initializer])
    constants = {tensor.name for tensor in graph.initializer}
    constants.update(sparse.values.name for sparse in graph.sparse_initializer)
    constants.difference_update(each.name for each in graph.input)
    origins = [_origin(node) for node in graph.node]
    leaving = _leaving(graph, [unit for _, unit in origins])
    nodes = []
    for i, (node, scope) in enumerate(zip(graph.node, scopes, strict=True)):
        constant = node.op_type in ("Shape", "Size") or (
            constants.issuperset(used(node)) and not node.op_type.startswith("Random")
        )
        if constant:
            constants.update(filter(None, node.output))
        function = _note(node, FUNCTION)
        inner = leaving.isdisjoint(node.output) and not function
        nodes.append(Node(i, node, scope, *origins[i], constant, inner, function))
    producer = {name: node for node in nodes for name in node.proto.output if name}
    return Graph(proto, weights, nodes, producer, simulated)


def _leaving(graph: onnx.GraphProto, units: Sequence[object]) -> set[str]:
    """Returns the values that are used outside the op of torch that makes them, or nowhere."""
    unit_of = {
        name: unit
        for node, unit in zip(graph.node, units, strict=True)
        if unit is not None
        for name in node.output
    }
    users = [
        (name, unit) for node, unit in zip(graph.node, units, strict=True) for name in used(node)
    ]
    named = {name for name, _ in users}
    leaving = {each.name for each in graph.output}
    leaving.update(name for name, unit in users if unit_of.get(name) != unit)
    leaving.update(
        name
        for node in graph.node
        for name in node.output
        if name not in unit_of or name not in named
    )
    return leaving


def numpy_type(element_type: int) -> np.dtype[Any]:
    """Returns the dtype of a type of ONNX."""
    return onnx.helper.tensor_dtype_to_np_dtype(element_type)


def _origin(node: onnx.NodeProto) -> tuple[str, object]:
    name, _, rest = _note(node, _scopes.FX_NODE).partition(" :")
    target = rest.partition("[target=")[2].partition("]")[0]
    words = target.removeprefix("torch.ops.").split(".")
    result = _note(node, RESULT)
    known = len(words) > 1 and words[-1] != "getitem" and (result or not _note(node, FUNCTION))
    return (".".join(words[:2]) if known else result), name or None


def _note(node: onnx.NodeProto, key: str) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == key), "")


def _known_to_numpy(dtype: ir.DataType) -> bool:
    return (
        dtype.is_floating_point() and dtype.bitwidth >= 16 and dtype != ir.DataType.BFLOAT16
    ) or (dtype.is_integer() and dtype.bitwidth >= 8)
