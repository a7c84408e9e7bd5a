"""Finds the smallest submodel that still shows what a predicate sees, and writes it to a file."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from custom_ops.debug._bisect.predicates import Ready
from custom_ops.debug._bisect.result import Bisection
from custom_ops.debug._bisect.runtime import Runtime, attempt
from custom_ops.debug._bisect.search import reduced, shortest_head, shortest_tail
from custom_ops.debug._bisect.submodels import Submodels
from custom_ops.debug._bisect.trials import Stopped, Trials
from custom_ops.debug._bisect.values import Values, inputs_file, pack
from custom_ops.onnx import _proof, _storage
from custom_ops.onnx._model import check_new
from custom_ops.onnx._proof.drawing import Undrawable
from custom_ops.onnx._reading import ModelLike, read

Arrays = Mapping[str, np.ndarray[Any, Any]]


def bisect(
    model: ModelLike,
    predicate: Callable[[Path], Any],
    path: str | os.PathLike[str],
    *,
    inputs: Arrays | None = None,
    libraries: Sequence[str | os.PathLike[str]] | None = None,
    limit: int = 1000,
    seconds: float | None = None,
    force: bool = False,
) -> Bisection:
    """Finds the smallest submodel that still shows what a predicate sees.

    Where one node is the cause, the predicate is called about ``2 * log2(nodes)`` times: once for
    each half of the nodes before it, and behind it. What is left is reduced by delta debugging,
    until the predicate is true without none of its nodes and outputs. Submodels keep the types and
    shapes that the values have in the model. Bodies of If, Loop and Scan, and functions, stay
    whole; so do nodes that depend on no input, with those that use them.

    Args:
        model: Path or ModelProto; external data stays where it is.
        predicate: Called with the path of a submodel; returns whether it shows the symptom. Where
            it raises, or returns None, there is no answer: the submodel is not taken. One of
            `fails_to_load`, `fails_to_run`, `gives_nan`, `slower_than`, `differs_from`, or your
            own.
        path: The file to write; weights go to ``<path>.data`` where the model has them in other
            files, values of inputs to a file of the same name that ends in ``.npz``.
        inputs: Inputs of the model, by name. Then each submodel is fed with the values that the
            model has there: they lie beside its file, as ``path.with_suffix(".npz")``, by name.
            If left out, random ones are drawn where a predicate of ours runs the model, and none
            where it does not, or is your own.
        libraries: Libraries of custom ops that the model needs to give those values; if left out,
            those of the predicate, or ours.
        limit: Most calls of the predicate.
        seconds: Time after which no call begins; no limit if left out. When a limit is reached,
            the smallest submodel so far is the result.
        force: Whether to replace files that are there.

    Returns:
        The submodel.

    Raises:
        UnreadableModel: The file is no model, or its external data must not be read.
        ValueError: The predicate is not true of the whole model, inputs are missing, `path` ends
            in ``.npz``, or a file is there already. No file is written.

    Example:
        >>> import onnx, custom_ops.debug
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18, "elsewhere": 1]>
        ...     g (float[N] x) => (float[N] z)
        ...     { a = Relu(x) b = Exp(a) c = elsewhere.Op(a, b) d = Neg(c) z = Abs(d) }
        ... ''')
        >>> found = custom_ops.debug.bisect(
        ...     model, custom_ops.debug.fails_to_load(), getfixture("tmp_path") / "small.onnx"
        ... )
        >>> found.op_types, found.inputs, found.minimal
        (('Op',), ('a', 'b'), True)
    """
    if limit < 1:
        raise ValueError(f"bisect: limit must be at least 1, got {limit}; give more calls")
    path = Path(path)
    _storage.check_free("bisect", path, force)
    if path.suffix == ".npz":
        raise ValueError(
            f"bisect: path must be of a model, got {str(path)!r}, where the values of its inputs "
            "lie; end it in .onnx"
        )
    check_new("bisect", "the file of values", inputs_file(path), force)
    document = read(model)
    runtime = predicate.runtime if isinstance(predicate, Ready) else Runtime()
    if libraries is not None:
        runtime = replace(runtime, libraries=libraries)
    plain = replace(runtime, optimization="disabled")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        submodels = Submodels(document, plain, Path(folder))
        trials = Trials(submodels, predicate, Path(folder), limit, seconds)
        if inputs is not None or (isinstance(predicate, Ready) and predicate.runs):
            if inputs is not None:
                feeds = _given(submodels, inputs)
            else:
                feeds = _drawn(submodels, plain, Path(folder))
            trials.values = Values(submodels, feeds, plain, Path(folder))
        stopped = _search(trials)
        return _written(trials, path, stopped)


def _search(trials: Trials) -> str:
    """Makes the best submodel as small as it gets; returns the limit that was in the way."""
    submodels = trials.submodels
    everything = list(range(len(submodels.index.nodes)))
    submodels.ask_for_types(everything)
    try:
        # What the outputs do not need is no cause in a run; a session may refuse it all the same.
        nodes = trials.nodes(sorted(submodels.live)) or trials.nodes(everything)
        if nodes is None:
            raise ValueError(_untrue(trials))
        nodes = shortest_head(nodes, trials.nodes)
        submodels.ask_for_types(nodes[:-1])  # all the model may not load, and these do
        behind, _ = submodels.index.behind(submodels.index.makes[nodes[-1]], ())
        nodes = trials.nodes(sorted(behind.intersection(nodes))) or nodes
        nodes = shortest_tail(nodes, trials.nodes)
        nodes = reduced(nodes, trials.nodes)
        assert trials.best is not None
        reduced(trials.best.outputs, trials.outputs)
    except Stopped as reached:
        if trials.best is None:
            raise ValueError(
                f"bisect: limits must leave a call for the whole model, got {reached}; give more"
            ) from None
        return str(reached)
    return ""


def _untrue(trials: Trials) -> str:
    said = f"no answer ({trials.reason})" if trials.unresolved else "false"
    return (
        f"bisect: predicate must be true of the whole model, got {said}; look whether it shows the "
        "symptom with these inputs, and without the initializers and functions that no node uses"
    )


def _written(trials: Trials, path: Path, stopped: str) -> Bisection:
    bounds = trials.best
    assert bounds is not None
    piece = trials.submodels.cut(bounds)
    folder = trials.submodels.document.folder
    with _storage.written(piece, folder, path, external=False) as beside:
        if trials.values is not None:
            trials.values.write(bounds.inputs, inputs_file(beside))
        return Bisection(
            path=path,
            nodes=len(piece.graph.node),
            of=len(trials.submodels.index.nodes),
            names=tuple(node.name for node in piece.graph.node),
            op_types=tuple(node.op_type for node in piece.graph.node),
            inputs=bounds.inputs,
            outputs=bounds.outputs,
            calls=trials.calls,
            unresolved=trials.unresolved,
            reason=trials.reason,
            minimal=not stopped,
            stopped=stopped,
            values=inputs_file(path) if trials.values is not None else None,
            data=_storage.data_file(path) if _storage.is_external(piece) else None,
        )


def _given(submodels: Submodels, inputs: Arrays) -> Arrays:
    """Returns the user's inputs of a model, checked."""
    required = [value.name for value in _proof.required(submodels.document.proto)]
    missing = [name for name in required if name not in inputs]
    more = [name for name in inputs if name not in submodels.index.inputs]
    if missing or more:
        name = (missing or more)[0]
        raise ValueError(
            f"bisect: inputs must be those of the model ({', '.join(required)}), got "
            f"{'none for ' if missing else ''}{name!r}; give an array for each"
        )
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    for name, array in arrays.items():
        # Else each submodel that reads it would fail, whatever is wrong with the model.
        said = submodels.index.inputs[name].type
        if not _fits(array, said.tensor_type):
            raise ValueError(
                f"bisect: inputs must be of the types and shapes of the model, got {array.dtype}"
                f"{list(array.shape)} for {name!r}; convert it to "
                f"{onnx.helper.printable_type(said)}"
            )
    return arrays


def _fits(array: np.ndarray[Any, Any], said: onnx.TypeProto.Tensor) -> bool:
    """Returns whether an array is what a model says of an input; NumPy lacks some of its types."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(said.elem_type)
    if dtype.kind in "biufc" and array.dtype != dtype:
        return False
    dims = said.shape.dim
    return not said.HasField("shape") or (
        len(dims) == array.ndim
        and all(
            not dim.HasField("dim_value") or dim.dim_value == size
            for dim, size in zip(dims, array.shape, strict=True)
        )
    )


def _drawn(submodels: Submodels, runtime: Runtime, folder: Path) -> Arrays:
    """Returns random inputs: where sizes are open, the first with which the model runs, if any."""
    required = _proof.required(submodels.document.proto)
    names = [value.name for value in required]
    try:
        feeds = [dict(zip(names, feed.arrays, strict=True)) for feed in _proof.feeds(required)]
    except Undrawable as reason:
        raise ValueError(
            f"bisect: inputs must be given where they cannot be drawn, got none, and {reason}; "
            "give arrays by name"
        ) from None
    if len(feeds) > 1:
        whole = folder / "whole.onnx"
        submodels.write(submodels.bounds(sorted(submodels.live)), whole)
        for feed in feeds:
            pack(feed, inputs_file(whole))
            if attempt(whole, runtime, inputs_file(whole)).ran:
                return feed
    return feeds[0]
