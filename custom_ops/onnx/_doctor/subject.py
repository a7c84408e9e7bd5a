"""What the rules look at: a model, the release that is to run it, and what is known of both."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from custom_ops.onnx import _external, _guarded, _walk
from custom_ops.onnx._doctor import edges, inference
from custom_ops.onnx._kernels.judge import Verdict, judge
from custom_ops.onnx._kernels.table import table
from custom_ops.onnx._kernels.typed import SchemaOf, flat_request
from custom_ops.onnx._reading import Document
from custom_ops.onnx._targets import Target


@dataclass(frozen=True)
class Located:
    """A node, and where it stands.

    Attributes:
        node: The node.
        scope: The graph or function that has it.
        function: The function around it, if any.
    """

    node: onnx.NodeProto
    scope: _walk.Scope
    function: onnx.FunctionProto | None

    @property
    def name(self) -> str:
        """What to call the node: its name, else its first output, else its op."""
        outputs = [name for name in self.node.output if name]
        return self.node.name or (outputs[0] if outputs else self.node.op_type)


class Subject:
    """A model under examination.

    Args:
        document: The model.
        target: The release that is to run it.
        libraries: Paths of libraries of custom ops that the session will register.
    """

    def __init__(
        self, document: Document, target: Target, libraries: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        self.document = document
        self.model = document.proto
        self.target = target
        self.libraries = [Path(library) for library in libraries]

    @functools.cached_property
    def opsets(self) -> dict[str, int]:
        """The versions by domain that the model imports; of a domain imported twice the last."""
        return {_walk.domain(each.domain): each.version for each in self.model.opset_import}

    def opset(self, domain: str, function: onnx.FunctionProto | None = None) -> int | None:
        """Returns the version of a domain that counts in the model or in a function of it."""
        imports = self.model.opset_import if function is None else function.opset_import
        found = [each.version for each in imports if _walk.domain(each.domain) == domain]
        return found[-1] if found else None

    @functools.cached_property
    def functions(self) -> dict[_guarded.FunctionKey, onnx.FunctionProto]:
        """The functions of the model by what nodes call."""
        return _guarded.functions(self.model)

    @functools.cached_property
    def frames(self) -> list[edges.Frame]:
        """Who makes and who uses each value: of the graph, the functions, and the graphs inside."""
        return edges.frames(self.model)

    @functools.cached_property
    def called(self) -> set[_guarded.FunctionKey]:
        """The functions that run: called by the graph, or by one that runs."""
        found: set[_guarded.FunctionKey] = set()
        waiting: list[_walk.Scope] = [self.model.graph]
        while waiting:
            for scope in _walk.within(waiting.pop()):
                for key in map(_guarded.function_key, scope.node):
                    if key in self.functions and key not in found:
                        found.add(key)
                        waiting.append(self.functions[key])
        return found

    def runs(self, function: onnx.FunctionProto | None) -> bool:
        """Returns whether what is in a function, or in the graph, is ever run."""
        return function is None or _guarded.key_of(function) in self.called

    def nodes(self) -> Iterator[Located]:
        """Yields every node: of the graph, of functions, and of the subgraphs of both."""
        for scope in _walk.within(self.model.graph):
            yield from (Located(node, scope, None) for node in scope.node)
        for function in self.model.functions:
            for scope in _walk.within(function):
                yield from (Located(node, scope, function) for node in scope.node)

    @functools.cached_property
    def external_faults(self) -> list[_external.Fault]:
        """What is wrong with data in other files."""
        return list(_external.faults(self.model, self.document.folder))

    @functools.cached_property
    def external_broken(self) -> set[str]:
        """Names of tensors whose data in other files is not read."""
        return {fault.tensor for fault in self.external_faults}

    @functools.cached_property
    def schema_of(self) -> SchemaOf:
        """The ops as the target knows them at the opsets of the model."""
        return SchemaOf(table(self.target.release), self.opsets)

    @functools.cached_property
    def verdicts(self) -> list[Verdict]:
        """What becomes of the nodes that do not just run on the target, functions inlined."""
        answer = self._answers.get("types")
        if answer is None:
            return []
        known = self.model  # where onnx does not manage: by the types that the model declares
        if isinstance(answer, bytes):
            known = onnx.load_from_string(answer)
        return list(judge(known.graph, self.schema_of))

    @functools.cached_property
    def inference(self) -> inference.Inference | None:
        """What inference says where it does not believe what the model declares, if it ends."""
        answer = self._answers.get("shapes")
        if answer is None or isinstance(answer, _guarded.Refused):
            return None
        return inference.read(answer, self.frames[0].order())

    @functools.cached_property
    def inlined(self) -> onnx.ModelProto | None:
        """The model of `inference` with its functions inlined, if it has any and inference ends."""
        answer = self._answers.get("inlined")
        return onnx.load_from_string(answer) if isinstance(answer, bytes) else None

    @property
    def checked(self) -> str:
        """What onnx's checker says of the model; "" if nothing, or if it does not end."""
        answer = self._answers["check"]
        return str(answer) if isinstance(answer, _guarded.Said) else ""

    @functools.cached_property
    def _answers(self) -> dict[str, bytes | _guarded.Refused]:
        """What onnx says, asked at once, as each start of a process takes its time."""
        requests = {"check": ("check", self.model)}
        if self.opsets.get("", 0) <= self.target.opset:  # else the file is refused before its nodes
            model = self.model
            if self.libraries and model.functions:  # a library may have a kernel in place of a body
                model = _guarded.without_large_weights(model)
                del model.functions[:]
            requests["types"] = flat_request(model)
        broken = (
            f.undefined or f.cycle() or (f.late() and not f.sorts_itself) for f in self.frames
        )
        if not any(broken):
            afresh = inference.afresh(self.model, self.frames[0].order())
            requests["shapes"] = "contradictions", afresh
            if afresh.functions:
                requests["inlined"] = flat_request(afresh)
        return dict(zip(requests, _guarded.several(list(requests.values())), strict=True))
