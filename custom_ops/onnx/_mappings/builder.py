"""What a mapping writes with: an object that has the ONNX ops of an opset as methods."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript

from custom_ops.onnx._mappings import bodies, inference, standard
from custom_ops.onnx._mappings.constants import array_of, default_dtype, fixed_array, is_number
from custom_ops.onnx._mappings.refusal import MappingRefused
from custom_ops.onnx._mappings.tensor import Tensor

_names = itertools.count()


class Ops:
    """The ops of one opset as methods, each of which adds a node.

    Inputs are tensors, numbers, lists, arrays or None. A number takes the dtype of the tensor
    that it meets. Attributes are keywords; that of a subgraph is a function: ``op.If(condition,
    then_branch=lambda: x, else_branch=lambda: op.Neg(x))``, ``op.Loop(count, True, x,
    body=lambda i, go_on, x: (go_on, op.Add(x, x)))``.

    Args:
        name: The torch op that is mapped, for messages.
        opset: The opset that nodes are written in.
        asked: The opset that the model gets at last; dynamo writes 18 for what is older.
        floating: The dtype of numbers that meet no tensor.
        new_value: Makes the value of an output.
        takes_scan: Whether the exporter can write a Scan; TorchScript cannot: it becomes a Loop.
    """

    def __init__(
        self,
        name: str,
        opset: int,
        asked: int,
        floating: ir.DataType,
        new_value: Callable[[], ir.Value] = ir.Value,
        takes_scan: bool = True,
    ) -> None:
        self.opset_version = opset
        self.functions: dict[tuple[str, str], onnx.FunctionProto] = {}
        self._name = name
        self._at = standard.Place(name, opset)
        self._asked = asked
        self._floating = floating
        self._new_value = new_value
        self._takes_scan = takes_scan
        self._scopes: list[list[ir.Node]] = [[]]

    @property
    def model_opset(self) -> int:
        """The opset that the model gets: nodes for one below 18 may be written in 18 first."""
        return self._asked

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes so far."""
        return self._scopes[0]

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return functools.partial(self._call, self._schema(op_type))

    def custom(
        self,
        name: str,
        *inputs: Any,
        body: onnxscript.OnnxFunction[..., Any] | None = None,
        outputs: int = 1,
        **attributes: Any,
    ) -> Any:
        """Adds a node of a domain of one's own.

        Args:
            name: Domain and op, for example "mine::Inverse".
            *inputs: Its inputs.
            body: What it computes, as an onnxscript function of that domain and name; a model
                with it runs without a library.
            outputs: The number of outputs.
            **attributes: Its attributes.

        Returns:
            The output; a tuple of several.
        """
        domain, _, op_type = name.partition("::")
        if not domain or not op_type:
            raise self.refusal(f"a custom node must be named like 'mine::Inverse', got {name!r}")
        if body is not None:
            self.functions[domain, op_type] = bodies.function(
                self._name, body, domain, op_type, self.opset_version, self._asked
            )
        values = [self._value(i, default_dtype(i, None, self._floating)) for i in inputs]
        given = [
            ir.convenience.convert_attribute(key, value)
            for key, value in attributes.items()
            if value is not None
        ]
        node = self._add(domain, op_type, values, given, outputs, version=1)
        return self._results(node)

    def refusal(self, sentence: str) -> MappingRefused:
        """Returns an error that refuses the call that is mapped."""
        return self._at.refusal(sentence)

    def _schema(self, op_type: str) -> onnx.defs.OpSchema:
        # What the model gets at last counts too: nodes written in 18 may be converted to less.
        standard.schema(self._name, op_type, self._asked)
        return standard.schema(self._name, op_type, self.opset_version)

    def _call(
        self, schema: onnx.defs.OpSchema, *inputs: Any, outputs: int | None = None, **given: Any
    ) -> Any:
        if schema.name == "Constant":
            constant = self._constant(given)
            if constant is not None:
                return constant
        if schema.name == "Scan" and not self._takes_scan:
            return bodies.scan_as_loop(self, inputs, **given)
        if not schema.min_input <= len(inputs) <= schema.max_input:
            raise self.refusal(
                f"op.{schema.name} must have {schema.min_input} to {schema.max_input} inputs, got "
                f"{len(inputs)}"
            )
        values, bound = self._inputs(schema, inputs)
        attributes, results = self._attributes(schema, given, values)
        if outputs is None:
            outputs = (
                len(results) if results is not None else standard.number_of_outputs(schema, given)
            )
        version = self._asked if self._asked >= self.opset_version else self.opset_version
        node = self._add("", schema.name, values, attributes, outputs, version)
        kinds = results or inference.outputs_of(schema, node, self.opset_version, bound)
        for value, (kind, shape) in zip(node.outputs, kinds, strict=False):
            value.type, value.shape = kind, shape
        return self._results(node)

    def _constant(self, given: dict[str, Any]) -> Tensor | None:
        """Returns a constant; one of numbers has no dtype until it meets a tensor."""
        for name in ("value_float", "value_int", "value_floats", "value_ints"):
            if name in given:
                kind = float if "float" in name else int
                number = given[name]
                several = name.endswith("s")
                return Tensor(None, [kind(n) for n in number] if several else kind(number))
        if "value" in given:
            return Tensor(self._fixed(fixed_array(given["value"])))
        return None

    def _inputs(
        self, schema: onnx.defs.OpSchema, inputs: Sequence[Any]
    ) -> tuple[list[ir.Value | None], dict[str, ir.DataType]]:
        """Returns the inputs as values, and the element types that they bind."""
        formals = [schema.inputs[min(i, len(schema.inputs) - 1)] for i in range(len(inputs))]
        bound: dict[str, ir.DataType] = {}
        for formal, given in zip(formals, inputs, strict=True):
            if isinstance(given, Tensor) and given.dtype is not None:
                standard.check_type(self._at, schema, formal, given.dtype, bound)
                if formal.is_homogeneous:
                    bound.setdefault(formal.type_str, given.dtype)
        values = []
        for formal, given in zip(formals, inputs, strict=True):
            dtype = bound.get(formal.type_str) if formal.is_homogeneous else None
            wanted = dtype or default_dtype(given, formal.types, self._floating)
            values.append(self._value(given, wanted))
            if values[-1] is not None and formal.is_homogeneous and values[-1].dtype is not None:
                bound.setdefault(formal.type_str, values[-1].dtype)
        return values, bound

    def _value(self, given: Any, dtype: ir.DataType) -> ir.Value | None:
        """Returns an input as a value of the graph."""
        if given is None:
            return None
        if isinstance(given, Tensor):
            if given.value is not None:
                return given.value
            given = given.number
        if isinstance(given, (list, tuple)) and any(isinstance(each, Tensor) for each in given):
            parts = [self.Reshape(self._tensor(each, dtype), [1]) for each in given]
            joined = self.Concat(*parts, axis=0)
            return joined.value  # type: ignore[no-any-return]
        if is_number(given):
            return self._fixed(array_of(given, dtype, self._name), dtype)
        return self._fixed(fixed_array(given))

    def _tensor(self, given: Any, dtype: ir.DataType) -> Tensor:
        value = self._value(given, dtype)
        if value is not None and value.dtype not in (None, dtype):
            return self.Cast(Tensor(value), to=dtype)  # type: ignore[no-any-return]
        return Tensor(value)

    def _fixed(self, array: Any, dtype: ir.DataType | None = None) -> ir.Value:
        """Returns the value of a Constant."""
        tensor = ir.tensor(array) if dtype is None else ir.tensor(array, dtype=dtype)
        if tensor.dtype is ir.DataType.BFLOAT16:  # TorchScript has no constant of it
            single = self._fixed(np.asarray(tensor.numpy(), np.float32))
            return self.Cast(Tensor(single), to=ir.DataType.BFLOAT16).value  # type: ignore[no-any-return]
        node = self._add("", "Constant", [], [ir.AttrTensor("value", tensor)], 1, self._version)
        value = node.outputs[0]
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.numpy().shape)
        value.const_value = tensor
        return value

    @property
    def _version(self) -> int:
        """The opset of a node; dynamo converts what is older than the model's."""
        return max(self._asked, self.opset_version)

    def _attributes(
        self, schema: onnx.defs.OpSchema, given: dict[str, Any], inputs: list[ir.Value | None]
    ) -> tuple[list[ir.Attr], list[inference.Kind] | None]:
        """Returns the attributes, and what the subgraphs among them say of the outputs."""
        attributes, results = [], None
        for name, value in given.items():
            kind = standard.attribute_type(self._at, schema, name)
            if value is None:
                continue
            if kind is ir.AttributeType.GRAPH:
                arguments = bodies.arguments(schema.name, inputs, given)
                graph = self._graph(value, arguments, bodies.carried(schema.name, inputs, given))
                attributes.append(ir.AttrGraph(name, graph))
                results = bodies.results(schema.name, graph, len(arguments), given)
                continue
            attributes.append(ir.Attr(name, kind, standard.attribute_value(kind, value)))
        return attributes, results

    def _graph(
        self,
        body: Callable[..., Any],
        kinds: list[inference.Kind],
        carried: list[ir.DataType | None],
    ) -> ir.Graph:
        """Runs the function of a subgraph.

        Args:
            body: The function.
            kinds: Types and shapes of its arguments.
            carried: Element types of its first results; numbers among them take these.
        """
        inputs = [ir.Value(name=_new_name(), type=kind, shape=shape) for kind, shape in kinds]
        self._scopes.append([])
        try:
            found = body(*map(Tensor, inputs))
            listed = list(found) if isinstance(found, (list, tuple)) else [found]
            outputs: list[ir.Value] = []
            for i, each in enumerate(listed):
                dtype = carried[i] if i < len(carried) else None
                dtype = dtype or default_dtype(each, None, self._floating)
                outputs.append(self.own(Tensor(self._value(each, dtype)), outputs))
        finally:
            nodes = self._scopes.pop()
        return ir.Graph(inputs, outputs, nodes=nodes, name="body")

    def own(self, tensor: Tensor, others: Sequence[ir.Value] = ()) -> ir.Value:
        """Returns a value that a node of this scope makes, and that is none of the others."""
        value = tensor.value if tensor.value is not None else self._value(tensor, self._floating)
        made = {id(output) for node in self._scopes[-1] for output in node.outputs}
        if value is None or id(value) not in made or any(value is other for other in others):
            value = self.Identity(Tensor(value)).value
        return value

    def _add(
        self,
        domain: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr],
        outputs: int,
        version: int,
    ) -> ir.Node:
        values = [self._new_value() for _ in range(outputs)]
        if len(self._scopes) > 1:  # a name of a subgraph must not hide one outside
            for value in values:
                value.name = _new_name()
        kept = list(inputs)
        while kept and kept[-1] is None:
            kept.pop()
        node = ir.Node(domain, op_type, kept, attributes, outputs=values, version=version)
        self._scopes[-1].append(node)
        return node

    def _results(self, node: ir.Node) -> Any:
        tensors = tuple(Tensor(value) for value in node.outputs)
        return tensors if len(tensors) != 1 else tensors[0]


def _new_name() -> str:
    return f"inner_{next(_names)}"
