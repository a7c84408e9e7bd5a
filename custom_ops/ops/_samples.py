"""What an op's file says of itself to tests, benchmarks and docs: calls, cases, tolerances."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Sample:
    """One call of an op.

    Attributes:
        name: Names the case, for example "channels_last".
        args: The positional arguments of ``custom_ops.<op>``; tensors are float64.
        kwargs: The others.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[torch.Tensor], Any]) -> "Sample":
        """Returns the call with `change` applied to each tensor."""

        def apply(value: Any) -> Any:
            return change(value) if isinstance(value, torch.Tensor) else value

        kwargs = {name: apply(value) for name, value in self.kwargs.items()}
        return Sample(self.name, tuple(apply(value) for value in self.args), kwargs)


@dataclass(frozen=True)
class BadCall:
    """A call that every runtime refuses.

    Attributes:
        sample: The call.
        sentence: What each runtime says, as a regular expression.
        kind: "shape" for rules on shapes and attribute values, which hold in ONNX Runtime too;
            "dtype" for rules on element types and missing inputs, which it words itself.
    """

    sample: Sample
    sentence: str
    kind: str = "shape"


@dataclass(frozen=True)
class Benchmark:
    """A call to time.

    Attributes:
        name: Names the case on the command line; no blanks.
        make: Draws the call; tensors are float64.
        dense: Whether it is of the plain kind that networks spend their time in. Dense cases and
            the others are summed up apart.
        quick: Whether it is small enough for a first look.
    """

    name: str
    make: Callable[[torch.Generator], Sample]
    dense: bool = True
    quick: bool = False


@dataclass(frozen=True)
class Bound:
    """The least work behind a call, to measure its time by.

    Attributes:
        name: What `run` is, for example "torch.mm".
        run: Does that work.
        flops: Floating-point operations of the call.
        bytes: Bytes that the call must read and write.
    """

    name: str
    run: Callable[[], Any]
    flops: int
    bytes: int


@dataclass(frozen=True)
class Tolerance:
    """How far a result may lie from the reference, as in `torch.testing.assert_close`."""

    rtol: float
    atol: float


# Float results differ by rounding in another order; half results by their last digit.
TOLERANCES: Mapping[str, Tolerance] = {
    "float64": Tolerance(1e-7, 1e-9),
    "float32": Tolerance(1e-4, 1e-5),
    "float16": Tolerance(2e-3, 2e-3),
    "bfloat16": Tolerance(1.6e-2, 1.6e-2),
}

Samples = Callable[[torch.Generator], Iterator[Sample]]
BadCalls = Callable[[torch.Generator], Iterator[BadCall]]
