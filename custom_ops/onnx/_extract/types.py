"""The types and shapes of a piece's bounds: as the model says them, else as onnx infers them."""

import onnx

from custom_ops.onnx import _guarded
from custom_ops.onnx._extract.bounds import Bounds
from custom_ops.onnx._extract.index import Index


def types_of(
    model: onnx.ModelProto, index: Index, bounds: Bounds
) -> dict[str, onnx.ValueInfoProto]:
    """Returns the value info of each input and output of a piece.

    Args:
        model: The model.
        index: Its main graph.
        bounds: The bounds of the piece.

    Raises:
        ValueError: The type of an input is neither written in the model nor can be inferred.
    """
    wanted = dict.fromkeys((*bounds.inputs, *bounds.outputs))
    known = _written(index.graph, wanted)
    for name in wanted:
        if name not in known and index.is_stored(name):
            known[name] = _of_stored(index, name)
    if any(not _complete(known.get(name)) for name in wanted):
        known = _with_inferred(model, known, wanted)
    for name in bounds.inputs:
        if name not in known:
            raise ValueError(
                f"extract: inputs must be of known type, got {name!r}, of which neither the model "
                "nor onnx's inference says any; cut at a tensor before it, or add its value_info"
            )
    return {name: known.get(name, onnx.ValueInfoProto(name=name)) for name in wanted}


def _written(graph: onnx.GraphProto, wanted: dict[str, None]) -> dict[str, onnx.ValueInfoProto]:
    infos = (*graph.value_info, *graph.output, *graph.input)
    return {each.name: each for each in infos if each.name in wanted and _has_type(each)}


def _has_type(info: onnx.ValueInfoProto) -> bool:
    """Returns whether it says more than a name; a tensor without element type does not."""
    kind = info.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or info.type.tensor_type.elem_type != 0)


def _complete(info: onnx.ValueInfoProto | None) -> bool:
    """Returns whether type and, of a tensor, the rank are said."""
    if info is None:
        return False
    kind = info.type.WhichOneof("value")
    return kind != "tensor_type" or bool(info.type.tensor_type.HasField("shape"))


def _with_inferred(
    model: onnx.ModelProto, known: dict[str, onnx.ValueInfoProto], wanted: dict[str, None]
) -> dict[str, onnx.ValueInfoProto]:
    try:
        inferred = _written(_guarded.infer_shapes(model).graph, wanted)
    except _guarded.Refused:
        return known
    for name, info in inferred.items():
        if not _complete(known.get(name)):
            known[name] = info
    return known


def _of_stored(index: Index, name: str) -> onnx.ValueInfoProto:
    if name in index.initializers:
        tensor = index.initializers[name]
        return onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
    sparse = index.sparse[name]
    return onnx.helper.make_tensor_value_info(name, sparse.values.data_type, sparse.dims)
