"""Another model as the reference: where its values come from, and how far rounding takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from custom_ops.debug import _runs
from custom_ops.debug._evidence import Op
from custom_ops.debug._graph import Array, Graph, Node
from custom_ops.debug._judge import Origin
from custom_ops.debug._limit import DRAWS, MANY, Limit, eps
from custom_ops.debug._memory import Memory
from custom_ops.debug._metrics import Metrics, measure
from custom_ops.debug._moved import moved
from custom_ops.debug._runs import Runs


@dataclass(frozen=True)
class ModelSide:
    """The other model.

    Attributes:
        graph: It.
        partners: Its value for each of the model to judge.
        judged: The model to judge.
        runs: What that gave.
        coarse: For each of its inputs and values, the coarser dtype of both models.
        libraries: Files of libraries of custom ops.
        memory: What may be held in memory.
    """

    graph: Graph
    partners: Mapping[str, str]
    judged: Graph
    runs: Runs
    coarse: Mapping[str, np.dtype[Any]]
    libraries: Sequence[str]
    memory: Memory
    _changes: dict[tuple[bool, int], dict[str, float]] = field(default_factory=dict)

    def origin(self, name: str, region: Sequence[Node]) -> Origin:
        """Returns where a value comes from."""
        partner = self.partners[name]
        scopes = [node.scope for node in (*region, self.graph.producer[partner]) if node.scope]
        paths = tuple(dict.fromkeys(scope.path for scope in scopes))
        return Origin(partner, paths, scopes[-1].source if scopes else "")

    def ops(self, name: str) -> tuple[tuple[Op, ...], int]:
        """Returns nothing: no op of torch gives the value."""
        return (), 0

    def limit(
        self, name: str, expected: Array, metrics: Metrics, factor: float, *, whole: bool
    ) -> Limit:
        """Returns the limit by how the result changes where what it is made of is moved.

        That of a region are the values fed to it, in the coarser dtype of both models; that of
        the whole model its inputs and weights, in their own.
        """
        dtype = expected.dtype if whole else self.coarse[name]
        rounding, change = factor * eps(dtype) * metrics.largest, 0.0
        for seed in range(1 if expected.size >= MANY else DRAWS):
            if metrics.max_abs <= max(rounding, change):
                break
            change = max(change, factor * self._change(seed, whole=whole)[name])
        if change > rounding:
            return Limit(change, "conditioning")
        return Limit(rounding, "rounding" if eps(dtype) else "exact")

    def _change(self, seed: int, *, whole: bool) -> dict[str, float]:
        """Returns how far values go where what they are made of is moved."""
        if (whole, seed) not in self._changes:
            generator = torch.Generator().manual_seed(seed)
            before = self.runs.arriving if whole else self.runs.introduced
            after = self._whole(generator) if whole else self._pieces(generator)
            found = ((name, measure(before[name], array)) for name, array in after.items())
            # A size that comes out otherwise tells nothing of rounding.
            self._changes[whole, seed] = {n: 0.0 if m.mismatch else m.max_abs for n, m in found}
        return self._changes[whole, seed]

    def _pieces(self, generator: torch.Generator) -> dict[str, Array]:
        fed, feeds = (
            {name: _moved(array, self.coarse[name], generator) for name, array in known.items()}
            for known in (self.runs.fed, self.runs.feeds)
        )
        return _runs.cut(self.judged, fed, feeds, self.libraries, memory=self.memory)

    def _whole(self, generator: torch.Generator) -> dict[str, Array]:
        feeds, weights = (
            {name: _moved(array, array.dtype, generator) for name, array in known.items()}
            for known in (self.runs.feeds, self.judged.weights)
        )
        proto = onnx.ModelProto()
        proto.CopyFrom(self.judged.proto)
        for tensor in proto.graph.initializer:
            if tensor.name not in weights:
                array = numpy_helper.to_array(tensor)
                if eps(array.dtype):
                    array = _moved(array, array.dtype, generator)
                    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        graph = replace(self.judged, proto=proto, weights=weights)
        names = [name for name in graph.outputs if name in self.runs.arriving]
        return _runs.cut(graph, {}, feeds, self.libraries, names)


def _moved(array: Array, dtype: np.dtype[Any], generator: torch.Generator) -> Array:
    """Returns numbers moved by half a unit in the last place of a dtype."""
    if not eps(array.dtype) or array.dtype.kind == "c":
        return array
    wide = moved(torch.from_numpy(array.astype(np.float64)), eps(dtype), generator)
    with np.errstate(over="ignore"):
        return wide.numpy().astype(array.dtype)
