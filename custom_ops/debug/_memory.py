"""Holds arrays in memory up to a number of bytes, and further ones in temporary files."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from custom_ops.debug._arrays import Array

_FIRST = 64  # values of a run when nothing is known of their sizes
_SHARE = 4  # of the memory, which the results of one run may take
_ALIGNMENT = 64


@dataclass
class Memory:
    """What a comparison may hold in memory.

    Attributes:
        limit: How many bytes.
        expected: How many bytes all values of the model take, about; None where that is unknown.
        used: How many bytes are held.
    """

    limit: int
    expected: int | None = None
    used: int = 0

    def gathered(
        self, names: Sequence[str], run: Callable[[Sequence[str]], Mapping[str, Array]]
    ) -> dict[str, Array]:
        """Returns the values that runs give, each for as many as fit.

        Args:
            names: Of the values.
            run: Returns values by name.
        """
        room = max(1, self.limit // _SHARE)
        each = None if self.expected is None else self.expected / max(1, len(names))
        found: dict[str, Array] = {}
        done = 0
        while done < len(names):
            count = _FIRST if each is None else max(1, int(room / max(each, 1.0)))
            batch = names[done : done + count]
            given = run(batch)
            each = sum(array.nbytes for array in given.values()) / len(batch)
            found |= self._kept(given)
            done += len(batch)
        return found

    def _kept(self, given: Mapping[str, Array]) -> Mapping[str, Array]:
        size = sum(array.nbytes for array in given.values())
        if self.used + size > self.limit:
            return dict(zip(given, _on_disk(list(given.values())), strict=True))
        self.used += size
        return given


def _on_disk(arrays: Sequence[Array]) -> list[Array]:
    """Moves arrays into a file, which ends with the last of them; text stays."""
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += 0 if array.dtype.hasobject else -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    if not size:
        return list(arrays)
    with tempfile.TemporaryDirectory(prefix="custom_ops") as folder:
        path = os.path.join(folder, "values")
        try:
            with open(path, "wb") as file:
                for start, array in zip(starts, arrays, strict=True):
                    if not array.dtype.hasobject:
                        file.seek(start)
                        file.write(np.ascontiguousarray(array).view(np.uint8).data)
                file.truncate(size)
        except OSError as error:
            raise OSError(
                f"compare: the folder of temporary files must have room for {size} bytes more, got "
                f"{error.strerror}; set TMPDIR to another one, or give more memory="
            ) from error
        # torch maps a file without keeping it open, of which a process may have few.
        room = torch.from_file(path, shared=True, size=size, dtype=torch.uint8).numpy()
    return [
        array
        if array.dtype.hasobject
        else room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        for start, array in zip(starts, arrays, strict=True)
    ]
