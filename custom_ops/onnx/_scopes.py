"""Where the nodes of a model come from: modules, calls and source lines, as exporters note them.

The dynamo exporter of torch writes metadata into each node. The TorchScript exporter names nodes by
the modules around them, "/layer1/layer1.0/conv1/Conv", and writes where they come from only when
asked to be verbose. Nodes of other origin, and those that an optimizer has made, come from nowhere.
"""

import ast
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import onnx
import onnx_ir as ir

from custom_ops.onnx._calls import Step, numbered

Node: TypeAlias = ir.Node | onnx.NodeProto

# The notes of torch's dynamo exporter, among the metadata of a node.
_PREFIX = "pkg.torch.onnx."
NAME_SCOPES = f"{_PREFIX}name_scopes"
FX_NODE = f"{_PREFIX}fx_node"
_DEEPEST = 200  # a name of many thousand parts comes from no torch module
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"  # stands where torch.export knows none
_COUNTED = re.compile(r"(.+)_(\d+)")
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)|^([^\n]+?)\((\d+)\): ', re.MULTILINE)
_LIBRARY = re.compile(r"[/\\]torch[/\\](nn|_\w+|utils|onnx|export|jit|fx)[/\\]")


@dataclass(frozen=True)
class ModuleCall:
    """A call of a torch module.

    Attributes:
        path: As in `torch.nn.Module.get_submodule`: "layer3.0.conv1"; "" for the whole model.
        type: The class, as "torch.nn.modules.conv.Conv2d"; "" where the exporter does not say.
        call: Which call of the module it is, from 0, as far as the nodes tell.
    """

    path: str
    type: str = ""
    call: int = 0


@dataclass(frozen=True)
class Scope:
    """Where a node comes from.

    Attributes:
        modules: The calls around it, that of the whole model first, at least that.
        source: File and line of the user's code, as "net.py:12"; "" where it is not noted.
    """

    modules: tuple[ModuleCall, ...]
    source: str = ""

    @property
    def path(self) -> str:
        """Path of the innermost module."""
        return self.modules[-1].path

    @property
    def type(self) -> str:
        """Class of the innermost module."""
        return self.modules[-1].type

    @property
    def call(self) -> int:
        """Which call of the innermost module it is."""
        return self.modules[-1].call


@dataclass(frozen=True)
class _Note:
    """What one node says: its modules, and what tells it from other nodes of them.

    Attributes:
        modules: Those around it; calls are 0, unless they are in its name.
        unit: What torch did as one: all nodes of a unit have one.
        mark: The same for the same step in another call of the same module.
    """

    modules: tuple[ModuleCall, ...]
    unit: object
    mark: object


def module_path(node: Node) -> str | None:
    """Returns the path of the module that a node comes from, by what the node alone says.

    `scopes` tells more: which call it is, and what only the nodes beside it show.

    Example:
        >>> import onnx
        >>> module_path(onnx.helper.make_node("Conv", [], [], "/layer1/layer1.0/conv1/Conv"))
        'layer1.0.conv1'
    """
    note = _note(node)
    return note.modules[-1].path if note is not None else None


def class_names(node: Node) -> tuple[str, ...]:
    """Returns the classes of the modules around a node, outermost first; () where unknown."""
    note = _note(node)
    names = [module.type for module in note.modules] if note is not None else []
    return tuple(names) if all(names) else ()


def source_line(node: Node) -> str:
    """Returns the innermost line that is not torch's own, as "net.py:12"; "" where unknown."""
    trace = _metadata(node, "stack_trace")
    frames = [_frame(match) for match in _FRAME.finditer(trace)]  # the innermost last
    if not frames:
        frames = [_frame(match) for match in _FRAME.finditer(node.doc_string or "")][::-1]
    of_user = [frame for frame in frames if not _LIBRARY.search(frame)]
    return (of_user or frames or [""])[-1]


def scopes(nodes: Iterable[Node], weights: Iterable[str] = ()) -> list[Scope | None]:
    """Returns where the nodes of a graph come from.

    Calls are told apart where a module is left and entered again, and where all that it does is
    done several times. A module that does its one step in a loop looks like several calls.

    Args:
        nodes: All nodes of a graph, in order.
        weights: Names of its initializers; they tell the paths that TorchScript's names leave out.

    Returns:
        A scope for each node; None where a node says nothing.
    """
    nodes = list(nodes)
    notes = _with_weights(nodes, [_note(node) for node in nodes], set(weights))
    units = {note.unit: note for note in notes if note is not None}
    steps = [
        Step(tuple(module.path for module in unit.modules), unit.mark) for unit in units.values()
    ]
    calls = dict(zip(units, numbered(steps), strict=True))
    return [
        None
        if note is None
        else Scope(
            tuple(
                replace(module, call=call) if call and not module.call else module
                for module, call in zip(note.modules, calls[note.unit], strict=True)
            ),
            source_line(node),
        )
        for node, note in zip(nodes, notes, strict=True)
    ]


def _note(node: Node) -> _Note | None:
    scope_names = _strings(_metadata(node, "name_scopes"))
    if scope_names:
        types = _strings(_metadata(node, "class_hierarchy"))
        return _of_metadata(scope_names, types, _metadata(node, "stack_trace"))
    name = node.name or ""
    if name.startswith("/") and name.count("/") <= _DEEPEST:
        scope, _, own = name.rpartition("/")
        modules = _of_name(scope)
        return _Note(modules, name, (modules[-1].path, own))
    return None


