"""Runs an op in the workers of a DataLoader: python in_workers.py OP fork|spawn."""

import importlib
import os
import sys

import torch

from custom_ops.onnx._verify import to_array
from custom_ops.ops._registry import ops

for module in filter(None, os.environ.get("CUSTOM_OPS_TEST_MODULES", "").split(",")):
    importlib.import_module(module)


def difference(name: str) -> float:
    """Returns how far the NumPy function of an op is from its torch function."""
    import custom_ops

    op = ops()[name]
    sample = next(iter(op.samples(torch.Generator().manual_seed(0))))
    arrays = sample.map(to_array)
    from_numpy = getattr(custom_ops.numpy, name)(*arrays.args, **arrays.kwargs)
    from_torch = op.public(*sample.args, **sample.kwargs)
    several = isinstance(from_torch, (list, tuple))
    first = (from_numpy[0], from_torch[0]) if several else (from_numpy, from_torch)
    return float(abs(first[0] - to_array(first[1])).max())


class Calls(torch.utils.data.Dataset[float]):
    """Each item is a call of the op in the worker that fetches it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return difference(self.name)


if __name__ == "__main__":
    name, method = sys.argv[1:]
    assert difference(name) == 0.0  # the parent's threads have started
    loader = torch.utils.data.DataLoader(
        Calls(name), num_workers=2, multiprocessing_context=method, timeout=60
    )
    print([float(value) for value in loader])
