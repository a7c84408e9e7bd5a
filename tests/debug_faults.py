"""Faults to put into nodes of a model: what exporters, kernels and conversions get wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from custom_ops.debug._graph import of_proto

_MATRICES = ("Conv", "ConvTranspose", "Gemm", "MatMul", "DeformConv2d", "LSTM", "GRU")
_HALVED = ("Conv", "Gemm", "MatMul", "LayerNormalization", "Softmax", "GlobalAveragePool")
_NORMALIZATIONS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")


class Editor:
    """A copy of a model to put faults into.

    Attributes:
        model: The copy.
        nodes: Its nodes, as they were.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes = list(self.model.graph.node)
        for i, node in enumerate(self.nodes):
            node.name = node.name or f"node{i}"
        self._literals = {each.name: each for each in self.model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._literals[node.output[0]] = node.attribute[0].t

    def number(self, node: onnx.NodeProto, place: int) -> NDArray[np.floating] | None:
        """Returns a float weight or constant of a node; None where it has none there."""
        tensor = self._literals.get(node.input[place]) if place < len(node.input) else None
        if tensor is None:
            return None
        array = numpy_helper.to_array(tensor)
        return array.copy() if array.dtype.kind == "f" else None

    def replace(self, node: onnx.NodeProto, place: int, array: NDArray[np.floating]) -> None:
        """Gives a node a number of its own: other nodes may share the one that it had."""
        name = f"{node.name or node.output[0]}.{place}.own"
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        node.input[place] = name

    def rounded(self, node: onnx.NodeProto) -> set[str]:
        """Rounds what a node gives to the 11 bits of float16; returns the names of the new nodes.

        Not by casts: ONNX Runtime takes two that follow each other away, although they round. The
        product with 2**13 + 1, less what it is more than the number, keeps the upper bits (Dekker).
        """
        graph, result = self.model.graph, node.output[0]
        wide, product, rest = (f"{result}.{word}" for word in ("wide", "product", "rest"))
        factor = numpy_helper.from_array(np.array(2**13 + 1, np.float32), f"{result}.factor")
        graph.initializer.append(factor)
        node.output[0] = wide
        new = [
            helper.make_node("Mul", [wide, factor.name], [product]),
            helper.make_node("Sub", [product, wide], [rest]),
            helper.make_node("Sub", [product, rest], [result]),
        ]
        place = list(graph.node).index(node) + 1
        for i, each in enumerate(new):
            each.name = f"{node.name}.half{i}"
            each.metadata_props.extend(node.metadata_props)
            graph.node.insert(place + i, each)
        return {each.name for each in new}


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((each for each in node.attribute if each.name == name), None)


def _weight_place(editor: Editor, node: onnx.NodeProto) -> int | None:
    if node.op_type not in _MATRICES:
        return None
    for place in (1, 0):
        array = editor.number(node, place)
        if array is not None and array.ndim > 1:
            return place
    return None


def scaled(editor: Editor, node: onnx.NodeProto) -> bool:
    """A weight is 2% larger."""
    place = _weight_place(editor, node)
    if place is None:
        return False
    array = editor.number(node, place)
    assert array is not None
    editor.replace(node, place, (array * 1.02).astype(array.dtype))
    return True


def epsilon(editor: Editor, node: onnx.NodeProto) -> bool:
    """A normalisation has an epsilon of 1e-5 for 1e-3, or the other way round."""
    given = _attribute(node, "epsilon")
    if node.op_type not in _NORMALIZATIONS or given is None:
        return False
    given.f = 1e-5 if given.f > 1e-4 else 1e-3
    return True


def padding(editor: Editor, node: onnx.NodeProto) -> bool:
    """Padding is at the other side: as many columns in all, one less before and one more behind."""
    given = _attribute(node, "pads")
    if (
        node.op_type not in ("Conv", "AveragePool", "MaxPool")
        or given is None
        or not any(given.ints)
    ):
        return False
    half = len(given.ints) // 2
    if not given.ints[half - 1]:
        return False
    given.ints[half - 1] -= 1
    given.ints[-1] += 1
    return True


def corners(editor: Editor, node: onnx.NodeProto) -> bool:
    """A resize aligns corners, or does not."""
    if node.op_type != "Resize":
        return False
    given = _attribute(node, "coordinate_transformation_mode")
    aligned = given is not None and given.s == b"align_corners"
    if given is not None:
        node.attribute.remove(given)
    mode = "half_pixel" if aligned else "align_corners"
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", mode))
    return True


def interpolation(editor: Editor, node: onnx.NodeProto) -> bool:
    """A resize interpolates in another way."""
    given = _attribute(node, "mode") if node.op_type == "Resize" else None
    if given is None:
        return False
    given.s = {b"linear": b"nearest", b"cubic": b"linear", b"nearest": b"linear"}[given.s]
    return True


def swapped(editor: Editor, node: onnx.NodeProto) -> bool:
    """The operands are in the other order."""
    if node.op_type not in ("Sub", "Div", "Pow"):
        return False
    node.input[:] = [node.input[1], node.input[0]]
    return True


def transposed(editor: Editor, node: onnx.NodeProto) -> bool:
    """The numbers of a weight lie in the transposed order."""
    place = _weight_place(editor, node)
    array = editor.number(node, place) if place is not None else None
    if place is None or array is None or node.op_type in ("LSTM", "GRU"):
        return False
    flat = array.reshape(array.shape[0], -1)
    editor.replace(node, place, np.ascontiguousarray(flat.T).reshape(array.shape))
    return True


def truncated(editor: Editor, node: onnx.NodeProto) -> bool:
    """A constant has lost its digits after the second."""
    for place in range(len(node.input)):
        array = editor.number(node, place)
        if array is None or array.size != 1 or node.op_type not in ("Mul", "Div", "Add", "Sub"):
            continue
        short = (np.trunc(array * 100) / 100).astype(array.dtype)
        if short.item() not in (0.0, array.item()):
            editor.replace(node, place, short)
            return True
    return False


def half(editor: Editor, node: onnx.NodeProto) -> bool | set[str]:
    """A weight and the result have the precision of float16."""
    if node.op_type not in _HALVED:
        return False
    place = _weight_place(editor, node)
    array = editor.number(node, place) if place is not None else None
    if place is not None and array is not None:
        editor.replace(node, place, array.astype(np.float16).astype(array.dtype))
    return editor.rounded(node)


def custom(editor: Editor, node: onnx.NodeProto) -> bool:
    """A custom op has another dilation, or another factor, as a kernel that reads them wrong."""
    if node.op_type == "MulAdd":
        given = _attribute(node, "alpha")
        assert given is not None
        given.f *= 1.002
        return True
    given = _attribute(node, "pads")
    if node.op_type != "DeformConv2d" or given is None:
        return False
    # As many rows as before, sampled two apart.
    spacing = _attribute(node, "dilations")
    assert spacing is not None
    given.ints[:] = [2 * each for each in given.ints]
    spacing.ints[:] = [2 * each for each in spacing.ints]
    return True


def nan(editor: Editor, node: onnx.NodeProto) -> bool:
    """A weight holds a NaN."""
    place = _weight_place(editor, node)
    array = editor.number(node, place) if place is not None else None
    if place is None or array is None:
        return False
    array.flat[0] = np.nan
    editor.replace(node, place, array)
    return True


KINDS: dict[str, Callable[[Editor, onnx.NodeProto], bool | set[str]]] = {
    "weight scaled": scaled,
    "wrong epsilon": epsilon,
    "wrong padding": padding,
    "wrong align_corners": corners,
    "wrong interpolation": interpolation,
    "swapped operands": swapped,
    "transposed weight": transposed,
    "truncated constant": truncated,
    "half precision": half,
    "custom kernel": custom,
    "NaN born": nan,
}


@dataclass(frozen=True)
class Placed:
    """A model with a fault.

    Attributes:
        kind: What is wrong.
        place: Which node of the file, counted from 0, had it put in.
        model: The model.
        nodes: Names of the nodes that are not as they should be.
    """

    kind: str
    place: int
    model: onnx.ModelProto
    nodes: frozenset[str]


def places(model: onnx.ModelProto, kind: str) -> list[int]:
    """Returns the nodes that a fault fits, counted from 0.

    A node whose result depends on shapes and weights alone is left out.
    """
    editor = Editor(model)
    fixed = {node.index for node in of_proto(model, {}).nodes if node.constant}
    nodes = enumerate(editor.nodes)
    return [place for place, node in nodes if place not in fixed and KINDS[kind](editor, node)]


def one_each(model: onnx.ModelProto, kind: str) -> Iterator[Placed]:
    """Yields a copy for each node that a fault fits, with the fault in that node alone."""
    for place in places(model, kind):
        yield put(model, kind, [place])


def put(model: onnx.ModelProto, kind: str, at: Sequence[int] | None = None) -> Placed:
    """Returns a copy with a fault in some nodes; in all that it fits, if none are named."""
    editor = Editor(model)
    chosen = places(model, kind) if at is None else at
    names: set[str] = set()
    for place in chosen:
        node = editor.nodes[place]
        done = KINDS[kind](editor, node)
        names |= {node.name} | (done if isinstance(done, set) else set())
    return Placed(kind, chosen[0] if chosen else -1, editor.model, frozenset(names))
