"""Moving models between opsets: what moves, what hinders, and that the numbers stay."""

import numpy as np
import onnx
import pytest
from onnx import defs, helper, numpy_helper

import custom_ops.onnx
from custom_ops.onnx._fix import changes_of_ops, opset


def parsed(text: str, version: int, ir: int = 10, more: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["": {version}{more}]> {text}'
    )


def one(call: str, version: int, kind: str = "float", shape: str = "2,4,8,8") -> onnx.ModelProto:
    """A model of one node, whose input is x; a, b and i are small constants."""
    model = parsed(f"g ({kind}[{shape}] x) => (y) {{ {call} }}", version)
    for name, numbers in (("a", [1]), ("b", [2, 2]), ("i", [0, 1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
    return model


def moved(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Moves a model, and runs it before and after."""
    fixed = custom_ops.onnx.fix(model, opset=version)
    assert fixed.proof, fixed.proof
    assert fixed.proof.difference is not None
    assert fixed.proof.difference < 1e-6  # kernels of two opsets may round in their own ways
    assert {each.domain: each.version for each in fixed.model.opset_import}[""] == version
    return fixed.model


# Both ways between the two opsets, each run in onnxruntime.
MOVES = [
    ("y = Relu(x)", 13, 22),
    ("y = AveragePool <kernel_shape = [2, 2]> (x)", 18, 22),
    ("y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)", 18, 22),
    ("y = Softmax <axis = -1> (x)", 11, 20),
    ("y = Softmax <axis = 3> (x)", 12, 13),
    ("y = ReduceMean <keepdims = 0> (x)", 13, 18),
    ('y = Resize <mode = "nearest"> (x, , s)', 13, 19),
    ('y = GridSample <mode = "bicubic"> (x, g)', 16, 20),
    ("y = Dropout(x)", 11, 13),
    ("y = Shape(x)", 13, 21),
    ("y = Reshape(x, b)", 13, 23),
]


@pytest.mark.parametrize(("call", "low", "high"), MOVES)
def test_moves_both_ways(call: str, low: int, high: int) -> None:
    model = one(call.replace("(x, b)", "(x, r)"), low)
    constants = {
        "s": np.array([1, 1, 2, 2], np.float32),
        "g": np.linspace(-1, 1, 2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 3, 3, 2),
        "r": np.array([2, -1], np.int64),
    }
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    back = moved(moved(model, high), low)
    assert back.graph.node[0].op_type == model.graph.node[0].op_type


@pytest.mark.parametrize(
    ("call", "low", "high"),
    [
        ("y = ReduceMean <axes = [1, 2], keepdims = 0> (x)", 13, 18),
        ("y = ReduceSum <axes = [-1]> (x)", 11, 13),
        ("y = Unsqueeze <axes = [0, 3]> (x)", 11, 13),
        ("y, z = Split <axis = 1, split = [1, 3]> (x)", 11, 13),
    ],
)
def test_lists_become_inputs_and_attributes_again(call: str, low: int, high: int) -> None:
    model = one(call, low)
    up = moved(model, high)
    assert len(up.graph.node[0].input) == 2
    down = moved(up, low)
    assert down.graph.node[0].input == model.graph.node[0].input
    for attribute in model.graph.node[0].attribute:
        assert attribute in down.graph.node[0].attribute


def test_roi_align_says_what_it_did_before() -> None:
    model = parsed("g (float[1,1,8,8] x) => (y) { y = RoiAlign(x, r, i) }", 15)
    rois = np.array([[1, 1, 6, 5]], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(rois, "r"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    up = moved(model, 16)
    (attribute,) = up.graph.node[0].attribute
    assert attribute.s == b"output_half_pixel"
    assert not moved(up, 15).graph.node[0].attribute


@pytest.mark.parametrize(
    ("call", "kind", "old", "new", "reason"),
    [
        ("y = GroupNormalization <num_groups = 2> (x, w, w)", "float", 21, 20, "one per channel"),
        ("y = Softmax <axis = 1> (x)", "float", 11, 13, "before the last"),
        ("y = Softmax(x)", "float", 12, 13, "before the last"),
        ('y = Pad <mode = "wrap"> (x, w)', "float", 19, 18, "'wrap' came later"),
        (
            "y = MaxPool <kernel_shape = [2, 2], strides = [3, 3], pads = [1, 1, 1, 1], "
            "ceil_mode = 1> (x)",
            *("float", 22, 20, "windows that start in the padding"),
        ),
        ("y = Shape <start = 1> (x)", "float", 15, 13, "its start changed at opset 15"),
        ("y = Gelu(x)", "float", 20, 19, "opset 19 has no such op"),
        ("y = Pad(x, w, , a)", "float", 18, 17, "its input 4 came at opset 18"),
        ("y = ReduceMean(x, x)", "float", 18, 13, "axes must be constant"),
        ("y = Equal(x, x)", "string", 19, 18, "tensor[(]string[)] came at another opset"),
        ("y = Attention(x, x, x)", "float", 23, 22, "no such op"),
        ("y = Nonsense(x)", "float", 20, 21, "opset 20 has no such op"),
    ],
)
def test_what_hinders(call: str, kind: str, old: int, new: int, reason: str) -> None:
    model = one(call, old, kind)
    model.graph.node[0].name = "culprit"
    with pytest.raises(ValueError, match=rf"'culprit' \(.*{reason}"):
        custom_ops.onnx.fix(model, opset=new, verify=False)


def test_types_count_only_where_they_are_used() -> None:
    # ReduceMax takes bool from 20 on.
    model = one("y = ReduceMax(x)", 20)
    moved(model, 18)
    flags = one("y = ReduceMax(x)", 20, "bool")
    with pytest.raises(ValueError, match=r"tensor\(bool\) came at another"):
        custom_ops.onnx.fix(flags, opset=18)


def test_types_that_are_not_known_hinder() -> None:
    model = one("u = other.Op(x) y = ReduceMax(u)", 20)
    model.opset_import.add(domain="other", version=1)
    with pytest.raises(ValueError, match="type of 'u' is not known"):
        custom_ops.onnx.fix(model, opset=18, verify=False)


def test_types_inside_subgraphs() -> None:
    text = """g (bool c, {0}[N] x) => (y) {{
        y = If (c) <
            then_branch = a () => (t) {{ z = Identity(x) t = ReduceMax(z) }},
            else_branch = b () => (e) {{ e = ReduceMin(x) }}
        > }}"""
    moved(parsed(text.format("float"), 20), 18)
    with pytest.raises(ValueError, match=r"ReduceMin 'e' .*ReduceMax 't' "):
        custom_ops.onnx.fix(parsed(text.format("bool"), 20), opset=18)


def with_function(kind: str = "float") -> onnx.ModelProto:
    model = parsed(f"g ({kind}[3] x) => ({kind} y) {{ y = f.f(x) }}", 20, more=', "f": 1')
    nodes = [
        helper.make_node("Identity", ["x"], ["m"]),
        helper.make_node("ReduceMax", ["m"], ["y"], keepdims=0),
    ]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("f", "f", ["x"], ["y"], nodes, opsets))
    return model


def test_functions_move_too() -> None:
    changed = moved(with_function(), 18)
    assert changed.functions[0].opset_import[0].version == 18
    with pytest.raises(ValueError, match="ReduceMax 'y' in function 'f'"):
        custom_ops.onnx.fix(with_function("bool"), opset=18)


def test_constants_inside_functions() -> None:
    model = with_function()
    node = model.functions[0].node[1]
    node.attribute.append(helper.make_attribute("axes", [0]))
    for each in (*model.opset_import, *model.functions[0].opset_import):
        if not each.domain:
            each.version = 17
    up = moved(model, 18)
    assert [each.op_type for each in up.functions[0].node] == ["Identity", "Constant", "ReduceMax"]
    moved(up, 17)


def test_metadata_stays() -> None:
    model = one("y = ReduceMean <axes = [1]> (x)", 17)
    model.graph.node[0].metadata_props.add(key="namespace", value="layer3")
    model.graph.node[0].name = "mean"
    (node,) = moved(model, 20).graph.node
    assert (node.name, node.metadata_props[0].value) == ("mean", "layer3")


def test_new_constants_have_names_of_their_own() -> None:
    model = parsed(
        "g (float[2, 3] x) => (y, y_axes) { y = ReduceMean <axes = [1]> (x) y_axes = Neg(x) }", 17
    )
    assert moved(model, 18).graph.node[0].input[1] == "y_axes_1"


def test_old_files_hold_constants_as_nodes() -> None:
    model = parsed("g (float[2, 3] x) => (y) { y = ReduceMean <axes = [1]> (x) }", 17, ir=3)
    changed = moved(model, 18)
    assert [node.op_type for node in changed.graph.node] == ["Constant", "ReduceMean"]


def test_every_change_of_an_op_was_read() -> None:
    """A newer onnx may change ops in ways that are not in the tables."""
    assert defs.onnx_opset_version() <= opset.REVIEWED, "read the changes, then raise REVIEWED"
    for table in (changes_of_ops.CHECKS, changes_of_ops.REWRITES):
        for op, since in table:
            assert defs.get_schema(op, since, "").since_version == since


def test_what_is_newer_than_the_tables_hinders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opset, "REVIEWED", 18)
    with pytest.raises(ValueError, match="changed at opset 19, which is newer"):
        custom_ops.onnx.fix(one("y = Cast <to = 1> (x)", 18), opset=19)
    moved(one("y = Relu(x)", 18), 22)


def test_many_nodes_in_linear_time() -> None:
    nodes = [
        helper.make_node("ReduceMean", [f"v{i}"], [f"v{i + 1}"], axes=[0]) for i in range(20_000)
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("v0", 1, ["N"])], [value("v20000", 1, ["N"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    opset.set_opset(model, 20)
    assert len(model.graph.initializer) == 20_000
