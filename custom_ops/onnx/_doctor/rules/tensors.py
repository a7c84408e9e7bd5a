"""Tensors that the model holds: their data is as large as shape and element type ask for."""

import itertools
import math
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor import data
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject

_PAIRS = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)


def tensor_data(subject: Subject) -> Iterator[Finding]:
    """A tensor has as much data as its shape and element type ask for."""
    for tensor in _walk.tensors(subject.model):
        rule = _fault(tensor)
        if rule:
            yield Finding(
                Severity.ERROR,
                "tensor-data",
                tensor.name,
                f"tensor {tensor.name!r} must have {rule}",
                "export the model again",
            )


def _fault(tensor: onnx.TensorProto) -> str:
    """Returns what must be and what is; "" where all is well."""
    types = onnx.TensorProto.DataType
    if tensor.data_type not in types.values() or not tensor.data_type:
        return f"an element type that ONNX knows, got number {tensor.data_type}"
    if any(size < 0 for size in tensor.dims):
        return f"sizes of 0 or more, got {list(tensor.dims)}"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return ""  # which is the question of other rules
    elements = math.prod(tensor.dims)
    name = types.Name(tensor.data_type).lower()
    asked = f"for {name}{list(tensor.dims)}"
    if tensor.data_type == onnx.TensorProto.STRING:
        found = len(tensor.string_data)
        return f"{elements} strings {asked}, got {found}" if found != elements else ""
    bits = int(ir.DataType(tensor.data_type).bitwidth)
    if tensor.HasField("raw_data"):
        wanted, found = (elements * bits + 7) // 8, len(tensor.raw_data)
        return f"{wanted} bytes {asked}, got {found}" if found != wanted else ""
    field = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    if tensor.data_type in _PAIRS:
        elements *= 2
    elif bits < 8:  # several in one number
        elements = (elements * bits + 7) // 8
    return f"{elements} numbers {asked}, got {len(field)}" if len(field) != elements else ""


def sparse_index(subject: Subject) -> Iterator[Finding]:
    """The indices of a sparse initializer lie in it; releases before 1.24 write beyond it."""
    for scope in _walk.scopes(subject.model):
        for sparse in scope.sparse_initializer if isinstance(scope, onnx.GraphProto) else ():
            # Of rank 1 they count elements, else they have one column for each axis.
            flat = len(sparse.indices.dims) < 2
            limits = [math.prod(sparse.dims)] if flat else list(sparse.dims)
            numbers = [int(each) for p in data.pieces(subject, sparse.indices) for each in p]
            pairs = zip(numbers, itertools.cycle(limits), strict=False)
            outside = [number for number, limit in pairs if not 0 <= number < limit]
            if outside:
                yield Finding(
                    Severity.ERROR,
                    "sparse-index",
                    sparse.values.name,
                    f"sparse tensor {sparse.values.name!r} must have indices within "
                    f"{list(sparse.dims)}, got {outside[0]}",
                    "export the model again",
                )


RULES: tuple[Rule, ...] = (tensor_data, sparse_index)
