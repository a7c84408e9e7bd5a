"""Exports a module afresh, to see what a given model should be."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from custom_ops.debug import _bodies, _branches, _feeds, _graph, _pairing, _runs, _simulated
from custom_ops.debug._culprit import Paired
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._recording import Recording
from custom_ops.onnx import _inputs, _walk
from custom_ops.onnx._export import lowered
from custom_ops.onnx._exporters import by_dynamo, by_torchscript
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._model import write
from custom_ops.onnx._reading import read
from custom_ops.onnx._targets import target


def fresh(
    module: torch.nn.Module,
    call: Call,
    given: Graph,
    recording: Recording,
    feeds: Mapping[str, Array],
    libraries: Sequence[str],
    *,
    bodies: bool = False,
) -> Paired:
    """Exports a module afresh, as a given model was exported, and pairs it.

    Args:
        module: The module.
        call: Its arguments.
        given: The model; the export takes its exporter and opset.
        recording: What torch did on the arguments.
        feeds: The arguments as inputs of the model.
        libraries: Files of further libraries of custom ops.
        bodies: Whether the bodies of functions stand in the place of their calls.

    Raises:
        Exception: What the export raises.
    """
    by = by_dynamo if any(node.unit is not None for node in given.nodes) else by_torchscript
    opsets = {_walk.domain(each.domain): each.version for each in given.proto.opset_import}
    names = _inputs.input_names(module, call)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, _ = lowered(
            lambda: by(module, call, opsets[""], names, None, None), "portable", target()
        )
        path = Path(folder) / "fresh.onnx"
        write(made, path)
        graph = _graph.of_document(read(path))
        if bodies:
            graph = _bodies.inlined(graph)
        graph = replace(graph, simulated=frozenset(_simulated.lacking(graph.proto)))
        named = _feeds.typed(graph, dict(zip(graph.inputs, feeds.values(), strict=True)))
        graph = _branches.taken(graph, named, libraries)
        values = _runs.instrumented(graph, named, libraries)
    return Paired(graph, _pairing.pair(graph, values, recording).of_value)
