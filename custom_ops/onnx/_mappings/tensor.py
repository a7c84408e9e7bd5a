"""What a mapping computes with: tensors of the graph under construction."""

from typing import Any, TypeAlias

import onnx_ir as ir

Number: TypeAlias = bool | int | float


class Tensor:
    """A tensor of the graph that is being written.

    Args:
        value: The value of the graph; None of a constant that has no dtype yet.
        number: The number or list of such a constant: it takes the dtype of what it meets.
        is_complex: Whether torch has complex numbers there, which are pairs here.
    """

    def __init__(
        self, value: ir.Value | None, number: Any = None, is_complex: bool = False
    ) -> None:
        self.value = value
        self.number = number
        self.is_complex = is_complex

    @property
    def dtype(self) -> ir.DataType | None:
        """The element type; None where it is not known."""
        return self.value.dtype if self.value is not None else None

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        """The sizes, None for each that is not fixed; None where not even the rank is known."""
        if self.value is None or self.value.shape is None:
            return None
        return tuple(dim if isinstance(dim, int) else None for dim in self.value.shape)

    @property
    def rank(self) -> int | None:
        """The number of dimensions, where it is known."""
        return None if self.shape is None else len(self.shape)

    def __repr__(self) -> str:
        if self.value is None:
            return f"Tensor({self.number!r})"
        return f"Tensor(dtype={self.dtype}, shape={self.shape})"


def is_floating(dtype: ir.DataType | None) -> bool:
    """Returns whether an element type is a real floating-point type that ops compute in."""
    return dtype in (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
    )


def dtype_name(dtype: ir.DataType) -> str:
    """Returns an element type as ONNX's schemas write it inside ``tensor()``."""
    return {"FLOAT": "float", "DOUBLE": "double"}.get(dtype.name, dtype.name.lower())
