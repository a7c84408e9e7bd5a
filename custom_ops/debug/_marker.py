"""Marks that a user sets in a module, watched in torch and in the exported model."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch

from custom_ops.debug import _marks
from custom_ops.debug._mark_results import Extracted, Mark, MarkReport, Missing, Stripped
from custom_ops.debug._metrics import measure
from custom_ops.onnx import _storage
from custom_ops.onnx import _verify as verification
from custom_ops.onnx._inputs import Call, input_names
from custom_ops.onnx._reading import Document, ModelLike, read
from custom_ops.onnx._session import session
from custom_ops.onnx._unchanged import unchanged
from custom_ops.ops._samples import TOLERANCES, Tolerance

_Array: TypeAlias = np.ndarray[Any, Any]

_VANISHED = "the model has no such marker: its result is not used, or was folded into a constant"


class Debugger:
    """Marks values in a module and finds them again in the model that it is exported to.

    Outside of export, and of `run`, a mark is nothing: `mark` returns what it is given.

    Example:
        >>> import torch, custom_ops, custom_ops.debug
        >>> dbg = custom_ops.debug.Debugger()
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         x = dbg.mark("doubled", x * 2)
        ...         return torch.relu(x) + 1
        >>> net = Net().eval()
        >>> folder = getfixture("tmp_path")
        >>> _ = custom_ops.onnx.export(net, (torch.ones(3),), folder / "net.onnx")
        >>> dbg.extract(folder / "net.onnx", folder / "watched.onnx").outputs
        {'doubled': 'doubled'}
        >>> print(dbg.run(net, folder / "net.onnx", (torch.ones(3),)))
        doubled (float32[3]): equal (largest difference 0, 0.00021 allowed)
        >>> dbg.strip(folder / "net.onnx", folder / "clean.onnx").markers
        1
    """

    def __init__(self) -> None:
        self._names: dict[str, None] = {}  # in the order in which they are first seen
        self._tape: list[tuple[str, _Array]] | None = None
        self._report: MarkReport | None = None

    def mark(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Marks a value.

        Args:
            name: Its name. Several marks may share it: they become ``name``, ``name#1``, ...
            x: Any tensor.

        Returns:
            `x` itself; while the module is exported, a copy for the rest to be computed from. A
            result that is not used vanishes from the model.

        Raises:
            ValueError: The name is none, or `x` is no tensor.
        """
        if not isinstance(name, str) or not name or "#" in name:
            raise ValueError(
                f"mark: name must be a text without '#', which numbers repeats, got {name!r}"
            )
        if not isinstance(x, torch.Tensor):
            raise ValueError(
                f"mark: x must be a tensor, got {type(x).__name__}; mark each tensor in it"
            )
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            if not torch.compiler.is_dynamo_compiling():  # inside a branch it allows no effects
                self._names[name] = None
            marked: torch.Tensor = torch.ops.custom_ops.mark(x, name)
            return marked
        if self._tape is not None:
            self._tape.append((name, verification.to_array(x.detach().clone())))
        return x

    def extract(
        self, model: ModelLike, path: str | os.PathLike[str], *, force: bool = False
    ) -> Extracted:
        """Turns the markers of a model into outputs, beside all inputs and outputs that it has.

        Args:
            model: Path or ModelProto, whoever exported it; left as it is.
            path: The file to write; it has no markers, and runs without our library if the model
                does. Data in other files is copied to ``<path>.data``.
            force: Whether to overwrite what is there.

        Returns:
            The outputs by the names of the marks, and the marks that are not among them: those in
            subgraphs and functions, and those that this Debugger was told of, while it exported or
            ran a module, and that the model has not.

        Raises:
            UnreadableModel: The file is no model, or its data cannot be read.
            ValueError: No marker can be an output, or the file exists.
        """
        document = _opened("extract", model, Path(path), force)
        outputs, missing = self._as_outputs(document.proto)
        if not outputs:
            lost = "; ".join(map(str, missing)) or "none"
            raise ValueError(
                f"extract: model must have markers in its main graph, got {lost}; export a module "
                "that calls mark and uses the result"
            )
        data = _write(document, Path(path))
        return Extracted(Path(path), outputs, tuple(missing), data)

    def strip(
        self, model: ModelLike, path: str | os.PathLike[str], *, force: bool = False
    ) -> Stripped:
        """Takes the markers out of a model, which then computes the same.

        Args:
            model: Path or ModelProto, whoever exported it; left as it is.
            path: The file to write. Data in other files is copied to ``<path>.data``.
            force: Whether to overwrite what is there.

        Returns:
            What was written, and how many markers there were.

        Raises:
            UnreadableModel: The file is no model, or its data cannot be read.
            ValueError: The file exists.
        """
        document = _opened("strip", model, Path(path), force)
        count = _marks.strip(document.proto)
        return Stripped(Path(path), count, _write(document, Path(path)))

    def run(
        self,
        module: torch.nn.Module,
        model: ModelLike,
        args: Sequence[Any] | torch.Tensor,
        kwargs: Mapping[str, Any] | None = None,
        *,
        tolerances: Mapping[str, Tolerance] | None = None,
        sess_options: onnxruntime.SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
    ) -> MarkReport:
        """Runs a module and its model, and compares what they give at each mark.

        torch runs eagerly, without gradients, a compiled module too. What differs at a mark may
        have begun anywhere before it.

        Args:
            module: The module, with marks of this Debugger.
            model: Path or ModelProto of the marked model; left as it is.
            args: Inputs of the module; one tensor stands for itself.
            kwargs: Its keyword inputs.
            tolerances: By dtype what counts as equal, as for `custom_ops.onnx.verify`.
            sess_options: Options of the session of the model; see `custom_ops.onnx.session`.
            providers: Its providers.

        Returns:
            The comparison, which `report` gives again.

        Raises:
            UnreadableModel: The file is no model, or its data cannot be read.
            ValueError: The inputs of the model are not those of the module.
        """
        call = Call.of(args, kwargs)
        tape = self._recorded(module, call)
        document = _copied(read(model))
        _storage.check("run", document.proto, document.folder)
        outputs, missing = self._as_outputs(document.proto)
        found: dict[str, _Array] = {}
        if outputs:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.onnx"
                _write(document, file)
                runner = session(file, sess_options=sess_options, providers=providers)
                arrays = verification.run(runner, _feeds(runner, module, call))
            by_output = dict(zip((o.name for o in runner.get_outputs()), arrays, strict=True))
            found = {mark: by_output[output] for mark, output in outputs.items()}
        self._report = _compared(tape, found, missing, tolerances or TOLERANCES)
        return self._report

    def report(self) -> MarkReport:
        """Returns the comparison of the last `run`.

        Raises:
            ValueError: There was none.
        """
        if self._report is None:
            raise ValueError("report: there must be a run to report on, got none; call run first")
        return self._report

    def _recorded(self, module: torch.nn.Module, call: Call) -> list[tuple[str, _Array]]:
        """Returns what torch gives at each mark, in the order of the calls."""
        own = call.with_tensors([tensor.detach().clone() for tensor in call.tensors])
        tape: list[tuple[str, _Array]] = []
        self._tape = tape
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"), unchanged(module):
                module(*own.args, **own.kwargs)
        finally:
            self._tape = None
        self._names |= dict.fromkeys(name for name, _ in tape)
        return tape

    def _as_outputs(self, model: onnx.ModelProto) -> tuple[dict[str, str], list[Missing]]:
        """Turns markers into outputs, in place, and takes out those that cannot be."""
        places = _marks.find(model)
        missing = [
            Missing(p.name, f"it lies in {p.inside}, whose values cannot be outputs")
            for p in places
            if p.inside
        ]
        here = {place.name for place in places}
        missing += [Missing(name, _VANISHED) for name in self._names if name not in here]
        outputs = _marks.as_outputs(model)
        _marks.strip(model)
        return outputs, missing


