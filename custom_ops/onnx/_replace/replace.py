"""Turns what other producers write for our ops into our nodes, and our nodes into what is asked."""

import os
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from custom_ops.onnx import _guarded, _nodes, _origin
from custom_ops.onnx._agreement import Agreement, agreement
from custom_ops.onnx._lowering import LOWERINGS, lower
from custom_ops.onnx._reading import ModelLike, read
from custom_ops.onnx._replace import decomposed, forms
from custom_ops.onnx._replace.result import Change, Replacement
from custom_ops.onnx._targets import target as find_target
from custom_ops.ops._body import DOMAIN

# Who can run our nodes in what a lowering leaves.
_KERNELS = {"custom": ("native",), "decomposed": ("none",), "native": ("none",)}


def replace(
    model: ModelLike,
    to: str = "portable",
    *,
    sources: Collection[str] | None = None,
    target: str | None = None,
    verify: bool = True,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> Replacement:
    """Turns the nodes that mean one of our ops, whoever wrote them, into the form asked for.

    Known are the standard op of the same meaning, such as ``DeformConv``; nodes of other
    libraries, such as those of MMCV; and the decompositions that our own lowering wrote, by the
    tags in their metadata, where they still are what was written. Our own nodes take the form
    asked for too.

    Args:
        model: Path or ModelProto; left as it is.
        to: "portable" (our nodes, with their decomposition as functions), "custom" (our nodes
            alone), "decomposed" (standard ops), "native" (the standard op of the same meaning,
            else decomposed) or "auto" (native where the target runs it, else portable).
        sources: Which forms to turn: "native", "decomposed", and the domains of other libraries,
            as "mmcv"; all if left out.
        target: The release that will run the file, as "onnxruntime==1.20"; the one installed if
            left out.
        verify: Whether to run both models, where both run, and compare.
        inputs: Arrays by the names of inputs, to compare on; the others are drawn.

    Returns:
        The model, what was replaced, what was not and why, and the comparison.

    Raises:
        UnreadableModel: The file is no model.
        ValueError: A node cannot be turned, an argument is another, or the new model computes
            something else.

    Example:
        >>> import onnx, custom_ops
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 19]>
        ...     g (float[1, 4, 5, 5] x, float[6, 4, 3, 3] w, float[1, 18, 3, 3] offset) =>
        ...       (float[1, 6, 3, 3] y) { y = DeformConv (x, w, offset) }
        ... ''')
        >>> result = custom_ops.onnx.replace(model, verify=False)
        >>> print(result)
        1 node replaced
        y: DeformConv -> custom_ops::DeformConv2d
        >>> [function.name for function in result.model.functions]
        ['DeformConv2d']
    """
    if to not in LOWERINGS:
        raise ValueError(f"replace: to must be one of {', '.join(LOWERINGS)}, got {to!r}")
    wanted = _chosen(sources)
    release = find_target(target)
    document = read(model)
    try:
        _guarded.infer_shapes(document.proto)  # in another process: the model may be broken
    except _guarded.Refused as refused:
        raise ValueError(
            f"replace: model must pass onnx's shape inference, got {document.name}: {refused}; "
            "see `custom-ops doctor`"
        ) from refused
    graph = document.graph()
    if to in wanted:
        wanted = wanted - {to}  # what is so already stays
    was = forms.to_ours(graph, wanted - {forms.DECOMPOSED})
    notes: list[str] = []
    if forms.DECOMPOSED in wanted:
        restored, notes = decomposed.to_ours(graph)
        was.update(restored)
    _nodes.inline_callers(graph)
    before = {str(node.outputs[0].name): node for node, _ in _nodes.our_nodes(graph)}
    lowered = _lowered(graph, to, release) if before else graph
    changes = tuple(_changes(before, was, lowered))
    if not changes:
        notes.append(
            f"no node is one of {', '.join(sorted(wanted))}; a decomposition is known by the "
            f"metadata {_origin.KEY!r} of its nodes alone, which custom_ops.onnx.export and "
            "custom_ops.onnx.lower write"
        )
    checked = None
    if changes and verify:
        checked = _verified(model, document.path, lowered, to, inputs)
    return Replacement(lowered, changes, tuple(notes), checked)


def _chosen(sources: Collection[str] | None) -> set[str]:
    known = forms.sources()
    if sources is None:
        return set(known)
    for name in [sources] if isinstance(sources, str) else sources:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise ValueError(
                f"replace: sources must be among {', '.join(known)}, got {name!r}{hint}"
            )
    return {sources} if isinstance(sources, str) else set(sources)


def _lowered(graph: ir.Model, to: str, release: Any) -> ir.Model:
    opset = _nodes.opset_of(graph)
    needed = {op.name: op.onnx.body.min_opset for _, op in _nodes.our_nodes(graph)}
    for name, least in needed.items():
        if to != "custom" and opset < least:
            raise ValueError(
                f"replace: the opset must be at least {least} for the body of {name}, got "
                f"{opset}; raise it with custom-ops fix, or take to='custom'"
            )
    return lower(graph, to, release)


def _changes(
    before: Mapping[str, ir.Node], was: Mapping[ir.Node, str], lowered: ir.Model
) -> Iterable[Change]:
    after = {
        str(output.name): node
        for node in ir.traversal.RecursiveGraphIterator(lowered.graph)
        for output in node.outputs
    }
    for name, node in before.items():
        ours = f"{node.domain}::{node.op_type}"
        found = after.get(name)
        if found is None or _origin.KEY in found.metadata_props:
            became = f"decomposed {node.op_type}"
        elif found.domain == DOMAIN:
            became = ours
        else:
            became = found.op_type
        if was.get(node, ours) != became:
            yield Change(node.name or name, was.get(node, ours), became)


def _verified(
    model: ModelLike,
    path: Path | None,
    lowered: ir.Model,
    to: str,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
) -> Agreement:
    before: ModelLike = os.fspath(path) if path is not None else model
    checked = agreement(before, lowered, _KERNELS.get(to, ("native", "none")), inputs)
    if not checked:
        raise ValueError(
            f"replace: the new model must compute what the old one does, got {checked}; "
            "report it, or leave the nodes out with sources"
        )
    return checked
