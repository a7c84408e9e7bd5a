"""Runs copies of a model, and keeps what all runs of a comparison gave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from custom_ops._errors import first_line
from custom_ops.debug._copies import cut_apart, with_outputs
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._memory import Memory
from custom_ops.onnx._verify import run


@dataclass(frozen=True)
class Runs:
    """What was run, and what it gave, by the names of values.

    Attributes:
        feeds: The inputs of the model.
        plain: The outputs of the session to judge.
        arriving: What the whole model gives without optimization.
        right: What the values should be.
        expected: What they should be where those before them are as they are fed: the same, but
            behind numbers that the model's dtype does not have.
        fed: The same in the dtypes of the model.
        introduced: What the regions give where they are fed with that.
        failed: Of those that do not run then, why.
    """

    feeds: Mapping[str, Array]
    plain: Mapping[str, Array]
    arriving: Mapping[str, Array]
    right: Mapping[str, Array]
    expected: Mapping[str, Array]
    fed: Mapping[str, Array]
    introduced: Mapping[str, Array]
    failed: Mapping[str, str] = field(default_factory=dict)


def as_fed(expected: Mapping[str, Array], made: Mapping[str, Array]) -> dict[str, Array]:
    """Returns values as a model can be fed with them: in the dtypes of those that it makes."""
    with np.errstate(all="ignore"):
        return {
            name: array.astype(made[name].dtype, copy=False) for name, array in expected.items()
        }


def fetch(
    session: onnxruntime.InferenceSession,
    names: Sequence[str],
    feeds: Mapping[str, Array],
    memory: Memory | None = None,
) -> dict[str, Array]:
    """Returns the outputs that are arrays, by name; in several runs where memory is short."""

    def given(some: Sequence[str]) -> dict[str, Array]:
        found = run(session, feeds, some)
        return {n: a for n, a in zip(some, found, strict=True) if isinstance(a, np.ndarray)}

    if not names:  # no session runs for nothing
        return {}
    return given(names) if memory is None else memory.gathered(names, given)


def instrumented(
    graph: Graph,
    feeds: Mapping[str, Array],
    libraries: Sequence[str] = (),
    *,
    inner: bool = False,
    memory: Memory | None = None,
) -> dict[str, Array]:
    """Runs a model without optimizations; returns every value that depends on its inputs.

    Args:
        graph: The model.
        feeds: Its inputs.
        libraries: Files of further libraries of custom ops.
        inner: Whether to return the values inside an op of torch too.
        memory: What may be held in memory; None for all.
    """
    names = [
        name
        for node in graph.nodes
        if not node.constant and (inner or not node.inner)
        for name in node.proto.output
        if name
    ]
    session = graph.session(with_outputs(graph, names), libraries)
    return fetch(session, names, feeds, memory)


def cut(
    graph: Graph,
    expected: Mapping[str, Array],
    feeds: Mapping[str, Array],
    libraries: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
    memory: Memory | None = None,
    failed: dict[str, str] | None = None,
    *,
    alone: bool = False,
) -> dict[str, Array]:
    """Runs a model cut apart, each piece fed with what is expected of those before it.

    Args:
        graph: The model.
        expected: The values at which it is cut, and what is fed for them.
        feeds: The inputs of the model.
        libraries: Files of further libraries of custom ops.
        outputs: Which values to return; those at which it is cut if left out.
        memory: What may be held in memory; None for all.
        failed: Takes the values whose piece does not run, and why; None lets that raise.
        alone: Whether the pieces of other values are left out.

    Returns:
        What the pieces give for the values.
    """
    if outputs is None:
        outputs = [name for name in expected if name in graph.producer]
    proto, fed = cut_apart(graph, expected, outputs, alone=alone)
    session = graph.session(proto, libraries)
    given = {name: expected[value] for value, name in fed.items()} | dict(feeds)
    try:
        return fetch(session, outputs, given, memory)
    except Exception as error:  # what the runtime raises has no type of its own
        if failed is None:
            raise
        if len(outputs) == 1 and alone:
            failed[outputs[0]] = first_line(error)
            return {}
    # A piece that a fault before it has led astray, as by an index beyond the end: which it is
    # shows in the halves, each without the nodes of the other.
    middle = len(outputs) // 2
    found: dict[str, Array] = {}
    for half in filter(None, (outputs[:middle], outputs[middle:])):
        found |= cut(graph, expected, feeds, libraries, half, memory, failed, alone=True)
    return found
