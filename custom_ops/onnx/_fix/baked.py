"""Finds what depends on the old size of an input: shapes and indices that are constants.

The shapes of all values are known at two sizes of the input, so an axis that differs follows it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
from onnx import helper, numpy_helper

from custom_ops.onnx import _walk

# Sizes by the name of the value; None for what is not known.
Shapes = Mapping[str, tuple[int | None, ...]]
Constants = Mapping[str, list[Any]]


def shapes_of(model: onnx.ModelProto) -> Shapes:
    """Returns the shapes that a model says of its values, in subgraphs too."""
    found: dict[str, tuple[int | None, ...]] = {}
    for scope in _walk.within(model.graph):
        assert isinstance(scope, onnx.GraphProto)
        for tensor in scope.initializer:
            found[tensor.name] = tuple(tensor.dims)
        for value in (*scope.input, *scope.value_info, *scope.output):
            kind = value.type.tensor_type
            if value.type.HasField("tensor_type") and kind.HasField("shape"):
                found[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim
                )
    return found


def baked(model: onnx.ModelProto, before: Shapes, after: Shapes) -> list[str]:
    """Returns the nodes that hold on to the old size, each with the reason.

    Args:
        model: The model, without functions.
        before: The shapes at the old size.
        after: The shapes at another size.
    """
    constants = _constants(model)
    found: list[str] = []
    gathered: dict[tuple[str, int], set[int]] = {}
    for scope in _walk.within(model.graph):
        for node in scope.node:
            if _walk.domain(node.domain):
                continue
            rule = _RULES.get(node.op_type)
            try:
                why = rule(node, before, after, constants) if rule is not None else None
                if node.op_type == "Gather":
                    why = _gather(node, before, after, constants, gathered)
            except (IndexError, OverflowError, TypeError, ValueError, ZeroDivisionError):
                why = "it is malformed"
            why = why or _rank(node, before, after)
            if why:
                name = node.name or next(filter(None, node.output), "")
                found.append(f"{node.op_type} {name!r} ({why})")
    return found


def factors(model: onnx.ModelProto, size: int) -> list[str]:
    """Returns the nodes that multiply or divide by the old size, as a mean over it would."""
    constants = _constants(model)
    found: list[str] = []
    for scope in _walk.within(model.graph):
        for node in scope.node:
            if node.op_type in ("Mul", "Div") and size > 1:
                numbers = [n for name in node.input for n in constants.get(name, [])[:2]]
                if len(numbers) == 1 and _is_any(numbers[0], size, 1 / size):
                    found.append(f"{node.op_type} {node.name or node.output[0]!r}")
    return found


def _is_any(number: Any, *wanted: float) -> bool:
    known = isinstance(number, (int, float))
    return known and any(math.isclose(number, each, rel_tol=1e-6) for each in wanted)


def _constants(model: onnx.ModelProto) -> Constants:
    """Returns the numbers of small constants by name."""
    found: dict[str, list[Any]] = {}
    for scope in _walk.within(model.graph):
        tensors = [(each.name, each) for each in getattr(scope, "initializer", ())]
        for node in scope.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.HasField("t"):
                    tensors.append((node.output[0], attribute.t))
                elif attribute.name in ("value_int", "value_ints"):
                    value = helper.get_attribute_value(attribute)
                    found[node.output[0]] = value if isinstance(value, list) else [value]
        for name, tensor in tensors:
            inside = tensor.data_location != onnx.TensorProto.EXTERNAL
            if inside and math.prod(tensor.dims) <= 4096 and tensor.data_type != tensor.STRING:
                found[name] = numpy_helper.to_array(tensor).reshape(-1).tolist()
    return found


def _varying(name: str, before: Shapes, after: Shapes) -> set[int] | None:
    """Returns the axes that follow the size; None where the shape is not known."""
    old, new = before.get(name), after.get(name)
    if old is None or new is None or len(old) != len(new):
        return None
    return {i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b}


def _rank(node: onnx.NodeProto, before: Shapes, after: Shapes) -> str | None:
    """The number of axes depends on the size, as of a Squeeze that says no axes."""
    for name in node.output:
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and len(old) != len(new):
            return f"its output has {len(old)} axes at this size, else {len(new)}"
    return None


def _reshape(
    node: onnx.NodeProto, before: Shapes, after: Shapes, constants: Constants
) -> str | None:
    """Where the size was, the wanted shape has a number."""
    wanted = constants.get(node.input[1])
    if wanted is None:
        return None  # computed, so it follows
    old = before.get(node.input[0])
    if old is None or None in old:
        literal = [number for number in wanted if number > 0]
        return f"its shape {wanted} is a constant, of a value of unknown shape" if literal else None
    axes = _varying(node.input[0], before, after)
    if not axes:
        return None
    sizes = [size or 0 for size in old]
    known = math.prod(n if n else sizes[i] for i, n in enumerate(wanted) if n != -1)
    target = [math.prod(sizes) // known if n == -1 else n or sizes[i] for i, n in enumerate(wanted)]
    for given, made in _aligned(sizes, target):
        follows = any(wanted[j] == -1 or (wanted[j] == 0 and j in axes) for j in made)
        if axes & set(given) and not follows:
            return f"its shape is {wanted}"
    return None


def _aligned(given: list[int], made: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yields groups of axes before and after a reshape that have the same elements."""
    i = j = 0
    while i < len(given) or j < len(made):
        left, right = [i] if i < len(given) else [], [j] if j < len(made) else []
        i, j = i + len(left), j + len(right)
        while math.prod(given[k] for k in left) != math.prod(made[k] for k in right):
            if i < len(given) and (
                math.prod(given[k] for k in left) < math.prod(made[k] for k in right)
                or j >= len(made)
            ):
                left.append(i)
                i += 1
            elif j < len(made):
                right.append(j)
                j += 1
            else:
                break
        yield left, right


