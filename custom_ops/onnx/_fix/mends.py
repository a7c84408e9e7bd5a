"""What mends a finding of the doctor, by the finding's code."""

from collections.abc import Callable, Mapping

import onnx

from custom_ops.onnx._fix import ir_version, opset
from custom_ops.onnx._targets import Target

# Changes the model in place and returns what was done; raises ValueError where it is not safe.
Mend = Callable[[onnx.ModelProto, Target], list[str]]


def _ir_version(model: onnx.ModelProto, target: Target) -> list[str]:
    wanted = min(max(model.ir_version, ir_version.LOWEST), target.ir_version)
    return list(filter(None, [ir_version.set_version(model, wanted)]))


def _opset(model: onnx.ModelProto, target: Target) -> list[str]:
    return opset.set_opset(model, target.opset)


MENDS: Mapping[str, Mend] = {
    "ir-version": _ir_version,
    "opset": _opset,
}
