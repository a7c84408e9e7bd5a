"""Writes a fault as a zip that reproduces it anywhere, ready for a report to others."""

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch.utils import _pytree as pytree

from custom_ops.debug import _scramble
from custom_ops.debug._evidence import MOST, Evidence
from custom_ops.onnx import _walk
from custom_ops.onnx._model import check_new, written_beside
from custom_ops.ops._body import DOMAIN

if TYPE_CHECKING:
    from custom_ops.debug._result import Comparison, Fault

_SCRIPT = Path(__file__).with_name("reproduce.py.txt")


def write(
    comparison: "Comparison",
    path: str | os.PathLike[str],
    fault: int | str,
    *,
    scramble: bool,
    force: bool,
) -> None:
    """Writes the zip; see `Comparison.bundle`."""
    check_new("bundle", "path", path, force)
    if comparison.simulated:
        raise ValueError(
            "bundle: fault must be one that onnxruntime shows by itself, got one of a comparison "
            "in which bfloat16 was simulated; compare in float32"
        )
    found = _chosen(comparison, fault)
    if found.kind != "nodes":
        raise ValueError(
            f"bundle: fault must be of kind 'nodes', got {found.name!r} of kind {found.kind!r}, "
            "which shows in the whole model alone; report it with the model"
        )
    evidence = comparison.evidence.get(found.name)
    if evidence is None:
        raise ValueError(
            f"bundle: fault must be one of the first {MOST}, got {found.name!r}; compare with the "
            "earlier ones mended"
        )
    for name, array in {**evidence.feeds, found.name: evidence.expected}.items():
        if array.dtype.isbuiltin != 1 or array.dtype.kind == "O":
            raise ValueError(
                f"bundle: fault must be of types that NumPy writes, got {array.dtype} of {name!r}; "
                "compare in float32"
            )
    if scramble:
        evidence, found = _scramble.scrambled(evidence, found)
    with written_beside(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in _files(comparison, found, evidence).items():
            out.writestr(name, content)


def _chosen(comparison: "Comparison", fault: int | str) -> "Fault":
    for i, each in enumerate(comparison.faults):
        if fault in (i, each.name):
            return each
    names = ", ".join(each.name for each in comparison.faults) or "none"
    raise ValueError(f"bundle: fault must be one of the faults, got {fault!r}; they are {names}")


def _files(comparison: "Comparison", fault: "Fault", evidence: Evidence) -> dict[str, str | bytes]:
    facts = {
        "output": evidence.output,
        "inputs": list(evidence.feeds),
        "node": fault.node,
        "op_type": fault.op_type,
        "introduced": fault.introduced,
        "limit": fault.limit,
        "limit_by": fault.limit_by,
        "difference": fault.difference,
        "result": evidence.result,
        "versions": dict(comparison.versions),
        "custom_ops": _has_our_ops(evidence.model),
    }
    files: dict[str, str | bytes] = {
        "model.onnx": evidence.model.SerializeToString(),
        "arrays.npz": _arrays(evidence),
        "fault.json": json.dumps(_finite(facts), indent=2) + "\n",
        "reproduce.py": _SCRIPT.read_text(),
        "README.md": _readme(fault, comparison.versions),
    }
    if evidence.ops:
        ops = io.BytesIO()
        # Copies: with a view torch writes all the memory that it looks at.
        torch.save(pytree.tree_map_only(torch.Tensor, torch.clone, list(evidence.ops)), ops)
        files["torch_ops.pt"] = ops.getvalue()
    return files


def _arrays(evidence: Evidence) -> bytes:
    """Returns the arrays: inputs by their places, since names may be no names of files."""
    out = io.BytesIO()
    inputs = {f"input_{i}": array for i, array in enumerate(evidence.feeds.values())}
    np.savez_compressed(out, expected=evidence.expected, **inputs)  # type: ignore[arg-type]
    return out.getvalue()


def _readme(fault: "Fault", versions: tuple[tuple[str, str], ...]) -> str:
    how = f"\nBeside a fresh export: {fault.difference}.\n" if fault.difference else ""
    of = ", ".join(f"{name} {version}" for name, version in versions)
    return f"""# `{fault.op_type}` gives other numbers than it should

Node `{fault.node}` is off by {fault.introduced:.3g}; rounding explains {fault.limit:.3g}.
{how}
    pip install onnxruntime numpy
    python reproduce.py

It exits with 1 where the difference is there, with 0 where it is not, and with 2 where it cannot
tell, and says why. Where torch is installed, the expected numbers are computed again by the ops in
`torch_ops.pt`.

Seen with {of}.
"""


def _has_our_ops(model: onnx.ModelProto) -> bool:
    return any(n.domain == DOMAIN for scope in _walk.scopes(model) for n in scope.node)


def _finite(value: Any) -> Any:
    """Returns a value with the numbers that JSON has not as text."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
