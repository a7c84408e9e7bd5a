"""Finds which result of torch a value of a model is: by module, order, shape and kind."""

import bisect
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from custom_ops.debug._float64 import Replay
from custom_ops.debug._graph import Array, Graph, Node, regions
from custom_ops.debug._inside import LOOP_BODY
from custom_ops.debug._kinds import LOOPS, VIEWS, fits, torch_kind
from custom_ops.debug._recording import Recording, Ref, Step
from custom_ops.debug._result import Unmatched
from custom_ops.onnx._verify import to_array
from custom_ops.onnx._walk import used

_MOST_PARTNERS = 64  # that are tried for one value
_ALIKE = 2.0  # what it counts that the numbers are the same; that two values have partners: 2
_CHOOSERS = frozenset(("TopK", "ArgMax", "ArgMin", "Gather", "GatherND", "GatherElements"))
_SKETCH = 64  # elements that tell whether two arrays are alike


@dataclass(frozen=True)
class Pairs:
    """What found its partner.

    Attributes:
        of_value: The result of torch that a value of the model is.
        unmatched: The others.
        approximate: Whether modules were not known, and order and shape alone decided.
    """

    of_value: Mapping[str, Ref]
    unmatched: tuple[Unmatched, ...]
    approximate: bool


@dataclass(frozen=True)
class Candidate:
    """A result of torch that may be a partner.

    Attributes:
        ref: The result.
        step: Its step.
        leaves: Whether it is used outside the module call that makes it.
        kinds: What it may be the result of.
        form: Its dtype and shape.
        sketch: Some of its elements.
    """

    ref: Ref
    step: Step
    leaves: bool
    kinds: frozenset[str]
    form: tuple[str, tuple[int, ...]]
    sketch: Array

    @property
    def call(self) -> int:
        """Which call of its module it is in."""
        return self.step.modules[-1].call


def names_modules(graph: Graph) -> bool:
    """Returns whether most nodes say which module they come from."""
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    return sum(node.scope is not None for node in nodes) * 2 >= len(nodes)


def pair(graph: Graph, values: Mapping[str, Array], recording: Recording) -> Pairs:
    """Pairs the values of a model that names modules with the results of torch.

    Args:
        graph: The model.
        values: What it makes when it runs, by name.
        recording: What torch did on the same inputs.
    """
    candidates = candidates_of(recording)
    nodes = [node for node in graph.nodes if not node.constant and not node.inner]
    ours: dict[str, list[tuple[Node, str]]] = defaultdict(list)
    for node in nodes:
        if node.scope is not None:
            where = recording.aliases.get(node.scope.path, node.scope.path)
            ours[where] += [(node, name) for name in node.proto.output if name in values]
    theirs: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        theirs[candidate.step.path].append(candidate)
    of_value = outputs_of(graph, values, recording)
    leaving = leaving_of(graph)
    for where, makers in ours.items():
        of_value |= aligned(makers, values, theirs.get(where, []), of_value, leaving)
    of_value |= _of_scripts(nodes, values, candidates, of_value)
    of_value = _that_read_the_same(graph, values, candidates, of_value)
    of_value = _past_merged(graph, of_value, recording)
    unmatched = unmatched_of(graph, nodes, values, candidates, of_value, recording)
    return Pairs(of_value, tuple(unmatched), False)


def outputs_of(graph: Graph, values: Mapping[str, Array], recording: Recording) -> dict[str, Ref]:
    """Returns the outputs, which are those of the module, in order."""
    names = graph.outputs
    if len(names) != len(recording.outputs):
        return {}
    return {
        name: ref
        for name, ref in zip(names, recording.outputs, strict=True)
        if name in values and name in graph.producer
    }


def candidates_of(recording: Recording) -> list[Candidate]:
    """Returns the results of torch that depend on the inputs, in order."""
    units: dict[int, list[Step]] = defaultdict(list)
    for step in recording.steps:
        units[step.unit].append(step)
    leaving = _leaving(recording)
    found = []
    for step in recording.steps:
        if not step.depends or step.in_loop:  # it works on weights alone, or often
            continue
        kinds = {torch_kind(step.name)}
        if units[step.unit][-1] is step:  # what the whole function gives
            inner = {torch_kind(each.name) for each in units[step.unit]}
            kinds |= inner - VIEWS
            if step.function and "addmm" not in inner:
                kinds.add(torch_kind(step.function))
        for i, tensor in enumerate(step.outputs):
            form = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            ref = Ref(step.index, i)
            some = _sketch_torch(tensor)
            found.append(Candidate(ref, step, ref in leaving, frozenset(kinds), form, some))
    return found


