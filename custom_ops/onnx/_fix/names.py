"""Gives inputs and outputs of a model other names, wherever they are used."""

import difflib
from collections.abc import Mapping

import onnx

from custom_ops.onnx import _walk


def rename(
    model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> list[str]:
    """Renames inputs and outputs, in place; subgraphs that use them follow.

    Returns:
        What was done.

    Raises:
        ValueError: There is no such input or output, the new name is taken, or a value is both.
    """
    known_inputs = [value.name for value in model.graph.input]
    known_outputs = [value.name for value in model.graph.output]
    done = []
    for kind, names, known, others in (
        ("input", inputs, known_inputs, known_outputs),
        ("output", outputs, known_outputs, known_inputs),
    ):
        for old, new in names.items():
            if old not in known:
                close = difflib.get_close_matches(old, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known)}"
                raise ValueError(f"fix: rename_{kind}s must name {kind}s, got {old!r}; {hint}")
            if not new:
                raise ValueError(f"fix: rename_{kind}s must give a name, got {new!r} for {old!r}")
            if old in others:
                raise ValueError(
                    f"fix: rename_{kind}s must leave a value alone that is input and output, got "
                    f"{old!r}; export the model with an Identity between"
                )
            if old != new:
                done.append(f"{kind} {old!r} is called {new!r}")
    both = {old: new for old, new in {**inputs, **outputs}.items() if old != new}
    taken = _names(model) - set(both)
    for old, new in both.items():
        if new in taken or list(both.values()).count(new) > 1:
            raise ValueError(
                f"fix: new names must be free, got {new!r} for {old!r}, which another value has; "
                "choose another"
            )
    if both:
        _apply(model.graph, both)
    return done


def _names(model: onnx.ModelProto) -> set[str]:
    """Returns every name of a value outside functions."""
    names: set[str] = set()
    for scope in _walk.within(model.graph):
        assert isinstance(scope, onnx.GraphProto)
        names.update(value.name for value in (*scope.input, *scope.output, *scope.value_info))
        names.update(tensor.name for tensor in scope.initializer)
        names.update(sparse.values.name for sparse in scope.sparse_initializer)
        for node in scope.node:
            names.update(node.input)
            names.update(node.output)
    return names


def _apply(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Renames values of a graph and their uses in the graphs inside it."""
    waiting = [(graph, names)]
    while waiting:
        scope, current = waiting.pop()
        if scope is not graph:  # what a subgraph defines anew under a name is another value
            own = {value.name for value in scope.input} | {t.name for t in scope.initializer}
            own |= {sparse.values.name for sparse in scope.sparse_initializer}
            own |= {name for node in scope.node for name in node.output}
            current = {old: new for old, new in current.items() if old not in own}
            if not current:
                continue
        for value in (*scope.input, *scope.output, *scope.value_info, *scope.initializer):
            value.name = current.get(value.name, value.name)
        for sparse in scope.sparse_initializer:
            sparse.values.name = current.get(sparse.values.name, sparse.values.name)
        for annotation in scope.quantization_annotation:
            annotation.tensor_name = current.get(annotation.tensor_name, annotation.tensor_name)
            for entry in annotation.quant_parameter_tensor_names:
                entry.value = current.get(entry.value, entry.value)
        for node in scope.node:
            for values in (node.input, node.output):
                for i, name in enumerate(values):
                    if name in current:
                        values[i] = current[name]
            waiting += [(inner, current) for inner in _walk.subgraphs(node)]
