"""Kernels that are there and do not do what their op asks for, by release.

Found by `python tools/fix_matrix.py --node-models`, which runs onnx's models of one node in each
release; where a fault begins and ends was tried in all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from custom_ops.onnx import _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.inference import Shape
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.sized import sized
from custom_ops.onnx._doctor.subject import Subject


@dataclass(frozen=True)
class _Call:
    """A node, the opset, and its first input's shape where it is known."""

    node: onnx.NodeProto
    opset: int
    shape: Shape | None

    def get(self, name: str, kind: int) -> Any:
        """Returns the value of an attribute of a kind; None where there is none."""
        for each in self.node.attribute:
            if each.name == name and each.type == kind and not each.ref_attr_name:
                return onnx.helper.get_attribute_value(each)
        return None

    def number(self, name: str) -> int:
        """Returns a number; 0 where it is not given."""
        return int(self.get(name, onnx.AttributeProto.INT) or 0)

    def numbers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """Returns a list of numbers."""
        return list(self.get(name, onnx.AttributeProto.INTS) or default)


@dataclass(frozen=True)
class _Fault:
    """What is wrong with the kernel that a call gets.

    Attributes:
        right: The first release that is right.
        what: What the older ones do not do well.
        consequence: What they do.
        surely: Whether they do so whatever the sizes and numbers are.
    """

    right: str
    what: str
    consequence: str
    surely: bool = True


def faulty_kernel(subject: Subject) -> Iterator[Finding]:
    """No kernel of the target is known to do something else than its op asks for."""
    nodes = [each for each in subject.nodes() if each.node.op_type in _LOOKS]
    shapes = _shapes(subject) if nodes else {}
    for located in nodes:
        opset = subject.opset("", located.function)
        if opset is None or _walk.domain(located.node.domain) or not subject.runs(located.function):
            continue
        look = _LOOKS[located.node.op_type]
        calls = [_Call(located.node, opset, each) for each in shapes.get(id(located.node), [None])]
        faults = [fault for fault in map(look, calls) if fault is not None]
        if not faults:
            continue
        fault = max(faults, key=lambda each: each.surely)
        severity, remedy = Severity.NOTE, "mind that if an older release is to run the model too"
        if not subject.target.at_least(fault.right):
            severity = Severity.ERROR if fault.surely else Severity.WARNING
            remedy = f"deploy onnxruntime {fault.right} or later, or write it in other ops"
        yield Finding(
            severity,
            "faulty-kernel",
            located.name,
            f"{located.node.op_type} must have no {fault.what} for onnxruntime before "
            f"{fault.right}, which {fault.consequence}",
            remedy,
        )


def _shapes(subject: Subject) -> dict[int, list[Shape | None]]:
    """Returns the shapes of the first inputs of nodes, of one in a function for each call."""
    found: dict[int, list[Shape | None]] = {}
    for each in sized(subject):
        if each.node.op_type in _LOOKS and each.node.input:
            shape = each.shapes.get(each.node.input[0])
            found.setdefault(id(each.located.node), []).append(shape)
    return found


def _average_pool(call: _Call) -> _Fault | None:
    """With ceil_mode the last window may end behind the padding, whose places do not count."""
    kernel = call.numbers("kernel_shape")
    if not call.number("ceil_mode") or not call.number("count_include_pad") or not kernel:
        return None
    if call.get("auto_pad", onnx.AttributeProto.STRING) in (b"SAME_UPPER", b"SAME_LOWER"):
        return None  # the padding is as large as the windows need it
    axes = len(kernel)
    strides, dilations = (call.numbers(name, [1] * axes) for name in ("strides", "dilations"))
    pads = call.numbers("pads", [0] * 2 * axes)
    if not axes == len(strides) == len(dilations) == len(pads) / 2 or min(strides) < 1:
        return None  # it is malformed
    shape = call.shape or []
    sizes = shape[2:] if len(shape) == axes + 2 else ["?"] * axes
    ends: list[bool | None] = []  # whether one does, along each axis
    for axis, size in enumerate(sizes):
        padded = pads[axis] + pads[axis + axes] - (kernel[axis] - 1) * dilations[axis] - 1
        if isinstance(size, int):
            ends.append((size + padded) % strides[axis] != 0)
        elif strides[axis] > 1:
            ends.append(None)  # not known
    if not any(end is not False for end in ends):
        return None
    return _Fault(
        "1.21" if call.opset >= 19 else "1.29",  # they are two kernels
        "ceil_mode with count_include_pad where a window ends behind the padding",
        "divides the sum of that window by too much",
        surely=True in ends,
    )


def _dft(call: _Call) -> _Fault | None:
    if not call.number("inverse") or not call.number("onesided"):
        return None
    return _Fault("1.27", "inverse with onesided", "refuses it, or gives complex numbers")


def _attention(call: _Call) -> _Fault | None:
    counts = len(call.node.input) > 6 and call.node.input[6]
    if not call.number("is_causal") or not counts:
        return None
    what = "is_causal with nonpad_kv_seqlen"
    return _Fault("1.28", what, "lets queries see other keys", surely=False)


def _rotary_embedding(call: _Call) -> _Fault | None:
    if not call.number("rotary_embedding_dim") or call.number("num_heads"):
        return None
    return _Fault("1.24", "rotary_embedding_dim without num_heads", "refuses it")


_LOOKS: Mapping[str, Callable[[_Call], _Fault | None]] = {
    "Attention": _attention,
    "AveragePool": _average_pool,
    "DFT": _dft,
    "RotaryEmbedding": _rotary_embedding,
}

RULES: tuple[Rule, ...] = (faulty_kernel,)
