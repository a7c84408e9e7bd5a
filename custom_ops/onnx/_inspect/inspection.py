"""What is found in a model, and how it is shown as text."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from custom_ops.onnx._inspect import page
from custom_ops.onnx._inspect.wording import LONGEST, counted, shortened, size


@dataclass(frozen=True)
class Value:
    """An input or output of the model.

    Attributes:
        name: Its name.
        type: For example "float32", "sequence(int64)"; "" where the model does not say.
        shape: Sizes: a number, the name of one that is left open, or None; None for no shape.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None

    @property
    def form(self) -> str:
        """Type and shape, as "float32[1, N]"."""
        if self.shape is None:
            return self.type or "type unknown"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.type or 'type unknown'}[{sizes}]"

    def __str__(self) -> str:
        return f"{self.name}: {self.form}"


@dataclass(frozen=True)
class Op:
    """An op, and how often it stands in the model.

    Attributes:
        domain: Its domain; "" for that of ONNX.
        name: Its name.
        count: Nodes in the graph and its subgraphs.
        in_functions: Nodes in the bodies of functions, each body counted once.
    """

    domain: str
    name: str
    count: int
    in_functions: int

    def __str__(self) -> str:
        return f"{self.domain}::{self.name}" if self.domain else self.name


@dataclass(frozen=True)
class Function:
    """A function that the model carries.

    Attributes:
        domain: Its domain.
        name: Its name.
        overload: Its overload; mostly "".
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        nodes: Nodes of its body, subgraphs included.
        calls: Nodes that call it, in the graph, in subgraphs and in functions.
    """

    domain: str
    name: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    calls: int


@dataclass(frozen=True)
class Weights:
    """The initializers of the model, those of subgraphs included.

    Attributes:
        count: How many.
        elements: Numbers in them.
        bytes: Size of all.
        external: How many have their data in other files.
        external_bytes: Size of those.
        files: The files, as the model names them.
        unused: How many no node and no output uses.
        bytes_by_type: Size by element type.
    """

    count: int
    elements: int
    bytes: int
    external: int
    external_bytes: int
    files: tuple[str, ...]
    unused: int
    bytes_by_type: Mapping[str, int]


@dataclass(frozen=True)
class Module:
    """A torch module that nodes of the model come from.

    Attributes:
        path: "layer3.0.conv1"; "" for the whole model.
        parent: Path of the module that calls it; None for the whole model.
        depth: Modules above it.
        type: Its class, as "torch.nn.modules.conv.Conv2d"; "" where the exporter does not say.
        calls: How often it is called, as far as the nodes tell.
        nodes: Nodes that come from it and from modules inside, subgraphs included.
        ops: Ops of the nodes that come from it alone, by count.
        parameters: Numbers in the initializers that only it and modules inside use; of the whole
            model, in all.
        bytes: Size of those.
    """

    path: str
    parent: str | None
    depth: int
    type: str
    calls: int
    nodes: int
    ops: Mapping[str, int]
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Node:
    """A node, and where it comes from.

    Attributes:
        within: Where it stands: "" for the graph, "name/then_branch" for a subgraph, else the
            function.
        name: Its name; mostly unique.
        op: Its op, with the domain unless it is ONNX's.
        inputs: Names of its inputs; "" for one left out.
        outputs: Names of its outputs.
        module: Path of its torch module; None where it is not noted.
        call: Which call of the module it is, from 0.
        source: File and line of the user's code; "" where it is not noted.
        types: Types of its outputs, as "float32[1, N]"; "" where the file does not say.
    """

    within: str
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str | None
    call: int
    source: str
    types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What is in a model.

    Attributes:
        model: What the model is called.
        ir_version: Version of the file format.
        opsets: Domain and version of each opset that the model imports, as written.
        producer: What wrote it, with its version.
        doc: Its doc string.
        inputs: The inputs that a session asks for.
        outputs: The outputs.
        ops: The ops, the most frequent first.
        subgraphs: How many bodies of If, Loop and others there are, in functions too.
        functions: The functions that it carries.
        weights: Its initializers.
        metadata: Metadata of model and graph.
        modules: The torch modules that it comes from, each before those inside it; none where
            the nodes do not tell.
        nodes: All nodes, those of subgraphs and functions too.
    """

    model: str
    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    producer: str
    doc: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    ops: tuple[Op, ...]
    subgraphs: int
    functions: tuple[Function, ...]
    weights: Weights
    metadata: Mapping[str, str]
    modules: tuple[Module, ...]
    nodes: tuple[Node, ...]

    @property
    def facts(self) -> dict[str, str]:
        """What the model is in a few words each, for people."""
        held, functions = self.weights, len(self.functions)
        inner = sum(op.in_functions for op in self.ops)
        facts = {
            "IR version": str(self.ir_version),
            "opsets": ", ".join(f"{domain or 'ai.onnx'} {v}" for domain, v in self.opsets),
            "producer": self.producer or "not named",
            "nodes": f"{len(self.nodes) - inner:,}, {counted(self.subgraphs, 'subgraph')}",
            "functions": f"{functions:,}" + (f", with {counted(inner, 'node')}" if inner else ""),
            "weights": f"{held.count:,}, {held.elements:,} numbers, {size(held.bytes)}",
        }
        if held.external:
            files = ", ".join(held.files)
            facts["external"] = f"{held.external:,}, {size(held.external_bytes)}, in {files}"
        return {key: shortened(text) for key, text in facts.items()}

    def __str__(self) -> str:
        lines = [shortened(self.model)]
        lines += [f"{key:<12}{text}" for key, text in self.facts.items()]
        for kind, values in (("input", self.inputs), ("output", self.outputs)):
            lines += [f"{kind:<12}{shortened(str(value))}" for value in values]
        ops = ", ".join(f"{op.count + op.in_functions:,} {op}" for op in self.ops)
        lines.append(f"{'ops':<12}{shortened(ops, 10 * LONGEST)}")
        return "\n".join(lines)

    def as_dict(self, nodes: bool = False) -> dict[str, Any]:
        """Returns the inspection in the types of JSON.

        Args:
            nodes: Whether each node is in it; else their number.
        """
        result = {key: value for key, value in vars(self).items() if key not in ("nodes", "opsets")}
        for key in ("inputs", "outputs", "ops", "functions", "modules"):
            result[key] = [asdict(each) for each in result[key]]
        result["weights"] = asdict(self.weights)
        result["opsets"] = [{"domain": d, "version": version} for d, version in self.opsets]
        result["nodes"] = [asdict(each) for each in self.nodes] if nodes else len(self.nodes)
        return result

    def write_html(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Writes a page that needs no other file.

        Args:
            path: The file to write.
            force: Whether it may overwrite one.

        Raises:
            ValueError: There is a file already, or it is the model itself.
        """
        page.write(self, path, force)
