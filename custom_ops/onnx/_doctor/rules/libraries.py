"""Libraries of custom ops: they load, and every op of another domain has one or a function."""

import difflib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from custom_ops import _library
from custom_ops.onnx import _guarded, _marker, _shared_library, _walk
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Located, Subject
from custom_ops.onnx._shared_library import NoLibrary, SharedLibrary

# What exporters left behind where they had no mapping.
LEFTOVERS = ("aten", "org.pytorch.aten", "prim", "pkg.onnxscript.torch_lib")
_ENTRY = "RegisterCustomOps"
_OURS, _EXTENSIONS = "custom_ops", "ai.onnx.contrib"
_REMEDIES = {
    _OURS: "open it with custom_ops.onnx.session, or register custom_ops.get_library_path(); "
    "custom_ops.onnx.embed gives the nodes their decomposition",
    _marker.DOMAIN: "custom_ops.onnx.embed gives markers their body, and strip of a "
    "custom_ops.debug.Debugger takes them out",
    _EXTENSIONS: "register onnxruntime_extensions.get_library_path()",
    "mmcv": "turn the nodes into ours with custom-ops convert, or register mmcv's library",
    "mmdeploy": "turn the nodes into ours with custom-ops convert, or register mmdeploy's library",
    **dict.fromkeys(
        LEFTOVERS,
        "export again through custom_ops.onnx.export, and map the op with "
        "custom_ops.onnx.register_mapping if that has no mapping",
    ),
}


def library_file(subject: Subject) -> Iterator[Finding]:
    """Each library that the session registers is a shared library for this machine."""
    for path in subject.libraries:
        try:
            _shared_library.read(path)
        except NoLibrary as error:
            yield Finding(
                Severity.ERROR,
                "library-file",
                str(path),
                f"the library must be {error}",
                "build it for this machine, or give its path",
            )


def library_needs(subject: Subject) -> Iterator[Finding]:
    """The libraries that a library needs are found where the loader looks."""
    for library in _read(subject):
        missing = library.missing()
        if missing:
            yield Finding(
                Severity.ERROR,
                "library-needs",
                str(library.path),
                f"the library must find those that it needs, got none of {', '.join(missing)}",
                "install them, or add their folder to LD_LIBRARY_PATH",
            )


def library_versions(subject: Subject) -> Iterator[Finding]:
    """The libraries that a library needs are as new as it asks, as GLIBC_2.38 of libc.so.6."""
    for library in _read(subject):
        for name, (lost, newest) in library.lacking().items():
            yield Finding(
                Severity.ERROR,
                "library-versions",
                str(library.path),
                f"the library must find {', '.join(lost)} in {name}, got a {name} that has "
                f"{newest} at most",
                "build it on a system as old as this one, or deploy to a newer one",
            )


def library_entry(subject: Subject) -> Iterator[Finding]:
    """Each library has the function that registers its ops."""
    for library in _read(subject):
        if _ENTRY not in library.exported:
            yield Finding(
                Severity.ERROR,
                "library-entry",
                str(library.path),
                f"the library must export {_ENTRY}, got "
                f"{len(library.exported)} symbol{'s' * (len(library.exported) != 1)} without it",
                "give the library of custom ops itself, and build it with that function visible",
            )


def custom_domain(subject: Subject) -> Iterator[Finding]:
    """An op of another domain has a library, or a function in the model."""
    served = _served(subject)
    first: dict[tuple[str, str], Located] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for located in subject.nodes():
        domain, op = _walk.domain(located.node.domain), located.node.op_type
        builtin = subject.target.newest(domain) is not None and domain not in LEFTOVERS
        if builtin or _guarded.function_key(located.node) in subject.functions:
            continue
        unknown = domain == _OURS and op not in _our_ops()
        if served is None or (domain in served and not unknown):
            continue
        if not subject.runs(located.function):
            continue
        counts[domain, op] += 1
        first.setdefault((domain, op), located)
    for (domain, op), located in first.items():
        name = f"{domain}::{op}"
        remedy = _REMEDIES.get(
            domain, "register the library that has it (libraries=, --library), or add a function"
        )
        got = "neither"
        if domain == _OURS and op not in _our_ops():  # with the library, or without
            near = difflib.get_close_matches(op, _our_ops(), n=3) or _our_ops()
            got = "no op of this name in our library"
            remedy = f"its ops are called {', '.join(near)}"
        nodes = f" ({counts[domain, op]} nodes)" if counts[domain, op] > 1 else ""
        yield Finding(
            Severity.ERROR,
            "custom-domain",
            located.name,
            f"{name} must have a library or a function in the model{nodes}, got {got}",
            remedy,
        )


def exporter_leftover(subject: Subject) -> Iterator[Finding]:
    """No op is one of torch's that the exporter left behind, not even with a function."""
    found = dict.fromkeys(
        (located.node.domain, located.node.op_type)
        for located in subject.nodes()
        if located.node.domain in LEFTOVERS
        and _guarded.function_key(located.node) in subject.functions
        and subject.runs(located.function)
    )
    for domain, op in found:
        yield Finding(
            Severity.NOTE,
            "exporter-leftover",
            op,
            f"{domain}::{op} must be inlined for tools that look at nodes, got a function",
            "inline it with onnx.inliner.inline_local_functions",
        )


def _read(subject: Subject) -> Iterator[SharedLibrary]:
    for path in subject.libraries:
        try:
            yield _shared_library.read(path)
        except NoLibrary:
            continue


def _served(subject: Subject) -> set[str] | None:
    """Returns the domains that the libraries serve; None where one may serve any."""
    served: set[str] = set()
    for library in subject.libraries:
        if _same(library, _library.library_path()):
            served.add(_OURS)
        elif library.name.startswith("_extensions_pydll"):  # of onnxruntime-extensions
            served |= {_EXTENSIONS, "com.microsoft.extensions"}
        else:
            return None
    return served


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _our_ops() -> list[str]:
    names = (str(spec.onnx_name) for spec in _library.specs().values())
    return list(filter(None, names))  # a private op has none


RULES: tuple[Rule, ...] = (
    library_file,
    library_needs,
    library_versions,
    library_entry,
    custom_domain,
    exporter_leftover,
)
