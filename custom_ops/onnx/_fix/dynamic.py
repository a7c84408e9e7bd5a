"""Opens sizes of inputs, where nothing in the model depends on the old size."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._fix.baked import Shapes, baked, factors, shapes_of

Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Opened:
    """A size that is being opened.

    Attributes:
        label: Its name.
        size: What it was.
        axes: The inputs and axes that have it.
        factors: Nodes that multiply or divide by it, which is right where rows are computed each on
            its own.
    """

    label: str
    size: int
    axes: tuple[tuple[str, int], ...]
    factors: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[int, ...]:
        """Sizes to try instead, in order; networks that halve their image take few."""
        size = self.size
        near = (size + 32, size + 64, 2 * size, size + 1)
        return near if size >= 64 else (2 * size, 3 * size, size + 1, size + 2, size + 8, size + 32)


def open_sizes(model: onnx.ModelProto, axes: Axes) -> tuple[list[str], list[Opened]]:
    """Gives sizes of inputs a name, in place, and all shapes that follow from them.

    Returns:
        What was done, and the sizes that were fixed before, which are to be tried at others.

    Raises:
        ValueError: There is no such input or axis, sizes of one name differ, or the model has a
            size baked in, which names the nodes.
    """
    dims = {(name, axis): _dim(model, name, axis) for name, by in axes.items() for axis in by}
    labels = {(name, axis): label for name, by in axes.items() for axis, label in by.items()}
    for place, label in labels.items():
        if not label.isidentifier():
            raise ValueError(f"fix: dynamic must give names to sizes, got {label!r}; use letters")
        taken = label in _labels(model) and dims[place].dim_param != label
        if taken and not dims[place].HasField("dim_value"):
            raise ValueError(
                f"fix: dynamic must give a free name to an open size, got {label!r}, which another "
                "size has; choose another"
            )
    opened = list(_groups(dims, labels))
    done = []
    for place, label in labels.items():
        old = dims[place].dim_param
        if old and old != label:
            _rename(model, old, label)
            done.append(f"size {old!r} is called {label!r}")
        elif not old:
            dims[place].dim_param = label
    for i, each in enumerate(opened):
        opened[i] = replace(each, factors=_check(model, each))
        done.append(f"size {each.size} of {places(each)} is open, as {each.label!r}")
    return done, opened


def _dim(model: onnx.ModelProto, name: str, axis: int) -> onnx.TensorShapeProto.Dimension:
    stored = {tensor.name for tensor in model.graph.initializer}
    values = {value.name: value for value in model.graph.input if value.name not in stored}
    if name not in values:
        close = difflib.get_close_matches(name, values, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(values)}"
        raise ValueError(f"fix: dynamic must name inputs, got {name!r}; {hint}")
    kind = values[name].type.tensor_type
    if not kind.HasField("shape") or not 0 <= axis < len(kind.shape.dim):
        many = len(kind.shape.dim) if kind.HasField("shape") else "an unknown number of"
        raise ValueError(
            f"fix: dynamic must name an axis of {name!r}, which has {many} axes, got {axis}; count "
            "from 0"
        )
    dim: onnx.TensorShapeProto.Dimension = kind.shape.dim[axis]
    return dim


def _groups(
    dims: Mapping[tuple[str, int], onnx.TensorShapeProto.Dimension],
    labels: Mapping[tuple[str, int], str],
) -> Iterator[Opened]:
    """Yields the sizes that are fixed, by their new names."""
    for label in dict.fromkeys(labels.values()):
        places = [place for place, each in labels.items() if each == label]
        fixed = [place for place in places if dims[place].HasField("dim_value")]
        sizes = {dims[place].dim_value for place in fixed}
        if len(sizes) > 1:
            raise ValueError(
                f"fix: dynamic must give one name to equal sizes, got {label!r} for "
                f"{', '.join(map(str, sorted(sizes)))}; use more names"
            )
        if fixed and 0 in sizes:
            raise ValueError(f"fix: dynamic must open a size above 0, got {label!r} for 0")
        if fixed:
            yield Opened(label, sizes.pop(), tuple(fixed))


def places(opened: Opened) -> str:
    """Returns the axes that have a size as text."""
    return ", ".join(f"{name}:{axis}" for name, axis in opened.axes)


def _labels(model: onnx.ModelProto) -> set[str]:
    return {dim.dim_param for shape in _shapes(model) for dim in shape.dim if dim.dim_param}


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for shape in _shapes(model):
        for dim in shape.dim:
            if dim.dim_param == old:
                dim.dim_param = new


def _shapes(model: onnx.ModelProto) -> Iterator[onnx.TensorShapeProto]:
    for value in _values(model):
        if value.type.tensor_type.HasField("shape"):
            yield value.type.tensor_type.shape


def _values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    for scope in _walk.within(model.graph):
        assert isinstance(scope, onnx.GraphProto)
        yield from (*scope.input, *scope.value_info, *scope.output)


def _check(model: onnx.ModelProto, opened: Opened) -> tuple[str, ...]:
    """Infers all shapes at the old size and at others; lets the model's shapes follow.

    Returns:
        The nodes that multiply or divide by the old size.

    Raises:
        ValueError: Nodes have the old size baked in.
    """
    flat = model
    if model.functions:
        try:
            flat = _guarded.inline(model)
        except _guarded.Refused as reason:
            raise ValueError(
                f"fix: dynamic must find every size, got functions that cannot be inlined: {reason}"
            ) from None
    before = _inferred(flat, opened.label, opened.size)
    # Sizes that a network does not take at all say nothing of what is baked in.
    tried = [_inferred(flat, opened.label, size) for size in opened.others[:2]]
    found = baked(flat, before, tried[0])
    if found:
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"fix: dynamic must open a size that nothing depends on, got {places(opened)}, whose "
            f"size {opened.size} is baked in: {', '.join(found[:5])}{more}; export the model with "
            "this size dynamic"
        )
    if model.functions:
        before = _inferred(model, opened.label, opened.size)
        tried = [_inferred(model, opened.label, size) for size in opened.others[:2]]
    _follow(model, opened, before, tried)
    return tuple(factors(flat, opened.size))


def _inferred(model: onnx.ModelProto, label: str, size: int) -> Shapes:
    """Returns all shapes with a number in the place of a name."""
    bare = _guarded.without_large_weights(model)
    for scope in _walk.within(bare.graph):
        assert isinstance(scope, onnx.GraphProto)
        del scope.value_info[:]  # what was inferred before, of the old size
    inner = [scope.output for scope in _walk.within(bare.graph)]
    for value in [each for outputs in inner for each in outputs]:
        value.type.tensor_type.ClearField("shape")
    for value in bare.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == label:
                dim.dim_value = size
    try:
        return shapes_of(_guarded.infer_shapes(bare))
    except _guarded.Refused as reason:
        raise ValueError(
            f"fix: dynamic must know every shape, got a model whose shapes onnx does not infer: "
            f"{reason}"
        ) from None


def _follow(
    model: onnx.ModelProto, opened: Opened, before: Shapes, tried: Sequence[Shapes]
) -> None:
    """Gives the shapes of values the name of the size, or nothing, where they change with it."""
    inputs = {value.name for value in model.graph.input}
    for value in _values(model):
        kind = value.type.tensor_type
        if value.name in inputs or not kind.HasField("shape"):
            continue
        shapes = [each.get(value.name) for each in (before, *tried)]
        if any(shape is None or len(shape) != len(kind.shape.dim) for shape in shapes):
            kind.ClearField("shape")
            continue
        for axis, dim in enumerate(kind.shape.dim):
            sizes = [shape[axis] for shape in shapes if shape is not None]
            if sizes == [opened.size, *opened.others[:2]]:
                dim.dim_param = opened.label
            elif len(set(sizes)) > 1 or (sizes[0] is None and dim.HasField("dim_value")):
                dim.Clear()
