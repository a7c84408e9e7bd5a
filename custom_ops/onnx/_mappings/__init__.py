"""What ops of torch become in ONNX: mappings of users, of packages, and the pack of ours."""

from custom_ops.onnx._mappings import pack
from custom_ops.onnx._mappings.dynamo import bodies_kept
from custom_ops.onnx._mappings.refusal import MappingRefused, refused_in
from custom_ops.onnx._mappings.registry import Registration, register_mapping, remove_mapping
from custom_ops.onnx._mappings.tensor import Tensor
from custom_ops.onnx._mappings.torchscript import Installation, install_mappings
from custom_ops.onnx._mappings.traceable import Traceable

__all__ = [
    "Installation",
    "MappingRefused",
    "Registration",
    "Tensor",
    "Traceable",
    "bodies_kept",
    "install_mappings",
    "pack",
    "refused_in",
    "register_mapping",
    "remove_mapping",
]
