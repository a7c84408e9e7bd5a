"""Makes a model of a part of another's main graph, with all that belongs to it and nothing else."""

from collections.abc import Mapping

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._extract.bounds import Bounds
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.types import types_of

# Fields of a model that are made anew; all others stay.
_OF_THE_WHOLE = ("graph", "functions", "opset_import", "training_info")


def cut(
    model: onnx.ModelProto,
    index: Index,
    bounds: Bounds,
    types: Mapping[str, onnx.ValueInfoProto] | None = None,
) -> onnx.ModelProto:
    """Returns the piece within bounds; external data stays where it is.

    Args:
        model: The model; left as it is.
        index: Its main graph.
        bounds: The bounds.
        types: Of the values there, where several pieces are cut; looked for if left out.

    Raises:
        ValueError: The type of an input is not known.
    """
    piece = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name in _OF_THE_WHOLE:
            continue
        if isinstance(value, (int, str)):
            setattr(piece, field.name, value)
        else:
            getattr(piece, field.name).MergeFrom(value)
    _fill(piece.graph, index, bounds)
    if types is None:
        types = types_of(model, index, bounds)
    kept = [index.inputs[name] for name in _stored_inputs(piece.graph, index, bounds)]
    piece.graph.input.extend([*(types[name] for name in bounds.inputs), *kept])
    piece.graph.output.extend(types[name] for name in bounds.outputs)
    _add_functions(piece, model)
    used = _domains(piece)
    piece.opset_import.extend(o for o in model.opset_import if _walk.domain(o.domain) in used)
    return piece


def _fill(graph: onnx.GraphProto, index: Index, bounds: Bounds) -> None:
    """Adds nodes, stored values, value infos and annotations; order is that of the model."""
    whole = index.graph
    graph.name, graph.doc_string = whole.name, whole.doc_string
    graph.metadata_props.extend(whole.metadata_props)
    nodes = sorted(bounds.nodes)
    graph.node.extend(index.nodes[i] for i in nodes)
    values = {name for i in nodes for name in (*index.needs[i], *index.makes[i])}
    values.update(bounds.outputs)
    for annotation in whole.quantization_annotation:
        if annotation.tensor_name in values:
            graph.quantization_annotation.append(annotation)
            values.update(entry.value for entry in annotation.quant_parameter_tensor_names)
    stored = values - set(bounds.inputs)
    graph.initializer.extend(t for name, t in index.initializers.items() if name in stored)
    graph.sparse_initializer.extend(t for name, t in index.sparse.items() if name in stored)
    shown = values - {*bounds.inputs, *bounds.outputs}
    graph.value_info.extend(v for v in whole.value_info if v.name in shown)


def _stored_inputs(graph: onnx.GraphProto, index: Index, bounds: Bounds) -> list[str]:
    """Returns initializers that are inputs too: before IR version 4 all, since then defaults."""
    stored = {each.name for each in graph.initializer}
    stored.update(each.values.name for each in graph.sparse_initializer)
    return [name for name in index.inputs if name in stored and name not in bounds.inputs]


def _add_functions(piece: onnx.ModelProto, model: onnx.ModelProto) -> None:
    bodies = _guarded.functions(model)
    used: set[_guarded.FunctionKey] = set()
    waiting: list[_walk.Scope] = [piece.graph]
    while waiting:
        for scope in _walk.within(waiting.pop()):
            for key in map(_guarded.function_key, scope.node):
                if key in bodies and key not in used:
                    used.add(key)
                    waiting.append(bodies[key])
    piece.functions.extend(body for key, body in bodies.items() if key in used)


def _domains(piece: onnx.ModelProto) -> set[str]:
    used = {""}
    for scope in _walk.scopes(piece):
        used.update(_walk.domain(node.domain) for node in scope.node)
    for function in piece.functions:
        used.update(_walk.domain(each.domain) for each in function.opset_import)
    return used
