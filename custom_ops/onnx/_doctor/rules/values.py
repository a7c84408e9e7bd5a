"""Values: each one is defined once, before its use, and outputs are made."""

from collections.abc import Iterator

import onnx

from custom_ops.onnx._doctor.edges import Frame
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Located, Subject

_SHOWN = 4  # names in a sentence


def undefined_value(subject: Subject) -> Iterator[Finding]:
    """Each input of a node is an input or initializer of its graph, or the output of a node."""
    for frame in subject.frames:
        for node, name in frame.undefined:
            yield Finding(
                severity(subject, frame),
                "undefined-value",
                called(frame, node),
                f"input {name!r} of {node.op_type} must be defined {within(frame)}, got nothing "
                "that makes it",
                "add the node or the initializer that makes it, make it an input of the graph, or "
                "export again",
            )


def defined_twice(subject: Subject) -> Iterator[Finding]:
    """Each value is defined once in its graph."""
    for frame in subject.frames:
        for name in (*frame.repeated, *frame.given_twice):
            yield Finding(
                severity(subject, frame),
                "defined-twice",
                name,
                f"{name!r} must be defined once {within(frame)}, got two definitions",
                "rename one of them and its uses",
            )


def initializer_twice(subject: Subject) -> Iterator[Finding]:
    """Each initializer is there once; of two, onnxruntime takes the last."""
    for frame in subject.frames:
        for name in frame.initialized_twice:
            yield Finding(
                Severity.ERROR if frame.outer is not None else Severity.WARNING,
                "initializer-twice",
                name,
                f"initializer {name!r} must be there once {within(frame)}, got it twice",
                "keep the last one, which onnxruntime takes",
            )


def shadowed_value(subject: Subject) -> Iterator[Finding]:
    """A graph inside a node does not define a name of the graphs around it again."""
    for frame in subject.frames:
        if frame.outer is None:
            continue
        for name, maker in frame.made.items():
            outer = [(f.made[name], at) for f, at in frame.around() if name in f.made]
            if not outer:
                continue
            # What is defined before counts for onnxruntime's check, and only what nodes make.
            refused = maker >= 0 and any(first < at for first, at in outer)
            yield Finding(
                severity(subject, frame) if refused else Severity.WARNING,
                "shadowed-value",
                name,
                f"{name!r} {within(frame)} must be another name than in the graphs around it, got "
                "the same",
                "rename it in the inner graph",
            )


def cycle(subject: Subject) -> Iterator[Finding]:
    """No node waits for its own output."""
    for frame in subject.frames:
        nodes = frame.cycle() if frame.late() else []
        if nodes:
            names = [called(frame, frame.scope.node[index]) for index in nodes]
            yield Finding(
                severity(subject, frame),
                "cycle",
                names[0],
                f"nodes must not wait for each other, got a cycle {within(frame)}: "
                f"{' -> '.join([*names[:_SHOWN], *['...'] * (len(names) > _SHOWN), names[0]])}",
                "export the model again, or break the cycle by a Loop",
            )


def unsorted(subject: Subject) -> Iterator[Finding]:
    """Nodes stand behind those whose outputs they use."""
    for frame in subject.frames:
        late = frame.late()
        if not late or frame.cycle():
            continue
        users = [
            called(frame, frame.scope.node[index]) for index in sorted({user for _, user in late})
        ]
        yield Finding(
            Severity.WARNING if frame.sorts_itself else severity(subject, frame),
            "unsorted",
            users[0],
            f"nodes must stand behind those that they use, got {len(users)} that "
            f"{'does' if len(users) == 1 else 'do'} not {within(frame)}: {shown(users)}",
            "sort them with custom-ops fix",
            fixable=True,
        )


def missing_output(subject: Subject) -> Iterator[Finding]:
    """Each output of a graph or function is made in it."""
    for frame in subject.frames:
        for name in frame.outputs:
            if name in frame.made and not (frame.function is frame.scope and frame.made[name] < 0):
                continue
            around = name in frame.made or any(name in outer.made for outer, _ in frame.around())
            got = "nothing that makes it"
            remedy = "remove the output, or add the node that makes it"
            if around:
                got = "what is given to it, handed on"
                remedy = "put an Identity node between"
            whole = frame.function is frame.scope  # onnxruntime looks at all functions for that
            yield Finding(
                Severity.ERROR if whole else severity(subject, frame),
                "missing-output",
                name,
                f"output {name!r} must be made {within(frame)}, got {got}",
                remedy,
            )


def output_twice(subject: Subject) -> Iterator[Finding]:
    """Each output is there once."""
    for frame in subject.frames:
        names = frame.outputs
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            refused = frame.function is frame.scope
            yield Finding(
                Severity.ERROR if refused else Severity.WARNING,
                "output-twice",
                name,
                f"output {name!r} must be there once {within(frame)}, got it {names.count(name)} "
                "times",
                "return copies by Identity nodes",
            )


def severity(subject: Subject, frame: Frame) -> Severity:
    """Returns how bad it is that a scope is broken: a function that is not called does not run."""
    return Severity.ERROR if subject.runs(frame.function) else Severity.WARNING


def within(frame: Frame) -> str:
    """Returns which scope it is, for a sentence."""
    if frame.function is not None and frame.function is frame.scope:
        return f"in function {frame.function.name!r}"
    place = "in the graph"
    if frame.outer is not None:
        holder = called(frame.outer, frame.outer.scope.node[frame.at])
        place = f"in the graph {frame.scope.name!r} of {holder}"
    if frame.function is not None:
        place += f" of function {frame.function.name!r}"
    return place


def called(frame: Frame, node: onnx.NodeProto) -> str:
    """Returns what to call a node."""
    return Located(node, frame.scope, frame.function).name


def shown(names: list[str]) -> str:
    """Returns the first names of a list."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


RULES: tuple[Rule, ...] = (
    undefined_value,
    defined_twice,
    initializer_twice,
    shadowed_value,
    cycle,
    unsorted,
    missing_output,
    output_twice,
)
