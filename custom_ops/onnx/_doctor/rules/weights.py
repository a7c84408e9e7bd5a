"""Weights: finite numbers, each large one once. They are read piece by piece."""

import hashlib
from collections.abc import Iterator

import numpy as np
import onnx

from custom_ops.onnx import _external
from custom_ops.onnx._doctor import data
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules import values
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Located, Subject

_LARGE = 1_000_000  # bytes of a constant that should be there once
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)


def non_finite_weight(subject: Subject) -> Iterator[Finding]:
    """The weights of Conv, ConvTranspose, Gemm and MatMul have no NaN and no infinity."""
    seen: set[int] = set()
    for frame in subject.frames:
        for node in frame.scope.node:
            if node.op_type not in _WEIGHTED or node.domain not in ("", "ai.onnx"):
                continue
            for name in node.input:
                tensor = frame.constant(name) if name else None
                if tensor is None or id(tensor) in seen or tensor.data_type not in _FLOATS:
                    continue
                seen.add(id(tensor))
                bad = sum(int((~np.isfinite(p)).sum()) for p in data.pieces(subject, tensor))
                if bad:
                    yield Finding(
                        Severity.NOTE,
                        "non-finite-weight",
                        Located(node, frame.scope, frame.function).name,
                        f"weight {name!r} of {node.op_type} must be finite, got {bad:,} NaN or "
                        "infinite numbers",
                        "look at the training, or at the conversion to a smaller type",
                    )


def repeated_constant(subject: Subject) -> Iterator[Finding]:
    """No constant of over 1 MB is there several times."""
    groups: dict[tuple[object, ...], list[onnx.TensorProto]] = {}
    places: set[tuple[str, int]] = set()
    for frame in subject.frames:
        for tensor in frame.constants.values():
            if data.size(tensor) <= _LARGE:
                continue
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entry = _external.entry(tensor)
                if (entry.location, entry.offset) in places:
                    continue  # which share the data in the file
                places.add((entry.location, entry.offset))
            groups.setdefault((tensor.data_type, *tensor.dims), []).append(tensor)
    for alike in groups.values():
        same: dict[bytes, list[str]] = {}
        for tensor in alike if len(alike) > 1 else ():
            digest = hashlib.blake2b()
            for piece in data.pieces(subject, tensor):
                digest.update(piece.view(np.uint8).data)
            if digest.digest() != hashlib.blake2b().digest():
                same.setdefault(digest.digest(), []).append(tensor.name)
        for names in same.values():
            if len(names) > 1:
                wasted = data.size(alike[0]) * (len(names) - 1) / 1e6
                yield Finding(
                    Severity.NOTE,
                    "repeated-constant",
                    names[0],
                    f"a large constant must be there once, got it {len(names)} times "
                    f"({values.shown(names)}), {wasted:,.1f} MB too much",
                    "use one of them in all places",
                )


RULES: tuple[Rule, ...] = (non_finite_weight, repeated_constant)
