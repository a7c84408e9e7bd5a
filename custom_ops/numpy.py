"""The ops as functions on NumPy arrays, by the kernels that torch and ONNX Runtime use.

Each op of `custom_ops` is here under its name and with its arguments; bfloat16 arrays are those
of ml_dtypes.

Example:
    >>> import numpy, custom_ops
    >>> a = numpy.float32([1, 2])
    >>> print(custom_ops.numpy.mul_add(a, a, alpha=3))
    [4. 8.]
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from custom_ops import _library
from custom_ops.ops._registry import ops


def get_num_threads() -> int:
    """Returns how many threads the functions use; all cores, if not set."""
    return int(_library.core().get_num_threads())


def set_num_threads(threads: int) -> None:
    """Sets how many threads the functions use.

    Args:
        threads: At least 1 and at most 1024; fewer run where the system gives fewer.

    Raises:
        ValueError: Another number.
    """
    _library.core().set_num_threads(threads)


def compute(name: str, tensors: list[Any], attributes: list[Any]) -> list[np.ndarray[Any, Any]]:
    """Runs an op on arrays, given the arguments of its C++ side.

    Args:
        name: Name of the op.
        tensors: Its inputs, None where one is left out.
        attributes: Its attributes.

    Returns:
        Its outputs.
    """
    arrays = [None if tensor is None else _native(np.asarray(tensor)) for tensor in tensors]
    results: list[np.ndarray[Any, Any]] = _library.core().compute(name, arrays, attributes)
    return results


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    op = ops()[name]

    @functools.wraps(op.public)
    def function(*args: Any, **kwargs: Any) -> Any:
        results = compute(name, *op.split(op.arguments(*args, **kwargs)))
        return results if len(results) > 1 else results[0]

    return function


def __getattr__(name: str) -> Any:
    if name in ops():
        return _function(name)
    raise AttributeError(f"module 'custom_ops.numpy' has no op {name!r}")
