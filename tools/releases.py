"""Runs models in releases of ONNX Runtime, each in a virtual environment of its own."""

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

RUNNER = Path(__file__).parent / "run_cases.py"
LOADER = Path(__file__).parent / "load_models.py"
CACHE = Path.home() / ".cache" / "custom_ops" / "releases"
_NUMPY_1 = ("1.17", "1.18")  # built against NumPy 1, and do not start with 2


@dataclass(frozen=True)
class Call:
    """One run of a model.

    Attributes:
        name: For messages.
        feeds: The inputs by name.
        expected: The outputs, in order.
    """

    name: str
    feeds: Mapping[str, Any]
    expected: Sequence[Any]


@dataclass(frozen=True)
class Case:
    """One model, and what should become of it.

    Attributes:
        group: What the table counts it under.
        name: For messages.
        model: The model.
        calls: The runs.
        library: Whether our library is registered.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        refusal: None where the runs succeed, else a regular expression: what the load or a run
            says; an empty one takes any error.
    """

    group: str
    name: str
    model: onnx.ModelProto
    calls: Sequence[Call]
    library: bool = False
    rtol: float = 0.0
    atol: float = 0.0
    refusal: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        raised: The error of the load or of a run.
        wrong: How the outputs differ.
    """

    raised: str | None
    wrong: str


def environment(release: str, cache: Path) -> Path:
    """Returns the Python that has a release, for example "1.20"; makes it the first time.

    Raises:
        RuntimeError: pip does not install it.
    """
    folder = cache / f"python{sys.version_info.major}.{sys.version_info.minor}" / release
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        numpy = "numpy<2" if release in _NUMPY_1 else "numpy"
        install = ("-m", "pip", "install", "--quiet", "--only-binary", ":all:")
        for command in (
            (sys.executable, "-m", "venv", "--clear", folder),
            (python, *install, f"onnxruntime=={release}.*", numpy),
        ):
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise RuntimeError(f"onnxruntime {release} does not install:\n{made.stderr}")
        done.touch()
    return python


def version(python: Path) -> str:
    """Returns the exact version of ONNX Runtime that a Python has."""
    code = "from importlib.metadata import version; print(version('onnxruntime'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def load(python: Path, paths: list[Path]) -> list[str | None]:
    """Returns what the runtime of a Python says of each model; None where it loads."""
    said: list[str | None] = []
    listed = "\n".join(map(str, paths))
    while len(said) < len(paths):
        done = subprocess.run(
            [python, LOADER, str(len(said))],
            input=listed,
            capture_output=True,
            text=True,
            check=False,
        )
        said += [json.loads(line) for line in done.stdout.splitlines()]
        if len(said) < len(paths):
            said.append(f"the process ended with {done.returncode}")
    return said


def write_cases(cases: Sequence[Case], folder: Path) -> None:
    """Writes models, arrays and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, numbers = [], itertools.count()
    written: dict[bytes, str] = {}
    for case in cases:
        data = case.model.SerializeToString()
        if data not in written:
            written[data] = f"{len(written)}.onnx"
            (folder / written[data]).write_bytes(data)
        calls = []
        for call in case.calls:
            arrays = {f"in_{name}": array for name, array in call.feeds.items()}
            arrays |= {f"out_{i}": array for i, array in enumerate(call.expected)}
            file = f"{next(numbers)}.npz"
            np.savez(folder / file, **arrays)
            calls.append({"name": call.name, "arrays": file, "outputs": len(call.expected)})
        entry = {"model": written[data], "calls": calls, "library": case.library}
        entries.append({**entry, "rtol": case.rtol, "atol": case.atol})
    (folder / "cases.json").write_text(json.dumps(entries))


def run_cases(python: Path, folder: Path, count: int, library: str | None = None) -> list[Outcome]:
    """Runs the cases of a folder in the environment of a Python.

    Args:
        python: See `environment`.
        folder: See `write_cases`.
        count: How many there are.
        library: Path of the kernel library.

    Returns:
        The outcomes, in order; a case that ends the process has that as its error.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        command = [str(python), str(RUNNER), str(folder), str(len(outcomes))]
        command += [library] if library else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        outcomes += [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
        if len(outcomes) < count:
            outcomes.append(Outcome(f"the process ended with {done.returncode}: {done.stderr}", ""))
    return outcomes
