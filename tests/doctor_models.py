"""For each rule of the doctor: models with its fault, and the same without."""

# ruff: noqa: E501  (one line for each fault: a table)

import contextlib
import dataclasses
import subprocess
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import custom_ops.onnx
from custom_ops.onnx import _guarded, _onnx_child, _walk

# Writes what the model needs beside it into a folder, and returns the model.
Maker = Callable[[Path], onnx.ModelProto]
Edit = Callable[[onnx.ModelProto], Any]

X = np.array([1, -2], np.float32)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of a model.

    Attributes:
        code: Of the rule that finds it.
        name: For messages.
        faulty: Makes the model with the fault.
        sound: Makes the one without.
        expected: What both compute, where they run.
        feeds: Of what.
        libraries: What the session registers, in the folder.
        oldest: The first release that takes the sound model.
        hangs: Whether a session on the model with the fault does not end.
        unsafe: Whether the doctor refuses what some releases take.
    """

    code: str
    name: str
    faulty: Maker
    sound: Maker
    expected: Any
    feeds: dict[str, Any] = dataclasses.field(default_factory=lambda: {"x": X})
    libraries: tuple[str, ...] = ()
    oldest: str = "1.17"
    hangs: bool = False
    unsafe: bool = False


def parsed(
    body: str,
    inputs: str = "float[2] x",
    outputs: str = "float[2] y",
    opset: int = 17,
    ir_version: int = 8,
    imports: str = "",
    functions: str = "",
) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["": {opset}{imports}]> '
        f"g ({inputs}) => ({outputs}) {{ {body} }} {functions}"
    )


def row(
    code: str,
    name: str,
    faulty: onnx.ModelProto,
    sound: onnx.ModelProto,
    expected: Any,
    **rest: Any,
) -> Fault:
    """A fault of two models that need no files."""
    return Fault(code, name, lambda _: faulty, lambda _: sound, expected, **rest)


def edited(model: onnx.ModelProto, edit: Edit) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edit(copy)
    return copy


def with_tensor(model: onnx.ModelProto, *arrays: tuple[str, Any]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays]
    return edited(model, lambda m: m.graph.initializer.extend(tensors))


# The two kinds of graphs inside another: of an If, whose condition is true, and of a Loop.
YES = {"x": X, "c": np.array(True)}
ONCE = {"x": X, "m": np.array(1)}


def branch(body: str, before: str = "", after: str = "y = Identity(z)") -> onnx.ModelProto:
    other = "else_branch = other () => (float[2] p) { p = Neg(x) }"
    text = f"z = If (c) <then_branch = chosen () => (float[2] o) {{ {body} }}, {other}>"
    return parsed(f"{before} {text} {after}", "float[2] x, bool c")


def loop(body: str, carried: str = "v", before: str = "") -> onnx.ModelProto:
    given = f"int64 i, bool t, float[2] {carried}"
    inner = f"body = b ({given}) => (bool u, float[2] w) {{ u = Identity(t) {body} }}"
    return parsed(f"{before} y = Loop (m, , x) <{inner}>", "float[2] x, int64 m")


def function(
    body: str, calls: str = "y = f.F(x)", more: str = "", imports: str = '"": 17, "f": 1'
) -> onnx.ModelProto:
    text = f'<domain: "f", opset_import: [{imports}]> F (x) => (y) {{ {body} }} '
    return parsed(calls, imports=', "f": 1', functions=text + more)


def nested(depth: int) -> onnx.ModelProto:
    """Each function calls the next one twice."""
    text = ""
    for i in range(depth):
        op = f"f.F{i + 1}" if i + 1 < depth else "Abs"
        text += f'<domain: "f", opset_import: ["": 17, "f": 1]> F{i} (x) => (y) '
        text += f"{{ m = {op}(x) y = {op}(m) }} "
    return parsed("y = f.F0(x)", imports=', "f": 1', functions=text)


def graph_of(model: onnx.ModelProto) -> onnx.GraphProto:
    """The first graph inside a model's graph."""
    return next(_walk.subgraphs(next(n for n in model.graph.node if n.op_type in ("If", "Loop"))))


