"""Turns what other producers write for our ops into our nodes, and our nodes into what is asked."""

import collections
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from custom_ops import _library
from custom_ops.onnx import _guarded, _nodes, _origin
from custom_ops.onnx._doctor.rules import tensors, values
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._lowering import LOWERINGS, lower
from custom_ops.onnx._model import write
from custom_ops.onnx._proof import Differs, Feed, Proof, compare, described, required
from custom_ops.onnx._reading import Document, ModelLike, is_binary, read
from custom_ops.onnx._replace import decomposed, forms
from custom_ops.onnx._replace.result import Change, Replacement
from custom_ops.onnx._replace.rules import WAS, Rule, apply, written
from custom_ops.onnx._targets import Target
from custom_ops.onnx._targets import target as find_target
from custom_ops.ops._body import DOMAIN

# What onnx-ir needs of a graph to take it apart.
_WHOLE = (
    values.undefined_value,
    values.defined_twice,
    values.cycle,
    values.unsorted,
    values.missing_output,
    values.output_twice,
    tensors.tensor_data,
)


def replace(
    model: ModelLike,
    to: str = "portable",
    *,
    sources: Collection[str] | None = None,
    rules: Rule | Sequence[Rule] = (),
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
            as "mmcv"; if left out all, or none where there are rules.
        rules: Patterns and what takes their place, in the main graph, in subgraphs and in
            functions; see `Rule`.
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
    rules = [rules] if isinstance(rules, Rule) else list(rules)
    wanted = _chosen(sources if sources is not None or not rules else ())
    release = find_target(target)
    document = read(model)
    try:
        _guarded.infer_shapes(document.proto)  # in another process: the model may be broken
    except _guarded.Refused as refused:
        raise ValueError(
            f"replace: model must pass onnx's shape inference, got {document.name}: {refused}; "
            "see `custom-ops doctor`"
        ) from refused
    graph = _valid(document, release)
    if to in wanted:
        wanted = wanted - {to}  # what is so already stays
    apply(graph, rules)
    forms.to_ours(graph, wanted - {forms.DECOMPOSED})
    notes = decomposed.to_ours(graph) if forms.DECOMPOSED in wanted else []
    _nodes.inline_callers(graph)
    others = [each for each in written(graph) if each[0].domain != DOMAIN]
    before = {str(node.outputs[0].name): node for node, _ in _nodes.our_nodes(graph)}
    lowered = _lowered(graph, to, release) if before else graph
    changes = (
        *(Change(_name(node), was, _kind(node)) for node, was in others),
        *_changes(before, lowered),
    )
    if not changes:
        notes.append(_nothing(wanted, rules))
    proof = None
    if changes and verify:
        proof = _proven(document, lowered, to, inputs)
    return Replacement(lowered, changes, tuple(notes), proof)


def _valid(document: Document, release: Target) -> ir.Model:
    """Returns the graph of a model that is whole.

    Raises:
        ValueError: Values are undefined or made twice, nodes unsorted, and the like.
    """
    subject = Subject(document, release)
    for rule in _WHOLE:
        for found in rule(subject):
            raise ValueError(
                f"replace: model must be a whole graph, got {document.name}: {found.advice}"
            )
    graph = document.graph()
    try:
        for each in (graph.graph, *(f.graph for f in graph.functions.values())):
            collections.deque(ir.traversal.RecursiveGraphIterator(each), maxlen=0)
        graph.clone()
    except Exception as error:  # of onnx-ir, which does not say what it wants of a graph
        raise ValueError(
            f"replace: model must be a whole graph, got {document.name}, which onnx-ir cannot "
            f"copy ({type(error).__name__}); see `custom-ops doctor`"
        ) from error
    return graph


def _nothing(wanted: Collection[str], rules: Collection[Rule]) -> str:
    found = ["no place fits a rule"] if rules else []
    if wanted:
        found.append(f"no node is one of {', '.join(sorted(wanted))}")
    if forms.DECOMPOSED in wanted:
        found.append(
            f"a decomposition is known by the metadata {_origin.KEY!r} of its nodes alone, which "
            "custom_ops.onnx.export and custom_ops.onnx.lower write"
        )
    return "; ".join(found) or "there is nothing to do"


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


def _lowered(graph: ir.Model, to: str, release: Target) -> ir.Model:
    opset = _nodes.opset_of(graph)
    needed = {op.name: op.onnx.body.min_opset for _, op in _nodes.our_nodes(graph)}
    for name, least in needed.items():
        if to != "custom" and opset < least:
            raise ValueError(
                f"replace: the opset must be at least {least} for the body of {name}, got "
                f"{opset}; raise it with custom-ops fix, or take to='custom'"
            )
    return lower(graph, to, release)


def _changes(before: Mapping[str, ir.Node], lowered: ir.Model) -> Iterator[Change]:
    after = {
        str(output.name): node
        for node in ir.traversal.RecursiveGraphIterator(lowered.graph)
        for output in node.outputs
    }
    for name, node in before.items():
        was, found = node.meta.get(WAS, _kind(node)), after.get(name)
        if found is None or _origin.KEY in found.metadata_props:
            became = f"decomposed {node.op_type}"
        else:
            became = _kind(found)
        if was != became:
            yield Change(node.name or name, was, became)


def _kind(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _name(node: ir.Node) -> str:
    return str(node.name or node.outputs[0].name)


def _proven(
    document: Document,
    lowered: ir.Model,
    to: str,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None,
) -> Proof:
    """Compares both models, with our library and without it, as far as they run.

    Raises:
        ValueError: They differ.
    """
    taken = required(document.proto)
    drawn = _given(taken, inputs or {})
    proofs = []
    with tempfile.TemporaryDirectory() as folder:
        after = Path(folder) / "after.onnx"
        write(lowered, after)
        before = document.path
        if before is None or not is_binary(before):
            before = Path(folder) / "before.onnx"
            write(document.graph(), before)
        alone = to not in ("portable", "auto")  # no body to run, or nothing but bodies
        for libraries in ([_library.library_path()], [])[: 1 if alone else 2]:
            try:
                proofs.append(compare(taken, before, after, libraries, drawn=drawn))
            except Differs as reason:
                raise ValueError(
                    f"replace: the new model must compute what {document.name} does, but "
                    f"{reason}; leave nodes out with sources, or correct the rule"
                ) from None
    return max(proofs, key=lambda proof: -1.0 if proof.difference is None else proof.difference)


def _given(
    taken: Sequence[onnx.ValueInfoProto], inputs: Mapping[str, np.ndarray[Any, Any]]
) -> list[Feed]:
    names = [value.name for value in taken]
    if not inputs:
        return []
    if set(inputs) != set(names):
        raise ValueError(
            f"replace: inputs must be arrays for {', '.join(names)}, got {', '.join(inputs)}"
        )
    arrays = [inputs[name] for name in names]
    return [Feed(tuple(arrays), described(names, arrays))]
