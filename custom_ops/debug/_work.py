"""What every comparison does: times its parts, and judges and sums up what they found."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx
import onnxruntime
import torch

from custom_ops._errors import first_line
from custom_ops.debug import _bodies, _runs, _simulated
from custom_ops.debug._evidence import MOST
from custom_ops.debug._graph import Array, Graph
from custom_ops.debug._judge import Allowed, Judge, fault
from custom_ops.debug._memory import Memory
from custom_ops.debug._optimization import Search
from custom_ops.debug._outputs import uncompared
from custom_ops.debug._result import Comparison, Fault, Unmatched
from custom_ops.ops._body import DOMAIN

_REMEDIES = {
    "module": "pass the arguments that it was exported with",
    "model": "pass inputs of the sizes and dtypes that it was exported with, or look with "
    "`custom-ops doctor` why it does not load",
}
_REMEDIES["reference"] = _REMEDIES["model"]


@contextmanager
def running(what: str) -> Iterator[None]:
    """Says which of the two does not run, whatever torch or the runtime raises."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"compare: {what} must run on args, got {type(error).__name__}: "
            f"{first_line(error)}; {_REMEDIES[what]}"
        ) from error


@dataclass
class Work:
    """A comparison under way.

    Attributes:
        libraries: Files of libraries of custom ops that sessions need.
        session: The session to judge; None for one of our own.
        allowed: What counts as no fault.
        explain: Whether to tell how a guilty node differs from what it should be.
        simulate: Whether what has no kernel in bfloat16 runs in float32.
        memory: What the model gives may take as much of it.
        bodies: Whether the bodies of functions stand in the place of their calls.
        seconds: How long each part took.
        notes: What to tell of it.
    """

    libraries: Sequence[str]
    session: onnxruntime.InferenceSession | None
    allowed: Allowed
    explain: bool
    simulate: bool
    memory: Memory
    bodies: bool
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Notes how long a part takes."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    def opened(self, graph: Graph) -> Graph:
        """Returns the graph to look at: with the bodies of functions, where that is asked for."""
        if not self.bodies:
            return graph
        opened = _bodies.inlined(graph)
        closed = [n.proto.op_type for n in opened.nodes if n.proto.domain == DOMAIN]
        if closed:
            self.notes.append(
                f"no body to look into: {', '.join(dict.fromkeys(closed))}; "
                "custom_ops.onnx.embed adds it to the file"
            )
        if any(node.function for node in opened.nodes):
            self.notes.append(
                "the bodies of functions ran in the place of their nodes, except in the session "
                "that is judged"
            )
        self.notes = list(dict.fromkeys(self.notes))  # of two models
        return opened

    def lacking(self, *graphs: Graph) -> frozenset[str]:
        """Returns the ops without a kernel in bfloat16; notes them where they are simulated."""
        ops = list(dict.fromkeys(op for each in graphs for op in _simulated.lacking(each.proto)))
        if ops and self.simulate:
            self.notes.append(
                f"simulated: {', '.join(ops)} ran in float32, results rounded to bfloat16, for "
                "which onnxruntime has no kernel"
            )
        elif ops:
            self.notes.append(
                f"not comparable: no kernel for {', '.join(ops)} in bfloat16; compare(..., "
                "simulate=True) rounds to bfloat16 after each node"
            )
        return frozenset(ops)

    def not_comparable(self, name: str) -> Comparison:
        """Returns the result where the model does not run; the notes say why.

        Args:
            name: Of the model.
        """
        return Comparison(
            values=(),
            faults=(),
            comparable=False,
            notes=tuple(self.notes),
            model=name,
            versions=_versions(),
            seconds=tuple(self.seconds.items()),
        )

    def plain(self, graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs of the session to judge."""
        with self.part("plain"):
            runner = self.session
            if runner is None:
                with running("model"):
                    runner = graph.session(graph.proto, self.libraries, level="all")
            with running("model"):
                return _runs.fetch(runner, [each.name for each in runner.get_outputs()], feeds)

    def judged(
        self,
        name: str,
        judge: Judge,
        explained: Callable[[list[Fault]], list[Fault]],
        unmatched: Sequence[Unmatched],
        wanted: Sequence[Array | None],
        *,
        approximate: bool,
        cast: bool = False,
    ) -> Comparison:
        """Returns the result.

        Args:
            name: Of the model.
            judge: Judges it.
            explained: Tells more of faults, where that is asked for.
            unmatched: What has no partner.
            wanted: The outputs of the reference, in order; None for one that is no tensor.
            approximate: Whether partners were found without knowing modules.
            cast: Whether the model may give floats of another dtype than the reference.
        """
        with self.part("judging"):
            values, outputs = tuple(judge.values()), tuple(judge.outputs())
        faults = [fault(value, "nodes") for value in values if not value.ok]
        if faults and self.explain:
            faults = explained(faults)
        evidence = {each.name: judge.evidence(each.name) for each in faults[:MOST]}
        changed = [fault(value, "optimization") for value in outputs if not value.ok]
        if changed:
            with self.part("optimization"):
                providers = self.session.get_providers() if self.session is not None else None
                runs = judge.runs
                search = Search(judge.graph, runs.feeds, self.libraries, providers, runs.arriving)
                faults += [search.narrowed(each) for each in changed]
        return Comparison(
            values=values,
            faults=tuple(faults),
            outputs=outputs,
            unmatched=tuple(unmatched),
            approximate=approximate,
            notes=tuple(self.notes),
            model=name,
            versions=_versions(),
            seconds=tuple(self.seconds.items()),
            evidence=evidence,
            simulated=bool(judge.graph.simulated),
            uncompared=tuple(uncompared(judge, wanted, cast=cast)),
        )


def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((each.__name__, each.__version__) for each in (torch, onnx, onnxruntime))
