"""What a torch module is given and returns within the whole model, to check a piece by."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from custom_ops._errors import first_line
from custom_ops.onnx import _storage
from custom_ops.onnx._extract.bounds import between
from custom_ops.onnx._extract.index import Index
from custom_ops.onnx._extract.modules import Located
from custom_ops.onnx._extract.piece import cut
from custom_ops.onnx._inputs import Call, input_names
from custom_ops.onnx._reading import Document
from custom_ops.onnx._session import session
from custom_ops.onnx._verify import Check, compare_arrays, run, to_array

Arrays = Mapping[str, np.ndarray[Any, Any]]
_CLOSE = 0.01  # to tell one tensor from another, not to judge


@dataclass(frozen=True)
class Sample:
    """Inputs of a piece, and the outputs that torch has for them.

    Attributes:
        inputs: By the names of the piece's inputs.
        outputs: By the names of the piece's outputs.
        check: How ONNX Runtime's outputs of the piece compare with them.
        module: Path of the module whose outputs they are: the last of those merged.
        from_model: Names of inputs and outputs that are none of the module's own, as sizes that
            are computed elsewhere; their values are the model's in ONNX Runtime.
    """

    inputs: Arrays
    outputs: Arrays
    check: Check
    module: str
    from_model: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.check.passed

    def __str__(self) -> str:
        others = f"; not of the module: {', '.join(self.from_model)}" if self.from_model else ""
        return f"{self.module} on {self.check}{others}"

    def as_dict(self) -> dict[str, Any]:
        """Returns names and verdict in the types of JSON; the arrays are left out."""
        return {
            "module": self.module,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "from_model": list(self.from_model),
            **vars(self.check),
        }


@dataclass
class _Seen:
    """The tensors of one call of a module."""

    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]


def sample(
    document: Document,
    index: Index,
    located: Located,
    piece: Path,
    torch_module: torch.nn.Module,
    call: Call,
) -> Sample:
    """Runs the torch model and the piece, and compares them.

    Args:
        document: The model that the piece is of.
        index: Its main graph.
        located: The module that was cut out.
        piece: The file of the piece.
        torch_module: The whole torch model.
        call: What the torch model is called with.

    Raises:
        ValueError: The torch model does not call the module as often as that.
    """
    seen = _recorded(torch_module, located, call)
    values = _values(document, index, located.bounds.inputs, torch_module, call)
    given = [tensor for each in seen.values() for tensor in each.inputs]
    inputs, own = _paired(values, given, _CLOSE)
    actual = dict(zip(located.bounds.outputs, _run(piece, inputs), strict=True))
    sizes = ", ".join(str(list(array.shape)) for array in inputs.values())
    best: Sample | None = None
    for path, each in reversed(seen.items()):  # of merged modules the last
        outputs, torchs = _paired(actual, each.outputs, float("inf"))
        if torchs:
            names = list(torchs)
            pairs = [torchs[name] for name in names], [actual[name] for name in names]
            check = compare_arrays(sizes, *pairs)
        else:
            check = Check(sizes, float("nan"), False, f"no output is one of {path}")
        others = tuple(name for name in (*inputs, *outputs) if name not in {*own, *torchs})
        found = Sample(inputs, outputs, check, path, others)
        best = found if best is None or (found and not best) else best
    assert best is not None
    return best


def _recorded(torch_module: torch.nn.Module, located: Located, call: Call) -> dict[str, _Seen]:
    """Returns what the module, and those merged with it, are given and return."""
    paths = located.merged or (located.path,)
    known = dict(torch_module.named_modules())
    seen: dict[str, list[_Seen]] = {path: [] for path in paths if path in known}

    def before(path: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            seen[path].append(_Seen(_copies((args, kwargs)), []))

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, __: Any, output: Any) -> None:
            seen[path][-1].outputs.extend(_copies(output))

        return hook

    handles: list[Any] = []
    for path in seen:
        handles += (
            known[path].register_forward_pre_hook(before(path), with_kwargs=True),
            known[path].register_forward_hook(after(path)),
        )
    training = [each for each in torch_module.modules() if each.training]
    try:
        torch_module.eval()
        own = call.with_tensors([tensor.detach().clone() for tensor in call.tensors])
        with torch.no_grad():
            torch_module(*own.args, **own.kwargs)
    except Exception as error:
        raise ValueError(
            f"extract: args must be what torch_module takes, got {type(error).__name__}: "
            f"{first_line(error)}; give the arguments that it was exported with"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for each in training:
            each.training = True
    which = located.call
    result = {path: calls[which] for path, calls in seen.items() if len(calls) > which}
    if not result:
        times = max(map(len, seen.values()), default=0)
        raise ValueError(
            f"extract: torch_module must call {located.path!r} as the model does, got {times} "
            f"calls and the model's call {which}; give the module that was exported"
        )
    return result


def _copies(values: Any) -> list[torch.Tensor]:
    """Returns copies of the tensors inside: a later module may write into them."""
    leaves = pytree.tree_leaves(values)
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _values(
    document: Document,
    index: Index,
    names: Sequence[str],
    torch_module: torch.nn.Module,
    call: Call,
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns what values of the model are in ONNX Runtime, for the inputs of the torch model."""
    inputs = [name for name in index.inputs if not index.is_stored(name)]
    tensors = [to_array(tensor) for tensor in call.tensors]
    if len(tensors) == len(inputs):
        feeds = dict(zip(inputs, tensors, strict=True))
    else:
        feeds = dict(zip(input_names(torch_module, call), tensors, strict=True))
    missing = [name for name in inputs if name not in feeds]
    if missing:
        raise ValueError(
            f"extract: args must be those that the model was exported with, got none for "
            f"{missing[0]!r}; give all of them"
        )
    wanted = [name for name in names if name not in index.inputs]
    found = {name: feeds[name] for name in names if name in index.inputs}
    if wanted:
        with tempfile.TemporaryDirectory() as folder:
            bounds = between(index, document.proto, [], wanted)
            before = cut(document.proto, index, bounds)
            path = Path(folder) / "before.onnx"
            with _storage.written(before, document.folder, path, external=False) as file:
                outputs = _run(file, {name: feeds[name] for name in bounds.inputs})
        found.update(zip(wanted, outputs, strict=True))
    return {name: found[name] for name in names}


def _run(file: Path, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    try:
        return run(session(file), feeds)
    except Exception as error:
        raise ValueError(
            "extract: the model must run in ONNX Runtime to give samples, got "
            f"{first_line(error)}; cut without args"
        ) from error


def _paired(
    values: Arrays, tensors: Sequence[torch.Tensor], farthest: float
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, torch.Tensor]]:
    """Finds for each value of a model the tensor of torch that it is.

    Args:
        values: The values by name.
        tensors: Tensors that torch has seen.
        farthest: How far apart they may be, where the largest number is 1.

    Returns:
        The values by name, as torch has them where it has them; and torch's tensors by name.
    """
    left = list(tensors)
    pairs: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        distances = [_distance(value, to_array(tensor)) for tensor in left]
        nearest = min(range(len(left)), key=distances.__getitem__, default=-1)
        if left and distances[nearest] < farthest:
            pairs[name] = left.pop(nearest)
    return {n: to_array(pairs[n]) if n in pairs else v for n, v in values.items()}, pairs


def _distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Returns how far two arrays are apart; infinity where they are not of one kind."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    apart = np.abs(np.nan_to_num(a.astype(np.float64)) - np.nan_to_num(b.astype(np.float64)))
    scale = np.abs(np.nan_to_num(b.astype(np.float64))).max(initial=1.0)
    return float(apart.max(initial=0.0) / scale)
