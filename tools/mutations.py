"""Ways of breaking a model: its bytes, or its structure."""

import random
from collections.abc import Callable, Sequence

import onnx
from models_to_break import DATA, nested
from onnx import TensorProto, helper

NAMES = ("", "x", "y", "z", "a" * 5_000, "名前", "\x1b[2J", "a\nb", "../x", "%s{0}$x", "\udcff")
LOCATIONS = ("../outside", "{outside}", "/etc/passwd", DATA, "none", "", "a/../../outside", "C:\\x")
NUMBERS = (-1, 0, 1, 2, 3, 9, 16, 18, 23, 99, 2**31 - 1, 2**31, 2**62, -(2**63))
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "custom_ops", "mmcv", "mine", "none", "f")
OPS = (
    "Relu", "Add", "Conv", "If", "Loop", "Scan", "Constant", "Reshape", "Gather", "DeformConv",
    "DeformConv2d", "MulAdd", "GridSample", "MMCVDeformConv2d", "QuantizeLinear", "Identity",
    "BatchNormalization", "Dropout", "Split", "Cast", "RoiAlign", "twice", "none", "Softmax",
)  # fmt: skip


def mutated(seed: onnx.ModelProto, of_bytes: bool, source: random.Random, outside: str) -> bytes:
    """Returns a broken model.

    Args:
        seed: The model; left as it is.
        of_bytes: Whether to change bytes, else the structure.
        source: What decides.
        outside: A path outside the model's folder, which external data may be said to be at.
    """
    if of_bytes:
        data = bytearray(seed.SerializeToString())
        for _ in range(source.choice((1, 1, 2, 4, 16))):
            _change_bytes(data, source)
        return bytes(data)
    model = onnx.ModelProto()
    model.CopyFrom(seed)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        change = source.choice(_CHANGES)
        try:
            change(model, source, outside)
        except (IndexError, ValueError, TypeError):  # there is nothing of the kind to change
            continue
    return bytes(model.SerializeToString())


# Bytes


