"""What a node's change of opset may ask of its model: types, ranks, constants, new constants."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from custom_ops.onnx import _guarded, _walk


class Hindered(Exception):
    """Why a node cannot be moved to another opset."""


class Context:
    """A model whose nodes are being moved.

    Args:
        model: The model as it was; the nodes that move are its own.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.functions = _guarded.functions(model)
        self._scope: _walk.Scope = model.graph
        self._holder: _walk.Scope = model.graph
        self._pending: list[tuple[onnx.NodeProto, onnx.NodeProto]] = []
        # Types are asked for while nodes change, so they are those of the model as it was.
        self._original = _guarded.without_large_weights(model)

    def enter(self, scope: _walk.Scope, holder: _walk.Scope) -> None:
        """Says which graph or function the next nodes are in."""
        self._scope, self._holder = scope, holder

    def leave(self) -> None:
        """Puts the new constants of the scope where they belong."""
        if not self._pending:
            return
        before: dict[str, list[onnx.NodeProto]] = {}
        for user, constant in self._pending:
            before.setdefault(user.output[0], []).append(constant)
        nodes = []
        for node in self._scope.node:
            first = next(iter(node.output), "")
            nodes += [*before.pop(first, []), node]
        del self._scope.node[:]
        self._scope.node.extend(nodes)
        self._pending.clear()

    def types(self, node: onnx.NodeProto, name: str) -> set[str]:
        """Returns the types that a value of a node has, like "tensor(float)"; none if unknown.

        In a function these are the types of all nodes of its op, wherever it is called.
        """
        if isinstance(self._holder, onnx.FunctionProto):
            return self._types_by_op.get(node.op_type, set())
        kind = self._infos.get(name)
        return {_type_text(kind)} if kind is not None else set()

    def rank(self, name: str) -> int | None:
        """Returns the number of axes of a value; None if unknown, as inside functions."""
        if isinstance(self._holder, onnx.FunctionProto):
            return None
        kind = self._infos.get(name)
        if (
            kind is None
            or not kind.HasField("tensor_type")
            or not kind.tensor_type.HasField("shape")
        ):
            return None
        return len(kind.tensor_type.shape.dim)

    def constant(self, name: str) -> list[int] | None:
        """Returns the numbers of a constant of integers; None if it is none or lies elsewhere."""
        tensor = self._constants.get((_key(self._holder), name))
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return [int(number) for number in numpy_helper.to_array(tensor).reshape(-1)]

    def new_constant(self, user: onnx.NodeProto, numbers: Sequence[int], what: str) -> str:
        """Returns the name of a new constant for a node, a list of int64."""
        return self._added(user, np.array(numbers, np.int64), what)

    def new_scalar(self, user: onnx.NodeProto, number: int, what: str) -> str:
        """Returns the name of a new scalar of int64 for a node."""
        return self._added(user, np.array(number, np.int64), what)

    def _added(self, user: onnx.NodeProto, array: npt.NDArray[np.int64], what: str) -> str:
        base = f"{user.output[0]}_{what}"
        name, number = base, 1
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        tensor = numpy_helper.from_array(array, name)
        # Before IR version 4 an initializer had to be an input too.
        if isinstance(self._scope, onnx.GraphProto) and self.model.ir_version >= 4:
            self._scope.initializer.append(tensor)
        else:
            self._pending.append((user, helper.make_node("Constant", [], [name], value=tensor)))
        return name

    @functools.cached_property
    def _names(self) -> set[str]:
        names = set()
        for scope in _walk.scopes(self.model):
            for node in scope.node:
                names.update(node.output)
            if isinstance(scope, onnx.GraphProto):
                names.update(each.name for each in (*scope.initializer, *scope.input))
            else:
                names.update(scope.input)
        return names

    @functools.cached_property
    def _constants(self) -> dict[tuple[_guarded.FunctionKey | None, str], onnx.TensorProto]:
        found: dict[tuple[_guarded.FunctionKey | None, str], onnx.TensorProto] = {}
        for holder in (self.model.graph, *self.model.functions):
            for scope in _walk.within(holder):
                for node in scope.node:
                    if node.op_type == "Constant" and not _walk.domain(node.domain):
                        for attribute in node.attribute:
                            tensor = _as_tensor(attribute)
                            if tensor is not None:
                                found[_key(holder), node.output[0]] = tensor
                if isinstance(scope, onnx.GraphProto):
                    given = {each.name for each in scope.input}
                    for tensor in scope.initializer:
                        if tensor.name not in given:  # else a caller may give another
                            found[_key(holder), tensor.name] = tensor
        return found

    @functools.cached_property
    def _infos(self) -> dict[str, onnx.TypeProto]:
        """The types of all values outside functions; a name is unique there."""
        try:
            inferred = _guarded.infer_shapes(self._original)
        except _guarded.Refused:
            inferred = self._original
        return _infos(inferred)

    @functools.cached_property
    def _types_by_op(self) -> dict[str, set[str]]:
        """The types of all values of the nodes of an op, with functions inlined."""
        found: dict[str, set[str]] = {}
        try:
            inferred = _guarded.infer_shapes(_guarded.inline(self._original))
        except _guarded.Refused:
            return found
        infos = _infos(inferred)
        for scope in _walk.within(inferred.graph):
            for node in scope.node:
                for name in (*node.input, *node.output):
                    if name:
                        kind = infos.get(name)
                        text = _type_text(kind) if kind is not None else "unknown"
                        found.setdefault(node.op_type, set()).add(text)
        return found


def _key(holder: _walk.Scope) -> _guarded.FunctionKey | None:
    if isinstance(holder, onnx.FunctionProto):
        return _walk.domain(holder.domain), holder.name, holder.overload
    return None


def _infos(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    found: dict[str, onnx.TypeProto] = {}
    for scope in _walk.within(model.graph):
        assert isinstance(scope, onnx.GraphProto)
        for tensor in scope.initializer:
            found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        for value in (*scope.value_info, *scope.input, *scope.output):
            if value.type.WhichOneof("value") is not None:
                found[value.name] = value.type
    return found


def _type_text(kind: onnx.TypeProto) -> str:
    """Returns a type as schemas write it."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        number = kind.tensor_type.elem_type
        name = onnx.TensorProto.DataType.Name(number).lower() if number else "unknown"
        return f"tensor({name})"
    if which == "sequence_type":
        return f"seq({_type_text(kind.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({_type_text(kind.optional_type.elem_type)})"
    return str(which)


def _as_tensor(attribute: onnx.AttributeProto) -> onnx.TensorProto | None:
    if attribute.name == "value" and attribute.HasField("t"):
        return attribute.t
    if attribute.name == "value_int":
        return numpy_helper.from_array(np.array(attribute.i, np.int64))
    if attribute.name == "value_ints":
        return numpy_helper.from_array(np.array(attribute.ints, np.int64))
    return None