def _leaving(recording: Recording) -> set[Ref]:
    """Returns the results that are used outside the module call that makes them."""
    leaving = set(recording.outputs)
    for step in recording.steps:
        inside = step.modules[-1]
        leaving |= {ref for ref in step.refs if recording.steps[ref.step].modules[-1] != inside}
    return leaving


def leaving_of(graph: Graph) -> set[str]:
    """Returns the values that are used outside the module call that their node comes from."""
    leaving = set(graph.outputs)
    for node in graph.nodes:
        for name in used(node.proto):
            maker = graph.producer.get(name)
            if maker is not None and _inside(maker) != _inside(node):
                leaving.add(name)
    return leaving


def _inside(node: Node) -> object:
    return None if node.scope is None else (node.scope.path, node.scope.call)


def aligned(
    makers: Sequence[tuple[Node, str]],
    values: Mapping[str, Array],
    candidates: Sequence[Candidate],
    fixed: Mapping[str, Ref],
    leaving: Collection[str],
    *,
    alike_alone: bool = False,
) -> dict[str, Ref]:
    """Pairs the values of one module with its results: as many as possible, in order.

    Args:
        makers: The values and their nodes, in the order of the graph.
        values: What the model makes, by name.
        candidates: The results, in the order of torch.
        fixed: Pairs that stand.
        leaving: The values that are used outside their module call.
        alike_alone: Whether only numbers that are alike may be a pair.
    """
    by_form: dict[tuple[str, tuple[int, ...]], list[int]] = defaultdict(list)
    taken = set(fixed.values())
    for j, candidate in enumerate(candidates):
        if candidate.ref not in taken:
            by_form[candidate.form].append(j)
    links: list[tuple[int, int, float]] = []
    sketches: dict[tuple[str, tuple[int, ...]], Array] = {}
    for i, (node, name) in enumerate(makers):
        if name in fixed:
            continue
        array = values[name]
        form = (_dtype(array), array.shape)
        near = by_form.get(form, [])
        own = sketch(array)
        if len(near) > _MOST_PARTNERS:  # those alike, those near
            if form not in sketches:
                sketches[form] = np.stack([candidates[j].sketch for j in near])
            rows = np.flatnonzero(_alike_rows(own, sketches[form]))
            here = i * len(candidates) // len(makers)
            near = sorted({*_closest([near[row] for row in rows], here), *_closest(near, here)})
        same_as = {j for j in near if alike(own, candidates[j].sketch)}
        for j in near:
            candidate = candidates[j]
            same = j in same_as
            inside = node.function and not node.target  # where not all have a partner
            if (alike_alone or inside) and not same:
                continue
            kept = same and node.proto.op_type in LOOPS  # a loop that torch runs as other ops
            if kept or fits(node.proto.op_type, node.proto.domain, node.target, candidate.kinds):
                # One that is alike rather is it, and one that is at the same place.
                place = abs((i + 1) / len(makers) - (j + 1) / len(candidates))
                weight = (
                    1.0
                    + _ALIKE * same
                    + 0.5 * (not same_as and _mostly_alike(own, candidate.sketch))
                    + (0.3 * nearness(own, candidate.sketch) if alike_alone else 0.0)
                    + 0.2 * (node.scope is not None and node.scope.call == candidate.call)
                    + 0.2 * ((name in leaving) == candidate.leaves)
                    - 0.01 * place
                )
                links.append((i, j, weight))
    return {makers[i][1]: candidates[j].ref for i, j in heaviest(links)}


