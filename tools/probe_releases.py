"""Measures what releases of ONNX Runtime take: the tables of custom_ops/onnx/_targets.py.

    python tools/probe_releases.py [RELEASE ...]

prints, for each release (all in the table, if none is named), the newest opset, the newest IR
version, and the element types in which its CPU kernels compute the standard ops that ours can
become; ends with exit code 1 where the tables say otherwise.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper
from releases import CACHE, Call, Case, Outcome, environment, run_cases, version, write_cases
from samples import calls_of

from custom_ops.onnx._lowering import lower
from custom_ops.onnx._targets import RELEASES, Target, target
from custom_ops.ops._registry import ops

_OPSETS, _IR_VERSIONS = range(16, 33), range(8, 17)
_NATIVE_OPSET = 20  # every release takes it
_DTYPES = ("float32", "float64", "float16", "bfloat16")


class _Permissive(Target):
    """A release that is said to have every kernel."""

    def why_not_native(self, op_type: str, opset: int, dtype: str) -> None:
        """Returns None: try it."""


def version_case(opset: int, ir_version: int) -> Case:
    """Returns a model that is one Add, stamped with two versions."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    one = np.ones(2, np.float32)
    return Case("versions", f"{opset}, {ir_version}", model, [Call("", {"x": one}, [one + one])])


def native_cases(dtype: str) -> Iterator[Case]:
    """Yields the standard op of every call of ours that has one; the case's group is the op."""
    for op in ops().values():
        if op.onnx.native is None:
            continue
        for model, call in calls_of(op, dtype, opset=_NATIVE_OPSET):
            try:
                lowered = lower(model, "native", _Permissive("0", _NATIVE_OPSET, 9))
            except ValueError:
                continue  # the standard op has no such call
            tolerance = op.tolerances[dtype]
            yield Case(
                op.onnx.native.op_type,
                call.name,
                ir.to_proto(lowered),
                [call],
                rtol=tolerance.rtol,
                atol=tolerance.atol,
            )


@dataclass(frozen=True)
class Found:
    """What a release takes.

    Attributes:
        release: Major and minor version.
        opset: The newest opset.
        ir_version: The newest IR version.
        native: By standard op, the dtypes in which it computes every call.
        contradictions: What the tables say otherwise.
    """

    release: str
    opset: int
    ir_version: int
    native: dict[str, list[str]]
    contradictions: list[str]

    def __str__(self) -> str:
        native = ", ".join(f"{op}: {' '.join(d) or 'none'}" for op, d in self.native.items())
        lines = [f'"{self.release}": ({self.opset}, {self.ir_version}),  # {native}']
        return "\n".join([*lines, *(f"    {line}" for line in self.contradictions)])


def probe_cases() -> list[Case]:
    """Returns every model that a release is probed with."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of what is to be refused
    cases = [version_case(opset, _IR_VERSIONS[0]) for opset in _OPSETS]
    cases += [version_case(_OPSETS[0], ir_version) for ir_version in _IR_VERSIONS]
    return cases + [case for dtype in _DTYPES for case in native_cases(dtype)]


def judge(release: str, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Found:
    """Returns what the outcomes of `probe_cases` say of a release.

    Args:
        release: Major and minor version.
        cases: Those of `probe_cases`.
        outcomes: What became of them.
    """
    accepted = [o.raised is None for o in outcomes]
    opset = newest(_OPSETS, accepted[: len(_OPSETS)])
    ir_version = newest(_IR_VERSIONS, accepted[len(_OPSETS) :][: len(_IR_VERSIONS)])
    table, contradictions = target(f"onnxruntime=={release}"), []
    if (opset, ir_version) != (table.opset, table.ir_version):
        contradictions.append(f"the table has ({table.opset}, {table.ir_version})")
    first = len(_OPSETS) + len(_IR_VERSIONS)
    native: dict[str, list[str]] = {}
    for op_type in dict.fromkeys(case.group for case in cases[first:]):
        native[op_type] = []
        for dtype in _DTYPES:
            ours = [
                (case, outcome)
                for case, outcome in zip(cases[first:], outcomes[first:], strict=True)
                if case.group == op_type and case.name.endswith(f" {dtype}")
            ]
            if all(outcome.raised is None for _, outcome in ours):
                native[op_type].append(dtype)
            runs = table.why_not_native(op_type, _NATIVE_OPSET, dtype) is None
            for case, outcome in ours:
                if runs == (outcome.raised is not None):
                    said = "runs" if runs else "does not run"
                    contradictions.append(f"the table says {case.name} {said}: {outcome}")
                elif outcome.wrong:
                    contradictions.append(f"{case.name}: {outcome.wrong}")
    return Found(release, opset, ir_version, native, contradictions)


def newest(values: Sequence[int], accepted: Sequence[bool]) -> int:
    """Returns the last value before the first that is refused; 0 if all are."""
    count = next((i for i, good in enumerate(accepted) if not good), len(values))
    return values[count - 1] if count else 0


def main() -> int:
    """Probes the releases that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="*", help="as 1.20; all in the table if left out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    arguments = parser.parse_args()
    cases, good = probe_cases(), True
    with tempfile.TemporaryDirectory() as folder:
        write_cases(cases, Path(folder))
        for release in arguments.release or RELEASES:
            python = environment(release, arguments.cache)
            found = judge(release, cases, run_cases(python, Path(folder), len(cases)))
            print(f"{found}  {version(python)}", flush=True)
            good = good and not found.contradictions
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
