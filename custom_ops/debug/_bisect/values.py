"""What the values inside of a model are for given inputs, kept on disk."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from custom_ops.debug._bisect.runtime import Runtime, attempt
from custom_ops.debug._bisect.submodels import Submodels
from custom_ops.onnx._running import storable

Arrays = Mapping[str, np.ndarray[Any, Any]]


def inputs_file(model: Path) -> Path:
    """Returns where the inputs of a submodel lie, if they do."""
    return model.with_suffix(".npz")


def pack(arrays: Arrays, file: Path) -> None:
    """Writes arrays by name as NumPy does, whose function takes some names for its own arguments.

    bfloat16, which NumPy cannot write, becomes float32, other narrow types become their bits.
    """
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, storable(array), allow_pickle=False)


class Values:
    """The values of a model in one run, each computed when it is asked for.

    Args:
        submodels: The model.
        inputs: Its inputs.
        runtime: How to run it; without optimization, so that each value is what its node makes.
        folder: Where the arrays lie.
    """

    def __init__(
        self, submodels: Submodels, inputs: Arrays, runtime: Runtime, folder: Path
    ) -> None:
        self._submodels = submodels
        self._runtime = runtime
        self._folder = folder
        self._runs = 0
        self._files: dict[str, Path] = {}
        for i, (name, array) in enumerate(inputs.items()):
            self._files[name] = folder / f"input-{i}.npy"
            np.save(self._files[name], storable(array))

    def write(self, names: Iterable[str], file: Path) -> str:
        """Writes values into a file of arrays by name.

        Returns:
            Why they cannot be had; "" if they can.
        """
        names = list(names)
        refusal = self._compute([name for name in names if name not in self._files])
        if not refusal:
            self._pack(names, file)
        return refusal

    def _compute(self, names: list[str]) -> str:
        if not names:
            return ""
        bounds = self._submodels.between(names, self._files)
        absent = [name for name in bounds.inputs if name not in self._files]
        if absent:
            return f"there is no value of {absent[0]!r}"
        model, given = self._folder / "values.onnx", self._folder / "values.npz"
        self._submodels.write(bounds, model)
        self._pack(bounds.inputs, given)
        self._runs += 1
        folder = self._folder / f"values-{self._runs}"
        folder.mkdir()
        outcome = attempt(model, self._runtime, given, folder)
        model.unlink()
        given.unlink()
        if not outcome.ran:
            return f"the model does not run up to there: {outcome.error}"
        files = {name: folder / f"{i}.npy" for i, name in enumerate(names)}
        self._files |= {name: file for name, file in files.items() if file.exists()}
        for name in self._files.keys() & files.keys():
            self._submodels.correct(name, np.load(files[name], mmap_mode="r").shape)
        lacking = [name for name in names if name not in self._files]
        return f"the value {lacking[0]!r} is no tensor" if lacking else ""

    def _pack(self, names: Iterable[str], file: Path) -> None:
        """Copies arrays from disk to disk."""
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name in names:
                archive.write(self._files[name], f"{name}.npy")
