"""Mends models for releases of ONNX Runtime, and runs each in the release it was mended for.

    python tools/fix_matrix.py [RELEASE ...] [--cache FOLDER] [--only NAME] [--node-models]

The models are those of tests/doctor_models.py, with each fault and without it, as they are and
raised to the newest opset and IR version of the newest release; and, with --node-models, onnx's own
models of one node, raised so too. Where `fix` says that nothing is left that the release refuses,
the release must run the file and compute what is expected; where `fix` refuses, it must say so in
one sentence. Ends with exit code 1 where that is not so. The releases are 1.17, 1.20, 1.23 and
1.27, if none is named.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from doctor_models import FAULTS, inference_in_this_process
from packaging.version import Version
from releases import CACHE, Outcome, environment, run_cases, version

import custom_ops.onnx
from custom_ops.onnx._fix import opset

RELEASES = ("1.17", "1.20", "1.23", "1.27")
_SHOWN = 400  # characters of a line


@dataclass(frozen=True)
class Model:
    """A model to mend.

    Attributes:
        name: For messages.
        file: Where it lies.
        feeds: Its inputs.
        expected: Its outputs, where all are compared.
        libraries: What sessions register.
        oldest: The first release that runs the sound model.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    name: str
    file: Path
    feeds: dict[str, Any]
    expected: list[Any]
    libraries: list[Path] = field(default_factory=list)
    oldest: str = "1.17"
    rtol: float = 1e-5
    atol: float = 1e-6


def _raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Returns a model at the newest opset and IR version; None if it cannot be raised."""
    newest = custom_ops.onnx.target(f"onnxruntime=={list(custom_ops.onnx.RELEASES)[-1]}")
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    try:
        opset.set_opset(raised, newest.opset)
    except ValueError:
        return None
    raised.ir_version = newest.ir_version
    return raised


def broken_models(folder: Path, only: str) -> Iterator[Model]:
    """Yields the models of the doctor's faults, each in a folder of its own with what it needs."""
    for number, fault in enumerate(FAULTS):
        name = f"{fault.code}, {fault.name}"
        if fault.hangs or only not in name:
            continue
        for kind, make in (("faulty", fault.faulty), ("sound", fault.sound)):
            place = folder / f"{number}-{kind}"
            place.mkdir()
            model = make(place)
            libraries = [place / library for library in fault.libraries]
            for which, each in (("", model), (", raised", _raised(model))):
                if each is not None:
                    file = place / f"model{which[2:]}.onnx"
                    file.write_bytes(each.SerializeToString())
                    called, rest = f"{name}, {kind}{which}", (libraries, fault.oldest)
                    yield Model(called, file, fault.feeds, [fault.expected], *rest)


def node_models(folder: Path, only: str) -> Iterator[Model]:
    """Yields onnx's node models of numbers, with what the installed onnxruntime makes of them."""
    from onnx.backend.test.case.node import collect_testcases

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the references, which divide by zero
        cases = collect_testcases(None)
    for case in cases:
        if case.model is None or only not in case.name or not case.data_sets:
            continue
        raised = _raised(case.model)
        if raised is None:
            continue
        names = [value.name for value in raised.graph.input]
        feeds = dict(zip(names, case.data_sets[0][0], strict=True))
        content = raised.SerializeToString()
        try:
            expected = onnxruntime.InferenceSession(content, options).run(None, feeds)
        except Exception:  # of any kind: there is nothing to compare with
            continue
        values = [*feeds.values(), *expected]
        if all(isinstance(each, np.ndarray) and each.dtype.kind in "fiub" for each in values):
            file = folder / f"{case.name}.onnx"
            file.write_bytes(content)
            rtol = 1e-2 if any(each.dtype == np.float16 for each in expected) else 1e-4
            yield Model(case.name, file, feeds, expected, rtol=rtol, atol=rtol / 10)


@dataclass(frozen=True)
class Mended:
    """What `fix` made of a model.

    Attributes:
        model: The model.
        file: The mended one, or None.
        refusal: Why there is none.
        left: Codes of the errors that are left.
        changes: What was done.
    """

    model: Model
    file: Path | None
    refusal: str = ""
    left: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def mended(model: Model, release: str) -> Mended:
    """Mends a model for a release, into a file beside it."""
    output = model.file.with_name(f"{model.file.stem} for {release}.onnx")
    target = f"onnxruntime=={release}"
    try:
        # What runs in the installed release is not the question here.
        fixed = custom_ops.onnx.fix(
            model.file, output, target=target, libraries=model.libraries, verify=False
        )
    except ValueError as refusal:
        return Mended(model, None, str(refusal))
    left = tuple(each.code for each in fixed.left if each.severity == "error")
    return Mended(model, output, "", left, tuple(map(str, fixed.changes)))


def run(models: Sequence[Mended], folder: Path, python: Path) -> list[Outcome]:
    """Returns what a release makes of mended models."""
    entries = []
    for number, each in enumerate(models):
        assert each.file is not None
        arrays = {f"in_{name}": array for name, array in each.model.feeds.items()}
        arrays |= {f"out_{i}": array for i, array in enumerate(each.model.expected)}
        np.savez(folder / f"{number}.npz", **arrays)
        call = {"name": "", "arrays": f"{number}.npz", "outputs": len(each.model.expected)}
        entry = {"model": str(each.file), "calls": [call], "library": False}
        entry["libraries"] = [str(library) for library in each.model.libraries]
        entries.append({**entry, "rtol": each.model.rtol, "atol": each.model.atol})
    (folder / "cases.json").write_text(json.dumps(entries))
    return run_cases(python, folder, len(entries))


def examine(models: Sequence[Model], release: str, python: Path) -> int:
    """Mends models for a release, runs them there, and prints what is wrong; returns how much."""
    counts, bad = Counter[str](), 0
    taken = []
    for model in models:
        if Version(release) < Version(model.oldest):
            continue
        with inference_in_this_process():
            found = mended(model, release)
        if found.file is None:
            counts["refused by fix"] += 1
            if "\n" in found.refusal or not found.refusal.startswith("fix: "):
                bad += 1
                print(f"  {model.name}: fix says {found.refusal!r}"[:_SHOWN], flush=True)
        elif found.left:
            counts["with errors left"] += 1
        else:
            counts["changed" if found.changes else "left as they are"] += 1
            taken.append(found)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(taken, Path(folder), python)
    for found, outcome in zip(taken, outcomes, strict=True):
        fault = outcome.raised or outcome.wrong
        if fault:
            bad += 1
            done = f" (fix: {'; '.join(found.changes) or 'nothing'})"
            print(f"  {found.model.name}: {fault}{done}"[:_SHOWN], flush=True)
    listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{release} ({version(python)}): {listed}; {bad} wrong", flush=True)
    return bad


def main() -> int:
    """Mends for the releases that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="*", default=RELEASES, help="as 1.20")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--node-models", action="store_true", help="onnx's models of one node")
    arguments = parser.parse_args()
    make = node_models if arguments.node_models else broken_models
    with tempfile.TemporaryDirectory() as folder:
        models = list(make(Path(folder), arguments.only))
        bad = sum(
            examine(models, release, environment(release, arguments.cache))
            for release in arguments.release
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
