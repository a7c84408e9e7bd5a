"""Exports a module afresh, to see what a given model should be."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

import custom_ops.onnx
from custom_ops.debug import _bodies, _branches, _graph, _pairing, _runs
from custom_ops.debug._culprit import Paired
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._recording import Recording
from custom_ops.onnx import _walk
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._reading import read


def fresh(
    module: torch.nn.Module,
    call: Call,
    given: Graph,
    recording: Recording,
    feeds: Mapping[str, Array],
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
        bodies: Whether the bodies of functions stand in the place of their calls.

    Raises:
        Exception: What the export raises.
    """
    by_dynamo = any(node.unit is not None for node in given.nodes)
    opsets = {_walk.domain(each.domain): each.version for each in given.proto.opset_import}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "fresh.onnx"
        custom_ops.onnx.export(
            module,
            call.args,
            path,
            kwargs=call.kwargs,
            exporter="dynamo" if by_dynamo else "torchscript",
            opset_version=opsets[""],
            verify=False,
        )
        graph = _graph.of_document(read(path))
        if bodies:
            graph = _bodies.inlined(graph)
        named = dict(zip(graph.inputs, feeds.values(), strict=True))
        graph = _branches.taken(graph, named)
        values = _runs.instrumented(graph, named)
    return Paired(graph, _pairing.pair(graph, values, recording).of_value)
