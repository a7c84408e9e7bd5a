"""Compares what the doctor says of broken models with what releases of ONNX Runtime do to them.

    python tools/doctor_matrix.py [RELEASE ...] [--cache FOLDER] [--only CODE]
    python tools/doctor_matrix.py [RELEASE ...] [--cache FOLDER] --torchvision FOLDER

Each release (1.17, 1.20, 1.23, 1.27 and 1.32, if none is named) opens and runs the models of
tests/doctor_models.py, with each fault and without it. An error of the doctor must be a model that
is refused or computes other numbers, and a model that is must be an error; without its fault a
model must run, and have none. A fault that makes a session hang is not tried, and what lies outside
the folder of a model is an error whatever a release does. --torchvision takes a model of each
family of torchvision instead, by each exporter, as torchvision_models.py puts them into a folder,
and asks for false alarms alone. Ends with exit code 1 where they disagree.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from doctor_models import FAULTS, Fault, Maker, inference_in_this_process
from packaging.version import Version
from releases import CACHE, Outcome, environment, load, run_cases, version
from torchvision_models import exported

import custom_ops.onnx

RELEASES = ("1.17", "1.20", "1.23", "1.27", "1.32")


@dataclass(frozen=True)
class Trial:
    """A model that was tried.

    Attributes:
        fault: Its fault.
        faulty: Whether it has it.
        file: The model.
        outcome: What became of it in the release.
    """

    fault: Fault
    faulty: bool
    file: Path
    outcome: Outcome

    @property
    def fails(self) -> bool:
        """Whether the release refuses it, or computes other numbers."""
        return self.outcome.raised is not None or bool(self.outcome.wrong)


def write(faults: Sequence[Fault], folder: Path) -> list[tuple[Fault, bool, Path]]:
    """Writes the models, each into a folder of its own with what it needs, and the cases."""
    written, entries = [], []
    for number, fault in enumerate(faults):
        makers: list[tuple[bool, Maker]] = [(True, fault.faulty), (False, fault.sound)]
        for faulty, make in makers:
            name = f"{number}{'-faulty' * faulty}"
            (folder / name).mkdir()
            file = folder / name / "model.onnx"
            file.write_bytes(make(folder / name).SerializeToString())
            arrays = {f"in_{name}": array for name, array in fault.feeds.items()}
            np.savez(folder / name / "arrays.npz", **arrays, out_0=fault.expected)
            call = {"name": "", "arrays": f"{name}/arrays.npz", "outputs": 1}
            entry = {"model": f"{name}/model.onnx", "calls": [call], "library": False}
            entry["libraries"] = [str(file.parent / library) for library in fault.libraries]
            entries.append({**entry, "rtol": 1e-5, "atol": 1e-6})
            written.append((fault, faulty, file))
    (folder / "cases.json").write_text(json.dumps(entries))
    return written


def trials(faults: Sequence[Fault], python: Path) -> Iterator[Trial]:
    """Yields what becomes of each model in the release of a Python."""
    with tempfile.TemporaryDirectory() as folder:
        written = write(faults, Path(folder))
        outcomes = run_cases(python, Path(folder), len(written))
        for (fault, faulty, file), outcome in zip(written, outcomes, strict=True):
            yield Trial(fault, faulty, file, outcome)


def disagreement(trial: Trial, release: str) -> str:
    """Returns how the doctor and the release disagree; "" where they agree."""
    with inference_in_this_process():
        libraries = [trial.file.parent / library for library in trial.fault.libraries]
        report = custom_ops.onnx.doctor(trial.file, f"onnxruntime=={release}", libraries)
    said = trial.outcome.raised or trial.outcome.wrong or "runs"
    codes = [finding.code for finding in report.findings]
    if report.ok == trial.fails and not (trial.faulty and trial.fault.unsafe):
        return f"the doctor says {'no error' if report.ok else codes}, {release} says: {said}"
    if trial.faulty != (trial.fault.code in codes):
        return f"the doctor finds {codes or 'nothing'}"
    if not trial.faulty and trial.fails:
        return f"without the fault, {release} says: {said}"
    return ""


def on_torchvision(releases: Sequence[str], cache: Path, folder: Path) -> int:
    """Prints what the doctor finds in models of torchvision, and returns how many false alarms.

    Only what the doctor has errors for is loaded.
    """
    bad = 0
    for family, exporter, path in exported(folder):
        if not path.exists():
            print(f"{family} by {exporter}: {path.with_name('refused').read_text()}", flush=True)
            continue
        for release in releases:
            with inference_in_this_process():
                report = custom_ops.onnx.doctor(path, f"onnxruntime=={release}")
            codes = sorted({f"{each.severity} {each.code}" for each in report.findings})
            runs = report or load(environment(release, cache), [path]) == [None]
            alarm = runs and not report
            bad += alarm
            said = f"{'false alarm: ' * alarm}{', '.join(codes) or 'nothing'}"
            print(f"{family} by {exporter} on {release}: {said}", flush=True)
    return bad


def main() -> int:
    """Compares in the releases that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="*", help="as 1.20; the five of the matrix if left out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    parser.add_argument("--only", help="the faults of one code")
    parser.add_argument("--torchvision", type=Path, help="a folder for its models")
    arguments = parser.parse_args()
    if arguments.torchvision is not None:
        releases = arguments.release or RELEASES
        bad = on_torchvision(releases, arguments.cache, arguments.torchvision)
        print(f"{bad} false alarms")
        return 1 if bad else 0
    bad = 0
    for release in arguments.release or RELEASES:
        faults = [
            fault
            for fault in FAULTS
            if Version(release) >= Version(fault.oldest)
            and arguments.only in (None, fault.code)
            and not fault.hangs
        ]
        python = environment(release, arguments.cache)
        refused = 0
        for trial in trials(faults, python):
            found = disagreement(trial, release)
            refused += trial.fails
            if found:
                bad += 1
                which = "with" if trial.faulty else "without"
                print(f"  {trial.fault.code}, {trial.fault.name}, {which} the fault: {found}")
        counts = f"{len(faults)} faults, {refused} models refused or wrong"
        print(f"{release} ({version(python)}): {counts}", flush=True)
    print(f"{bad} disagreements")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
