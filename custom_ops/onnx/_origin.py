"""Tags the nodes of an inlined body with the call that they come from, in the file itself.

Each node of the body has, among its metadata, the op and the number of the call; the one that makes
the result has in addition what it takes to write the node again.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from custom_ops.onnx._nodes import our_nodes

KEY = "custom_ops.origin"


@dataclass(frozen=True)
class Origin:
    """The call that an inlined body comes from.

    Attributes:
        op: Name of the node, for example "MulAdd".
        call: A number of its own in the model.
        name: Name that the node had.
        attributes: Its attributes by name; all of them.
        dtype: Element type of its first input.
        dtypes: The element types of all nodes of that op, which the body was made for.
    """

    op: str
    call: int
    name: str
    attributes: dict[str, int | float | str | list[int]]
    dtype: str
    dtypes: list[str]


def tag_calls(model: ir.Model, dtypes: dict[ir.Node, str]) -> dict[str, Origin]:
    """Tags our nodes, before their bodies are inlined: whatever is inlined inherits the tag.

    Args:
        model: Changed in place; every attribute of our nodes is written.
        dtypes: The element type of each node.

    Returns:
        The origins by the name of the result.
    """
    kinds: dict[str, set[str]] = {}
    for node, _ in our_nodes(model):
        kinds.setdefault(node.op_type, set()).add(dtypes[node])
    first = max((call for _, call in _calls(model)), default=-1) + 1
    origins = {}
    for call, (node, op) in enumerate(our_nodes(model), first):
        attributes = {a.onnx_name: node.attributes[a.onnx_name].value for a in op.spec.attributes}
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in attributes.items()}
        known = sorted(kinds[node.op_type])
        origin = Origin(node.op_type, call, node.name or "", values, dtypes[node], known)
        node.metadata_props[KEY] = json.dumps({"op": origin.op, "call": origin.call})
        origins[str(node.outputs[0].name)] = origin
    return origins


def tag_results(model: ir.Model, origins: dict[str, Origin]) -> None:
    """Completes the tags, after the bodies are inlined, at the nodes that make the results."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for output in node.outputs:
            origin = origins.get(str(output.name))
            if origin is not None and KEY in node.metadata_props:
                node.metadata_props[KEY] = json.dumps(asdict(origin))


def tagged_results(model: ir.Model) -> Iterator[tuple[ir.Node, Origin]]:
    """Yields the nodes that make the results of inlined bodies, as far as their tags are read."""
    for node, tag in _tags(model):
        try:
            origin = Origin(**tag)
        except TypeError:  # another node of the body, or a tag of other hands
            continue
        if isinstance(origin.name, str) and isinstance(origin.attributes, dict):
            yield node, origin


def tags(model: ir.Model) -> set[tuple[str, int]]:
    """Returns the op and the number of each call that any node is tagged with."""
    return set(_calls(model))


def _calls(model: ir.Model) -> Iterator[tuple[str, int]]:
    for _, tag in _tags(model):
        yield tag["op"], tag["call"]


def _tags(model: ir.Model) -> Iterator[tuple[ir.Node, dict[str, Any]]]:
    """Yields the nodes with a tag that names an op and a number."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        text = node.metadata_props.get(KEY)
        if text is None:
            continue
        try:
            tag = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(tag, dict)
            and isinstance(tag.get("op"), str)
            and isinstance(tag.get("call"), int)
        ):
            yield node, tag
