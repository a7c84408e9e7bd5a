"""What mends a finding of the doctor, by the finding's code."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from custom_ops.onnx import _guarded, _walk
from custom_ops.onnx._doctor.rules.versions import implied_version
from custom_ops.onnx._doctor.subject import Subject
from custom_ops.onnx._fix import ir_version, opset

# Changes the model of the subject in place and returns what was done, which may be nothing; raises
# ValueError where the finding cannot be mended without a change of meaning.
Mend = Callable[[Subject], list[str]]


def _ir_version(subject: Subject) -> list[str]:
    wanted = min(max(subject.model.ir_version, ir_version.LOWEST), subject.target.ir_version)
    return list(filter(None, [ir_version.set_version(subject.model, wanted)]))


def _opset(subject: Subject) -> list[str]:
    return opset.set_opset(subject.model, subject.target.opset)


def _domain_twice(subject: Subject) -> list[str]:
    """Keeps the last import of each domain, which is the one that counts."""
    done = []
    holders = [("the model", subject.model.opset_import)]
    holders += [(f"function {f.name!r}", f.opset_import) for f in subject.model.functions]
    for who, imports in holders:
        kept = {_walk.domain(each.domain): each.version for each in imports}
        if len(kept) < len(imports):
            del imports[:]
            for domain, version in kept.items():
                imports.add(domain=domain, version=version)
            done.append(f"{who} imports each domain once, as it counted")
    return done


def _domain_import(subject: Subject) -> list[str]:
    done = []
    for located in subject.nodes():
        domain, function = _walk.domain(located.node.domain), located.function
        if subject.opset(domain, function) is not None:
            continue
        version = implied_version(subject, domain, function)
        if version is not None:
            holder = subject.model if function is None else function
            holder.opset_import.add(domain=domain, version=version)
            who = "the model" if function is None else f"function {function.name!r}"
            done.append(f"{who} imports {domain or 'ai.onnx'} {version}")
    return done


def _unsorted(subject: Subject) -> list[str]:
    """Puts nodes behind those that they use, and else as they stood."""
    count = 0
    for frame in reversed(subject.frames):  # the inner graphs first: the outer ones copy them
        if frame.late() and not frame.cycle():
            nodes = [frame.scope.node[index] for index in frame.order()]
            del frame.scope.node[:]
            frame.scope.node.extend(nodes)
            count += 1
    where = "the graph" if count == 1 else f"{count} graphs or functions"
    return [f"sorted the nodes of {where}"] if count else []


def _node_name(subject: Subject) -> list[str]:
    done: list[str] = []
    for scope in _walk.scopes(subject.model):
        counts = Counter(node.name for node in scope.node)
        taken, seen = set(counts), set()
        for node in scope.node:
            name = node.name
            if name and name in seen:
                node.name = _walk.free_name(name, taken)
                done.append(node.name)
            seen.add(name)
    return [f"gave {len(done)} nodes names of their own, such as {done[0]!r}"] if done else []


def _overloads(subject: Subject) -> list[str]:
    names = Counter((domain, name) for domain, name, _ in subject.functions)
    return _inlined(subject, {key for key in subject.functions if names[key[:2]] > 1})


def _outputs(subject: Subject) -> list[str]:
    """Names the outputs that calls leave out at the end."""
    count = 0
    for located in subject.nodes():
        function = subject.functions.get(_guarded.function_key(located.node))
        if function is not None:
            missing = len(function.output) - len(located.node.output)
            located.node.output.extend([""] * missing)
            count += missing > 0
    return [f"wrote the outputs that {count} calls of functions leave out"] if count else []


def _inlined(subject: Subject, keys: Collection[_guarded.FunctionKey]) -> list[str]:
    """Puts the bodies of functions in the place of their calls."""
    model = subject.model
    count = _guarded.expanded_nodes(model)
    if count is None or count > _guarded.MOST_NODES:
        raise ValueError("fix: functions must expand to fewer nodes to be inlined")
    if any(getattr(scope, "sparse_initializer", ()) for scope in _walk.scopes(model)):
        raise ValueError("fix: functions must be inlined in a model without sparse initializers")
    try:
        graph = ir.serde.deserialize_model(model)
        InlinePass(criteria=lambda function: function.identifier() in keys)(graph)
        for key in keys:  # what nothing calls any more
            graph.functions.pop(key, None)
        result = ir.to_proto(graph)
    except Exception as error:  # of a broken graph, which onnx-ir does not check first
        raise ValueError(f"fix: functions must be inlined, got {error}") from error
    model.CopyFrom(result)
    return [f"inlined {', '.join(sorted({name for _, name, _ in keys}))}"]


# In the order in which they are done: overloads, for one, hinder a lower IR version.
MENDS: Mapping[str, Mend] = {
    "domain-twice": _domain_twice,
    "domain-import": _domain_import,
    "unsorted": _unsorted,
    "node-name": _node_name,
    "function-outputs": _outputs,
    "function-overloads": _overloads,
    "ir-version": _ir_version,
    "opset": _opset,
}
