"""From torch to a running ONNX model: export, lowering, verification, sessions."""

from custom_ops._errors import ExportFailed, UnreadableModel
from custom_ops.onnx._doctor import (
    Conversion,
    Finding,
    Report,
    Severity,
    Trial,
    convertible,
    doctor,
)
from custom_ops.onnx._export import export
from custom_ops.onnx._extract import Extraction, extract
from custom_ops.onnx._fix import Change, Fixed, fix, set_ir_version
from custom_ops.onnx._inspect import Inspection, inspect
from custom_ops.onnx._lowering import embed, lower
from custom_ops.onnx._mappings import (
    Installation,
    MappingRefused,
    Registration,
    Tensor,
    install_mappings,
    register_mapping,
    remove_mapping,
)
from custom_ops.onnx._proof import Proof, Verdict
from custom_ops.onnx._replace import Replacement, Rule, replace, same_shape, scalar
from custom_ops.onnx._session import session
from custom_ops.onnx._targets import RELEASES, Target, target
from custom_ops.onnx._translation import translation_table
from custom_ops.onnx._verify import Verification, verify
from custom_ops.ops._symbolic import lowering

__all__ = [
    "RELEASES",
    "Extraction",
    "Change",
    "Conversion",
    "ExportFailed",
    "Finding",
    "Inspection",
    "Installation",
    "MappingRefused",
    "Registration",
    "Fixed",
    "Proof",
    "Replacement",
    "Report",
    "Rule",
    "Severity",
    "Tensor",
    "Target",
    "Trial",
    "UnreadableModel",
    "Verdict",
    "Verification",
    "convertible",
    "doctor",
    "embed",
    "export",
    "extract",
    "inspect",
    "install_mappings",
    "fix",
    "lower",
    "lowering",
    "register_mapping",
    "remove_mapping",
    "replace",
    "same_shape",
    "scalar",
    "session",
    "set_ir_version",
    "target",
    "translation_table",
    "verify",
]
