"""Runs a model in ONNX Runtime, in another process, and says how that went."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from custom_ops import _library
from custom_ops.onnx import _child
from custom_ops.onnx._doctor.trial import shortened
from custom_ops.onnx._running import LEVELS

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True)
class Runtime:
    """How a predicate opens sessions of ONNX Runtime.

    Attributes:
        optimization: Level of graph optimization: "all", "extended", "basic" or "disabled".
        providers: Execution providers, in order.
        libraries: Libraries of custom ops to register; None for ours alone.
        threads: Threads of one op; 0 leaves it to onnxruntime.
        seconds: After which a process counts as one that hangs.

    Raises:
        ValueError: Another level, or a provider that onnxruntime does not have here.
    """

    optimization: str = "all"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    libraries: Sequence[str | os.PathLike[str]] | None = None
    threads: int = 0
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.optimization not in LEVELS:
            raise ValueError(
                f"Runtime: optimization must be one of {', '.join(LEVELS)}, got "
                f"{self.optimization!r}"
            )
        available = onnxruntime.get_available_providers()
        absent = [name for name in self.providers if name not in available]
        if absent:
            raise ValueError(
                f"Runtime: providers must be installed ({', '.join(available)}), got {absent[0]!r}"
            )

    def paths_of_libraries(self) -> list[str]:
        """Returns the libraries that sessions register."""
        chosen = [_library.library_path()] if self.libraries is None else self.libraries
        return [os.path.abspath(os.fspath(library)) for library in chosen]


@dataclass(frozen=True)
class Outcome:
    """How a model fared in a session.

    Attributes:
        loaded: Whether the session opened.
        ran: Whether it ran, where it was asked to.
        error: What failed, in words; "" if nothing.
        seconds: Median of the timed runs.
        types: Of the outputs: name, type as onnxruntime writes it, and sizes.
    """

    loaded: bool
    ran: bool
    error: str
    seconds: float = 0.0
    types: tuple[tuple[str, str, tuple[Any, ...]], ...] = ()


def attempt(
    model: Path,
    runtime: Runtime,
    inputs: Path | None = None,
    save: Path | None = None,
    runs: int = 0,
) -> Outcome:
    """Opens a session in another process, and runs it.

    Args:
        model: File of the model.
        runtime: How to open the session.
        inputs: File of arrays by name, with which it is run; None to open it only.
        save: Folder in which the outputs are written, as ``0.npy`` and so on.
        runs: How many more runs are timed.

    Returns:
        How that went; an end of the process, or none, is an error too.

    Raises:
        RuntimeError: It says nothing about the model, as where an input has no array.
    """
    work = {
        "model": os.fspath(model),
        "libraries": runtime.paths_of_libraries(),
        "providers": list(runtime.providers),
        "optimization": runtime.optimization,
        "threads": runtime.threads,
        "inputs": "" if inputs is None else os.fspath(inputs),
        "save": "" if save is None else os.fspath(save),
        "runs": runs,
    }
    done = _child.run([_CHILD], work, runtime.seconds)
    if done.code == 1:  # of Python itself: onnxruntime's errors are in the output
        said_last = (done.errors.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"{model.name}: no session could be tried, got {said_last}")
    ended = f"onnxruntime ended the process with {done.code}" if done.code else ""
    if done.code is None:
        ended = f"onnxruntime did not end within {runtime.seconds:g} s"
    known: dict[str, Any] = {}
    for answer in done.answers:
        known |= answer
    return Outcome(
        loaded=bool(known.get("loaded")),
        ran=bool(known.get("ran")),
        error=shortened(known["error"]) if "error" in known else ended,
        seconds=known.get("seconds", 0.0),
        types=tuple((name, kind, tuple(sizes)) for name, kind, sizes in known.get("types", ())),
    )
