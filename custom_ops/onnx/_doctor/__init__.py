"""Says of a model what a release of ONNX Runtime will refuse, and what to do about it."""

from custom_ops.onnx._doctor.conversion import Conversion, Trial, convertible
from custom_ops.onnx._doctor.doctor import doctor
from custom_ops.onnx._doctor.findings import Finding, Report, Severity

__all__ = ["Conversion", "Finding", "Report", "Severity", "Trial", "convertible", "doctor"]
