"""Opens a real session in a child process, and says what ONNX Runtime says."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
from packaging.version import Version

from custom_ops.onnx import _child, _external
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._reading import is_binary

SECONDS = 60.0
_CHILD = Path(__file__).parents[1] / "_session_child.py"
_LONGEST = 300  # characters of a sentence of onnxruntime
# With these a session would read a file that it must not, or not end.
UNSAFE = frozenset({_external.OUTSIDE, "recursion", "expansion"})
_PREAMBLE = re.compile(  # code, file, line of the source, and signature or name of the function
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"|Load model from \S+ failed:"
    r"|\S+\.(?:cc|cpp|h):\d+ (?:[\w:<>~*& ]*::~?\w+\([^)]*\)(?: const)?|\w+) "
)
_REMEDIES = {
    "is not a registered function/op": "register the library that has the op, or give the model "
    "its decomposition (custom_ops.onnx.embed for ours)",
    "requested API version": "deploy a newer onnxruntime, or build the library for this one",
    "Unsupported model IR version": "lower it with custom_ops.onnx.set_ir_version",
}


def trial(subject: Subject, found: set[str], seconds: float = SECONDS) -> Iterator[Finding]:
    """Opens a session where the target is installed, and yields why that fails.

    Args:
        subject: The model.
        found: Codes of what is known already: some make a session unsafe.
        seconds: After which a session counts as one that hangs.
    """
    unsafe = sorted(found & UNSAFE)
    if unsafe:
        rule = f"a session must be safe to open, got {', '.join(unsafe)}"
        yield Finding(Severity.NOTE, "session", "", rule, "mend that first")
        return
    installed = onnxruntime.__version__
    if not same_release(installed, subject.target.release):
        yield Finding(
            Severity.NOTE,
            "session",
            "",
            f"{subject.target} must be installed to open a session, got {installed}",
            f"pip install '{subject.target}.*' into another environment and run there",
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from _opened(subject, Path(folder), seconds)


def same_release(installed: str, release: str) -> bool:
    """Returns whether a version, for example 1.20.1, is of a release, for example 1.20."""
    return Version(installed).release[:2] == Version(release).release[:2]


def _opened(subject: Subject, folder: Path, seconds: float) -> Iterator[Finding]:
    path, data = subject.document.path, None
    if path is None or not is_binary(path):  # onnxruntime reads the binary form alone
        data, path = subject.document.folder, folder / "model.onnx"
        path.write_bytes(subject.model.SerializeToString())
    request = {
        "model": str(path.resolve()),
        "libraries": [str(library.absolute()) for library in subject.libraries],
        "folder": str(data.resolve()) if data is not None else "",
    }
    done = _child.run([_CHILD], request, seconds)
    if done.code is None:
        rule = f"a session must open within {seconds:g} s, got no end"
        yield Finding(Severity.ERROR, "session", "", rule, "mend the other findings first")
        return
    if done.code == 0:
        return
    stage = (done.lines or ["session"])[-1]
    said = shortened(done.errors)
    if done.code != 1:
        ended = f"an end of the process ({done.code})"
        said = f"{ended}: {said}" if said else ended
    remedy = next((r for symptom, r in _REMEDIES.items() if symptom in said), "")
    if stage == "session":
        rule = f"a session must open, got: {said}"
        yield Finding(
            Severity.ERROR, "session", "", rule, remedy or "mend the other findings first"
        )
    else:
        rule = f"the library must register in {subject.target}, got: {said}"
        remedy = remedy or "build the library for this release and this machine"
        yield Finding(Severity.ERROR, "session", stage, rule, remedy)


def shortened(said: str) -> str:
    """Returns a sentence of onnxruntime without where in its sources it comes from."""
    text = " ".join(said.split())
    previous = None
    while previous != text:
        previous, text = text, _PREAMBLE.sub("", text).strip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
