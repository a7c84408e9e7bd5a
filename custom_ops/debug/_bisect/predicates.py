"""Ready predicates: what can be wrong with a model in ONNX Runtime, run in another process."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from custom_ops.debug._bisect.runtime import Outcome, Runtime, attempt
from custom_ops.debug._bisect.values import inputs_file, pack
from custom_ops.onnx import _extract, _proof
from custom_ops.onnx._proof.drawing import Undrawable
from custom_ops.onnx._reading import ModelLike, read

Saved = dict[str, np.ndarray[Any, Any]]


class Unresolved(Exception):
    """Why a submodel shows neither that the symptom is there nor that it is not."""


@dataclass(frozen=True)
class Ready:
    """A predicate on files of models.

    Attributes:
        name: What it looks for.
        runtime: How it opens sessions.
        runs: Whether it runs the model, for which it needs inputs.
    """

    name: str
    runtime: Runtime
    runs: bool
    shows: Callable[[Path], bool] = field(repr=False)

    def __call__(self, path: str | os.PathLike[str]) -> bool:
        """Returns whether the model shows it."""
        return self.shows(Path(path))

    def __str__(self) -> str:
        return self.name


def fails_to_load(runtime: Runtime | None = None, *, saying: str = "") -> Ready:
    """Makes a predicate: no session opens.

    Args:
        runtime: How sessions are opened.
        saying: A text that onnxruntime's sentence must have, where another failure is not meant.

    Returns:
        The predicate. A crash, or no end, is a failure too.

    Example:
        >>> import onnx, custom_ops.debug
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 9, opset_import: ["": 18, "elsewhere": 1]>
        ...     g (float[N] x) => (float[N] y) { y = elsewhere.Op(x) }
        ... ''')
        >>> file = getfixture("tmp_path") / "model.onnx"
        >>> onnx.save(model, file)
        >>> custom_ops.debug.fails_to_load()(file)
        True
    """
    runtime = runtime or Runtime()

    def shows(path: Path) -> bool:
        outcome = attempt(path, runtime)
        return not outcome.loaded and saying in outcome.error

    return Ready("fails to load", runtime, False, shows)


def fails_to_run(runtime: Runtime | None = None, *, saying: str = "") -> Ready:
    """Makes a predicate: a session opens, and does not run.

    Args:
        runtime: How sessions are opened.
        saying: A text that onnxruntime's sentence must have, where another failure is not meant.

    Returns:
        The predicate. A crash, or no end, is a failure too. A model that does not load is no
        answer.
    """
    runtime = runtime or Runtime()

    def shows(path: Path) -> bool:
        with _inputs(path) as inputs:
            outcome = attempt(path, runtime, inputs)
        if not outcome.loaded:
            raise Unresolved(f"it does not load: {outcome.error}")
        return not outcome.ran and saying in outcome.error

    return Ready("fails to run", runtime, True, shows)


def gives_nan(runtime: Runtime | None = None, *, infinite: bool = False) -> Ready:
    """Makes a predicate: an output has NaN, and no input has.

    Args:
        runtime: How sessions are opened.
        infinite: Whether to look for infinities, instead of NaN.

    Returns:
        The predicate. A model that does not run is no answer.
    """
    runtime = runtime or Runtime()
    found = np.isinf if infinite else np.isnan

    def has(arrays: Saved) -> bool:
        return any(a.dtype.kind in "fc" and bool(found(a).any()) for a in arrays.values())

    def shows(path: Path) -> bool:
        with _inputs(path) as inputs:
            with np.load(inputs) as given:
                if has(dict(given)):
                    return False
            return has(_outputs(path, runtime, inputs))

    return Ready("gives infinity" if infinite else "gives NaN", runtime, True, shows)


def slower_than(
    seconds: float | None = None,
    *,
    ratio: float | None = None,
    than: Runtime | None = None,
    runtime: Runtime | None = None,
    runs: int = 5,
) -> Ready:
    """Makes a predicate: a run takes long, or longer than in another session.

    Args:
        seconds: How long is too long; or
        ratio: How many times as long as in the other session.
        than: The other session.
        runtime: How the sessions are opened that are too slow.
        runs: Runs behind a first one, of whose times the median counts.

    Returns:
        The predicate. A model that does not run is no answer.

    Raises:
        ValueError: Not one of both, or a ratio to nothing.
    """
    if (seconds is None) == (ratio is None) or (ratio is None) != (than is None):
        raise ValueError(
            "slower_than: seconds, or ratio with than, must be given, got "
            f"seconds={seconds}, ratio={ratio}, than={than}; give one way to tell what is slow"
        )
    runtime = runtime or Runtime()

    def shows(path: Path) -> bool:
        with _inputs(path) as inputs:
            taken = _ran(attempt(path, runtime, inputs, runs=runs)).seconds
            if seconds is not None or ratio is None or than is None:
                return taken > (seconds or 0.0)
            return taken > ratio * _ran(attempt(path, than, inputs, runs=runs)).seconds

    return Ready("is slower", runtime, True, shows)


def differs_from(
    other: Runtime | ModelLike,
    runtime: Runtime | None = None,
    *,
    rtol: float = 1e-3,
    atol: float = 1e-5,
) -> Ready:
    """Makes a predicate: the outputs differ from those in another session, or of another model.

    Args:
        other: The other session (of other providers, another optimization); or another model, of
            which what lies between the same names is run.
        runtime: How sessions are opened.
        rtol: How far elements may be apart, relative to the other.
        atol: How far they may be apart besides.

    Returns:
        The predicate. NaN is equal to NaN. Where one of both does not run, or the other model lacks
        the names, there is no answer.
    """
    runtime = runtime or Runtime()

    def shows(path: Path) -> bool:
        with _inputs(path) as inputs, tempfile.TemporaryDirectory() as folder:
            actual = _outputs(path, runtime, inputs)
            if isinstance(other, Runtime):
                expected = _outputs(path, other, inputs)
            else:
                piece = _same_piece(path, other, Path(folder) / "other.onnx")
                expected = _outputs(piece, runtime, _as_taken(piece, inputs))
        return actual.keys() != expected.keys() or any(
            _apart(actual[name], expected[name], rtol, atol) for name in actual
        )

    return Ready("differs", runtime, True, shows)


def _apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], rtol: float, atol: float) -> bool:
    if a.shape != b.shape:
        return True
    if a.dtype.kind not in "fc" or b.dtype.kind not in "fc":
        return not np.array_equal(a, b)
    wide = np.result_type(a, b, np.float64)
    return not np.allclose(a.astype(wide), b.astype(wide), rtol, atol, equal_nan=True)


@contextmanager
def _inputs(path: Path) -> Iterator[Path]:
    """Gives the file of a model's inputs: the one beside it, else one of random inputs."""
    if inputs_file(path).exists():
        yield inputs_file(path)
        return
    required = _proof.required(read(path).proto)
    try:
        drawn = next(_proof.feeds(required))
    except Undrawable as reason:
        raise Unresolved(f"no inputs can be drawn: {reason}") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "inputs.npz"
        names = (value.name for value in required)
        pack(dict(zip(names, drawn.arrays, strict=True)), file)
        yield file


def _outputs(path: Path, runtime: Runtime, inputs: Path) -> Saved:
    """Returns the outputs that are tensors."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = _ran(attempt(path, runtime, inputs, Path(folder)))
        files = {name: Path(folder) / f"{i}.npy" for i, (name, *_) in enumerate(outcome.types)}
        return {name: np.load(file) for name, file in files.items() if file.exists()}


def _ran(outcome: Outcome) -> Outcome:
    if not outcome.ran:
        raise Unresolved(f"it does not run: {outcome.error}")
    return outcome


def _same_piece(path: Path, other: ModelLike, file: Path) -> Path:
    """Cuts what lies between the bounds of a submodel out of another model."""
    model = read(path).proto
    inputs = [value.name for value in _proof.required(model)]
    outputs = [value.name for value in model.graph.output]
    _extract.extract(other, file, inputs, outputs)
    return file


def _as_taken(piece: Path, inputs: Path) -> Path:
    """Returns the inputs in the element types that another model takes."""
    arrays = {}
    with np.load(inputs) as given:
        for value in _proof.required(read(piece).proto):
            kind = value.type.tensor_type.elem_type
            array = given[value.name]
            if array.dtype.kind == "f":
                array = array.astype(helper.tensor_dtype_to_np_dtype(kind))
            arrays[value.name] = array
    file = piece.with_suffix(".npz")
    pack(arrays, file)
    return file
