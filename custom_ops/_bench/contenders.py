"""Who computes a call: our op in each runtime, and what a user would pick instead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import torch

import custom_ops.onnx
from custom_ops._bench.sessions import session_run
from custom_ops._bench.timing import Run
from custom_ops.onnx._lowering import lower
from custom_ops.onnx._single_node import OPSET, single_node
from custom_ops.onnx._targets import target
from custom_ops.ops._registry import Op
from custom_ops.ops._samples import Sample

TORCH, ONNXRUNTIME = "torch", "onnxruntime"
# Ours: the kernel in a runtime, and the slower ways that the same op can take there.
KERNEL, VARIANT, PEER = "kernel", "variant", "peer"
OURS = "ours in torch"


@dataclass(frozen=True)
class Contender:
    """One way to compute a call.

    Attributes:
        name: What it is called in tables and files.
        runtime: "torch" or "onnxruntime".
        kind: "kernel" (ours), "variant" (our op without its kernel) or "peer".
        prepare: Makes all that a user makes once, and returns the function to time. It raises
            where the call cannot be computed so.
    """

    name: str
    runtime: str
    kind: str
    prepare: Callable[[], Run]


def forward(
    op: Op, call: Sample, threads: int, python: bool = False, apart: bool = True
) -> list[Contender]:
    """Returns who computes a call.

    Args:
        op: The op.
        call: The call, in the dtype to time.
        threads: Of each session; those of torch are torch's own.
        python: Whether our Python kernels join, which are slow.
        apart: Whether sessions run in a process of their own.
    """

    def in_torch(name: str, kind: str, function: Callable[..., Any]) -> Contender:
        return Contender(name, TORCH, kind, lambda: lambda: function(*call.args, **call.kwargs))

    def in_onnxruntime(
        name: str,
        kind: str,
        kernels: str,
        change: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model,
    ) -> Contender:
        def prepare() -> Run:
            arguments = op.arguments(*call.args, **call.kwargs)
            model, feeds = single_node(op, arguments, constant=op.constants)
            return session_run(change(model), feeds, kernels, threads, apart)

        return Contender(name, ONNXRUNTIME, kind, prepare)

    found = [
        in_torch(OURS, KERNEL, op.public),
        in_onnxruntime("ours in ONNX Runtime", KERNEL, "native"),
        *(in_torch(name, PEER, peer) for name, peer in op.peers().items()),
    ]
    native = op.onnx.native
    if native is not None:

        def as_standard(model: onnx.ModelProto) -> onnx.ModelProto:
            dtype = str(_floats(call)[0].dtype).removeprefix("torch.")
            reason = target().why_not_native(native.op_type, OPSET, dtype)
            if reason is not None:
                raise ValueError(reason)
            return ir.to_proto(lower(model, "native"))

        name = f"{native.op_type} of ONNX Runtime"
        found.append(in_onnxruntime(name, PEER, "none", as_standard))
    if op.composition is not None:
        found.append(in_torch("torch ops", PEER, op.composition))
    found.append(in_onnxruntime("our body", VARIANT, "none", custom_ops.onnx.embed))
    if python:
        found.append(in_onnxruntime("our Python kernels", VARIANT, "python"))
    return found


def backward(op: Op, call: Sample) -> list[Contender]:
    """Returns who computes a call and the gradients of all its tensors.

    The composition is not among them: its positions are rounded otherwise, so its slopes differ
    at whole numbers.
    """

    def differentiated(name: str, kind: str, function: Callable[..., Any]) -> Contender:
        def prepare() -> Run:
            own = call.map(lambda t: t.detach().requires_grad_(t.is_floating_point()))
            leaves = _floats(own)
            outputs = _differentiable(function(*own.args, **own.kwargs))
            generator = torch.Generator().manual_seed(1)
            grads = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in outputs]

            def run() -> tuple[torch.Tensor, ...]:
                outputs = _differentiable(function(*own.args, **own.kwargs))
                return (*outputs, *torch.autograd.grad(outputs, leaves, grads))

            return run

        return Contender(name, TORCH, kind, prepare)

    return [
        differentiated(OURS, KERNEL, op.public),
        *(differentiated(name, PEER, peer) for name, peer in op.peers().items()),
    ]


def _floats(call: Sample) -> list[torch.Tensor]:
    given = (*call.args, *call.kwargs.values())
    return [t for t in given if isinstance(t, torch.Tensor) and t.is_floating_point()]


def _differentiable(result: Any) -> list[torch.Tensor]:
    outputs = result if isinstance(result, (tuple, list)) else [result]
    return [output for output in outputs if output.requires_grad]
