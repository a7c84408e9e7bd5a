"""What each release of ONNX Runtime knows and has CPU kernels for, from kernels.json.xz."""

import functools
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kernels.json.xz")
_OPEN = 2**31 - 1  # the end of a kernel's range that has none

# The type of a value as the runtime writes it, as "tensor(float)"; None where it is not known.
Kind = str | None


@dataclass(frozen=True)
class Parameter:
    """An input or output of an op.

    Attributes:
        name: Its name.
        type_string: What its types go by: a key of `Schema.types`, or a type.
        required: Whether it must be given.
        variadic: Whether it takes all that follow.
    """

    name: str
    type_string: str
    required: bool
    variadic: bool


@dataclass(frozen=True)
class Schema:
    """An op since one version of its domain.

    Attributes:
        domain: Its domain; "" is ai.onnx.
        name: Its name.
        since: The version of the domain that brought it.
        deprecated: Whether that version took it away.
        inputs: Its inputs.
        outputs: Its outputs.
        types: By type string, the types that it takes.
        attributes: The names of its attributes.
    """

    domain: str
    name: str
    since: int
    deprecated: bool
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    types: Mapping[str, Sequence[str]]
    attributes: frozenset[str]

    def bound(self, inputs: Sequence[Kind], outputs: Sequence[Kind]) -> dict[str, Kind]:
        """Returns the types of a node by type string and by name of a parameter.

        The first value that is there counts, as for the runtime; one that is left out has "".
        """
        found: dict[str, Kind] = {}
        for formals, actuals in ((self.inputs, inputs), (self.outputs, outputs)):
            for formal, actual in zip(formals, actuals, strict=False):
                if actual != "":
                    found.setdefault(formal.type_string, actual)
        for formals, actuals in ((self.inputs, inputs), (self.outputs, outputs)):
            for formal, actual in zip(formals, actuals, strict=False):
                if actual != "":
                    found.setdefault(formal.name, actual)
        return found


@dataclass(frozen=True)
class Kernel:
    """A kernel for an op.

    Attributes:
        start: The first version of the op's domain that it is for.
        end: The last one; None where it says none.
        types: By type string or name of a parameter, the types that it takes.
    """

    start: int
    end: int | None
    types: Mapping[str, Sequence[str]]

    def serves(self, since: int) -> bool:
        """Returns whether it is for the op as of a version.

        A range without an end was written when no newer version of the op was known, so that it
        serves the version that it starts with alone.
        """
        return self.start == since or (self.end is not None and self.start <= since <= self.end)

    def takes(self, bound: Mapping[str, Kind]) -> bool:
        """Returns whether it takes the types of a node; types that are not known count as taken."""
        kinds = ((bound.get(string), types) for string, types in self.types.items())
        return all(kind is None or kind in types for kind, types in kinds)


class Table:
    """What one release has.

    Args:
        release: Major and minor version, as "1.20"; one of the table.
        content: What the file has.
    """

    def __init__(self, release: str, content: Mapping[str, Any]) -> None:
        bit = 1 << content["releases"].index(release)
        self.release = release
        self._schemas: dict[tuple[str, str], list[Schema]] = {}
        self._kernels: dict[tuple[str, str], list[Kernel]] = {}
        for *row, releases in content["schemas"]:
            if releases & bit:
                schema = _schema(*row)
                self._schemas.setdefault((schema.domain, schema.name), []).append(schema)
        for domain, name, start, end, types, releases in content["kernels"]:
            if releases & bit:
                kernel = Kernel(start, None if end == _OPEN else end, types)
                self._kernels.setdefault((domain, name), []).append(kernel)
        for schemas in self._schemas.values():
            schemas.sort(key=lambda schema: schema.since)
        self.domains = frozenset(domain for domain, _ in self._schemas)

    def names(self, domain: str) -> list[str]:
        """Returns the ops of a domain."""
        return sorted(name for owner, name in self._schemas if owner == domain)

    def versions(self, domain: str, name: str) -> list[Schema]:
        """Returns an op in each of its versions, the oldest first."""
        return self._schemas.get((domain, name), [])

    def schema(self, domain: str, name: str, opset: int) -> Schema | None:
        """Returns an op as an opset has it; None where the opset has none of that name."""
        known = [s for s in self.versions(domain, name) if s.since <= opset]
        return known[-1] if known and not known[-1].deprecated else None

    def kernels(self, schema: Schema) -> list[Kernel]:
        """Returns the kernels for an op as of a version."""
        all_of_it = self._kernels.get((schema.domain, schema.name), [])
        return [kernel for kernel in all_of_it if kernel.serves(schema.since)]


@functools.cache
def table(release: str) -> Table:
    """Returns the table of a release."""
    return Table(release, _content())


def _schema(
    domain: str,
    name: str,
    since: int,
    deprecated: bool,
    inputs: list[list[str]],
    outputs: list[list[str]],
    types: dict[str, list[str]],
    attributes: list[str],
) -> Schema:
    formals = (_formals(inputs), _formals(outputs))
    return Schema(domain, name, since, deprecated, *formals, types, frozenset(attributes))


def _formals(rows: list[list[str]]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name, types, option != "Optional", option == "Variadic")
        for name, types, option in rows
    )


@functools.cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(lzma.decompress(FILE.read_bytes()))
    return content
