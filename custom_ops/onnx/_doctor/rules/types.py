"""Types and shapes: inputs have types, and nothing declared contradicts what the nodes make."""

from collections.abc import Iterator, Sequence

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.inference import shape
from custom_ops.onnx._doctor.rules.nodes import node_form
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.rules.versions import domain_import
from custom_ops.onnx._doctor.subject import Subject

_MOST = 10  # nodes that are named


def input_type(subject: Subject) -> Iterator[Finding]:
    """Each input has a type, and that is one that ONNX knows."""
    known = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
    for value in subject.model.graph.input:
        kind = value.type.WhichOneof("value")
        if kind is None or (
            kind == "tensor_type" and value.type.tensor_type.elem_type not in known
        ):
            number = value.type.tensor_type.elem_type
            yield Finding(
                Severity.ERROR,
                "input-type",
                value.name,
                f"input {value.name!r} must have a type that ONNX knows, got "
                f"{f'number {number}' if number else 'none'}",
                "write its type into the graph's input",
            )


def node_types(subject: Subject) -> Iterator[Finding]:
    """The types and shapes of a node's inputs fit each other and its op; ten nodes that do not."""
    found = subject.inference.contradictions if subject.inference is not None else ()
    if not found:
        return
    reasons = (input_type, node_form, domain_import)  # where they find something, that is why
    if any(True for rule in reasons for _ in rule(subject)):
        return
    wrong = {each.node for each in found[:_MOST]}
    places = {i: each for i, each in enumerate(subject.nodes()) if i in wrong}
    for i, each in enumerate(found[:_MOST], 1):
        located = places[each.node]
        function = located.function
        where = f" in function {function.name!r}" if function is not None else ""
        others = len(found) - _MOST if i == _MOST else 0
        more = f" (and in {others} more node{'s' * (others > 1)})" * (others > 0)
        yield Finding(
            Severity.ERROR if subject.runs(function) else Severity.WARNING,
            "node-types",
            located.name,
            f"{located.node.op_type} must have inputs of types and shapes that fit{where}, got: "
            f"{each.said}{more}",
            "look at the shapes with custom-ops inspect --graph, and export again",
        )


def declared_type(subject: Subject) -> Iterator[Finding]:
    """What the model says of a value's type is what its node makes."""
    for name, declared, made in _differences(subject):
        if _kind(declared) != _kind(made):
            yield Finding(
                Severity.ERROR,
                "declared-type",
                name,
                f"{name!r} must be declared as it is made, {_kind(made)}, got {_kind(declared)}",
                "correct or remove the declared type",
            )


def declared_shape(subject: Subject) -> Iterator[Finding]:
    """What the model says of a value's shape is what its node makes; onnxruntime warns of it."""
    for name, declared, made in _differences(subject):
        if _kind(declared) == _kind(made) and not _fits(shape(declared), shape(made)):
            yield Finding(
                Severity.WARNING,
                "declared-shape",
                name,
                f"{name!r} must be declared as it is made, {shape(made)}, got {shape(declared)}",
                "correct or remove the declared shape",
            )


def initializer_type(subject: Subject) -> Iterator[Finding]:
    """An initializer that is an input too has the input's type and shape."""
    inputs = {value.name: value.type for value in subject.model.graph.input}
    for tensor in subject.model.graph.initializer:
        declared = inputs.get(tensor.name)
        if declared is None:
            continue
        wanted, given = shape(declared), list(tensor.dims)
        element = declared.tensor_type.elem_type
        if element != tensor.data_type or not _fits(wanted, given):
            yield Finding(
                Severity.ERROR,
                "initializer-type",
                tensor.name,
                f"input {tensor.name!r} must be declared as its initializer is, "
                f"{_element(tensor.data_type)}{given}, got {_element(element)}{wanted or ''}",
                "correct the input's type, or remove the input",
            )


def _differences(subject: Subject) -> Iterator[tuple[str, onnx.TypeProto, onnx.TypeProto]]:
    """Yields values with their declared and their inferred type."""
    if subject.inference is None:
        return
    afresh = _walk.within(subject.inference.model.graph)
    for scope, inferred in zip(_walk.within(subject.model.graph), afresh, strict=True):
        made = {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
        declared = {value.name: value.type for value in (*scope.value_info, *scope.output)}
        for name, given in declared.items():
            if name in made and _kind(given) and _kind(made[name]):
                yield name, given, made[name]


def _kind(given: onnx.TypeProto) -> str:
    """Returns the element type of a tensor; "" where it is none, or of none."""
    return _element(given.tensor_type.elem_type)


def _element(number: int) -> str:
    names = onnx.TensorProto.DataType
    return names.Name(number).lower() if number in names.values() and number else ""


def _fits(one: Sequence[int | str] | None, other: Sequence[int | str] | None) -> bool:
    if one is None or other is None:
        return True
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int)
    )


RULES: tuple[Rule, ...] = (
    input_type,
    node_types,
    declared_type,
    declared_shape,
    initializer_type,
)
