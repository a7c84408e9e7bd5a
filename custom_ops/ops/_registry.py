"""The list of ops with everything that tools, tests and docs read of them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from custom_ops import _library
from custom_ops.ops._body import DOMAIN, Body
from custom_ops.ops._function import OpFunction
from custom_ops.ops._samples import (
    TOLERANCES,
    BadCalls,
    Benchmark,
    Bound,
    Sample,
    Samples,
    Tolerance,
)
from custom_ops.ops._symbolic import emit, register_symbolic
from custom_ops.ops._wiring import TorchOp, register_torch


@dataclass(frozen=True)
class Native:
    """The standard ONNX op that has the inputs and attributes of ours.

    Attributes:
        op_type: Its name.
        attributes: From the shapes of the inputs (None where one is left out, and for a size
            that is not known) gives the attributes that the standard op wants in full, or a
            sentence that says why it cannot serve.
    """

    op_type: str
    attributes: Callable[[list[list[int | None] | None]], dict[str, Any] | str]


@dataclass(frozen=True)
class ForeignNode:
    """A node that another producer writes for what our op computes.

    Attributes:
        domain: Its domain; "" for the standard op.
        op_type: Its name.
        inputs: Names of our inputs, in the order in which it takes them; the last ones may be
            left out.
        attributes: From its attributes by name gives those of our node by name, or a sentence
            that says why our op cannot serve.
    """

    domain: str
    op_type: str
    inputs: tuple[str, ...]
    attributes: Callable[[dict[str, Any]], dict[str, Any] | str]


@dataclass(frozen=True)
class OnnxOp:
    """What an op is in ONNX.

    Attributes:
        body: Its decomposition into standard ops.
        native: The standard op of the same meaning, if there is one.
        foreign: torch ops of other libraries that mean the same, by qualified name, with the
            function that maps their arguments to those of the C++ op.
        nodes: Nodes in files of other producers that mean the same.
        why_not: From the attributes of a node by name and the shapes of its inputs (as for
            `Native`) gives a sentence that says why the op would refuse it, None if it would
            not as far as the shapes tell.
    """

    body: Body
    native: Native | None = None
    foreign: dict[str, Callable[..., tuple[Any, ...]]] = field(default_factory=dict)
    nodes: tuple[ForeignNode, ...] = ()
    why_not: Callable[[dict[str, Any], list[list[int | None] | None]], str | None] | None = None


@dataclass(frozen=True)
class Op:
    """An op of the kit.

    Attributes:
        torch: What torch is told.
        onnx: What it is in ONNX.
        public: The function ``custom_ops.<op>``.
        arguments: Maps the arguments of `public` to those of the C++ op: first the tensors, then
            the attributes.
        reference: The op in NumPy and float64, with the arguments of `public`.
        samples: Calls that cover the op.
        random_sample: A call whose sizes come from a source of randomness.
        is_smooth_at: Whether the op has derivatives at a call; None: everywhere.
        bad_calls: Calls that every runtime refuses, one for each rule.
        benchmarks: Calls of the sizes that users have, to time.
        bound: The least work behind a call of `public`.
        peers: What a user would pick instead, by name, as functions with the arguments of
            `public`; those that are not installed are left out.
        composition: The same in torch's own ops, with the arguments of `public`.
        constants: The inputs that are weights of a network, which an exported file holds.
        differentiable_twice: Whether second derivatives are defined.
        tolerances: By dtype, how far the kernels may lie from the reference.
    """

    torch: TorchOp
    onnx: OnnxOp
    public: Callable[..., Tensor]
    arguments: Callable[..., tuple[Any, ...]]
    reference: Callable[..., Any]
    samples: Samples
    random_sample: Callable[[random.Random], Sample]
    bad_calls: BadCalls
    benchmarks: Sequence[Benchmark]
    bound: Callable[..., Bound] | None = None
    peers: Callable[[], dict[str, Callable[..., Tensor]]] = dict
    composition: Callable[..., Tensor] | None = None
    constants: tuple[str, ...] = ()
    is_smooth_at: Callable[[Sample], bool] | None = None
    differentiable_twice: bool = False
    tolerances: dict[str, Tolerance] = field(default_factory=lambda: dict(TOLERANCES))

    @property
    def name(self) -> str:
        """Its name in torch and Python, for example "mul_add"."""
        return self.torch.name

    @property
    def function(self) -> type[OpFunction]:
        """Its `torch.autograd.Function`."""
        return self.torch.function

    @property
    def spec(self) -> Any:
        """Its inputs, outputs and attributes, as the C++ states them."""
        return _library.specs()[self.name]

    def split(self, arguments: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        """Splits the arguments of the C++ op into tensors and attributes."""
        count = len(self.spec.inputs)
        return list(arguments[:count]), list(arguments[count:])


_OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Adds an op to the registry and tells torch and its TorchScript exporter of it."""
    register_torch(op.torch)

    def symbolic(g: Any, *args: Any) -> Any:
        return emit(g, op.spec, op.onnx.body, args)

    op.function.symbolic = staticmethod(symbolic)  # type: ignore[attr-defined]
    for name, mapping in {f"{DOMAIN}::{op.name}": None, **op.onnx.foreign}.items():
        register_symbolic(name, op, mapping)
    _OPS[op.name] = op
    return op


def ops() -> dict[str, Op]:
    """Returns the registered ops by name."""
    return dict(_OPS)


def by_onnx_name(name: str) -> Op | None:
    """Returns the op whose ONNX node is called `name` in the domain custom_ops."""
    return next((op for op in _OPS.values() if op.spec.onnx_name == name), None)