def info(name: str, element: int, *shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


RELU = parsed("y = Relu(x)")
CHAIN = parsed("t = Relu(x) y = Neg(t)")
DECOMPOSED = function("y = Relu(x)")
POSITIVE = np.array([1, 0], np.float32)
UNUSED = {"calls": "y = Relu(x)"}

DECOMPOSED_LESS = edited(DECOMPOSED, lambda m: m.ClearField("functions"))


def leave(model: onnx.ModelProto) -> None:
    """Renames a function's domain to that of torch's ops."""
    domain = "pkg.onnxscript.torch_lib"
    for holder in (model.graph.node[0], model.functions[0], model.opset_import[1]):
        holder.domain = domain
    model.functions[0].opset_import[1].domain = domain


VERSIONS = [
    *(
        row("ir-version", f"{version}", parsed("y = Relu(x)", ir_version=version), RELU, POSITIVE)
        for version in (0, 2, 15)
    ),
    row("opset", "newer", parsed("y = Relu(x)", opset=29), RELU, POSITIVE),
    row("opset", "none", parsed("y = Relu(x)", opset=0), RELU, POSITIVE),
    row("opset", "of another domain", parsed("y = Relu(x)", imports=', "ai.onnx.ml": 6'), parsed("y = Relu(x)", imports=', "ai.onnx.ml": 4'), POSITIVE),
    row("domain-import", "no import at all", edited(RELU, lambda m: m.ClearField("opset_import")), RELU, POSITIVE),
    row("domain-import", "other imports", edited(RELU, lambda m: setattr(m.opset_import[0], "domain", "other")), RELU, POSITIVE),
    row("domain-import", "of onnxruntime's domain", parsed("y = com.microsoft.QuickGelu(x)"), parsed("y = com.microsoft.QuickGelu(x)", imports=', "com.microsoft": 1'), X / (1 + np.exp(-1.702 * X))),
    row("domain-import", "of a function's domain", edited(DECOMPOSED, lambda m: m.opset_import.pop()), DECOMPOSED, POSITIVE),
    row("domain-import", "in a function", function("y = Relu(x)", imports='"f": 1'), DECOMPOSED, POSITIVE),
    row("domain-import", "in a function that is not called", function("y = Relu(x)", imports='"f": 1', **UNUSED), DECOMPOSED, POSITIVE),
    row("domain-twice", "the same version", parsed("y = Relu(x)", imports=', "": 17'), RELU, POSITIVE),
    row("domain-twice", "the last version counts", parsed("y = Softmax(x)", "float[1, 2, 1] x", "float[1, 2, 1] y", opset=13, imports=', "ai.onnx": 11'), parsed("y = Softmax(x)", "float[1, 2, 1] x", "float[1, 2, 1] y", opset=11), np.full((1, 2, 1), 0.5, np.float32), feeds={"x": np.zeros((1, 2, 1), np.float32)}),
    row("domain-twice", "the last version, turned", parsed("y = Softmax(x)", "float[1, 2, 1] x", "float[1, 2, 1] y", opset=11, imports=', "ai.onnx": 13'), parsed("y = Softmax(x)", "float[1, 2, 1] x", "float[1, 2, 1] y", opset=13), np.ones((1, 2, 1), np.float32), feeds={"x": np.zeros((1, 2, 1), np.float32)}),
    row("domain-twice", "in a function", function("y = Relu(x)", imports='"": 17, "": 17'), DECOMPOSED, POSITIVE),
]  # fmt: skip

FUNCTIONS = [
    row("recursion", "direct", function("y = f.F(x)"), DECOMPOSED, POSITIVE),
    row("recursion", "through another", function("y = f.G(x)", more='<domain: "f", opset_import: ["": 17, "f": 1]> G (x) => (y) { y = f.F(x) }'), DECOMPOSED, POSITIVE),
    row("recursion", "not called", function("y = f.F(x)", **UNUSED), DECOMPOSED, POSITIVE),
    row("expansion", "2^40", nested(40), nested(3), np.abs(X), hangs=True),
    row("function-twice", "the same", edited(DECOMPOSED, lambda m: m.functions.append(m.functions[0])), DECOMPOSED, POSITIVE),
    row("function-twice", "another body", edited(function("y = Neg(x)"), lambda m: m.functions.append(DECOMPOSED.functions[0])), DECOMPOSED, POSITIVE),
]  # fmt: skip

VALUES = [
    row("undefined-value", "in the graph", parsed("y = Add(x, q)"), parsed("y = Add(x, x)"), 2 * X),
    row("undefined-value", "where nothing uses it", parsed("y = Add(x, x) z = Neg(q)"), parsed("y = Add(x, x)"), 2 * X),
    row("undefined-value", "in a branch", branch("o = Abs(q)"), branch("o = Abs(x)"), np.abs(X), feeds=YES),
    row("undefined-value", "in a function", function("y = Add(x, q)"), function("y = Add(x, x)"), 2 * X),
    row("undefined-value", "in a function that is not called", function("y = Add(x, q)", **UNUSED), DECOMPOSED, POSITIVE),
    row("defined-twice", "by nodes", parsed("t = Abs(x) t = Neg(x) y = Neg(t)"), parsed("t = Neg(x) y = Neg(t)"), X),
    row("defined-twice", "by a node and an input", parsed("x = Abs(x) y = Neg(x)"), parsed("t = Abs(x) y = Neg(t)"), -np.abs(X)),
    row("defined-twice", "by a node and an initializer", with_tensor(parsed("w = Abs(x) y = Add(x, w)"), ("w", X)), with_tensor(parsed("y = Add(x, w)"), ("w", X)), 2 * X),
    row("defined-twice", "by inputs", parsed("y = Abs(x)", "float[2] x, float[2] x"), parsed("y = Abs(x)"), np.abs(X)),
    row("defined-twice", "in a branch", branch("t = Abs(x) t = Neg(x) o = Neg(t)"), branch("t = Neg(x) o = Neg(t)"), X, feeds=YES),
    row("defined-twice", "in a function", function("t = Abs(x) t = Neg(x) y = Neg(t)"), function("t = Neg(x) y = Neg(t)"), X),
    row("defined-twice", "inputs of a function", edited(function("y = Relu(x)"), lambda m: m.functions[0].input.append("x")), DECOMPOSED, POSITIVE),
    row("defined-twice", "inputs of a loop", edited(loop("w = Abs(v)"), lambda m: setattr(graph_of(m).input[0], "name", "v")), loop("w = Abs(v)"), np.abs(X), feeds=ONCE),
    row("initializer-twice", "in the graph", with_tensor(parsed("y = Add(x, w)"), ("w", X), ("w", 2 * X)), with_tensor(parsed("y = Add(x, w)"), ("w", 2 * X)), 3 * X),
    row("initializer-twice", "in a branch", edited(branch("o = Add(x, w)"), lambda m: graph_of(m).initializer.extend([numpy_helper.from_array(X, "w")] * 2)), branch("o = Add(x, x)"), 2 * X, feeds=YES),
    row("shadowed-value", "by a node, defined before", branch("s = Abs(x) o = Neg(s)", "s = Neg(x)", "y = Add(s, z)"), branch("t = Abs(x) o = Neg(t)", "s = Neg(x)", "y = Add(s, z)"), -X - np.abs(X), feeds=YES),
    row("shadowed-value", "by a node, an input", branch("t = Abs(x) c = Neg(t) o = Neg(c)"), branch("t = Abs(x) d = Neg(t) o = Neg(d)"), np.abs(X), feeds=YES),
    row("shadowed-value", "by a node, an initializer", with_tensor(branch("w = Abs(x) o = Neg(w)"), ("w", X)), branch("w = Abs(x) o = Neg(w)"), -np.abs(X), feeds=YES),
    row("shadowed-value", "by a node, defined later", branch("s = Abs(x) o = Neg(s)", "", "s = Neg(x) y = Add(s, z)"), branch("t = Abs(x) o = Neg(t)", "", "s = Neg(x) y = Add(s, z)"), -X - np.abs(X), feeds=YES),
    row("shadowed-value", "by the input of a loop", loop("w = Neg(x)", "x"), loop("w = Neg(v)"), -X, feeds=ONCE),
    row("shadowed-value", "by an initializer", with_tensor(edited(branch("o = Add(x, s)"), lambda m: graph_of(m).initializer.append(numpy_helper.from_array(3 * X, "s"))), ("s", X)), edited(branch("o = Add(x, s)"), lambda m: graph_of(m).initializer.append(numpy_helper.from_array(3 * X, "s"))), 4 * X, feeds=YES),
    row("cycle", "of two", parsed("a = Add(x, b) b = Relu(a) y = Relu(b)"), CHAIN, -POSITIVE),
    row("cycle", "of one", parsed("y = Add(x, y)"), CHAIN, -POSITIVE),
    row("cycle", "through a branch", branch("o = Neg(s)", "", "s = Abs(z) y = Add(s, z)"), branch("o = Neg(x)", "", "s = Abs(z) y = Add(s, z)"), np.array([0, 4]), feeds=YES),
    row("cycle", "in a branch", branch("t = Add(x, o) o = Abs(t)"), branch("t = Add(x, x) o = Abs(t)"), 2 * np.abs(X), feeds=YES),
    row("cycle", "in a function", function("t = Neg(y) y = Relu(t)"), DECOMPOSED, POSITIVE),
    row("unsorted", "in the graph", parsed("y = Neg(t) t = Relu(x)"), CHAIN, -POSITIVE),
    row("unsorted", "captured by a branch", branch("o = Neg(s)", "", "s = Abs(x) y = Add(s, z)"), branch("o = Neg(s)", "s = Abs(x)", "y = Add(s, z)"), 0 * X, feeds=YES),
    row("unsorted", "in a branch", branch("o = Neg(t) t = Relu(x)"), branch("t = Relu(x) o = Neg(t)"), -POSITIVE, feeds=YES),
    row("unsorted", "in a function", function("y = Neg(t) t = Relu(x)"), function("t = Relu(x) y = Neg(t)"), -POSITIVE),
    row("unsorted", "in a function that is not called", function("y = Neg(t) t = Relu(x)", **UNUSED), DECOMPOSED, POSITIVE),
    row("missing-output", "of the graph", parsed("t = Relu(x)"), RELU, POSITIVE),
    row("missing-output", "of a branch", branch("t = Abs(x)"), branch("o = Abs(x)"), np.abs(X), feeds=YES),
    row("missing-output", "of a branch, from outside", edited(branch("o = Abs(x)"), lambda m: setattr(graph_of(m).output[0], "name", "x")), branch("o = Identity(x)"), X, feeds=YES),
    row("missing-output", "of a function", function("t = Relu(x)"), DECOMPOSED, POSITIVE),
    row("missing-output", "of a function, its input", edited(DECOMPOSED, lambda m: m.functions[0].output.__setitem__(0, "x")), function("y = Identity(x)"), X),
    row("missing-output", "of a function that is not called", function("t = Relu(x)", **UNUSED), DECOMPOSED, POSITIVE),
    row("output-twice", "of the graph", parsed("y = Relu(x)", outputs="float[2] y, float[2] y"), RELU, POSITIVE),
    row("output-twice", "of a function", edited(DECOMPOSED, lambda m: m.functions[0].output.append("y")), DECOMPOSED, POSITIVE),
]  # fmt: skip


def named(model: onnx.ModelProto, *path: int) -> onnx.ModelProto:
    """All nodes of the graph, or of its first inner graph, or of the function, named alike."""

    def edit(copy: onnx.ModelProto) -> None:
        scope = copy.functions[0] if copy.functions else copy.graph
        if any(a.HasField("g") for node in scope.node for a in node.attribute):
            scope = graph_of(copy)
        for node in scope.node:
            node.name = "same"

    return edited(model, edit)


def with_attribute(model: onnx.ModelProto, *given: onnx.AttributeProto) -> onnx.ModelProto:
    return edited(model, lambda m: m.graph.node[0].attribute.extend(given))


CONCAT = parsed("y = Concat <axis = 0> (x, x)", outputs="float[4] y")
TWO_X = np.concatenate([X, X])
AXIS = helper.make_attribute("axis", 0)
SOFTMAX = with_attribute(parsed("y = Softmax(x)"), AXIS)
HALF = np.exp(X) / np.exp(X).sum()

NODES = [
    row("node-name", "in the graph", named(CHAIN), CHAIN, -POSITIVE),
    row("node-name", "in a branch", named(branch("t = Abs(x) o = Neg(t)")), branch("t = Abs(x) o = Neg(t)"), -np.abs(X), feeds=YES),
    row("node-name", "in a function", named(function("t = Abs(x) y = Neg(t)")), function("t = Abs(x) y = Neg(t)"), -np.abs(X)),
    row("node-form", "no op", edited(RELU, lambda m: m.graph.node[0].ClearField("op_type")), RELU, POSITIVE),
    row("node-form", "too many inputs", parsed("y = Relu(x, x)"), RELU, POSITIVE),
    row("node-form", "too few inputs", parsed("y = Add(x)"), parsed("y = Add(x, x)"), 2 * X),
    row("node-form", "an input left out", edited(parsed("y = Add(x, x)"), lambda m: m.graph.node[0].input.__setitem__(1, "")), parsed("y = Add(x, x)"), 2 * X),
    row("node-form", "too many outputs", parsed("y, z = Relu(x)"), RELU, POSITIVE),
    row("node-form", "an attribute too many", with_attribute(RELU, AXIS), RELU, POSITIVE),
    row("node-form", "an attribute missing", parsed("y = Concat(x, x)", outputs="float[4] y"), CONCAT, TWO_X),
    row("node-form", "an attribute of another type", parsed("y = Concat <axis = 0.0> (x, x)", outputs="float[4] y"), CONCAT, TWO_X),
    row("node-form", "an attribute without type", edited(CONCAT, lambda m: m.graph.node[0].attribute[0].ClearField("type")), CONCAT, TWO_X),
    row("node-form", "an attribute twice", with_attribute(SOFTMAX, AXIS), SOFTMAX, HALF),
    row("node-form", "in a branch", branch("o = Abs(x, x)"), branch("o = Abs(x)"), np.abs(X), feeds=YES),
    row("node-form", "in a function", function("y = Relu(x, x)"), DECOMPOSED, POSITIVE),
]  # fmt: skip


def weighted(**fields: Any) -> onnx.ModelProto:
    """A model that adds a tensor of its own."""
    given = {"name": "w", "data_type": TensorProto.FLOAT, "dims": [2], **fields}
    return edited(
        parsed("y = Add(x, w)"), lambda m: m.graph.initializer.append(TensorProto(**given))
    )


WEIGHTED = with_tensor(parsed("y = Add(x, w)"), ("w", X))


def sparse(index: Any) -> onnx.ModelProto:
    """A model that adds a sparse tensor of one number, -2."""
    values, indices = numpy_helper.from_array(X[1:], "w"), numpy_helper.from_array(np.array(index))
    tensor = helper.make_sparse_tensor(values, indices, [2])
    return edited(parsed("y = Add(x, w)"), lambda m: m.graph.sparse_initializer.append(tensor))


ADD_TWO = parsed("y = MatMul(x, q)", "float[2, 2] x, float[2, 2] q", "float[2, 2] y")
ONES = np.ones((2, 2), np.float32)

TENSORS = [
    row("tensor-data", "too few bytes", weighted(raw_data=X.tobytes()[:4]), WEIGHTED, 2 * X),
    row("tensor-data", "too many bytes", weighted(raw_data=X.tobytes() * 2), WEIGHTED, 2 * X),
    row("tensor-data", "too few numbers", weighted(float_data=[1]), WEIGHTED, 2 * X),
    row("tensor-data", "too many numbers", weighted(float_data=[1] * 3), WEIGHTED, 2 * X),
    row("tensor-data", "no numbers", weighted(), WEIGHTED, 2 * X),
    row("tensor-data", "numbers of another type", weighted(int32_data=[1, 1]), WEIGHTED, 2 * X),
    row("tensor-data", "a size below 0", weighted(dims=[-2], float_data=[1, 1]), WEIGHTED, 2 * X),
    row("tensor-data", "no element type", weighted(data_type=0, float_data=[1, 1]), WEIGHTED, 2 * X),
    row("sparse-index", "beyond the end", sparse([7]), sparse([1]), np.array([1, -4])),
    row("sparse-index", "below 0, of rank 2", sparse([[-5]]), sparse([[1]]), np.array([1, -4])),
    row("tensor-data", "of a constant", edited(parsed("w = Constant <value = float[2] {1, -2}> () y = Add(x, w)"), lambda m: m.graph.node[0].attribute[0].t.float_data.pop()), WEIGHTED, 2 * X),
]  # fmt: skip


def external(name: str = "w.data", size: int = 8, link: str = "", **fields: Any) -> Maker:
    """A model that adds a tensor whose data lies in another file, which is written too."""

    def make(folder: Path) -> onnx.ModelProto:
        given = {"location": name.format(folder=folder.parent), **fields}
        file = folder / given["location"]
        if size:
            file.write_bytes((X.tobytes() * 3)[:size])
        if link:
            file.rename(folder / link.format(folder=folder.name))
            file.symlink_to(link.format(folder=folder.name))
        entries = [onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in given.items()]
        return weighted(data_location=TensorProto.EXTERNAL, external_data=entries)

    return make


EXTERNAL_DATA = [
    Fault("external-missing", "no file", external(size=0), external(), 2 * X),
    Fault("external-truncated", "a short file", external(size=4), external(), 2 * X),
    Fault("external-truncated", "a short file, with length", external(size=4, length=8), external(length=8), 2 * X),
    Fault("external-truncated", "beyond its end", external(size=8, offset=4), external(size=16, offset=8, length=8), 2 * X),
    Fault("external-truncated", "a length too small", external(length=4), external(), 2 * X),
    Fault("external-truncated", "a length too large", external(size=16, length=16), external(), 2 * X),
    Fault("external-truncated", "an offset below 0", external(offset=-8), external(), 2 * X),
    Fault("external-outside", "an absolute path", external("{folder}/absolute.data"), external(), 2 * X, unsafe=True),
    Fault("external-outside", "the folder above", external("../above.data"), external(), 2 * X, unsafe=True),
    Fault("external-link", "to the folder above", external(link="../{folder}.data"), external(), 2 * X),
    Fault("external-link", "to the same folder", external(link="real.data"), external(), 2 * X),
]  # fmt: skip


def conv(weight: str) -> onnx.ModelProto:
    return parsed("y = Conv(x, w)", f"float[1, 3, 2, 2] x, {weight}", "float[1, 4, 2, 2] y")


TYPES = [
    row("input-type", "none", edited(RELU, lambda m: m.graph.input[0].ClearField("type")), RELU, POSITIVE),
    row("input-type", "no element type", edited(RELU, lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type")), RELU, POSITIVE),
    row("input-type", "an unknown one", edited(RELU, lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)), RELU, POSITIVE),
    row("node-types", "shapes that do not broadcast", parsed("y = Add(x, q)", "float[2] x, float[3] q"), parsed("y = Add(x, q)", "float[2] x, float[2] q"), 2 * X, feeds={"x": X, "q": X}),
    row("node-types", "sizes of a product", parsed("y = MatMul(x, q)", "float[2, 2] x, float[3, 2] q", "float[2, 2] y"), ADD_TWO, 2 * ONES, feeds={"x": ONES, "q": ONES}),
    row("node-types", "two element types", parsed("y = Add(x, q)", "float[2] x, double[2] q"), parsed("y = Add(x, q)", "float[2] x, float[2] q"), 2 * X, feeds={"x": X, "q": X}),
    row("node-types", "an element type that the op has not", parsed("y = And(x, x)"), RELU, POSITIVE),
    row("node-types", "in a branch", branch("t = Cast <to = 11> (x) o = Add(x, t)"), branch("t = Cast <to = 1> (x) o = Add(x, t)"), 2 * X, feeds=YES),
    row("node-types", "in a function", function("t = Cast <to = 11> (x) y = Add(x, t)"), function("t = Cast <to = 1> (x) y = Add(x, t)"), 2 * X),
    row("node-sizes", "the channels of Conv", conv("float[4, 5, 1, 1] w"), conv("float[4, 3, 1, 1] w"), np.full((1, 4, 2, 2), 3), feeds={"x": np.ones((1, 3, 2, 2), np.float32), "w": np.ones((4, 3, 1, 1), np.float32)}),
    row("node-sizes", "the columns of Gemm", parsed("y = Gemm(x, q)", "float[2, 2] x, float[3, 2] q", "float[2, 2] y"), parsed("y = Gemm(x, q)", "float[2, 2] x, float[2, 2] q", "float[2, 2] y"), 2 * ONES, feeds={"x": ONES, "q": ONES}),
    row("node-sizes", "the elements of Reshape", with_tensor(parsed("y = Reshape(x, s)"), ("s", [3])), with_tensor(parsed("y = Reshape(x, s)"), ("s", [2])), X),
    row("node-sizes", "the elements of Reshape, one open", with_tensor(parsed("y = Reshape(x, s)", outputs="float[A, B] y"), ("s", [-1, 3])), with_tensor(parsed("y = Reshape(x, s)", outputs="float[A, B] y"), ("s", [-1, 2])), X[None]),
    row("node-sizes", "in a loop", with_tensor(loop("w = Reshape(v, s)"), ("s", [3])), with_tensor(loop("w = Reshape(v, s)"), ("s", [2])), X, feeds=ONCE),
    row("node-sizes", "in a branch that does not run", with_tensor(branch("o = Reshape(x, s)"), ("s", [3])), with_tensor(branch("o = Reshape(x, s)"), ("s", [2])), -X, feeds={"x": X, "c": np.array(False)}),
    row("node-sizes", "in a function", function("s = Constant <value = int64[1] {3}> () y = Reshape(x, s)"), function("s = Constant <value = int64[1] {2}> () y = Reshape(x, s)"), X),
    row("declared-type", "of an output", parsed("y = Relu(x)", outputs="int64[2] y"), RELU, POSITIVE),
    row("declared-type", "of a value", edited(CHAIN, lambda m: m.graph.value_info.append(info("t", TensorProto.INT64, 2))), CHAIN, -POSITIVE),
    row("declared-type", "of a branch's output", edited(branch("o = Abs(x)"), lambda m: setattr(graph_of(m).output[0].type.tensor_type, "elem_type", TensorProto.INT64)), branch("o = Abs(x)"), np.abs(X), feeds=YES),
    row("declared-type", "of a branch's value", edited(branch("t = Abs(x) o = Neg(t)"), lambda m: graph_of(m).value_info.append(info("t", TensorProto.INT64, 2))), branch("t = Abs(x) o = Neg(t)"), -np.abs(X), feeds=YES),
    row("declared-shape", "of an output", parsed("y = Relu(x)", outputs="float[3] y"), RELU, POSITIVE),
    row("declared-shape", "the rank of an output", parsed("y = Relu(x)", outputs="float[2, 1] y"), RELU, POSITIVE),
    row("declared-shape", "of a value", edited(CHAIN, lambda m: m.graph.value_info.append(info("t", TensorProto.FLOAT, 3))), CHAIN, -POSITIVE),
    row("initializer-type", "the element type", edited(WEIGHTED, lambda m: m.graph.input.append(info("w", TensorProto.INT64, 2))), WEIGHTED, 2 * X),
    row("initializer-type", "the shape", edited(WEIGHTED, lambda m: m.graph.input.append(info("w", TensorProto.FLOAT, 1))), WEIGHTED, 2 * X),
]  # fmt: skip


OUR_LIBRARY = Path(custom_ops.get_library_path())
MUL_ADD = parsed("y = custom_ops.MulAdd(x, x)", imports=', "custom_ops": 1')


def beside(model: onnx.ModelProto, edit: Callable[[bytes], bytes] = bytes) -> Maker:
    """A model with a copy of our library beside it, edited."""

    def make(folder: Path) -> onnx.ModelProto:
        content = edit(OUR_LIBRARY.read_bytes())
        if content:
            (folder / "lib.so").write_bytes(content)
        return model

    return make


def compiled(source: str, needs: str = "", edit: Callable[[bytes], bytes] = bytes) -> Maker:
    """A model with a library made from C, and edited, beside it; what it needs is there no more."""

    def make(folder: Path) -> onnx.ModelProto:
        (folder / "lib.c").write_text(source)
        command = ["cc", "-shared", "-fPIC", "lib.c", "-o", "lib.so"]
        if needs:
            (folder / "needed.c").write_text("int needed(void) { return 0; }")
            first = ["cc", "-shared", "-fPIC", "needed.c", "-o", f"lib{needs}.so"]
            subprocess.run(first, cwd=folder, check=True)
            command += ["-L.", f"-l{needs}"]
        subprocess.run(command, cwd=folder, check=True)
        (folder / f"lib{needs}.so").unlink() if needs else None
        (folder / "lib.so").write_bytes(edit((folder / "lib.so").read_bytes()))
        return RELU

    return make


ENTRY = "void *RegisterCustomOps(void *options, void *api) { return 0; }"
WITH_NEED = f"int needed(void); int used(void) {{ return needed(); }} {ENTRY}"
WITH_LIBC = f"int puts(const char *); int used(void) {{ return puts(0); }} {ENTRY}"
GIVEN: dict[str, Any] = {"libraries": ("lib.so",)}
LIBRARIES = [
    Fault("library-file", "no file", beside(MUL_ADD, lambda _: b""), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-file", "text", beside(MUL_ADD, lambda _: b"text"), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-file", "of Windows", beside(MUL_ADD, lambda _: b"MZ" + bytes(100)), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-file", "of another machine", beside(MUL_ADD, lambda data: data[:18] + b"\xf3\x00" + data[20:]), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-file", "no shared library", beside(MUL_ADD, lambda data: data[:16] + b"\x01" + data[17:]), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-file", "cut off", beside(MUL_ADD, lambda data: data[:400]), beside(MUL_ADD), 3 * X, **GIVEN),
    Fault("library-needs", "one that is nowhere", compiled(WITH_NEED, "nowhere"), compiled(ENTRY), POSITIVE, **GIVEN),
    Fault("library-versions", "a newer libc", compiled(WITH_LIBC, edit=lambda data: data.replace(b"GLIBC_2.", b"GLIBC_9.")), compiled(WITH_LIBC), POSITIVE, **GIVEN),
    Fault("library-entry", "none", compiled("int other(void) { return 0; }"), compiled(ENTRY), POSITIVE, **GIVEN),
    row("custom-domain", "of a user", DECOMPOSED_LESS, DECOMPOSED, POSITIVE),
    row("custom-domain", "no function of this name", edited(DECOMPOSED, lambda m: setattr(m.graph.node[0], "op_type", "G")), DECOMPOSED, POSITIVE),
    row("custom-domain", "ours", MUL_ADD, custom_ops.onnx.embed(MUL_ADD), 3 * X),
    row("custom-domain", "not an op of ours", parsed("y = custom_ops.MulAd(x, x)", imports=', "custom_ops": 1'), MUL_ADD, 3 * X, libraries=(str(OUR_LIBRARY),)),
    row("custom-domain", "not one of our domain", DECOMPOSED_LESS, DECOMPOSED, POSITIVE, libraries=(str(OUR_LIBRARY),)),
    row("custom-domain", "of a function that runs", function("y = g.G(x)", imports='"": 17, "g": 1'), DECOMPOSED, POSITIVE),
    row("custom-domain", "left by an exporter", parsed("y = aten.relu(x)", imports=', "aten": 1'), RELU, POSITIVE),
    row("exporter-leftover", "with a function", edited(DECOMPOSED, leave), DECOMPOSED, POSITIVE),
]  # fmt: skip


ROW = np.array([[1, -2]], np.float32)
LARGE = np.zeros(300_000, np.float32)
OTHER = np.append(LARGE[1:], np.float32(1))
SMALLEST = parsed(
    "s = ReduceMin <keepdims = 0> (a) t = ReduceMin <keepdims = 0> (b) u = Add(s, t) y = Add(x, u)"
)
KEPT = (("start", [0]), ("end", [2]), ("axis", [1]))
PRODUCT = parsed(
    "p = MatMul(x, w) y = Slice(p, start, end, axis)", "float[1, 2] x", "float[1, 2] y"
)
NORM = parsed(
    "y, m, v = BatchNormalization <training_mode = 1> (x, z, b, mean, var)",
    "float[N, 2] x",
    "float[N, 2] y",
)
EVAL_NORM = parsed("y = BatchNormalization(x, z, b, mean, var)", "float[N, 2] x", "float[N, 2] y")
OLD_NORM = parsed(
    "y, m, v, a, c = BatchNormalization(x, z, b, mean, var)",
    "float[N, 2] x",
    "float[N, 2] y",
    opset=9,
)
OLD_EVAL_NORM = parsed(
    "y = BatchNormalization(x, z, b, mean, var)", "float[N, 2] x", "float[N, 2] y", opset=9
)
STATS = tuple(
    (n, np.array(v, np.float32))
    for n, v in (("z", [0, 0]), ("b", [1, 1]), ("mean", [2, 2]), ("var", [3, 3]))
)
FRESH = tuple((n, np.full(2, n in ("b", "var"), np.float32)) for n in ("z", "b", "mean", "var"))
DROPOUT = parsed("y = Dropout(x, r, t)")
DROP = (("r", np.float32(0)), ("t", True))
NARROW = parsed("i = Cast <to = 6> (c) f = Cast <to = 1> (i) y = Add(x, f)")
OPEN = "float[N, 4] x", "float[A, B] y"
OPEN_BRANCH = (
    "z = If (c) <then_branch = chosen () => (float[A, B] o) { o = Reshape(x, s) }, "
    "else_branch = other () => (float[N, 4] p) { p = Neg(x) }> y = Identity(z)"
)
OPEN_FUNCTION = (
    '<domain: "f", opset_import: ["": 17]> F (x) => (y) '
    "{{ s = Constant <value = int64[2] {{{}, 4}}> () y = Reshape(x, s) }} "
)
FOUR = np.arange(4, dtype=np.float32)[None]
STATE = np.zeros((1, 1, 2), np.float32)
RECURRENT = parsed(
    "y = RNN <hidden_size = 2> (x, w, r, , , h)", "float[T, N, 2] x", "float[T, 1, N, 2] y"
)
UNIT = (("w", np.zeros((1, 2, 2), np.float32)), ("r", np.zeros((1, 2, 2), np.float32)))
TRAPS = [
    row("non-finite-weight", "of MatMul", with_tensor(PRODUCT, ("w", np.array([[1, 0, np.inf], [0, 1, 0]], np.float32)), *KEPT), with_tensor(PRODUCT, ("w", np.array([[1, 0, 5], [0, 1, 0]], np.float32)), *KEPT), ROW, feeds={"x": ROW}),
    row("repeated-constant", "two", with_tensor(SMALLEST, ("a", LARGE), ("b", LARGE)), with_tensor(SMALLEST, ("a", LARGE), ("b", OTHER)), X),
    row("float64-left", "a sum", parsed("d = Cast <to = 11> (x) e = Add(d, d) y = Cast <to = 1> (e)"), parsed("d = Cast <to = 1> (x) e = Add(d, d) y = Cast <to = 1> (e)"), 2 * X),
    row("int-overflow", "2^40", with_tensor(NARROW, ("c", [2**40])), with_tensor(NARROW, ("c", [0])), X),
    row("fixed-batch", "the whole shape", with_tensor(parsed("y = Reshape(x, s)", *OPEN), ("s", [1, 4])), with_tensor(parsed("y = Reshape(x, s)", *OPEN), ("s", [-1, 4])), FOUR, feeds={"x": FOUR}),
    row("fixed-batch", "the first size", with_tensor(parsed("y = Reshape(x, s)", *OPEN), ("s", [1, -1])), with_tensor(parsed("y = Reshape(x, s)", *OPEN), ("s", [0, 4])), FOUR, feeds={"x": FOUR}),
    row("fixed-batch", "in a branch", with_tensor(parsed(OPEN_BRANCH, "float[N, 4] x, bool c", "float[A, B] y"), ("s", [1, 4])), with_tensor(parsed(OPEN_BRANCH, "float[N, 4] x, bool c", "float[A, B] y"), ("s", [-1, 4])), FOUR, feeds={"x": FOUR, "c": np.array(True)}),
    row("fixed-batch", "in a function", parsed("y = f.F(x)", *OPEN, imports=', "f": 1', functions=OPEN_FUNCTION.format(1)), parsed("y = f.F(x)", *OPEN, imports=', "f": 1', functions=OPEN_FUNCTION.format(-1)), FOUR, feeds={"x": FOUR}),
    row("fixed-batch", "of a constant beside it", with_tensor(parsed("y = Concat <axis = 1> (x, s)", *OPEN), ("s", FOUR)), with_tensor(parsed("s = Mul(x, one) y = Concat <axis = 1> (x, s)", *OPEN), ("one", np.float32(1))), np.concatenate([FOUR, FOUR], 1), feeds={"x": FOUR}),
    row("fixed-batch", "of a state", with_tensor(RECURRENT, *UNIT, ("h", STATE)), with_tensor(parsed("y = RNN <hidden_size = 2> (x, w, r)", "float[T, N, 2] x", "float[T, 1, N, 2] y"), *UNIT), np.zeros((1, 1, 1, 2)), feeds={"x": ROW[None]}),
    row("training-mode", "BatchNormalization", with_tensor(NORM, *STATS), with_tensor(EVAL_NORM, *STATS), np.ones((3, 2)), feeds={"x": np.ones((3, 2), np.float32)}),
    row("training-mode", "BatchNormalization of opset 9", with_tensor(OLD_NORM, *STATS), with_tensor(OLD_EVAL_NORM, *STATS), np.ones((3, 2)), feeds={"x": np.ones((3, 2), np.float32)}),
    row("training-mode", "statistics that overwrite the bias", with_tensor(NORM, *FRESH), with_tensor(EVAL_NORM, *FRESH), np.ones((3, 2)), feeds={"x": np.ones((3, 2), np.float32)}),
    row("training-mode", "statistics that are the bias", edited(with_tensor(NORM, *STATS), lambda m: m.graph.node[0].input.__setitem__(4, "b")), with_tensor(EVAL_NORM, *STATS), np.ones((3, 2)), feeds={"x": np.ones((3, 2), np.float32)}),
    row("training-mode", "statistics that are returned", edited(with_tensor(NORM, *FRESH), lambda m: m.graph.output.extend([info("m", 1, 2), info("v", 1, 2)])), with_tensor(EVAL_NORM, *FRESH), np.ones((3, 2)), feeds={"x": np.ones((3, 2), np.float32)}),
    row("training-mode", "Dropout", with_tensor(DROPOUT, *DROP), with_tensor(DROPOUT, ("r", np.float32(0)), ("t", False)), X),
]  # fmt: skip


@contextlib.contextmanager
def inference_in_this_process() -> Iterator[None]:
    """Saves the start of a process for each model; none of these hangs or crashes onnx."""

    def run(action: str, model: bytes, seconds: float) -> bytes:
        try:
            return _onnx_child.ACTIONS[action](onnx.load_from_string(model))
        except Exception as error:
            raise _guarded.Refused(str(error)) from error

    with unittest.mock.patch.object(_guarded, "_in_child", run):
        yield


TWO = '<domain: "f", opset_import: ["": 17]> F ({}) => ({}) {{ {} }} '
ONE_OUTPUT = parsed(
    "y = f.F(x)", imports=', "f": 1', functions=TWO.format("x", "y, z", "y = Neg(x) z = Exp(x)")
)
OVERLOADS = parsed(
    "t = f.F(x) y = f.F(t)",
    imports=', "f": 1',
    ir_version=8,
    functions=TWO.format("x", "y", "y = Neg(x)") + TWO.format("x", "y", "y = Relu(x)"),
)


def called(name: str, overload: str) -> onnx.ModelProto:
    """The second function of two, by another name or overload."""
    copy = edited(OVERLOADS, lambda m: setattr(m.functions[1], "name", name))
    copy.graph.node[1].op_type = name
    copy.functions[1].overload = copy.graph.node[1].overload = overload
    return copy


def added(call: str) -> onnx.ModelProto:
    return parsed(call, imports=', "f": 1', functions=TWO.format("a, b", "y", "y = Add(a, b)"))


OWN = ', "com.microsoft": 1'
GELU = np.array([0.841344746, -0.045500264], np.float32)


def pool(count_include_pad: int, opset: int = 17, size: object = 6) -> onnx.ModelProto:
    """Windows of three ones at 0, 2 and 4, of which the last ends behind six places."""
    return parsed(
        "y = AveragePool <kernel_shape = [3], strides = [2], ceil_mode = 1, "
        f"count_include_pad = {count_include_pad}> (x)",
        f"float[1, 1, {size}] x",
        "float[1, 1, M] y",
        opset=opset,
    )


def rotated(attributes: str) -> onnx.ModelProto:
    """Turned by no angle."""
    model = parsed(
        f"y = RotaryEmbedding <rotary_embedding_dim = 2 {attributes}> (x, cos, sin)",
        "float[1, 1, 2, 4] x",
        "float[1, 1, 2, 4] y",
        opset=23,
    )
    one = np.ones((1, 2, 1), np.float32)
    return with_tensor(model, ("cos", one), ("sin", 0 * one))


PLACES = np.ones((1, 1, 6), np.float32)
SPECTRUM = {"x": np.array([[[1, 0], [3, 0]]], np.float32)}
IN, OUT = "float[1, 2, 2] x", "float[1, 2, 1] y"
REAL = (("start", [0]), ("end", [1]), ("axis", [2]))
QUERIES = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)


KERNELS = [
    row("unknown-op", "no such op", parsed("y = Reluu(x)"), RELU, POSITIVE),
    row("unknown-op", "of a newer opset", parsed("y = Mish(x)"), parsed("y = Mish(x)", opset=18), X * np.tanh(np.log1p(np.exp(X)))),
    row("unknown-op", "taken away", parsed("y = Scatter(x, i, x)", "float[2] x, int64[2] i"), parsed("y = ScatterElements(x, i, x)", "float[2] x, int64[2] i"), X, feeds={"x": X, "i": np.array([0, 1])}),
    row("unknown-op", "in a body", function("y = Reluu(x)"), DECOMPOSED, POSITIVE),
    row("op-call", "an input of a function left out that its body needs", added("y = f.F(x)"), added("y = f.F(x, x)"), 2 * X),
    row("kernel", "float64", parsed("y = Asinh(x)", "double[2] x", "double[2] y"), parsed("y = Asinh(x)"), np.arcsinh(X)),
    row("kernel", "in a body", function("t = Cast<to = 11>(x) u = Asinh(t) y = Cast<to = 1>(u)"), function("y = Asinh(x)"), np.arcsinh(X)),
    row("kernel", "in a branch", branch("t = Cast<to = 11>(x) u = Asinh(t) o = Cast<to = 1>(u)"), branch("o = Asinh(x)"), np.arcsinh(X), feeds=YES),
    row("kernel", "of onnxruntime's own op", parsed("t = Cast<to = 11>(x) u = com.microsoft.Gelu(t) y = Cast<to = 1>(u)", imports=OWN), parsed("y = com.microsoft.Gelu(x)", imports=OWN), GELU),
    row("kernel", "of onnxruntime's own op that only GPUs have", parsed("y = com.microsoft.BiasAdd(x, b, x)", "float[1, 1, 2] x, float[2] b", "float[1, 1, 2] y", imports=OWN), parsed("t = Add(x, b) y = Add(t, x)", "float[1, 1, 2] x, float[2] b", "float[1, 1, 2] y"), [[3 * X]], feeds={"x": X[None, None], "b": X}),
    row("kernel-casts", "of onnxruntime's own op", parsed("t = Cast<to = 10>(x) u = com.microsoft.QuickGelu(t) y = Cast<to = 1>(u)", imports=OWN), parsed("y = com.microsoft.QuickGelu(x)", imports=OWN), [0, 0], feeds={"x": 0 * X}),
    row("unknown-op", "of a domain that has none", parsed("y = com.microsoft.experimental.Gelu(x)", imports=', "com.microsoft.experimental": 1'), parsed("y = com.microsoft.Gelu(x)", imports=OWN), GELU),
    row("kernel-casts", "float16", parsed("t = Cast<to = 10>(x) u = Ceil(t) y = Cast<to = 1>(u)"), parsed("y = Ceil(x)"), X),
    row("faulty-kernel", "windows that end behind the padding", pool(1), pool(0), np.ones((1, 1, 3)), feeds={"x": PLACES}),
    row("faulty-kernel", "such windows at opset 19", pool(1, 19), pool(0, 19), np.ones((1, 1, 3)), feeds={"x": PLACES}),
    row("faulty-kernel", "the inverse of half a spectrum", parsed("y = DFT <axis = 1, inverse = 1, onesided = 1> (x)", IN, OUT), with_tensor(parsed("f = DFT <axis = 1, inverse = 1> (x) y = Slice(f, start, end, axis)", IN, OUT), *REAL), [[[2], [-1]]], feeds=SPECTRUM),
    row("faulty-kernel", "a part of the rotary embedding", rotated(""), rotated(", num_heads = 1"), QUERIES, feeds={"x": QUERIES}, oldest="1.23"),
    row("function-overloads", "of one name", called("F", "other"), called("G", ""), np.array([0, 2])),
    row("function-outputs", "the last", ONE_OUTPUT, edited(ONE_OUTPUT, lambda m: m.graph.node[0].output.append("")), -X),
]  # fmt: skip


CHECKED = [
    row("onnx-checker", "a graph without a name", edited(RELU, lambda m: m.graph.ClearField("name")), RELU, POSITIVE),
    row("onnx-checker", "metadata twice", edited(RELU, lambda m: m.metadata_props.extend([onnx.StringStringEntryProto(key="k", value="v")] * 2)), RELU, POSITIVE),
    row("onnx-checker", "a tensor in two fields", edited(WEIGHTED, lambda m: m.graph.initializer[0].float_data.extend([1, 2])), WEIGHTED, 2 * X),
    row("onnx-checker", "a branch without a name", edited(branch("o = Abs(x)"), lambda m: graph_of(m).ClearField("name")), branch("o = Abs(x)"), np.abs(X), feeds=YES),
    row("onnx-checker", "an input without a name", edited(RELU, lambda m: m.graph.input.add().type.CopyFrom(m.graph.input[0].type)), RELU, POSITIVE),
]  # fmt: skip


FAULTS: list[Fault] = [
    *VERSIONS,
    *LIBRARIES,
    *FUNCTIONS,
    *VALUES,
    *NODES,
    *TENSORS,
    *EXTERNAL_DATA,
    *TYPES,
    *KERNELS,
    *CHECKED,
    *TRAPS,
]