def _slice(node: onnx.NodeProto, before: Shapes, after: Shapes, constants: Constants) -> str | None:
    """It ends where the old size ended."""
    axes = _varying(node.input[0], before, after)
    if not axes or len(node.input) < 3:
        return None
    ends = constants.get(node.input[2], [])
    old = before[node.input[0]]
    given = constants.get(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    for axis, end in zip(given or range(len(ends)), ends, strict=False):
        place = axis + len(old) if axis < 0 else axis
        if place in axes and end == old[place]:
            return f"it ends at {end}"
    return None


def _split(node: onnx.NodeProto, before: Shapes, after: Shapes, constants: Constants) -> str | None:
    """It makes a number of parts of an axis that follows the size."""
    axes = _varying(node.input[0], before, after)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    old = before.get(node.input[0], ())
    if axes and (axis + len(old) if axis < 0 else axis) in axes:
        return f"it makes {len(node.output)} parts"
    return None


def _resize(
    node: onnx.NodeProto, before: Shapes, after: Shapes, constants: Constants
) -> str | None:
    """It resizes to a size that is a constant."""
    axes = _varying(node.input[0], before, after)
    sizes = constants.get(node.input[3]) if len(node.input) > 3 else None
    made = after.get(node.output[0])
    if not axes or not sizes or made is None:
        return None
    given = next((list(a.ints) for a in node.attribute if a.name == "axes"), range(len(sizes)))
    fixed = [axis for axis in given if axis in axes]
    return f"its sizes are {sizes}" if fixed else None


def _gather(
    node: onnx.NodeProto,
    before: Shapes,
    after: Shapes,
    constants: Constants,
    gathered: dict[tuple[str, int], set[int]],
) -> str | None:
    """All of the old size is taken by constant indices, at once or one by one."""
    axes = _varying(node.input[0], before, after)
    indices = constants.get(node.input[1])
    if not axes or indices is None:
        return None
    old = before[node.input[0]]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    axis = axis + len(old) if axis < 0 else axis
    size = old[axis] if axis < len(old) else None
    if axis not in axes or size is None or size < 2:
        return None
    taken = gathered.setdefault((node.input[0], axis), set())
    complete = len(taken) == size
    taken.update(index + size if index < 0 else index for index in indices)
    return f"all {size} are taken by number" if len(taken) == size and not complete else None


_Rule = Callable[[onnx.NodeProto, Shapes, Shapes, Constants], str | None]
_RULES: Mapping[str, _Rule] = {
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Resize": _resize,
}
