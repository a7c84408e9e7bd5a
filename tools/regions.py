"""Runs torchvision's ops, exported, in releases of ONNX Runtime, and compares with torchvision.

    python tools/regions.py [RELEASE ...] [--cache FOLDER]

Each op of tests/onnx_regions.py goes through both exporters at each opset from 16 to 23 and runs in
each release that takes the opset (every one of the table, if none is named), at three sizes. Prints
a table, and ends with exit code 1 where anything differs.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from releases import CACHE, Call, Case, environment, run_cases, version, write_cases

import custom_ops
from custom_ops.onnx._exporters import EXPORTERS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from onnx_regions import SIZES, Calls, calls, functions

_OPSETS = range(16, 24)


def cases(opset: int, folder: Path) -> Iterator[Case]:
    """Yields every op through both exporters at an opset."""
    target = min(
        (custom_ops.onnx.target(f"onnxruntime=={r}") for r in custom_ops.onnx.RELEASES),
        key=lambda target: (target.opset < opset, target.opset),
    )
    for name, function in functions().items():
        net, inputs = Calls(function).eval(), calls()
        runs = []
        for images, rois in inputs:
            with torch.no_grad():
                found = net(images, rois)
            outputs = [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]
            feeds = {"images": images.numpy(), "rois": rois.numpy()}
            runs.append(Call(f"{len(rois)} regions", feeds, outputs))
        for exporter in EXPORTERS:
            path = folder / f"{opset}.onnx"
            custom_ops.onnx.export(
                net,
                inputs[0],
                path,
                lowering="decomposed",
                exporter=exporter,
                opset_version=opset,
                target=str(target),
                dynamic_shapes=SIZES,
                verify=False,
            )
            model = onnx.load(path)
            given = {value.name for value in model.graph.input}  # not all have regions
            fed = [Call(r.name, {n: r.feeds[n] for n in given}, r.expected) for r in runs]
            yield Case(f"{exporter} {opset}", name, model, fed, rtol=1e-5, atol=1e-5)


def main() -> int:
    """Runs them all and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("releases", nargs="*", default=list(custom_ops.onnx.RELEASES))
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = {}
        for opset in _OPSETS:
            made[opset] = list(cases(opset, folder))
            write_cases(made[opset], folder / str(opset))
        for release in options.releases:
            python = environment(release, options.cache)
            newest = custom_ops.onnx.target(f"onnxruntime=={release}").opset
            tally: dict[str, list[int]] = defaultdict(lambda: [0, 0])
            for opset in (o for o in _OPSETS if o <= newest):
                outcomes = run_cases(python, folder / str(opset), len(made[opset]))
                for case, outcome in zip(made[opset], outcomes, strict=True):
                    fault = outcome.raised or outcome.wrong
                    tally[case.group][0] += not fault
                    tally[case.group][1] += 1
                    if fault:
                        wrong += 1
                        print(f"  {release}, {case.group}, {case.name}: {fault[:300]}")
            right, total = (sum(column) for column in zip(*tally.values(), strict=True))
            print(f"onnxruntime {version(python)}: {right} of {total} right, opsets to {newest}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
