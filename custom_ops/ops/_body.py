"""The decomposition of an op into standard ONNX ops: one onnxscript function for each opset."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

DOMAIN = "custom_ops"
VERSION = 1


_Function = TypeVar("_Function", bound=Callable[..., Any])


def one_output(function: _Function) -> _Function:
    """Tells onnxscript that a function has one output.

    Without a return annotation a call of the function has no result. An annotation in the source
    is worse: onnxscript takes its dtype and rank (``FLOAT`` is a scalar) for the result's, and
    the dynamo exporter then writes a model that does not pass the checker.
    """
    from onnxscript import FLOAT

    function.__annotations__["return"] = FLOAT
    return function


@dataclass(frozen=True)
class Body:
    """How to build the body of an op.

    Attributes:
        build: ``build(op, compute)`` gives the onnxscript function, where `op` is the opset of
            onnxscript to write it in and `compute` the ONNX element type to compute in, None for
            that of the inputs.
        min_opset: The oldest opset that it can be written in.
        float64_min_opset: The same for float64 inputs.
    """

    build: Callable[[Any, int | None], Any]
    min_opset: int
    float64_min_opset: int

    def minimum(self, dtype: str) -> int:
        """Returns the oldest opset for inputs of `dtype`."""
        return self.float64_min_opset if dtype == "float64" else self.min_opset

    def check_opset(self, op: str, opset: int, dtype: str) -> None:
        """Raises a ValueError where the body of `op` cannot be written for inputs of `dtype`."""
        needed = self.minimum(dtype)
        if opset < needed:
            raise ValueError(
                f"{op}: opset_version must be at least {needed} for its body in {dtype}, got "
                f"{opset}; export with opset_version={needed}, or with the lowering 'custom'"
            )

    def function(self, opset: int, dtypes: frozenset[str]) -> Any:
        """Returns the onnxscript function for nodes of these dtypes in a model of this opset.

        Half types compute in float32, as the kernels do; float32 and float64 in their own type.
        A model with both half and float64 nodes computes all of them in float64.
        """
        import onnx

        half = bool(dtypes & {"float16", "bfloat16"})
        wide = onnx.TensorProto.DOUBLE if "float64" in dtypes else onnx.TensorProto.FLOAT
        return _build(self, opset, int(wide) if half else None)


@cache
def _build(body: Body, opset: int, compute: int | None) -> Any:
    import onnxscript

    newest = getattr(onnxscript, f"opset{opset}", None)
    return body.build(newest or onnxscript.values.Opset("", opset), compute)