def _compared(
    tape: list[tuple[str, _Array]],
    found: dict[str, _Array],
    missing: list[Missing],
    tolerances: Mapping[str, Tolerance],
) -> MarkReport:
    """Compares by name; marks of one name only where there are as many on both sides."""
    here = Counter(name for name, _ in tape)
    there = Counter(label.partition("#")[0] for label in found)
    known = {each.name for each in missing}
    for name in {**here, **there}:
        if here[name] != there[name] and name not in known:
            reason = (
                f"torch comes by it {here[name]}x, the model has it {there[name]}x, which does not "
                "tell what belongs together"
            )
            missing.append(Missing(name, reason))
    marks = []
    labels = _marks.numbered([name for name, _ in tape])
    for label, (name, wanted) in zip(labels, tape, strict=True):
        if here[name] == there[name]:
            metrics = measure(wanted, found[label])
            dtype = str(wanted.dtype)
            tolerance = tolerances.get(dtype, Tolerance(0.0, 0.0))
            allowed = tolerance.atol + tolerance.rtol * max(metrics.largest, 1.0)
            marks.append(Mark(label, wanted.shape, dtype, metrics, allowed))
    return MarkReport(tuple(marks), tuple(missing))


def _feeds(
    runner: onnxruntime.InferenceSession, module: torch.nn.Module, call: Call
) -> dict[str, _Array]:
    own = [given.name for given in runner.get_inputs()]
    return verification.feeds("run", own, input_names(module, call), call)


def _opened(tool: str, model: ModelLike, path: Path, force: bool) -> Document:
    """Returns a model to be changed, where it can be written."""
    document = _copied(read(model))
    _storage.check_free(tool, path, force)
    _storage.check(tool, document.proto, document.folder)
    return document


def _copied(document: Document) -> Document:
    copy = onnx.ModelProto()
    copy.CopyFrom(document.proto)
    return Document(copy, document.path)


def _write(document: Document, path: Path) -> Path | None:
    """Writes a model; returns the file of its data, where it has one."""
    with _storage.written(document.proto, document.folder, path, external=False):
        pass
    return _storage.data_file(path) if _storage.is_external(document.proto) else None
