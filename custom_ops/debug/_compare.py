"""Compares a torch module with its ONNX model: what each layer introduces, and what arrives."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx
import onnxruntime
import torch

from custom_ops._errors import first_line
from custom_ops.debug import _branches, _graph, _pairing, _record, _runs
from custom_ops.debug._culprit import Paired, first_difference, fresh
from custom_ops.debug._judge import Judge, fault
from custom_ops.debug._result import Comparison, Fault
from custom_ops.onnx import _inputs, _verify
from custom_ops.onnx import session as open_session
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._reading import ModelLike, read


def compare(
    module: torch.nn.Module,
    model: ModelLike,
    args: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    session: onnxruntime.InferenceSession | None = None,
    limit: float = 8.0,
    libraries: Sequence[str] = (),
    details: bool = False,
    explain: bool = True,
) -> Comparison:
    """Compares a module with its model, layer by layer.

    The module runs once. The model runs three times: as it is, with every value as an output
    ("inherited", what arrives there), and cut apart, each piece fed with torch's values
    ("introduced", what the piece itself makes wrong). A piece is at fault where it introduces
    more than its limit.

    Args:
        module: The torch module, in the mode in which it was exported.
        model: Path, bytes or ModelProto.
        args: Its inputs; one tensor stands for itself.
        kwargs: Its keyword inputs.
        tolerance: The limit of every value, as an absolute difference, in place of those below.
        session: The session to judge, with its options and providers; one of our own if left out.
        limit: How many times the largest of these a piece may introduce: torch's own error
            against the same ops in float64, one eps of the dtype times the largest magnitude,
            and the change in float64 when the inputs move by half a unit in the last place.
        libraries: Files of further libraries of custom ops that the model needs.
        explain: Whether to export the module afresh where there is a fault, and tell how the
            guilty node differs from what it exports to now.
        details: Whether to compute `Value.details` of all values, not only of those at fault.

    Returns:
        A `Comparison`: true where no piece is at fault.

    Raises:
        ValueError: The module, or inputs that the model does not have.

    Example:
        >>> import torch, custom_ops.debug
        >>> module, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.ones(4)
        >>> path = getfixture("tmp_path") / "model.onnx"
        >>> _ = custom_ops.onnx.export(module.eval(), x, path)
        >>> bool(custom_ops.debug.compare(module, path, x))
        True
    """
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"compare: module must be a torch.nn.Module, got {module!r}")
    call = Call((args,) if isinstance(args, torch.Tensor) else tuple(args), dict(kwargs or {}))
    seconds: dict[str, float] = {}
    timed = functools.partial(_timed, seconds)
    with timed("read"):
        document = read(model)
        graph = _graph.of_document(document)
        own = _inputs.input_names(module, call)
        names = _verify.names_in_model("compare", graph.inputs, own)
        feeds = {
            name: _verify.to_array(tensor)
            for name, tensor in zip(names, call.tensors, strict=True)
            if name in graph.inputs
        }
    with timed("torch"):
        recording = _record.record(module, call)
    with timed("plain"):
        runner = session if session is not None else _opened(model, libraries)
        plain = _runs.fetch(runner, [each.name for each in runner.get_outputs()], feeds)
    with timed("instrumented"):
        graph = _branches.taken(graph, feeds, libraries)
        arriving = _runs.instrumented(graph, feeds, libraries)
    with timed("pairing"):
        pairs = _pairing.pair(graph, arriving, recording)
    with timed("cut"):
        expected = {
            name: _verify.to_array(recording.value(ref)) for name, ref in pairs.of_value.items()
        }
        introduced = _runs.cut(graph, expected, feeds, libraries)
    with timed("judging"):
        judge = Judge(graph, recording, pairs.of_value, limit, tolerance, details)
        values = tuple(judge.values(expected, arriving, introduced))
        outputs = tuple(judge.outputs(expected, arriving, plain))
    faults = [fault(value, "nodes") for value in values if not value.ok]
    notes = []
    if faults and explain:
        with timed("fresh export"):
            given = Paired(graph, pairs.of_value)
            try:
                again = fresh(module, call, graph, recording, feeds)
                given, again = given.shared(again), again.shared(given)
                faults = [_explained(each, given, again) for each in faults]
            except Exception as error:
                notes.append(f"the module does not export afresh: {first_line(error)}")
    faults += [fault(value, "optimization") for value in outputs if not value.ok]
    return Comparison(
        values=values,
        faults=tuple(faults),
        outputs=outputs,
        unmatched=pairs.unmatched,
        approximate=pairs.approximate,
        notes=tuple(notes),
        model=document.name,
        versions=_versions(),
        seconds=tuple(seconds.items()),
    )


def _explained(fault: Fault, given: Paired, again: Paired) -> Fault:
    """Returns a fault with the node that differs from the fresh export, and how it does.

    Where none does, the runtime computes something else than torch, and the last node stands.
    """
    ref = given.of_value.get(fault.name)
    if ref is None:  # the fresh export has no such result
        return fault
    found = first_difference(given, given.regions[ref], again, again.regions[ref])
    if found is None:
        return fault
    node, how = found
    return replace(fault, node=node.proto.name, op_type=node.proto.op_type, difference=how)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Notes how long a part takes."""
    begin = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - begin


def _opened(model: ModelLike, libraries: Sequence[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    for library in libraries:
        options.register_custom_ops_library(library)
    return open_session(model, sess_options=options)


def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((each.__name__, each.__version__) for each in (torch, onnx, onnxruntime))
