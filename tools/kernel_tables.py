"""Makes the table of what each release of ONNX Runtime has kernels for.

    python tools/kernel_tables.py [--check] [--cache FOLDER]

asks every release in custom_ops/onnx/_targets.py, in an environment of its own, for the schemas and
the kernels of its CPU provider, tries what the runtime's own ops do without a kernel (own_ops.py),
and writes custom_ops/onnx/_kernels/kernels.json.xz. The same releases give the same bytes. --check
writes nothing, and ends with exit code 1 where the file has something else.
"""

import argparse
import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import own_ops
from releases import CACHE, environment

from custom_ops.onnx._kernels import table
from custom_ops.onnx._targets import RELEASES

DUMP = Path(__file__).parent / "dump_kernels.py"
SOURCE = (
    "The onnxruntime wheels of PyPI, by python tools/kernel_tables.py: get_all_operator_schema() "
    "and get_all_opkernel_def() of onnxruntime.capi.onnxruntime_pybind11_state, of the CPU "
    "provider. What the runtime's own ops run by bodies is among the kernels, from trying. The "
    "last number of a row has bit i set where releases[i] has the row."
)


def ask(python: Path) -> dict[str, Any]:
    """Returns what `DUMP` prints in a Python."""
    done = subprocess.run([python, DUMP], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def known_of(release: str, cache: Path) -> dict[str, Any]:
    """Returns what a release says of itself, and what runs there by the runtime's own bodies."""
    python = environment(release, cache)
    answer = ask(python)
    known = table.Table(release, content([answer], [release]))
    trials = list(own_ops.trials(known, answer["required"], RELEASES[release][0]))
    answer["kernels"] += own_ops.by_bodies(trials, known, python)
    return answer


def rows(answers: list[dict[str, Any]], what: str) -> list[list[Any]]:
    """Returns the distinct rows of all releases, each with the releases that have it."""
    releases_of: dict[str, int] = {}
    for i, answer in enumerate(answers):
        for row in answer[what]:
            key = json.dumps(row, sort_keys=True)
            releases_of[key] = releases_of.get(key, 0) | 1 << i
    return [[*json.loads(key), releases] for key, releases in sorted(releases_of.items())]


def content(answers: list[dict[str, Any]], releases: list[str]) -> dict[str, Any]:
    """Returns what the file has for the answers of releases."""
    return {
        "source": SOURCE,
        "releases": releases,
        "versions": [answer["version"] for answer in answers],
        "schemas": rows(answers, "schemas"),
        "kernels": rows(answers, "kernels"),
    }


def pack(answers: list[dict[str, Any]]) -> bytes:
    """Returns the file for the answers of all releases, in the order of `RELEASES`."""
    text = json.dumps(content(answers, list(RELEASES)), separators=(",", ":"))
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    """Writes or checks the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    arguments = parser.parse_args()
    answers = [known_of(release, arguments.cache) for release in RELEASES]
    made = pack(answers)
    print(
        f"{len(RELEASES)} releases, {', '.join(a['version'] for a in answers)}: {len(made)} bytes"
    )
    if arguments.check:
        same = lzma.decompress(made) == lzma.decompress(table.FILE.read_bytes())
        print("as in the file" if same else "the file has something else")
        return 0 if same else 1
    table.FILE.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
