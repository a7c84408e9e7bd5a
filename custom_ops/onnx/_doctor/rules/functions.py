"""Functions of the model: none calls itself, each is there once, and they expand to a sane size."""

from collections import Counter
from collections.abc import Iterator

from custom_ops.onnx import _guarded
from custom_ops.onnx._doctor.findings import Finding, Severity
from custom_ops.onnx._doctor.rules.rule import Rule
from custom_ops.onnx._doctor.subject import Subject


def recursion(subject: Subject) -> Iterator[Finding]:
    """No function calls itself, directly or through others."""
    found = _guarded.recursion(subject.model)
    if found:
        names = [name for _, name, _ in found]
        refused = any(key in subject.called for key in found) or subject.target.at_least("1.27")
        yield Finding(
            Severity.ERROR if refused else Severity.WARNING,
            "recursion",
            names[0],
            f"functions must not call themselves, got {' -> '.join([*names, names[0]])}",
            "write the repetition as a Loop",
        )


def expansion(subject: Subject) -> Iterator[Finding]:
    """The functions, inlined, make no more nodes than a session can load in a minute."""
    count = _guarded.expanded_nodes(subject.model)
    if count is not None and count > _guarded.MOST_NODES:
        yield Finding(
            Severity.ERROR,
            "expansion",
            "",
            f"functions must expand to at most {_guarded.MOST_NODES:,} nodes, got {count:,}",
            "let fewer functions call others twice",
        )


def function_twice(subject: Subject) -> Iterator[Finding]:
    """Each function is there once; of two, releases before 1.31 take the last."""
    counts = Counter(map(_guarded.key_of, subject.model.functions))
    for (domain, name, overload), count in counts.items():
        if count > 1:
            refused = subject.target.at_least("1.31")
            what = f"{domain}::{name}" + (f", overload {overload!r}," if overload else "")
            yield Finding(
                Severity.ERROR if refused else Severity.WARNING,
                "function-twice",
                name,
                f"function {what} must be there once, got {count}",
                "remove all but one",
            )


RULES: tuple[Rule, ...] = (recursion, expansion, function_twice)
