"""What onnx's C++ does to a model, in a process that may hang or crash; run by its path.

Reads a message from stdin and writes what came of it to stdout. It imports onnx alone, so that it
starts fast.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.shape_inference

_SEVERAL = "Inference error(s)"
_MISSING = "[TypeInferenceError]"
_MOST_TYPES = 10  # that are looked for, since each is a run of its own
_KNOWN = frozenset({"ai.onnx", *(schema.domain for schema in onnx.defs.get_all_schemas())})


def _check(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=False)
    return b""


def _infer(model: onnx.ModelProto) -> bytes:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return bytes(inferred.SerializeToString())


def _infer_strictly(model: onnx.ModelProto) -> bytes:
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return b""


def _contradictions(model: onnx.ModelProto) -> bytes:
    """Returns what is wrong with the nodes, which have names of their own, and `_infer`.

    Inference says all of shapes that contradict, but stops at the first type that does, so that
    node is put aside and inference starts again; and where it meets an op that it does not know it
    says nothing of shapes, so those are put aside first. What it says of missing types is left out,
    as it follows from that, or from a node that is named already.
    """
    inferred = _infer(model)
    own = {(function.domain, function.name) for function in model.functions}
    _put_aside(model, lambda n: n.domain not in _KNOWN and (n.domain, n.op_type) not in own)
    said: list[str] = []
    for _ in range(_MOST_TYPES):
        try:
            _infer_strictly(model)
        except Exception as error:
            said.append(str(error))
        else:
            break
        names = re.findall(r"node name: ([^)]*)\)", said[-1])
        if _SEVERAL in said[-1] or not names or not _put_aside(model, _called(names[-1])):
            break
    lines = [line for text in said for line in text.splitlines() if _MISSING not in line]
    message = "\n".join(lines).encode()
    return b"%d\n%s%s" % (len(message), message, inferred)


def _called(name: str) -> Callable[[onnx.NodeProto], bool]:
    return lambda node: bool(node.name == name)


def _put_aside(model: onnx.ModelProto, chosen: Callable[[onnx.NodeProto], bool]) -> bool:
    """Removes nodes, whose outputs become inputs, and returns whether there are any."""
    waiting = [(scope, scope) for scope in (model.graph, *model.functions)]
    found = False
    while waiting:
        scope, outer = waiting.pop()
        aside = [node for node in scope.node if chosen(node)]
        kept = [node for node in scope.node if not chosen(node)] if aside else scope.node
        for node in kept:
            for attribute in node.attribute:
                inside = [attribute.g] if attribute.HasField("g") else attribute.graphs
                waiting += [(graph, outer) for graph in inside]
        if not aside:
            continue
        found = True
        types = {value.name: value for value in getattr(scope, "value_info", ())}
        for name in {name for node in aside for name in node.output if name}:
            if isinstance(outer, onnx.FunctionProto):
                outer.input.append(name)
            else:
                outer.input.append(types.get(name, onnx.ValueInfoProto(name=name)))
        copies = type(scope)(node=kept).node
        del scope.node[:]
        scope.node.extend(copies)
    return found


def _several(model: onnx.ModelProto) -> bytes:
    """Does what each node says: the action is its op, and the model its attribute.

    Puts there what came of it, or what was said.
    """
    for request in model.graph.node:
        try:
            answer = ACTIONS[request.op_type](onnx.load_from_string(request.attribute[0].s))
        except Exception as error:
            request.attribute[0].name, answer = "refused", str(error).encode()
        request.attribute[0].s = answer
    return bytes(model.SerializeToString())


def _inline(model: onnx.ModelProto) -> bytes:
    return bytes(onnx.inliner.inline_local_functions(model).SerializeToString())


def _flatten(model: onnx.ModelProto) -> bytes:
    return _infer(onnx.inliner.inline_local_functions(model))


def _expand(model: onnx.ModelProto) -> bytes:
    """Puts, for each graph of one node, the graph of its standard body there; or takes it away."""
    opsets = {"" if each.domain == "ai.onnx" else each.domain: each for each in model.opset_import}
    for query in model.graph.node:
        graph = query.attribute[0].g
        try:
            graph.CopyFrom(_expanded(graph, {d: each.version for d, each in opsets.items()}))
        except Exception:  # no such op, no body, or one that does not fit the types
            del query.attribute[:]
    return bytes(model.SerializeToString())


def _expanded(graph: onnx.GraphProto, opsets: dict[str, int]) -> onnx.GraphProto:
    (node,) = graph.node
    opset = opsets[node.domain]
    schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)  # not all of it has types
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            node.attribute.append(attribute.default_value)
    body = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        types = {value.name: value.type.SerializeToString() for value in graph.input}
        build = schema.get_context_dependent_function_with_opset_version
        inputs = [types.get(name, b"") for name in node.input]
        since = max(v for v in schema.context_dependent_function_opset_versions if v <= opset)
        body.ParseFromString(build(since, node.SerializeToString(), inputs))
    else:
        body.ParseFromString(schema.get_function_with_opset_version(opset))
        written = max(v for v in schema.function_opset_versions if v <= opset)
        # The runtime leaves a body aside whose ops have changed since it was written.
        for each in body.node if node.domain == "" else ():
            if _since(each, written) != _since(each, opset):
                raise ValueError(f"{each.op_type} of the body has changed")
    if not body.node:
        raise ValueError(f"{node.op_type} has no body")
    node.domain = body.domain = "body"
    imports = [onnx.helper.make_opsetid(*each) for each in {**opsets, "body": 1}.items()]
    del body.opset_import[:]
    body.opset_import.extend(imports[:-1])
    model = onnx.helper.make_model(graph, opset_imports=imports, functions=[body])
    flat = onnx.inliner.inline_local_functions(model)
    return onnx.shape_inference.infer_shapes(flat).graph


def _since(node: onnx.NodeProto, opset: int) -> int:
    return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)


ACTIONS: dict[str, Callable[[onnx.ModelProto], bytes]] = {
    "check": _check,
    "infer": _infer,
    "contradictions": _contradictions,
    "inline": _inline,
    "flatten": _flatten,
    "expand": _expand,
    "several": _several,
}


def _main() -> int:
    model = onnx.load_from_string(sys.stdin.buffer.read())
    try:
        answer = ACTIONS[sys.argv[1]](model)
    except Exception as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