def _change_bytes(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    length = source.choice((1, 1, 2, 4, 8, 32, 200))
    kind = source.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << source.randrange(8)
    elif kind == 1:
        data[at : at + length] = source.randbytes(length)
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = source.randbytes(length)
    elif kind == 4:
        data[at:at] = data[at : at + length] * source.choice((1, 2, 50))
    elif kind == 5:
        del data[at:]
    else:
        data[at : at + 1] = source.choice((b"\xff", b"\x00", b"\x80", b"\x7f", b"\xff" * 9))


# Structure

_Change = Callable[[onnx.ModelProto, random.Random, str], None]


def _scopes(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    found: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for scope in found:  # grows meanwhile
        found.extend(a.g for node in scope.node for a in node.attribute if a.HasField("g"))
    return found


def _scope(model: onnx.ModelProto, source: random.Random) -> onnx.GraphProto | onnx.FunctionProto:
    return source.choice(_scopes(model))


def _node(model: onnx.ModelProto, source: random.Random) -> onnx.NodeProto:
    nodes: Sequence[onnx.NodeProto] = _scope(model, source).node
    return source.choice(nodes)


def _name(model: onnx.ModelProto, source: random.Random) -> str:
    """Returns the name of a value of the model, or another one."""
    known = [name for scope in _scopes(model) for node in scope.node for name in node.output]
    name = source.choice(known) if known and source.random() < 0.7 else source.choice(NAMES)
    return name.encode(errors="replace").decode()  # protobuf takes no lone surrogate


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    found = []
    for scope in _scopes(model):
        if isinstance(scope, onnx.GraphProto):
            found += scope.initializer
            found += [t for each in scope.sparse_initializer for t in (each.values, each.indices)]
        found += [a.t for node in scope.node for a in node.attribute if a.HasField("t")]
    return found


def _edge(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    node = _node(model, source)
    names = source.choice((node.input, node.output))
    names[source.randrange(len(names))] = _name(model, source)


def _number_of_edges(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    node = _node(model, source)
    names = source.choice((node.input, node.output))
    if source.random() < 0.5:
        names.append(_name(model, source))
    else:
        del names[source.randrange(len(names))]


def _names(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    scope = _scope(model, source)
    if isinstance(scope, onnx.FunctionProto):
        source.choice((scope.input, scope.output))[0] = _name(model, source)
        return
    values = [*scope.input, *scope.output, *scope.initializer, *scope.value_info, *scope.node]
    source.choice(values).name = _name(model, source)


def _op(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    _node(model, source).op_type = source.choice(OPS)


def _domain(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    holders = [*model.opset_import, _node(model, source), *model.functions]
    source.choice(holders).domain = source.choice(DOMAINS)


def _opset(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    imports = source.choice([model, *model.functions]).opset_import
    kind = source.randrange(3)
    if kind == 0:
        del imports[source.randrange(len(imports))]
    elif kind == 1:
        imports.add(domain=source.choice(DOMAINS), version=source.choice(NUMBERS))
    else:
        source.choice(imports).version = source.choice(NUMBERS)


def _ir_version(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    model.ir_version = source.choice(NUMBERS)


def _nodes(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    nodes = _scope(model, source).node
    at, other = source.randrange(len(nodes)), source.randrange(len(nodes))
    kind = source.randrange(3)
    if kind == 0:
        del nodes[at]
    elif kind == 1:
        nodes.add().CopyFrom(nodes[at])
    else:
        first, second = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(nodes[at])
        second.CopyFrom(nodes[other])
        nodes[at].CopyFrom(second)
        nodes[other].CopyFrom(first)


def _type(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    graphs = [scope for scope in _scopes(model) if isinstance(scope, onnx.GraphProto)]
    graph = source.choice(graphs)
    value = source.choice([*graph.input, *graph.output, *graph.value_info])
    kind = source.randrange(5)
    if kind == 0:
        value.ClearField("type")
    elif kind == 1:
        value.type.tensor_type.elem_type = source.choice((0, 1, 2, 7, 8, 10, 11, 16, 23, 999, -1))
    elif kind == 2:
        source.choice(value.type.tensor_type.shape.dim).dim_value = source.choice(NUMBERS)
    elif kind == 3:
        value.type.tensor_type.shape.dim.add().dim_param = _name(model, source)
    else:
        inner = onnx.TypeProto()
        inner.CopyFrom(value.type)
        value.type.sequence_type.elem_type.CopyFrom(inner)


def _attribute(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    node = _node(model, source)
    kind = source.randrange(5)
    if kind == 0 or not node.attribute:
        name = source.choice(("axis", "stride", "groups", "value", "body", "then_branch", "perm"))
        values = (1, -1, 2.5, "text", [1, 2], [1.5], [b"\xff"], 2**62, model.graph)
        node.attribute.append(helper.make_attribute(name, source.choice(values)))
        return
    attribute = source.choice(node.attribute)
    if kind == 1:
        node.attribute.remove(attribute)
    elif kind == 2:
        attribute.type = source.choice(onnx.AttributeProto.AttributeType.values())
    elif kind == 3:
        attribute.name = _name(model, source)
    else:
        attribute.i, attribute.type = source.choice(NUMBERS), onnx.AttributeProto.INT
        attribute.ref_attr_name = source.choice(("", "", "alpha"))


def _tensor(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    tensor = source.choice(_tensors(model))
    kind = source.randrange(5)
    if kind == 0:
        tensor.data_type = source.choice((0, 1, 2, 7, 8, 9, 10, 11, 16, 17, 22, 23, 99, -5))
    elif kind == 1:
        tensor.dims.append(source.choice(NUMBERS))
    elif kind == 2:
        tensor.raw_data = source.randbytes(source.choice((0, 1, 3, 4, 100)))
    elif kind == 3:
        del tensor.dims[:]
    else:
        tensor.int64_data.extend(source.choices(NUMBERS, k=3))


def _external(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    tensor = source.choice(_tensors(model))
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    location = source.choice(LOCATIONS).format(outside=outside)
    entries = {"location": location, "offset": str(source.choice((*NUMBERS, "x", "1e3")))}
    if source.random() < 0.7:
        entries["length"] = str(source.choice((*NUMBERS, 4, "")))
    for key, value in entries.items():
        if source.random() < 0.9:
            tensor.external_data.add(key=key, value=value)


def _nesting(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    """Puts the graph into an If of itself, some times over."""
    for _ in range(source.choice((1, 1, 3, 8))):
        inner = onnx.GraphProto()
        inner.CopyFrom(model.graph)
        del model.graph.node[:]
        outputs = [output.name for output in inner.output]
        condition = source.choice([*(each.name for each in inner.input), "none"])
        node = helper.make_node("If", [condition], outputs)
        for name in ("then_branch", "else_branch")[: source.choice((1, 2))]:
            if inner.ByteSize() < 100_000:
                node.attribute.append(helper.make_attribute(name, inner))
        model.graph.node.append(node)


def _functions(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    kind = source.randrange(4)
    if kind == 0:
        deep = nested(source.choice((3, 25, 200)))
        model.functions.extend(deep.functions)
        model.graph.node.extend(deep.graph.node)
        model.opset_import.extend(deep.opset_import)
        return
    function = source.choice(model.functions)
    if kind == 1:
        model.functions.add().CopyFrom(function)
    elif kind == 2:
        model.functions.remove(function)
    else:
        node = source.choice(function.node)
        other = source.choice(model.functions)
        node.domain, node.op_type = other.domain, other.name


def _metadata(model: onnx.ModelProto, source: random.Random, outside: str) -> None:
    key = f"pkg.torch.onnx.{source.choice(('name_scopes', 'class_hierarchy', 'stack_trace'))}"
    values = (
        "[" * 5_000,
        "['', 'a']",
        "[1]",
        "x" * 100_000,
        "['']",
        "['', '', '', '']",
        "{",
        "-" * 9,
    )
    node = _node(model, source)
    node.metadata_props.add(key=key, value=source.choice(values))
    node.name = source.choice((node.name, "/a" * 3_000, "/a/a_1/a_1_2/Relu", "/", "//"))


_CHANGES: tuple[_Change, ...] = (
    *(_edge, _number_of_edges, _names, _op, _domain, _opset, _ir_version, _nodes, _type),
    *(_attribute, _tensor, _external, _nesting, _functions, _metadata),
)
