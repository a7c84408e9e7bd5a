"""Tells where a file computes in another dtype of floats than the module beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from custom_ops.debug._feeds import types
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._limit import eps
from custom_ops.debug._recording import Recording

# The method of a module that takes it to a dtype.
_METHODS = {"float16": "half", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}


def hint(graph: Graph, values: Mapping[str, Array], recording: Recording) -> Iterator[str]:
    """Yields a sentence that says what to compare instead, where the dtypes are not the same.

    Args:
        graph: The model.
        values: What it makes when it runs.
        recording: What torch did.
    """
    ours = _most(str(array.dtype) for array in values.values() if eps(array.dtype))
    theirs = _most(
        str(tensor.dtype).removeprefix("torch.")
        for step in recording.steps
        if step.depends
        for tensor in step.outputs
        if tensor.is_floating_point()
    )
    if ours == theirs or "" in (ours, theirs):
        return
    fed = {str(dtype) for dtype in types(graph, graph.inputs).values() if eps(dtype)}
    remedy = f"compare with module.{_METHODS.get(ours, 'to')}() and its inputs in {ours}"
    if fed - {ours}:
        remedy = f"compare it with the model in {theirs} that it was made of, as two models"
    yield f"the file computes in {ours}, the module in {theirs}; {remedy}"


def _most(dtypes: Iterable[str]) -> str:
    return max(Counter(dtypes).items(), key=lambda item: item[1], default=("", 0))[0]
