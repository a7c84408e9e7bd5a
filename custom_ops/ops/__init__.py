"""The ops, one file or folder each; importing an op registers it. New op: one import line here."""

from custom_ops.ops import deform_conv2d, mul_add

__all__ = ["deform_conv2d", "mul_add"]
