"""Random inputs for a model, as the messages of tensors say what it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

# Sizes that are tried for what a model leaves open: of the first axis, and of the others. Networks
# take some sizes only, and a first axis is often that of a batch.
_OPEN_SIZES = ((1, 16), (3, 8), (2, 32), (1, 64), (2, 224), (1, 1), (4, 4))
_MOST_ELEMENTS = 2**26
Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Feed:
    """Arrays for the inputs of a model, in their order.

    Attributes:
        arrays: The arrays.
        sizes: Their shapes, as text.
    """

    arrays: tuple[Array, ...]
    sizes: str


class Undrawable(Exception):
    """Why no inputs can be drawn."""


class _TooLarge(Undrawable):
    """Other sizes may do."""


def required(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Returns the inputs that have no value in the model."""
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in given]


def feeds(inputs: Sequence[onnx.ValueInfoProto], seed: int = 0) -> Iterator[Feed]:
    """Yields arrays of several sizes for inputs; those of one where all sizes are fixed.

    Args:
        inputs: The inputs.
        seed: Which numbers.

    Raises:
        Undrawable: An input is no tensor, or does not say its number of axes.
    """
    seen: set[str] = set()
    too_large = Undrawable()
    for first, other in _OPEN_SIZES:
        generator = np.random.default_rng(seed)
        known: dict[str, int] = {}
        try:
            arrays = [_draw(value, first, other, known, generator) for value in inputs]
        except _TooLarge as error:
            too_large = error
            continue
        sizes = described([value.name for value in inputs], arrays)
        if sizes not in seen:
            seen.add(sizes)
            yield Feed(tuple(arrays), sizes)
    if not seen:
        raise too_large


def described(names: Sequence[str], arrays: Sequence[Array]) -> str:
    """Returns the shapes of inputs as text."""
    pairs = zip(names, arrays, strict=True)
    texts = (f"{name}={'x'.join(map(str, a.shape)) or 'scalar'}" for name, a in pairs)
    return ", ".join(texts) or "no inputs"


def _draw(
    value: onnx.ValueInfoProto,
    first: int,
    other: int,
    known: dict[str, int],
    generator: np.random.Generator,
) -> Array:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise Undrawable(f"input {value.name!r} is no tensor with a known number of axes")
    shape = []
    for axis, dim in enumerate(kind.shape.dim):
        size = first if axis == 0 else other
        if dim.HasField("dim_value"):
            size = dim.dim_value
        elif dim.dim_param:
            size = known.setdefault(dim.dim_param, size)
        shape.append(size)
    if any(size < 0 for size in shape) or np.prod(shape, dtype=float) > _MOST_ELEMENTS:
        raise _TooLarge(f"input {value.name!r} is too large")
    if kind.elem_type == onnx.TensorProto.STRING:
        return generator.choice(np.array(["a", "b", "c"]), shape)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    except (KeyError, ValueError):
        raise Undrawable(f"input {value.name!r} has no known element type") from None
    if dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
