"""Compares a torch module, or another model, with an ONNX model, layer by layer."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
import torch

from custom_ops._errors import first_line
from custom_ops._garbage import garbage_kept
from custom_ops.debug import (
    _approximate,
    _branches,
    _culprit,
    _feeds,
    _graph,
    _inside,
    _pairing,
    _precision,
    _record,
    _runs,
)
from custom_ops.debug._culprit import Paired
from custom_ops.debug._fresh import fresh
from custom_ops.debug._graph import Array
from custom_ops.debug._judge import Allowed, Judge
from custom_ops.debug._memory import Memory
from custom_ops.debug._models import compare_models
from custom_ops.debug._result import Comparison, Fault
from custom_ops.debug._runs import Runs
from custom_ops.debug._torch_side import TorchSide
from custom_ops.debug._work import Work, running
from custom_ops.onnx import _inputs, _verify
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._reading import Document, ModelLike, read


def compare(
    module: torch.nn.Module | ModelLike,
    model: ModelLike,
    args: Sequence[Any] | torch.Tensor | Mapping[str, Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    session: onnxruntime.InferenceSession | None = None,
    limit: float = 8.0,
    libraries: Sequence[str | os.PathLike[str]] = (),
    details: bool = False,
    explain: bool = True,
    simulate: bool = False,
    memory: int = 4 << 30,
    bodies: bool = False,
) -> Comparison:
    """Compares a module, or another model, with a model, layer by layer.

    The reference runs once. The model runs three times: as it is, with every value as an output
    ("inherited", what arrives there), and cut apart, each piece fed with the values of the
    reference ("introduced", what the piece itself makes wrong). A piece is at fault where it
    introduces more than its limit.

    Args:
        module: The reference: a torch module, in the mode in which it was exported, or a model:
            before an optimization, in float32, for another runtime.
        model: The model to judge: path, bytes, ModelProto or onnx_ir.Model.
        args: The inputs of the module; one tensor stands for itself. Of a model: arrays or
            tensors by name.
        kwargs: The keyword inputs of the module.
        tolerance: The limit of every value, as an absolute difference, in place of those below.
        session: The session to judge, with its options and providers; one of our own if left out.
        limit: How many times the largest of these a piece may introduce: torch's own error
            against the same ops in float64, one eps of the dtype times the largest magnitude,
            the change in float64 when the inputs move by half a unit in the last place, and what
            a running sum of as many numbers loses on average. Of
            two models: the second of these, and the change of the piece when its inputs so move,
            both in the coarser dtype; of an output of the session, the change of the whole model
            when its inputs and weights so move.
        libraries: Files of further libraries of custom ops that the model needs.
        details: Whether to compute `Value.details` of all values, not only of those at fault.
        explain: Whether to export the module afresh where there is a fault, and tell how the
            guilty node differs from what it exports to now.
        simulate: Whether nodes in bfloat16 that onnxruntime has no kernel for run in float32, their
            results rounded to bfloat16. Without it nothing is compared where there are any.
        memory: How many bytes of what the model gives are held in memory. Where it may give more it
            runs several times, each for some of its values, and what is too much lies in
            temporary files until the end. What torch gives is held all the same.
        bodies: Whether to look inside the functions of the model, our own nodes' bodies among them:
            these run in the place of their nodes. What is inside is named by the call, the
            function and its own name, as "conv1/custom_ops::DeformConv2d/n42".

    Returns:
        A `Comparison`: true where no piece is at fault.

    Raises:
        ValueError: The reference, inputs that it or the model does not have, or on which one of
            them does not run, or a `tolerance`, `limit` or `memory` below 0 or not finite.

    Example:
        >>> import torch, custom_ops.debug
        >>> module, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.ones(4)
        >>> path = getfixture("tmp_path") / "model.onnx"
        >>> _ = custom_ops.onnx.export(module.eval(), x, path)
        >>> bool(custom_ops.debug.compare(module, path, x))
        True
    """
    _check_number("tolerance", tolerance)
    _check_number("limit", limit)
    _check_number("memory", memory)
    work = Work(
        [_loaded(each) for each in libraries],
        session,
        Allowed(limit, tolerance, details),
        explain=explain,
        simulate=simulate,
        memory=Memory(memory),
        bodies=bodies,
    )
    with garbage_kept():  # what is recorded looks like ever more cycles
        if isinstance(module, torch.nn.Module):
            return _compare_module(module, read(model), _call(args, kwargs), work)
        if not isinstance(module, (str, os.PathLike, bytes, onnx.ModelProto, ir.Model)):
            raise ValueError(
                "compare: module must be a torch.nn.Module, or a model as path, bytes, "
                f"ModelProto or onnx_ir.Model, got {type(module).__name__}"
            )
        if not isinstance(args, Mapping):
            raise ValueError(
                "compare: args must be a dict of arrays by the names of the inputs where two "
                f"models are compared, got {type(args).__name__}"
            )
        return compare_models(read(module), read(model), args, work)


def _check_number(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(f"compare: {name} must be a finite number, 0 or more, got {value}")


def _loaded(library: str | os.PathLike[str]) -> str:
    """Returns a library of custom ops, once it has been registered for a try."""
    path = os.fspath(library)
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(path)
    except Exception as error:
        raise ValueError(
            f"compare: libraries must be files that onnxruntime can register, got {path!r}: "
            f"{first_line(error)}; check the path, and that it is built for this machine"
        ) from error
    return path


def _call(
    args: Sequence[Any] | torch.Tensor | Mapping[str, Any], kwargs: Mapping[str, Any] | None
) -> Call:
    if isinstance(args, Mapping):
        return Call((), {**args, **(kwargs or {})})
    return Call.of(args, kwargs)


def _compare_module(
    module: torch.nn.Module, document: Document, call: Call, work: Work
) -> Comparison:
    with work.part("read"):
        given = _graph.of_document(document)
        graph = work.opened(given)
        lacking = work.lacking(graph)
        if lacking and not work.simulate:
            return work.not_comparable(document.name)
        graph, given = (replace(each, simulated=lacking) for each in (graph, given))
        own = _inputs.input_names(module, call)
        if graph.inputs and not call.tensors:
            raise ValueError(
                f"compare: args must hold tensors for the inputs {', '.join(graph.inputs)}, got "
                "none; make them with torch.from_numpy where they are arrays"
            )
        feeds = _feeds.typed(graph, _verify.feeds("compare", graph.inputs, own, call))
    if any(each.training for each in module.modules()):
        work.notes.append(
            "the module is in training mode, where dropout draws and batch normalisation takes the "
            "batch's own mean; call module.eval() first, unless it was exported so"
        )
    with work.part("torch"), running("module"):
        recording = _record.record(module, call)
        work.memory.expected = recording.size()
    plain = work.plain(given, feeds)
    with work.part("instrumented"), running("model"):
        graph = _branches.taken(graph, feeds, work.libraries)
        arriving = _runs.instrumented(graph, feeds, work.libraries, memory=work.memory)
        work.notes += _precision.hint(graph, arriving, recording)
    with work.part("pairing"):

        def run(fed: Mapping[str, Array]) -> dict[str, Array]:
            typed = _runs.as_fed(fed, arriving)
            names = list(arriving)
            memory = replace(work.memory)  # what it takes is given back after each round
            return _runs.cut(graph, typed, feeds, work.libraries, names, memory, failed={})

        if _pairing.names_modules(graph):
            pairs = _pairing.pair(graph, arriving, recording, run)
        else:
            pairs = _approximate.pair(graph, arriving, recording, run)
        results = {name: recording.value(ref) for name, ref in pairs.of_value.items()}
    with work.part("cut"):
        expected = {name: _verify.to_array(result) for name, result in results.items()}
        fed = _runs.as_fed(expected, arriving)
        failed: dict[str, str] = {}
        introduced = _runs.cut(graph, fed, feeds, work.libraries, memory=work.memory, failed=failed)

    def explained(faults: list[Fault]) -> list[Fault]:
        with work.part("fresh export"):
            try:
                again = fresh(
                    module, call, graph, recording, feeds, work.libraries, bodies=work.bodies
                )
            except Exception as error:  # of torch's exporter, which may raise anything
                work.notes.append(f"the module does not export afresh: {first_line(error)}")
                return faults
            return _culprit.explained(faults, Paired(graph, pairs.of_value), again)

    runs = Runs(feeds, plain, arriving, expected, expected, fed, introduced, failed)
    return work.judged(
        document.name,
        Judge(graph, TorchSide(recording, pairs.of_value), work.allowed, runs),
        explained,
        [*pairs.unmatched, *_inside.inside(graph)],
        [_verify.to_array(recording.value(ref)) for ref in recording.outputs],
        approximate=pairs.approximate,
    )