def _of_metadata(names: tuple[str, ...], types: tuple[str, ...], trace: str) -> _Note | None:
    if len(types) != len(names):
        types = ("",) * len(names)
    around = [
        (path, name)
        for path, name in zip(names[:-1], types[:-1], strict=True)
        if not path.startswith(_NO_MODULE)
    ]
    if not around and len(names) == 1:  # the name of the node alone
        return None
    if not around or around[0][0]:  # parts of a model, exported alone, have no root
        around.insert(0, ("", ""))
    modules = tuple(ModuleCall(path, name) for path, name in around)
    mark = (modules[-1].path, types[-1], trace) if trace else names[-1]
    return _Note(modules, (modules[-1].path, names[-1]), mark)


@functools.lru_cache(maxsize=4096)
def _of_name(scope: str) -> tuple[ModuleCall, ...]:
    """Returns the modules that a name of TorchScript tells, like "/layer1/layer1.0"."""
    return _chained(scope, _joined)


def _chained(scope: str, join: Callable[[str, str], str]) -> tuple[ModuleCall, ...]:
    paths = [""]
    for part in scope.split("/")[1:]:
        paths.append(join(paths[-1], part))
    return tuple(map(ModuleCall, paths))


def _joined(parent: str, part: str) -> str:
    """Returns the path of a part: the last word of its path, with the numbers behind it."""
    if not parent:
        return part
    last = _last_word(parent)
    if part.startswith(f"{last}."):
        return parent + part[len(last) :]
    return f"{parent}.{part}"


def _last_word(path: str) -> str:
    """Returns the end of a path that TorchScript keeps: "conv1", or "layer1.0" with its numbers."""
    words = path.split(".")
    for i in reversed(range(len(words))):
        if not words[i].isnumeric():
            return ".".join(words[i:])
    return path


def _with_weights(
    nodes: Sequence[Node], notes: list[_Note | None], weights: set[str]
) -> list[_Note | None]:
    """Corrects what TorchScript's names leave open, by the weights that the nodes use.

    A second call of "conv" and a module "conv_1" have the same name: a call uses the weights of the
    first one. Of a module in a ModuleDict the name of the dictionary is left out: it is in the
    names of weights.
    """
    named = [i for i, note in enumerate(notes) if note and not _metadata(nodes[i], "name_scopes")]
    if not named:
        return notes
    same = {
        _outputs(node)[0]: _inputs(node)[0]
        for node in nodes
        if node.op_type == "Identity" and _inputs(node) and _outputs(node)
    }
    used = [{same.get(name, name) for name in _inputs(nodes[i])} & weights for i in named]
    names = [(nodes[i].name or "").rpartition("/") for i in named]
    by_scope: dict[str, set[str]] = {}
    for (scope, _, _), of_node in zip(names, used, strict=True):
        by_scope.setdefault(scope, set()).update(of_node)
    paths = {name.rpartition(".")[0] for name in weights if "::" not in name} - {""}
    known = {
        path[: dot.start()] for path in paths for dot in re.finditer(r"\.|$", path)
    }  # each path, and those around it
    by_last_word: dict[str, list[str]] = {}
    for path in sorted(known, key=lambda path: (path.count("."), path)):
        by_last_word.setdefault(_last_word(path), []).append(path)

    def join(parent: str, part: str) -> str:
        path = _joined(parent, part)
        inside = f"{parent}." if parent else ""
        found = [p for p in by_last_word.get(part, []) if p.startswith(inside)]
        return found[0] if path not in known and len(found) == 1 else path

    chained = functools.cache(lambda scope: _chained(scope, join))
    corrected = list(notes)
    for i, (scope, _, own), of_node in zip(named, names, used, strict=True):
        call = 0
        counted = _COUNTED.fullmatch(scope)
        if counted is not None and counted[1] in by_scope:
            of_first = by_scope[counted[1]]
            if of_node & of_first or by_scope[scope] <= of_first:
                scope, call = counted[1], int(counted[2])
        modules = chained(scope)
        if call:
            modules = (*modules[:-1], replace(modules[-1], call=call))
        corrected[i] = _Note(modules, nodes[i].name, (modules[-1].path, own))
    return corrected


def _metadata(node: Node, key: str) -> str:
    if isinstance(node, ir.Node):
        return node.metadata_props.get(_PREFIX + key, "")
    found = (entry.value for entry in node.metadata_props if entry.key == _PREFIX + key)
    return next(found, "")


def _inputs(node: Node) -> list[str]:
    if isinstance(node, ir.Node):
        return [value.name or "" if value is not None else "" for value in node.inputs]
    return list(node.input)


def _outputs(node: Node) -> list[str]:
    if isinstance(node, ir.Node):
        return [value.name or "" for value in node.outputs]
    return list(node.output)


@functools.lru_cache(maxsize=4096)
def _strings(text: str) -> tuple[str, ...]:
    """Returns the list of strings that a text is in Python; () where it is none, or too long."""
    try:
        value = ast.literal_eval(text) if len(text) < 100_000 else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    if not isinstance(value, list) or len(value) > _DEEPEST:
        return ()
    return tuple(value) if all(isinstance(each, str) for each in value) else ()


def _frame(match: re.Match[str]) -> str:
    return f"{match[1] or match[3]}:{match[2] or match[4]}"
