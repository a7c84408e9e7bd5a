"""onnx's checker, shape inference and inliner under limits: a hostile model must not stop us.

Twenty-five functions that call the next one twice each are 2^25 nodes, in which all three hang; a
few broken models crash them. So they run in a child process, for a limited time, on models whose
functions do not expand beyond a limit. Large weights stay here: only small ones can be shapes.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx

from custom_ops.onnx import _walk

MOST_NODES = 2_000_000
SECONDS = 60.0
_CHILD = Path(__file__).with_name("_onnx_child.py")
_LARGEST_KEPT = 4096  # bytes

FunctionKey = tuple[str, str, str]


class Refused(Exception):
    """What onnx said of a model, or that a limit was reached."""


def infer_shapes(model: onnx.ModelProto, seconds: float = SECONDS) -> onnx.ModelProto:
    """Returns a model with the types and shapes that onnx infers, without its large weights.

    Raises:
        Refused: onnx raised, crashed, or did not end.
    """
    return onnx.load_from_string(_run("infer", model, seconds))


def check(model: onnx.ModelProto, seconds: float = SECONDS) -> None:
    """Runs onnx's checker, which looks at the model without its large weights.

    Raises:
        Refused: What it says.
    """
    _run("check", model, seconds)


def check_types(model: onnx.ModelProto, seconds: float = SECONDS) -> None:
    """Runs onnx's strict inference, which raises where types or shapes contradict each other.

    Raises:
        Refused: What it says.
    """
    _run("infer-strictly", model, seconds)


def inline(model: onnx.ModelProto, seconds: float = SECONDS) -> onnx.ModelProto:
    """Returns a model whose functions are inlined, without its large weights.

    Raises:
        Refused: onnx raised, crashed, or did not end.
    """
    return onnx.load_from_string(_run("inline", model, seconds))


def _run(action: str, model: onnx.ModelProto, seconds: float) -> bytes:
    count = expanded_nodes(model)
    if count is None:
        raise Refused("functions must not call themselves, got a recursion")
    if count > MOST_NODES:
        raise Refused(f"functions must expand to at most {MOST_NODES:,} nodes, got {count:,}")
    try:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [sys.executable, str(_CHILD), action],
            input=without_large_weights(model, action != "check").SerializeToString(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"onnx must be done within {seconds:g} s, got no end") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        ended = f"onnx ended the process with {done.returncode}"
        raise Refused(said if done.returncode == 1 and said else ended)
    return done.stdout


def function_key(node: onnx.NodeProto) -> FunctionKey:
    """Returns which function a node would call."""
    return _walk.domain(node.domain), node.op_type, node.overload


def functions(model: onnx.ModelProto) -> dict[FunctionKey, onnx.FunctionProto]:
    """Returns the functions of a model by what nodes call."""
    return {(_walk.domain(f.domain), f.name, f.overload): f for f in model.functions}


def expanded_nodes(model: onnx.ModelProto) -> int | None:
    """Returns how many nodes a model has once all functions are inlined; None for a recursion."""
    bodies = functions(model)
    counts: dict[FunctionKey, int] = {}
    # Depth first, without recursion of ours: functions may be nested as deep as there are any.
    for root in bodies:
        stack = [(root, iter(list(_calls(bodies[root], bodies))))]
        open_ones = {root}
        while stack:
            key, callees = stack[-1]
            callee = next(callees, None)
            if callee is None:
                stack.pop()
                open_ones.discard(key)
                counts[key] = _count(bodies[key], counts)
            elif callee in open_ones:
                return None
            elif callee not in counts:
                open_ones.add(callee)
                stack.append((callee, iter(list(_calls(bodies[callee], bodies)))))
    return _count(model.graph, counts)


def _calls(
    scope: _walk.Scope, bodies: dict[FunctionKey, onnx.FunctionProto]
) -> Iterator[FunctionKey]:
    for inner in _walk.within(scope):
        yield from (key for key in map(function_key, inner.node) if key in bodies)


def _count(scope: _walk.Scope, counts: dict[FunctionKey, int]) -> int:
    return sum(
        counts.get(function_key(node), 1) for inner in _walk.within(scope) for node in inner.node
    )


def without_large_weights(model: onnx.ModelProto, shapes: bool = True) -> onnx.ModelProto:
    """Returns a copy whose large tensors have no data.

    Args:
        model: The model; left as it is.
        shapes: Whether they keep their shapes, else they are of no elements: the checker wants
            data for each element, and does not compare shapes.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in _walk.tensors(bare):
        if tensor.ByteSize() > _LARGEST_KEPT or tensor.data_location == tensor.EXTERNAL:
            empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0])
            if shapes:
                empty.dims[:] = tensor.dims
                empty.data_location = onnx.TensorProto.EXTERNAL
                empty.external_data.add(key="location", value="none")
            tensor.CopyFrom(empty)
    return bare
