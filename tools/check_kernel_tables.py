"""Compares what the tables of kernels say of onnx's own node models with what releases do to them.

    python tools/check_kernel_tables.py [RELEASE ...] [--own] [--cache FOLDER]

Each release (1.17, 1.20, 1.23, 1.27 and 1.32, if none is named) opens a session of every model of
onnx.backend.test whose opset it takes. A model that loads although an error is predicted is a
false alarm; one that is refused without is missed, and named. --own takes the ops of the runtime's
own domains instead, each in models of one node, in every combination of element types; there a
refusal counts as missed that is for want of a kernel. Ends with exit code 1 where there is a false
alarm, or more than 1% is missed.
"""

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx
import own_ops
from kernel_tables import ask
from releases import CACHE, environment, load, version

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from doctor_models import inference_in_this_process

import custom_ops.onnx
from custom_ops.onnx import _walk
from custom_ops.onnx._kernels.judge import Outcome, judge_model
from custom_ops.onnx._kernels.table import table
from custom_ops.onnx._kernels.typed import SchemaOf

RELEASES = ("1.17", "1.20", "1.23", "1.27", "1.32")
_MOST_MISSED = 0.01


def node_models() -> dict[str, onnx.ModelProto]:
    """Returns onnx's node models by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the references, which divide by zero
        return {c.name: c.model for c in collect_testcases(None) if c.model is not None}


def predicted(model: onnx.ModelProto, release: str) -> bool:
    """Returns whether the tables say that a release refuses a model."""
    opsets = {_walk.domain(each.domain): each.version for each in model.opset_import}
    verdicts = judge_model(model, SchemaOf(table(release), opsets))
    return any(verdict.outcome is not Outcome.CASTS for verdict in verdicts)


@dataclass(frozen=True)
class Report:
    """How the prediction for a release compares with it.

    Attributes:
        release: Its exact version.
        models: How many it has tried.
        refused: How many it refused.
        false_alarms: Those that load although an error is predicted.
        missed: What it says of those that it refuses without.
    """

    release: str
    models: int
    refused: int
    false_alarms: list[str]
    missed: dict[str, str]

    def __bool__(self) -> bool:
        return not self.false_alarms and len(self.missed) <= _MOST_MISSED * self.models

    def __str__(self) -> str:
        lines = [
            f"{self.release}: {self.models} models, {self.refused} refused, "
            f"{len(self.false_alarms)} false alarms, {len(self.missed)} missed "
            f"({len(self.missed) / max(self.models, 1):.1%})"
        ]
        lines += [f"  false alarm: {name}" for name in self.false_alarms]
        return "\n".join([*lines, *(f"  missed: {n}: {said}" for n, said in self.missed.items())])


def examine(models: dict[str, onnx.ModelProto], release: str, cache: Path, folder: Path) -> Report:
    """Compares the prediction for a release with it.

    Args:
        models: The models by name.
        release: Major and minor version.
        cache: Where the environments are kept.
        folder: Where to write the models.
    """
    python = environment(release, cache)
    target = custom_ops.onnx.target(f"onnxruntime=={release}")
    taken: dict[str, onnx.ModelProto] = {}
    for name, model in models.items():
        opsets = {_walk.domain(each.domain): each.version for each in model.opset_import}
        if opsets.get("", 0) <= target.opset:
            taken[name] = onnx.ModelProto()
            taken[name].CopyFrom(model)
            taken[name].ir_version = min(model.ir_version, target.ir_version)
    paths = []
    for name, model in taken.items():
        paths.append(folder / f"{release}-{name}.onnx")
        paths[-1].write_bytes(model.SerializeToString())
    said = dict(zip(taken, load(python, paths), strict=True))
    refused = {name: text for name, text in said.items() if text is not None}
    with inference_in_this_process():
        alarms = {name for name, model in taken.items() if predicted(model, release)}
    missed = {name: text[:160] for name, text in refused.items() if name not in alarms}
    false_alarms = sorted(alarms - refused.keys())
    return Report(version(python), len(taken), len(refused), false_alarms, missed)


def examine_own(release: str, cache: Path) -> Report:
    """Compares the prediction for the runtime's own ops with a release.

    Args:
        release: Major and minor version.
        cache: Where the environments are kept.
    """
    python = environment(release, cache)
    newest, known = custom_ops.onnx.RELEASES[release][0], table(release)
    made = list(own_ops.trials(known, ask(python)["required"], newest))
    alarms, refused, missed = [], 0, {}
    for trial, said in zip(made, own_ops.tried(made, python), strict=True):
        name, taken = str(trial), trial.taken(known)
        refused += said is not None
        if not taken and said is None:
            alarms.append(name)
        if taken and said is not None and own_ops.lacks_kernel(said):
            missed[name] = said[:160]
    return Report(version(python), len(made), refused, sorted(alarms), missed)


def main() -> int:
    """Examines the releases that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("release", nargs="*", default=RELEASES, help="as 1.20")
    parser.add_argument("--own", action="store_true", help="the runtime's own ops instead")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    arguments = parser.parse_args()
    good = True
    for release in arguments.release if arguments.own else ():
        report = examine_own(release, arguments.cache)
        print(report, flush=True)
        good = good and bool(report)
    if arguments.own:
        return 0 if good else 1
    models = node_models()
    for release in arguments.release:
        with tempfile.TemporaryDirectory() as folder:
            report = examine(models, release, arguments.cache, Path(folder))
        print(report, flush=True)
        good = good and bool(report)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
