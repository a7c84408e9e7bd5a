"""From torch to a running ONNX model: export, lowering, verification, sessions."""

from custom_ops._errors import UnreadableModel
from custom_ops.onnx._doctor import Finding, Report, Severity, doctor
from custom_ops.onnx._export import export
from custom_ops.onnx._extract import Extraction, extract
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
from custom_ops.onnx._session import session
from custom_ops.onnx._targets import RELEASES, Target, target
from custom_ops.onnx._translation import translation_table
from custom_ops.onnx._verify import Verification, verify
from custom_ops.ops._symbolic import lowering

__all__ = [
    "RELEASES",
    "Extraction",
    "Finding",
    "Inspection",
    "Installation",
    "MappingRefused",
    "Registration",
    "Report",
    "Severity",
    "Tensor",
    "Target",
    "UnreadableModel",
    "Verification",
    "doctor",
    "embed",
    "export",
    "extract",
    "inspect",
    "install_mappings",
    "lower",
    "lowering",
    "register_mapping",
    "remove_mapping",
    "session",
    "target",
    "translation_table",
    "verify",
]
