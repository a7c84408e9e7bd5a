"""Lists the values that are not compared since they are inside the body of a loop or a branch."""

from collections.abc import Iterator

from custom_ops.debug._graph import Graph
from custom_ops.debug._result import Unmatched
from custom_ops.onnx import _scopes, _walk

LOOP_BODY = "not compared: loop body"


def inside(graph: Graph, side: str = "model") -> Iterator[Unmatched]:
    """Yields the values inside the graphs that nodes have, of whatever depth.

    Args:
        graph: A model whose branches that are taken stand in the place of their nodes.
        side: As in `Unmatched`.
    """
    for node in graph.nodes:
        reason = "not compared: branch" if node.proto.op_type == "If" else LOOP_BODY
        around = node.scope.path if node.scope is not None else ""
        for body in _walk.subgraphs(node.proto):
            for scope in _walk.within(body):
                for inner in scope.node:
                    where = _scopes.module_path(inner) or around
                    for name in filter(None, inner.output):
                        yield Unmatched(side, name, inner.op_type, where, reason)