def _of_scripts(
    nodes: Iterable[Node],
    values: Mapping[str, Array],
    candidates: Sequence[Candidate],
    fixed: Mapping[str, Ref],
) -> dict[str, Ref]:
    """Pairs what loops of scripts give, which name no module, with the last result alike."""
    taken = set(fixed.values())
    found: dict[str, Ref] = {}
    for node in nodes:
        if node.scope is None and node.proto.op_type in LOOPS:
            for name in node.proto.output:
                if name in values and name not in fixed:
                    own, form = sketch(values[name]), (_dtype(values[name]), values[name].shape)
                    near = [c for c in candidates if c.form == form and c.ref not in taken]
                    same = [c.ref for c in near if alike(own, c.sketch)]
                    if same:
                        found[name] = same[-1]
                        taken.add(same[-1])
    return found


def _closest(near: Sequence[int], place: int) -> Sequence[int]:
    """Returns those of ordered numbers that are closest to a place, a fixed number of them."""
    middle = bisect.bisect(near, place)
    start = max(0, min(middle - _MOST_PARTNERS // 2, len(near) - _MOST_PARTNERS))
    return near[start : start + _MOST_PARTNERS]


def heaviest(links: Sequence[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """Returns the links of the largest total weight that do not cross, each end used once."""
    size = max((j for _, j, _ in links), default=-1) + 2
    best: list[tuple[float, int]] = [(0.0, -1)] * size  # a Fenwick tree of maxima
    before: list[int] = []
    totals: list[float] = []

    def largest(end: int) -> tuple[float, int]:
        found = (0.0, -1)
        while end > 0:
            found = max(found, best[end])
            end -= end & -end
        return found

    def put(place: int, entry: tuple[float, int]) -> None:
        while place < size:
            best[place] = max(best[place], entry)
            place += place & -place

    # Of one value the later partners first, so that none of its links builds on another.
    order = sorted(range(len(links)), key=lambda k: (links[k][0], -links[k][1]))
    for k in order:
        _, j, weight = links[k]
        total, previous = largest(j)
        before.append(previous)
        totals.append(total + weight)
        put(j + 1, (total + weight, len(totals) - 1))
    chosen = []
    at = max(range(len(totals)), key=totals.__getitem__, default=-1)
    while at >= 0:
        i, j, _ = links[order[at]]
        chosen.append((i, j))
        at = before[at]
    return chosen[::-1]


def _that_read_the_same(
    graph: Graph,
    values: Mapping[str, Array],
    candidates: Iterable[Candidate],
    of_value: Mapping[str, Ref],
) -> dict[str, Ref]:
    """Pairs what was chosen and reads partners with the one result of the op that reads theirs.

    Its numbers need not be alike: those that are nearly equal may have come in another order.
    """
    readers: dict[Ref, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        for ref in set(candidate.step.refs):
            readers[ref].append(candidate)
    found = dict(of_value)
    taken = set(found.values())
    for node in graph.nodes:
        makers = (graph.producer.get(name) for name in used(node.proto))
        variable = {each.index for each in makers if each is not None and not each.constant}
        read = {found[name] for name in used(node.proto) if name in found}
        if node.proto.op_type not in _CHOOSERS or not variable or len(read) < len(variable):
            continue
        for name in node.proto.output:
            if name not in values or name in found:
                continue
            form = (_dtype(values[name]), values[name].shape)
            left = {
                each.ref
                for ref in read
                for each in readers[ref]
                if each.form == form
                and each.ref not in taken
                and read <= set(each.step.refs)
                and fits(node.proto.op_type, node.proto.domain, node.target, each.kinds)
            }
            if len(left) == 1:
                found[name] = left.pop()
                taken.add(found[name])
    return found


def _past_merged(graph: Graph, of_value: Mapping[str, Ref], recording: Recording) -> dict[str, Ref]:
    """Moves a value on to the result of the BatchNorm that the exporter merged into its node."""
    users: dict[Ref, list[Step]] = defaultdict(list)
    for step in recording.steps:
        for ref in step.refs:
            users[ref].append(step)
    taken = set(of_value.values())
    normalizations = {
        node.proto.input[0] for node in graph.nodes if node.proto.op_type == "BatchNormalization"
    }
    moved = dict(of_value)
    for name, ref in of_value.items():
        if graph.producer[name].proto.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        after = users[ref]
        if len(after) != 1 or torch_kind(after[0].name) != "batch_norm":
            continue
        result = Ref(after[0].index, 0)
        if name not in normalizations and result not in taken:
            moved[name] = result
    return moved


def unmatched_of(
    graph: Graph,
    nodes: Iterable[Node],
    values: Mapping[str, Array],
    candidates: Iterable[Candidate],
    of_value: Mapping[str, Ref],
    recording: Recording,
) -> Iterable[Unmatched]:
    """Yields the values and results without partner, and why."""
    stops = frozenset(of_value.values())
    inside = {
        node.index: name for name, region in regions(graph, of_value).items() for node in region
    }
    passed = {
        step.index: recording.steps[ref.step].name
        for ref in of_value.values()
        for step in Replay(recording, ref, stops).steps
    }
    for node in nodes:
        for name in node.proto.output:
            if name and name not in of_value:
                if name not in values:
                    reason = "is no tensor, or was not computed"
                elif node.index in inside:
                    reason = f"is a part of what gives {inside[node.index]}"
                elif node.scope is None:
                    reason = "its node names no module"
                else:
                    reason = "no result of its module has its shape, kind and place"
                where = node.scope.path if node.scope is not None else ""
                yield Unmatched("model", name, node.proto.op_type, where, reason)
    taken = set(of_value.values())
    for candidate in candidates:
        if candidate.ref not in taken and candidate.ref.output == 0:
            step = candidate.step
            reason = "no value of its module has its shape, kind and place"
            if step.index in passed:
                reason = f"is a part of what gives {passed[step.index]}"
            yield Unmatched("reference", step.name, step.name, step.path, reason)
    for step in recording.steps:
        if step.depends and step.in_loop:
            yield Unmatched("reference", step.name, step.name, step.path, LOOP_BODY)


def _dtype(array: Array) -> str:
    return str(array.dtype)


def sketch(array: Array) -> Array:
    """Returns some elements of an array, spread evenly."""
    flat = array.reshape(-1)
    if flat.dtype.kind not in "fiubc" and flat.dtype.name != "bfloat16":
        return np.zeros(0)
    step = max(1, flat.size // _SKETCH)
    return flat[::step][: 2 * _SKETCH].astype(
        np.float64 if flat.dtype.kind != "c" else np.complex128
    )


def _sketch_torch(tensor: torch.Tensor) -> Array:
    count = tensor.numel()
    if tensor.layout != torch.strided or count == 0:
        return np.zeros(0)
    step = max(1, count // _SKETCH)
    if tensor.is_contiguous():
        return sketch(to_array(tensor.view(-1)[::step][: 2 * _SKETCH].clone()))
    places = torch.arange(0, count, step)[: 2 * _SKETCH]
    index = torch.unravel_index(places, tensor.shape) if tensor.dim() else ()
    return sketch(to_array(tensor[index].reshape(-1) if index else tensor.reshape(-1)))


def alike(a: Array, b: Array, tolerance: float = 1e-3) -> bool:
    """Returns whether two sketches are of the same values, as far as they tell."""
    if a.shape != b.shape or a.size == 0:
        return False
    with np.errstate(all="ignore"):
        scale = np.abs(a).max()
        return bool(np.all(np.abs(a - b) <= tolerance * scale + 1e-12))


def _mostly_alike(a: Array, b: Array) -> bool:
    """Returns whether most numbers of two sketches agree: some came in another order."""
    if a.shape != b.shape or a.size == 0:
        return False
    with np.errstate(all="ignore"):
        agree = np.abs(a - b) <= 1e-3 * np.abs(a) + 1e-12
    return bool(agree.mean() > 0.5) and len(np.unique(a[agree])) > _SKETCH // 4


def nearness(a: Array, b: Array) -> float:
    """Returns how near two sketches that are alike are: 1 where equal, by digits that agree."""
    with np.errstate(all="ignore"):
        apart = float(np.abs(a - b).max() / np.abs(a).max())
    return -math.log10(min(max(apart, 1e-9), 1.0)) / 9 if apart == apart else 0.0


def _alike_rows(own: Array, rows: Array) -> Array:
    """Does what `alike` does for many of one shape."""
    if rows.shape[1:] != own.shape or own.size == 0:
        return np.zeros(len(rows), bool)
    with np.errstate(all="ignore"):
        most = 1e-3 * np.abs(own).max() + 1e-12
        return np.asarray(np.all(np.abs(rows - own) <= most, axis=1))
