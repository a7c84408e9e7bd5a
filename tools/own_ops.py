"""Which ops of its own domains a release of ONNX Runtime runs without a kernel: by trying.

An op of the standard has a body that onnx knows; of the runtime's own ops no table says which have
one. So a model of one node is loaded for each op and each combination of element types that no
kernel takes.
"""

import itertools
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from releases import load

from custom_ops.onnx import _walk
from custom_ops.onnx._kernels.judge import Outcome, judge
from custom_ops.onnx._kernels.table import Schema, Table
from custom_ops.onnx._kernels.typed import SchemaOf, type_of

# Where the ops of all types are more combinations than these, one type after the other varies.
_COMBINATIONS = 400
_OLD = 13  # the oldest opset at which the bodies are written
_VALUES: Mapping[str, Any] = {
    "INT": 1,
    "FLOAT": 1.0,
    "STRING": "a",
    "INTS": [1],
    "FLOATS": [1.0],
    "STRINGS": ["a"],
}
_NO_KERNEL = re.compile(r"Could not find an implementation for|Failed to find kernel for")
# That the types fit no node of the op, or that it is for another provider.
_NO_NODE = re.compile(
    r"Type Error: |MLDataType for: |is not compatible with any execution provider"
)


@dataclass(frozen=True)
class Trial:
    """A model of one node.

    Attributes:
        schema: Its op.
        types: Its element types by type string.
        model: The model.
    """

    schema: Schema
    types: Mapping[str, str]
    model: onnx.ModelProto

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {kind}" for name, kind in self.types.items())
        schema = self.schema
        return f"{schema.domain}::{schema.name} of version {schema.since} in {kinds}"

    def taken(self, known: Table) -> bool:
        """Returns whether the table says that a release runs it."""
        opsets = {_walk.domain(each.domain): each.version for each in self.model.opset_import}
        verdicts = judge(self.model.graph, SchemaOf(known, opsets))
        return all(verdict.outcome is Outcome.CASTS for verdict in verdicts)


def trials(known: Table, required: list[list[Any]], newest: int) -> Iterator[Trial]:
    """Yields models of the ops of the runtime's own domains, of few inputs and of all.

    Args:
        known: What the release has.
        required: By domain, op and version, the attributes that must be given.
        newest: The newest opset of the release.
    """
    for domain, name, since, attributes in required:
        if domain in _walk.STANDARD_DOMAINS:
            continue
        schema = known.schema(domain, name, since)
        if schema is None:
            continue
        for types in _combinations(schema, known):
            for opset, whole in itertools.product((_OLD, newest), (False, True)):
                made = _trial(schema, types, attributes, opset, whole)
                if made is not None:
                    yield made


def tried(trials: Sequence[Trial], python: Path) -> list[str | None]:
    """Returns what a release says of each model; None where it loads."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.onnx" for i in range(len(trials))]
        for path, trial in zip(paths, trials, strict=True):
            path.write_bytes(trial.model.SerializeToString())
        return load(python, paths)


def lacks_kernel(said: str | None) -> bool:
    """Returns whether a release refuses a model for want of a kernel."""
    return bool(said and _NO_KERNEL.search(said))


def by_bodies(trials: Sequence[Trial], known: Table, python: Path) -> list[list[Any]]:
    """Returns rows of kernels for what a release runs without one, or of which it does not tell.

    Args:
        trials: What to try.
        known: What the release has.
        python: Which has the release.
    """
    without = [trial for trial in trials if not trial.taken(known)]
    answers: dict[str, tuple[Trial, list[str | None]]] = {}
    for trial, said in zip(without, tried(without, python), strict=True):
        answers.setdefault(str(trial), (trial, []))[1].append(said)
    rows: list[list[Any]] = []
    for trial, all_said in answers.values():
        refused = any(lacks_kernel(said) or _NO_NODE.search(said) for said in all_said if said)
        if None in all_said or not refused:
            schema, types = trial.schema, {name: [kind] for name, kind in trial.types.items()}
            rows.append([schema.domain, schema.name, schema.since, schema.since, types])
    return rows


def _combinations(schema: Schema, known: Table) -> Iterator[dict[str, str]]:
    strings = list(schema.types)
    choices = [list(schema.types[string]) for string in strings]
    if math.prod(map(len, choices)) <= _COMBINATIONS:
        for kinds in itertools.product(*choices):
            yield dict(zip(strings, kinds, strict=True))
        return
    usual = {string: kinds[0] for string, kinds in zip(strings, choices, strict=True)}
    for kernel in known.kernels(schema)[:1]:
        usual |= {string: kernel.types[string][0] for string in strings if string in kernel.types}
    for string, choice in zip(strings, choices, strict=True):
        yield from ({**usual, string: kind} for kind in choice)


def _trial(
    schema: Schema, types: Mapping[str, str], attributes: dict[str, str], opset: int, whole: bool
) -> Trial | None:
    """Returns a model of one node; None where it cannot be written."""
    node = onnx.NodeProto(op_type=schema.name, domain=schema.domain)
    graph = onnx.GraphProto(name="trial")
    for formals, names, values, least in (
        (schema.inputs, node.input, graph.input, len(schema.inputs) if whole else 0),
        (schema.outputs, node.output, graph.output, 1),
    ):
        last = max(
            [i for i, formal in enumerate(formals) if formal.required or i < least], default=-1
        )
        for i, formal in enumerate(formals[: last + 1]):
            if not formal.required and i >= least:
                names.append("")
                continue
            type_ = type_of(types.get(formal.type_string, formal.type_string))
            if type_ is None:
                return None
            names.append(f"{formal.name}{i}")
            values.add(name=names[-1]).type.CopyFrom(type_)
    for name, kind in attributes.items():
        if kind not in _VALUES:
            return None
        node.attribute.append(helper.make_attribute(name, _VALUES[kind]))
    graph.node.append(node)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(schema.domain, schema.since)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return Trial(schema, types, model)
