"""Nodes: their names, and that they have the inputs, outputs and attributes of their op."""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules import values
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._walk import STANDARD_DOMAINS


def node_name(subject: Subject) -> Iterator[Finding]:
    """No two nodes of a graph share a name; having none is fine."""
    for frame in subject.frames:
        names = Counter(node.name for node in frame.scope.node if node.name)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            yield Finding(
                values.severity(subject, frame),
                "node-name",
                twice[0],
                f"nodes must have names of their own {values.within(frame)}, got "
                f"{len(twice)} that several share: {values.shown(twice)}",
                "rename them, or remove the names",
                fixable=True,
            )


def node_form(subject: Subject) -> Iterator[Finding]:
    """A node has as many inputs and outputs as its op takes, and attributes that the op has."""
    for located in subject.nodes():
        node, domain = located.node, _walk.domain(located.node.domain)
        if _guarded.function_key(node) in subject.functions or domain not in STANDARD_DOMAINS:
            continue
        version = subject.opset(domain, located.function)
        form = _form(node.op_type, domain, version) if version is not None else None
        faults = list(form.faults(node)) if form is not None else []
        if not node.op_type:
            faults = [("name its op", "none")]
        for rule, got in faults:
            refused = subject.runs(located.function)
            if got.endswith(_TWICE):
                refused &= subject.target.at_least("1.18")
            yield Finding(
                Severity.ERROR if refused else Severity.WARNING,
                "node-form",
                located.name,
                f"{node.op_type or 'a node'} must {rule}, got {got}",
                f"see the op at https://onnx.ai/onnx/operators/onnx_{domain.replace('.', '')}_"
                f"_{node.op_type}.html, and export again",
            )


_TWICE = "twice"


@dataclass(frozen=True)
class _Form:
    """What a schema asks of a node."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    single: tuple[bool, ...]  # which inputs may not be left out
    attributes: dict[str, int]  # their types
    required: frozenset[str]

    def faults(self, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
        """Yields what must be, and what is."""
        for what, names, (least, most) in (
            ("input", node.input, self.inputs),
            ("output", node.output, self.outputs),
        ):
            if not least <= len(names) <= most:
                wanted = f"{least}" if least == most else f"{least} to {most}"
                yield f"have {wanted} {what}{'s' * (wanted != '1')}", str(len(names))
        for index, (name, single) in enumerate(zip(node.input, self.single, strict=False)):
            if single and not name:
                yield f"be given input {index}", "none"
        given = Counter(attribute.name for attribute in node.attribute)
        for name in sorted(self.required - given.keys()):
            yield f"have the attribute {name!r}", "none"
        for name, count in given.items():
            if count > 1:
                yield "have each attribute once", f"{name!r} {_TWICE}"
            if name not in self.attributes and not name.startswith("__"):
                known = ", ".join(map(repr, self.attributes)) or "none"
                yield f"have attributes that the op has ({known})", repr(name)
        for attribute in node.attribute:
            wanted_type = self.attributes.get(attribute.name)
            if wanted_type is not None and attribute.type != wanted_type:
                types = onnx.AttributeProto.AttributeType
                wanted, found = (types.Name(each) for each in (wanted_type, attribute.type))
                yield f"have {attribute.name!r} of type {wanted}", found


@functools.cache
def _form(op_type: str, domain: str, version: int) -> _Form | None:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # the latter for a version of over 32 bits
        return None  # whether the target knows it is another rule's question
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return _Form(
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        tuple(parameter.option == single for parameter in schema.inputs),
        {name: _number(attribute.type) for name, attribute in schema.attributes.items()},
        frozenset(name for name, each in schema.attributes.items() if each.required),
    )


def _number(kind: object) -> int:
    """Returns the type of an attribute as a node has it, for example of AttrType.INT."""
    number: int = onnx.AttributeProto.AttributeType.Value(str(kind).rpartition(".")[2])
    return number


RULES: tuple[Rule, ...] = (node_name, node_form)
