"""Submodels of a model by the nodes that they have, with the types that the model has there."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import helper

from custom_ops.debug._bisect.runtime import Runtime, attempt
from custom_ops.onnx import _storage
from custom_ops.onnx._extract.bounds import Bounds
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.piece import cut
from custom_ops.onnx._extract.types import types_of
from custom_ops.onnx._model import LARGEST_FILE
from custom_ops.onnx._reading import Document

_ELEMENT_TYPES = {
    f"tensor({name.lower()})": number for name, number in onnx.TensorProto.DataType.items()
}


class Submodels:
    """What can be cut out of a model, and where.

    A cut lies at tensors of known type. Nodes that depend on no input stay with those that use
    them, so constants stay constant.

    Args:
        document: The model; left as it is.
        runtime: How to ask onnxruntime for types that onnx does not infer, as of custom ops.
        folder: A folder to work in; the model's external data is linked there.

    Raises:
        UnreadableModel: The graph is broken, or its external data must not be read.
        ValueError: It is too large for one file, in which no submodel of it could be written.
    """

    def __init__(self, document: Document, runtime: Runtime, folder: Path) -> None:
        _storage.check("bisect", document.proto, document.folder)
        size = document.proto.ByteSize()
        if size > LARGEST_FILE:
            raise ValueError(
                f"bisect: model must have at most {LARGEST_FILE:,} bytes without its external "
                f"data, got {size:,}; save it with its weights in another file, and give its path"
            )
        self.document = document
        self.index = Index(document.proto.graph)
        self._runtime = runtime
        self._folder = folder
        names = tuple(dict.fromkeys((*self.index.names(), *self.index.outputs)))
        self._types = types_of(document.proto, self.index, Bounds((), names, frozenset()))
        self.live = self.index.behind(self.index.outputs, ())[0]
        _storage.link(document.proto, document.folder, folder)

    def is_typed(self, name: str) -> bool:
        """Returns whether a value can be cut at: a tensor whose element type is known."""
        return bool(self._types[name].type.tensor_type.elem_type)

    def ask_for_types(self, nodes: Iterable[int]) -> None:
        """Asks onnxruntime for the types of what nodes make, where onnx has inferred none."""
        makes = self.index.makes
        names = [name for i in sorted(nodes) for name in makes[i] if not self.is_typed(name)]
        if not names:
            return
        behind, _ = self.index.behind(names, ())
        file = self._folder / "types.onnx"
        self.write(self._bounds(behind, names), file)
        for name, kind, sizes in attempt(file, self._runtime).types:
            if kind in _ELEMENT_TYPES:
                known = sizes or None  # of an unknown number of axes it says what of none
                info = helper.make_tensor_value_info(name, _ELEMENT_TYPES[kind], known)
                self._types[name] = info
        file.unlink()

    def correct(self, name: str, sizes: Sequence[int]) -> None:
        """Takes the sizes that a value has in a run, where the model says others, or no axes.

        A session only warns of such a value inside of a model, and refuses it as an input.
        """
        kind = self._types[name].type.tensor_type
        said = kind.shape.dim
        if (
            not kind.HasField("shape")
            or len(said) != len(sizes)
            or any(
                dim.HasField("dim_value") and dim.dim_value != size
                for dim, size in zip(said, sizes, strict=True)
            )
        ):
            self._types[name] = helper.make_tensor_value_info(name, kind.elem_type, sizes)

    def closed(self, nodes: Iterable[int]) -> list[int]:
        """Returns nodes, in order, with those that a cut cannot part them from."""
        index = self.index
        inside = set(nodes)
        waiting = list(inside)
        while waiting:
            for name in index.needs[waiting.pop()]:
                maker = index.maker.get(name)
                if maker is None or maker in inside:
                    continue
                if name not in index.varying or not self.is_typed(name):
                    inside.add(maker)
                    waiting.append(maker)
        return sorted(inside)

    def bounds(self, nodes: Sequence[int]) -> Bounds:
        """Returns the bounds of nodes: their outputs are the model's, and what none of them uses.

        A node that the model's outputs do not need makes an output only if all are such nodes.
        """
        index, inside = self.index, set(nodes)
        used = {name for i in nodes for name in index.needs[i]}
        outputs = dict.fromkeys(n for n in index.outputs if index.maker.get(n) in inside)
        sinks = [i for i in nodes if not used.intersection(index.makes[i])]
        chosen = [i for i in sinks if i in self.live]
        if not chosen and not outputs:
            chosen = sinks
        outputs |= dict.fromkeys(
            name for i in chosen if not outputs.keys() & index.makes[i] for name in index.makes[i]
        )
        return self._bounds(nodes, outputs)

    def with_outputs(self, bounds: Bounds, outputs: Sequence[str]) -> Bounds | None:
        """Returns the bounds of the same nodes with fewer outputs; None if these need fewer."""
        stop = set(bounds.inputs)
        needed, _ = self.index.behind(outputs, stop)
        if needed != self.index.behind(bounds.outputs, stop)[0]:
            return None
        return Bounds(bounds.inputs, tuple(outputs), bounds.nodes)

    def between(self, outputs: Iterable[str], stop: Iterable[str]) -> Bounds:
        """Returns the bounds of what makes values out of the model's inputs and known values."""
        wanted = list(outputs)
        return self._bounds(self.index.behind(wanted, set(stop))[0], wanted)

    def cut(self, bounds: Bounds) -> onnx.ModelProto:
        """Returns a submodel; external data stays where it is."""
        return cut(self.document.proto, self.index, bounds, self._types)

    def write(self, bounds: Bounds, file: Path) -> None:
        """Writes a submodel into the folder in which the external data is linked."""
        file.write_bytes(self.cut(bounds).SerializeToString())

    def _bounds(self, nodes: Iterable[int], outputs: Iterable[str]) -> Bounds:
        index, inside = self.index, set(nodes)
        made = {name for i in inside for name in index.makes[i]}
        inputs = dict.fromkeys(
            name
            for i in sorted(inside)
            for name in index.needs[i]
            # What nothing makes stays missing: it may be what is looked for.
            if name not in made and index.has(name) and not index.is_stored(name)
        )
        return Bounds(tuple(inputs), tuple(outputs), frozenset(inside))
