"""What onnx's C++ does to a model, in a process that may hang or crash; run by its path.

Reads a message from stdin and writes what came of it to stdout. It imports onnx alone, so that it
starts fast.
"""

import sys
from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.shape_inference


def _check(model: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=False)
    return b""


def _infer(model: onnx.ModelProto) -> bytes:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return bytes(inferred.SerializeToString())


def _infer_strictly(model: onnx.ModelProto) -> bytes:
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return b""


def _contradiction(model: onnx.ModelProto) -> bytes:
    said = ""
    try:
        _infer_strictly(model)
    except Exception as error:
        said = str(error)
    message = said.encode()
    return b"%d\n%s%s" % (len(message), message, _infer(model))


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
    "infer-strictly": _infer_strictly,
    "contradiction": _contradiction,
    "inline": _inline,
    "flatten": _flatten,
    "expand": _expand,
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
