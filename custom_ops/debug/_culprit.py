"""Finds the node of a region that differs from the same region of another model."""

import difflib
import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from custom_ops.debug import _difference, _regions
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._result import Fault
from custom_ops.onnx import _walk


@dataclass(frozen=True)
class Paired:
    """A model and its values.

    Attributes:
        graph: The model.
        of_value: For each value what it is called in all models: the result of torch that it is,
            or its name in one of them.
    """

    graph: Graph
    of_value: Mapping[str, Hashable]

    @functools.cached_property
    def regions(self) -> dict[Hashable, list[Node]]:
        """The nodes that make each result from those before it, in order."""
        found = _regions.regions(self.graph, self.of_value)
        return {
            self.of_value[name]: [node for node in nodes if not node.constant]
            for name, nodes in found.items()
        }

    def shared(self, other: "Paired") -> "Paired":
        """Returns the model with those values alone whose results the other model has too."""
        known = set(other.of_value.values())
        return Paired(self.graph, {n: ref for n, ref in self.of_value.items() if ref in known})

    def literal(self, name: str) -> Array | None:
        """Returns a weight or constant; None of what is computed."""
        if name in self.graph.weights:
            return self.graph.weights[name]
        node = self.graph.producer.get(name)
        if node is None:
            tensor = self.graph.initializers.get(name)
            return numpy_helper.to_array(tensor) if tensor is not None else None
        if node.proto.op_type == "Identity" and node.constant:
            return self.literal(node.proto.input[0])
        if node.proto.op_type != "Constant":
            return None
        value = helper.get_attribute_value(node.proto.attribute[0])
        is_tensor = isinstance(value, onnx.TensorProto)
        return numpy_helper.to_array(value) if is_tensor else np.asarray(value)

    def defaults(self, node: onnx.NodeProto) -> dict[str, Any]:
        """Returns what the attributes of an op are where a node leaves them out."""
        domain = _walk.domain(node.domain)
        for entry in self.graph.proto.opset_import:
            known = onnx.defs.has(node.op_type, entry.version, domain)
            if _walk.domain(entry.domain) == domain and known:
                schema = onnx.defs.get_schema(node.op_type, entry.version, domain)
                values = [each.default_value for each in schema.attributes.values()]
                return {a.name: helper.get_attribute_value(a) for a in values if a.name}
        return {}

    def place(self, name: str, inside: Mapping[str, object]) -> object:
        """Returns what a value is, in words that another export of the module shares.

        Args:
            name: Of the value.
            inside: The same for the values inside the region.

        Returns:
            None of a weight, and of what is computed of shapes alone.
        """
        if name in self.of_value:
            return self.of_value[name]
        if name in self.graph.inputs:
            return self.graph.inputs.index(name)
        return inside.get(name)


def explained(faults: Sequence[Fault], given: Paired, again: Paired) -> list[Fault]:
    """Returns faults with the node that differs from that of another model, and how it does.

    Where none does, the runtime computes something else, and the last node of the region stands.

    Args:
        faults: The faults of a model.
        given: That model.
        again: The other one.
    """
    given, again = given.shared(again), again.shared(given)
    found = []
    for fault in faults:
        what = given.of_value.get(fault.name)
        if what is not None:  # else the other model has no such value
            first = first_difference(given, given.regions[what], again, again.regions[what])
            if first is not None:
                node, how = first[0].proto, first[1]
                fault = replace(fault, node=node.name, op_type=node.op_type, difference=how)
        found.append(fault)
    return found


def first_difference(
    given: Paired, region: Sequence[Node], again: Paired, expected: Sequence[Node]
) -> tuple[Node, str] | None:
    """Returns the first node of a region that another model has otherwise, and how.

    Args:
        given: The model.
        region: The nodes of the region, in order.
        again: The other model.
        expected: The nodes of the same region there.

    Returns:
        None where nothing differs.
    """
    kinds = [[_kind(node.proto) for node in nodes] for nodes in (region, expected)]
    matcher = difflib.SequenceMatcher(None, kinds[0], kinds[1], autojunk=False)
    inside: tuple[dict[str, object], dict[str, object]] = ({}, {})
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag != "equal":
            here, there = ", ".join(kinds[0][i:i_end]), ", ".join(kinds[1][j:j_end])
            how = f"op is {here}, not {there}" if here and there else f"no {there} comes before it"
            if not there:
                how = f"{here} is one too many"
            elif i == len(region):
                how = f"no {there} comes after it"
            return region[min(i, len(region) - 1)], how
        for ours, theirs in zip(region[i:i_end], expected[j:j_end], strict=True):
            for how in _differences(given, ours.proto, again, theirs.proto, inside):
                return ours, how
            for known, node in zip(inside, (ours, theirs), strict=True):
                known.update({name: (ours.index, k) for k, name in enumerate(node.proto.output)})
    return None


def _differences(
    given: Paired,
    ours: onnx.NodeProto,
    again: Paired,
    theirs: onnx.NodeProto,
    inside: tuple[Mapping[str, object], Mapping[str, object]],
) -> Iterator[str]:
    """Yields how a node differs from that of the other model: attributes, weights, inputs."""
    one, other = _attributes(given, ours), _attributes(again, theirs)
    for name in sorted(one.keys() | other.keys()):
        texts = [
            _difference.text(each[name]) if name in each else "left out" for each in (one, other)
        ]
        if texts[0] != texts[1]:
            yield f"attribute {name} is {texts[0]}, not {texts[1]}"
    if len(ours.input) != len(theirs.input):
        yield f"it has {len(ours.input)} inputs, not {len(theirs.input)}"
    places = []
    for i, (mine, new) in enumerate(zip(ours.input, theirs.input, strict=False)):
        arrays = given.literal(mine), again.literal(new)
        if arrays[0] is not None and arrays[1] is not None:
            how = _difference.apart(arrays[0], arrays[1])
            if how:
                yield f"input {i}, {mine!r}, {how}"
        places.append((given.place(mine, inside[0]), again.place(new, inside[1])))
    if any(None not in pair and pair[0] != pair[1] for pair in places):
        same = sorted(map(repr, (a for a, _ in places))) == sorted(
            map(repr, (b for _, b in places))
        )
        yield "its inputs are in another order" if same else "it has other inputs"
    for body, wanted in zip(_walk.subgraphs(ours), _walk.subgraphs(theirs), strict=False):
        if len(body.node) != len(wanted.node):
            yield f"its body has {len(body.node)} nodes, not {len(wanted.node)}"
            continue
        for mine, new in zip(body.node, wanted.node, strict=True):
            found = _differences(given, mine, again, new, ({}, {}))
            if _kind(mine) != _kind(new):
                found = iter([f"op is {_kind(mine)}, not {_kind(new)}"])
            for how in found:
                yield f"inside of it, {mine.name or mine.output[0]}: {how}"


def _kind(node: onnx.NodeProto) -> str:
    domain = _walk.domain(node.domain)
    return f"{domain}::{node.op_type}" if domain else node.op_type


def _attributes(model: Paired, node: onnx.NodeProto) -> dict[str, Any]:
    """Returns the attributes of a node, with the defaults of those that it leaves out."""
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type not in graphs}
    return model.defaults(node) | given
