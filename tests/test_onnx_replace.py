"""Replacing nodes: of other producers, of our own decompositions, and back to the standard op."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_models import check, deform_feeds, deform_model, parse, run

import custom_ops
import custom_ops.onnx
from custom_ops.cli import execute
from custom_ops.onnx import Rule, Verdict, lower, replace, same_shape, scalar, session
from custom_ops.ops import _registry as registry
from custom_ops.ops._registry import ops as registered

KEY = "custom_ops.origin"
OPSETS = (19, 20, 21, 22, 23)


def op_types(model: onnx.ModelProto) -> set[str]:
    found = set()
    for graph in all_graphs(model.graph):
        found |= {f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.node}
    return found


def all_graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, *(g for each in inner for g in all_graphs(each))]


def standard(opset: int = 19, kind: str = "float", attributes: str = "") -> onnx.ModelProto:
    """One node of the standard op, of two groups and two offset groups."""
    attributes = attributes or "group = 2, offset_group = 2"
    return parse(
        f"g ({kind}[2, 4, 6, 5] x, {kind}[6, 2, 3, 3] weight, {kind}[2, 36, 4, 3] offset, "
        f"{kind}[6] bias, {kind}[2, 18, 4, 3] mask) => ({kind}[2, 6, 4, 3] y) "
        f"{{ y = DeformConv <{attributes}> (x, weight, offset, bias, mask) }}",
        opset,
    )


# --- the standard op ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "to"), [*((o, "portable") for o in OPSETS), (19, "custom"), (22, "decomposed")]
)
def test_the_standard_op(opset: int, to: str) -> None:
    model = standard(opset)
    before = model.SerializeToString()
    result = replace(model, to)
    assert model.SerializeToString() == before
    assert [str(change) for change in result.changes] == [
        "y: DeformConv -> "
        + ("decomposed DeformConv2d" if to == "decomposed" else "custom_ops::DeformConv2d")
    ]
    assert result.proof
    assert "DeformConv" not in op_types(check(result.model))
    feeds = deform_feeds()
    for kernels in {"portable": ("native", "none"), "custom": ("native",)}.get(to, ("none",)):
        np.testing.assert_allclose(
            run(result.model, feeds, kernels), run(model, feeds, "none"), rtol=1e-4, atol=1e-5
        )
    back = replace(result.model, "native")
    assert op_types(check(back.model)) == {"DeformConv"}
    assert [given.name for given in back.model.graph.input] == list(feeds)
    (was,), (node,) = model.graph.node, back.model.graph.node
    assert list(node.input) == list(was.input)
    assert values(node) == {
        "strides": [1, 1],
        "pads": [0] * 4,
        "dilations": [1, 1],
        **values(was),
    }
    assert [i.domain for i in back.model.opset_import] == [""]


def values(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def test_defaults_of_the_standard_op_are_written() -> None:
    """Left out, a group is 1 in the standard op, and what the shapes say in ours."""
    model = parse(
        "g (float[2, 4, h, w] x, float[6, 4, 3, 3] weight, float[2, 18, u, v] offset) => "
        "(float[2, 6, u, v] y) { y = DeformConv <kernel_shape = [3, 3]> (x, weight, offset) }"
    )
    (node,) = replace(model, "custom", verify=False).model.graph.node
    assert values(node) == {
        "strides": [1, 1],
        "pads": [0] * 4,
        "dilations": [1, 1],
        "group": 1,
        "offset_group": 1,
    }


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("group = 1, offset_group = 2", r".* 4 channels of the input divided by group \(1\)"),
        ("group = 4, offset_group = 2", r".* 4 channels of the input divided by group \(4\)"),
        ("group = 2, offset_group = 1", "the offset must have 18 channels by offset_group, got 36"),
        ("group = 2, offset_group = 3", r"the 4 channels must be divisible by offset_group \(3\)"),
        ("strides = [1]", "strides must have 2 values"),
        ("strides = [0, 1]", r"strides must be at least 1, got \[0, 1\]"),
        ("pads = [-1, 0, 0, 0]", r"pads must be at least 0, got \[-1, "),
        ("group = -1", "group must be one number of at least 1, got -1"),
        ("more = 1", "it must have no attribute 'more'"),
        ("strides = 1.5", "its attribute strides must be of integers"),
    ],
)
def test_what_our_op_cannot_be(attributes: str, reason: str) -> None:
    with pytest.raises(
        ValueError, match=f"replace: node 'y' .DeformConv. must be one .*: {reason}"
    ):
        replace(standard(attributes=attributes))


# --- MMCV --------------------------------------------------------------------------------------


def mmcv(
    domain: str = "mmcv", v2: bool = True, biased: bool = True, opset: int = 18, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """A node as MMCV and MMDeploy write it: the offset, and the mask, before the weight."""
    draw = np.random.default_rng(0).standard_normal
    given = {"stride": [2, 1], "padding": [1, 2], "dilation": [1, 2], "groups": 2}
    given = {**given, "deform_groups": 2, **attributes}
    pair = {n: [given[n]] * 2 if isinstance(given[n], int) else given[n] for n in list(given)[:3]}
    out = [
        (size + 2 * pair["padding"][i] - pair["dilation"][i] * 2 - 1) // pair["stride"][i] + 1
        for i, size in enumerate((7, 9))
    ]
    arrays = {"x": draw((2, 4, 7, 9)), "offset": draw((2, 36, *out))}
    arrays |= {"mask": draw((2, 18, *out))} if v2 else {}
    arrays |= {"weight": draw((6, 2, 3, 3))}
    arrays |= {"bias": draw(6)} if biased else {}
    arrays = {name: array.astype("f4") for name, array in arrays.items()}
    op_type = "MMCVModulatedDeformConv2d" if v2 else "MMCVDeformConv2d"
    node = helper.make_node(op_type, list(arrays), ["y"], name="dcn", domain=domain, **given)
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        for name, array in arrays.items()
        if name in ("x", "offset", "mask")
    ]
    held = [
        numpy_helper.from_array(arrays[name], name)
        for name in arrays
        if name not in [value.name for value in inputs]
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 6, *out])
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output], held),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)],
        ir_version=8,
    )
    return model, arrays


def by_torchvision(
    arrays: dict[str, np.ndarray[Any, Any]], **attributes: Any
) -> np.ndarray[Any, Any]:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    given = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), **attributes}
    torchvision = pytest.importorskip("torchvision")
    output: torch.Tensor = torchvision.ops.deform_conv2d(
        tensors["x"],
        tensors["offset"],
        tensors["weight"],
        tensors.get("bias"),
        mask=tensors.get("mask"),
        **given,
    )
    return output.numpy()


def fed(model: onnx.ModelProto, arrays: dict[str, Any]) -> dict[str, Any]:
    return {value.name: arrays[value.name] for value in model.graph.input}


@pytest.mark.parametrize("domain", ["mmcv", "mmdeploy"])
@pytest.mark.parametrize(("v2", "biased"), [(True, True), (True, False), (False, False)])
def test_mmcv(domain: str, v2: bool, biased: bool) -> None:
    extra = {} if v2 else {"im2col_step": 32, "bias": 0}
    model, arrays = mmcv(domain, v2, biased, **extra)
    expected = by_torchvision(arrays)
    result = replace(model)
    (change,) = result.changes
    assert change.node == "dcn"
    assert change.was.startswith(f"{domain}::MMCV")
    assert result.proof is not None
    assert result.proof.verdict is Verdict.ONLY_AFTER  # MMCV's own kernels are not here
    assert domain not in [each.domain for each in result.model.opset_import]
    for kernels in ("native", "none"):
        np.testing.assert_allclose(
            run(check(result.model), fed(model, arrays), kernels), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("opset", OPSETS)
def test_mmcv_to_the_standard_op(opset: int) -> None:
    model, arrays = mmcv(opset=opset)
    result = replace(model, "native")
    assert op_types(check(result.model)) == {"DeformConv"}
    np.testing.assert_allclose(
        run(result.model, fed(model, arrays), "none"), by_torchvision(arrays), rtol=1e-4, atol=1e-4
    )


def test_mmcv_with_one_number_for_both_axes() -> None:
    model, arrays = mmcv(v2=False, biased=False, stride=2, padding=1, dilation=1)
    model.graph.node[0].attribute[1].CopyFrom(helper.make_attribute("padding", [1, 1, 1, 1]))
    expected = by_torchvision(arrays, stride=2, padding=1, dilation=1)
    np.testing.assert_allclose(
        run(replace(model).model, fed(model, arrays), "native"), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"groups": 3}, r"the 4 channels of the input divided by group \(3\)"),
        ({"groups": 0}, "groups must be one number of at least 1, got 0"),
        ({"deform_groups": 4}, "the offset must have 72 channels by offset_group, got 36"),
        ({"stride": [1, 1, 1]}, r"stride must be one number or a pair, got \[1, 1, 1\]"),
        ({"padding": [1, 1, 2, 2]}, r"padding must be one number or a pair, got \[1, 1, 2, 2\]"),
        ({"groups": [2]}, "groups must be one number"),
        ({"alpha": 1}, "it must have no attribute 'alpha'"),
    ],
)
def test_mmcv_that_our_op_cannot_be(
    attributes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    model, _ = mmcv()
    kept = [a for a in model.graph.node[0].attribute if a.name not in attributes]
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.extend(kept)
    model.graph.node[0].attribute.extend(helper.make_attribute(*a) for a in attributes.items())
    onnx.save(model, tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(ValueError, match=f"replace: node 'dcn' .*{reason}"):
        replace(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_mmcv_without_its_weight() -> None:
    model, _ = mmcv()
    model.graph.node[0].input[3] = ""
    with pytest.raises(ValueError, match=r"node 'dcn' .*: its input weight must be given"):
        replace(model)


def test_mmcv_at_an_opset_without_a_body() -> None:
    model, arrays = mmcv(opset=11)
    with pytest.raises(ValueError, match=r"opset must be at least 16 .*, got 11; .*to='custom'"):
        replace(model)
    result = replace(model, "custom")
    np.testing.assert_allclose(
        run(result.model, fed(model, arrays), "native"),
        by_torchvision(arrays),
        rtol=1e-4,
        atol=1e-4,
    )


# --- our decompositions ------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [16, 20, 23])
@pytest.mark.parametrize(("bias", "mask"), [(True, True), (False, False), (False, True)])
def test_decomposed(opset: int, bias: bool, mask: bool) -> None:
    model = deform_model(opset, bias=bias, mask=mask, attributes="<strides = [1, 1]>")
    model.graph.node[0].name = "dcn"
    plain = decomposed(model)
    assert "custom_ops::DeformConv2d" not in op_types(plain)
    feeds = deform_feeds(bias=bias, mask=mask)
    result = replace(plain, verify=False)
    assert [str(c) for c in result.changes] == [
        "dcn: decomposed DeformConv2d -> custom_ops::DeformConv2d"
    ]
    restored = check(result.model)
    assert sum(node.op_type == "DeformConv2d" for node in restored.graph.node) == 1
    assert len(restored.graph.node) <= 5  # and what is written of inputs left out
    for kernels in ("native", "none"):
        np.testing.assert_allclose(
            run(restored, feeds, kernels), run(plain, feeds, "none"), rtol=1e-4, atol=1e-5
        )


def decomposed(model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(lower(model, "decomposed"))


SUBGRAPHS = """
    g (bool c, float[2, 4, 6, 5] x, float[6, 2, 3, 3] weight, float[2, 36, 4, 3] offset) =>
      (float[2, 6, 4, 3] y) {
        y = If (c) <
            then_branch = t () => (float[2, 6, 4, 3] u) {
                u = DeformConv <group = 2, offset_group = 2> (x, weight, offset)
            },
            else_branch = e () => (float[2, 6, 4, 3] v) {
                z = custom_ops.DeformConv2d (x, weight, offset)
                v = custom_ops.MulAdd <alpha = 3.0> (z, z)
            }
        >
    }"""


def test_in_subgraphs_there_and_back() -> None:
    model = parse(SUBGRAPHS)
    feeds = deform_feeds(bias=False, mask=False)
    steps = ["portable", "decomposed", "custom", "decomposed", "native"]
    for to in steps:
        result = replace(model, to, verify=False)
        changed = check(result.model)
        for condition in (True, False):
            fed = {"c": np.array(condition), **feeds}
            np.testing.assert_allclose(
                run(changed, fed, "native"), run(model, fed, "native"), rtol=1e-4, atol=1e-5
            )
        model = changed
    assert op_types(model) - {"If", "DeformConv"} <= {"Mul", "Add", "Constant", "Cast"}
    assert "custom_ops::MulAdd" in op_types(replace(model, "custom", verify=False).model)


def test_two_calls_and_what_follows_keep_their_names_types_and_metadata() -> None:
    model = parse(
        "g (float[N] a, float[N] b) => (float[N] y, float[N] m) {"
        " m = custom_ops.MulAdd <alpha = 3.0> (a, b)  r = Relu (m)"
        " y = custom_ops.MulAdd <alpha = -0.1> (r, b) }"
    )
    for i, node in enumerate(model.graph.node):
        node.name = f"node{i}"
        node.metadata_props.add(key="mine", value=f"value{i}")
    model.graph.value_info.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["N"]))
    plain = decomposed(model)
    origins = [
        next(json.loads(p.value) for p in n.metadata_props if p.key == KEY)
        for n in plain.graph.node
        if any(p.key == KEY for p in n.metadata_props)
    ]
    assert {origin["call"] for origin in origins} == {0, 1}
    restored = replace(plain, "custom").model
    assert [(n.op_type, n.name, list(n.input), list(n.output)) for n in restored.graph.node] == [
        (n.op_type, n.name, list(n.input), list(n.output)) for n in model.graph.node
    ]
    assert [values(node) for node in restored.graph.node] == [
        values(node) for node in model.graph.node
    ]
    metadata = [{p.key: p.value for p in node.metadata_props} for node in restored.graph.node]
    assert metadata == [{"mine": f"value{i}"} for i in range(3)]
    assert restored.graph.output == model.graph.output
    assert next(iter(restored.graph.value_info)) == model.graph.value_info[0]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offsets = torch.nn.Conv2d(3, 27, 3, padding=1)
        self.first = custom_ops.DeformConv2d(3, 4, 3, padding=1)
        self.second = custom_ops.DeformConv2d(4, 2, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        predicted = self.offsets(image)
        offset, mask = predicted[:, :18], predicted[:, 18:].sigmoid()
        features = self.second(self.first(image, offset, mask), offset)
        return custom_ops.mul_add(features, features.relu(), alpha=0.5)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_an_export_that_was_decomposed(exporter: str, tmp_path: Path) -> None:
    net, image = Net().eval(), torch.randn(1, 3, 9, 8)
    path, sizes = tmp_path / "net.onnx", ({2: "H", 3: "W"},)
    custom_ops.onnx.export(
        net, (image,), path, lowering="decomposed", exporter=exporter, dynamic_shapes=sizes
    )
    result = replace(path)
    assert [change.was for change in result.changes] == [
        "decomposed DeformConv2d",
        "decomposed DeformConv2d",
        "decomposed MulAdd",
    ]
    assert result.proof
    assert "Loop" not in op_types(check(result.model))
    assert custom_ops.onnx.verify(result.model, net, (image,))


@pytest.mark.parametrize("kind", ["float16", "double", "bfloat16"])
def test_decomposed_in_other_types(kind: str) -> None:
    plain = decomposed(deform_model(20, kind))
    assert "custom_ops::DeformConv2d" in op_types(replace(plain, verify=False).model)


def test_without_the_tag_it_is_not_known_and_that_is_said() -> None:
    plain = decomposed(deform_model())
    for node in [n for graph in all_graphs(plain.graph) for n in graph.node]:
        del node.metadata_props[:]
    result = replace(plain)
    assert not result
    assert result.model == plain
    assert f"known by the metadata {KEY!r}" in str(result)


def change_a_constant(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Constant")
    values = numpy_helper.to_array(node.attribute[0].t)
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(values + 1))


def swap_inputs(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Div")
    node.input[0], node.input[1] = node.input[1], node.input[0]


def change_the_loop(model: onnx.ModelProto) -> None:
    (loop,) = (n for n in model.graph.node if n.op_type == "Loop")
    next(n for n in loop.attribute[0].g.node if n.op_type == "Abs").op_type = "Neg"


def change_the_tag(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for entry in node.metadata_props:
            if '"strides": [1, 1]' in entry.value:
                entry.value = entry.value.replace('"strides": [1, 1]', '"strides": [2, 1]')


def tag_by_other_hands(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for entry in node.metadata_props:
            entry.value = '{"op": "DeformConv2d", "call": 1, "name": 2}'


def change_the_op(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for entry in node.metadata_props:
            entry.value = entry.value.replace("DeformConv2d", "MulAdd")


def drop_the_result(model: onnx.ModelProto) -> None:
    del model.graph.node[-1].metadata_props[:]


@pytest.mark.parametrize(
    "spoil",
    [
        change_a_constant,
        swap_inputs,
        change_the_loop,
        change_the_tag,
        change_the_op,
        tag_by_other_hands,
        drop_the_result,
    ],
)
def test_a_body_that_was_changed_is_left(spoil: Any) -> None:
    plain = decomposed(deform_model())
    spoil(plain)
    result = replace(plain)
    assert not result
    assert result.model == plain
    assert "are no longer the body of" in result.notes[0]


def test_a_call_numbered_anew_beside_one_that_is_there() -> None:
    model = decomposed(parse("g (float[N] a) => (float[N] m) { m = custom_ops.MulAdd (a, a) }"))
    model.opset_import.append(helper.make_opsetid("custom_ops", 1))
    model.graph.node.append(helper.make_node("MulAdd", ["m", "a"], ["y"], domain="custom_ops"))
    model.graph.output[0].name = "y"
    result = replace(decomposed(model), "custom")
    assert [n.op_type for n in result.model.graph.node] == ["MulAdd", "MulAdd"]


# --- other sides -------------------------------------------------------------------------------


def test_only_the_sources_asked_for() -> None:
    model, _ = mmcv()
    kept = replace(model, sources=["native", "decomposed"])
    assert not kept
    assert same_nodes(kept.model, model)
    assert replace(model, sources="mmcv")
    with pytest.raises(ValueError, match=r"sources must be among native, .* got 'mmcw'; did you "):
        replace(model, sources=["mmcw"])
    with pytest.raises(ValueError, match=r"replace: to must be one of portable, .* got 'best'"):
        replace(model, "best")


def test_what_is_in_the_form_asked_for_stays() -> None:
    model = standard()
    result = replace(model, "native")
    assert not result
    assert same_nodes(result.model, model)


def same_nodes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    first, second = (ir.to_proto(ir.from_proto(model)) for model in (one, other))
    return bool(first == second)


def test_functions_that_hold_such_nodes() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 20, "mine": 1]>
        g (float[2, 4, 6, 5] x, float[6, 2, 3, 3] w, float[2, 36, 4, 3] o) =>
          (float[2, 6, 4, 3] y) { z = mine.Layer <n = 2> (x, w, o)  y = mine.Other (z) }
        <domain: "mine", opset_import: ["": 20]>
        Layer <n> (x, w, o) => (y) {
            y = DeformConv <group: int = @n, offset_group: int = @n> (x, w, o)
        }
        <domain: "mine", opset_import: ["": 20]>
        Other (p) => (r) { r = Neg (p) }
    """)
    result = replace(model)
    assert [(f.domain, f.name) for f in check(result.model).functions] == [
        ("mine", "Other"),
        ("custom_ops", "DeformConv2d"),
    ]
    assert result.proof


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wrong declaration would make one."""
    from custom_ops.ops.deform_conv2d import nodes

    form = nodes.NODES[0]
    wrong = dataclasses.replace(
        form,
        attributes=lambda given: {**form.attributes(given), "pads": [1, 1, 0, 0]},  # type: ignore[dict-item]
    )
    op = registered()["deform_conv2d"]
    onnx_op = dataclasses.replace(op.onnx, nodes=(wrong,), why_not=None)
    monkeypatch.setitem(registry._OPS, op.name, dataclasses.replace(op, onnx=onnx_op))
    with pytest.raises(
        ValueError, match=r"replace: the new model must compute what g does, but output 'y' is off"
    ):
        replace(
            parse(
                "g (float[1, 4, 6, 6] x, float[6, 4, 3, 3] weight, float[1, 18, 4, 4] offset) => "
                "(float[1, 6, 4, 4] y) { y = DeformConv <pads = [0, 0, 1, 1], strides = [1, 1]> "
                "(x, weight, offset) }".replace("[1, 4, 6, 6]", "[1, 4, 5, 5]")
            )
        )


def test_large_weights_stay_in_a_file(tmp_path: Path) -> None:
    model, arrays = mmcv()
    (tmp_path / "in").mkdir()
    onnx.save(
        model,
        tmp_path / "in" / "m.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="weights.bin",
    )
    result = replace(tmp_path / "in" / "m.onnx")
    result.save(tmp_path / "out" / "n.onnx")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["n.onnx", "n.onnx.data"]
    (actual,) = session(tmp_path / "out" / "n.onnx").run(None, fed(model, arrays))
    np.testing.assert_allclose(actual, by_torchvision(arrays), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"path must be a new file, got .*n.onnx"):
        result.save(tmp_path / "out" / "n.onnx")
    result.save(tmp_path / "out" / "n.onnx", force=True)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(custom_ops.onnx.UnreadableModel):
        replace(b"junk")
    with pytest.raises(ValueError, match="must pass onnx's shape inference, got g: functions must"):
        replace(
            onnx.parser.parse_model("""
                <ir_version: 9, opset_import: ["": 20, "m": 1]>
                g (float[N] x) => (float[N] y) { y = m.F (x) }
                <domain: "m", opset_import: ["": 20, "m": 1]> F (x) => (y) { y = m.F (x) }
            """)
        )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("y = Add(a, nothing)", "y: input 'nothing' of Add must be defined"),
        ("y = Relu(r) r = Relu(a)", "must stand behind"),
        ("y = Relu(a) y = Relu(b)", "'y'"),
        ("r = Relu(a)", "'y'"),
    ],
)
def test_a_graph_that_is_not_whole(body: str, sentence: str) -> None:
    with pytest.raises(
        ValueError, match=f"replace: model must be a whole graph, got g.*{sentence}"
    ):
        replace(parse(graph_of(body)), rules=fuse())


def test_a_subgraph_that_a_function_is_to_be_given() -> None:
    model = parse(INSIDE["if"])
    model.graph.node[0].attribute[0].ref_attr_name = "given"
    with pytest.raises(ValueError, match="replace: model must "):
        replace(model, rules=fuse())


# --- rules -------------------------------------------------------------------------------------


def fuse(commute: bool = True) -> Rule:
    """alpha * a + b as our node, where both certainly have one shape."""

    def pattern(op: Any, a: Any, b: Any, alpha: Any) -> Any:
        return op.Add(op.Mul(alpha, a), b)

    def condition(context: Any, a: ir.Value, b: ir.Value, alpha: ir.Value, **_: Any) -> bool:
        number = scalar(alpha)
        return same_shape(a, b) and number is not None and float(np.float32(number)) == number

    def replacement(op: Any, a: ir.Value, b: ir.Value, alpha: ir.Value, **_: Any) -> Any:
        return op.MulAdd(a, b, alpha=scalar(alpha), _domain="custom_ops")

    return Rule(pattern, replacement, condition, commute=commute)


def graph_of(body: str, given: str = "float[N, 3] a, float[N, 3] b", more: str = "") -> str:
    return f"g ({given}) => (float[N, 3] y) <float two = {{2.0}}{more}> {{ {body} }}"


def arrays_of(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays for inputs of 4 x 3, and of what else the graph says."""
    draw = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or 4 for dim in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[value.name] = (
            np.full(shape, 2, dtype) if dtype.kind in "bi" else draw.standard_normal(shape)
        ).astype(dtype)
    return feeds


@pytest.mark.parametrize(
    "sum_",
    ["Add(m, b)", "Add(b, m)"],
)
@pytest.mark.parametrize("product", ["Mul(two, a)", "Mul(a, two)"])
def test_fusing_in_either_order(product: str, sum_: str) -> None:
    model = parse(graph_of(f"m = {product} s = {sum_} y = Relu(s)"))
    for i, node in enumerate(model.graph.node):
        node.name = f"node{i}"
        node.metadata_props.add(key="mine", value=f"value{i}")
    result = replace(model, rules=fuse())
    assert [str(change) for change in result.changes] == ["node1: Add + Mul -> custom_ops::MulAdd"]
    assert result.proof
    fused = check(result.model)
    (node, relu) = fused.graph.node
    assert not fused.graph.initializer
    assert (node.op_type, node.name, list(node.input), list(node.output)) == (
        "MulAdd",
        "node1",
        ["a", "b"],
        ["s"],
    )
    assert values(node) == {"alpha": 2.0}
    assert {p.key: p.value for p in node.metadata_props} == {"mine": "value1"}
    assert (relu.name, list(relu.input)) == ("node2", ["s"])
    feeds = arrays_of(model)
    for kernels in ("native", "none"):
        np.testing.assert_allclose(run(fused, feeds, kernels), run(model, feeds, "none"), rtol=1e-6)


def test_fusing_in_the_order_written_alone() -> None:
    assert replace(parse(graph_of("m = Mul(two, a) y = Add(m, b)")), rules=fuse(False))
    assert not replace(parse(graph_of("m = Mul(two, a) y = Add(b, m)")), rules=fuse(False))


SIZES = "float[N, 3] a, float[N, 3] b"


@pytest.mark.parametrize(
    ("given", "body", "more"),
    [
        ("float[N, 3] a, float[3] b", "m = Mul(two, a) y = Add(m, b)", ""),  # broadcast
        ("float[1, 3] a, float[N, 3] b", "m = Mul(two, a) y = Add(m, b)", ""),
        ("float[M, 3] a, float[N, 3] b", "m = Mul(two, a) y = Add(m, b)", ""),  # not proven
        ("float[?, 3] a, float[?, 3] b", "m = Mul(two, a) y = Add(m, b)", ""),
        ("float a, float[N, 3] b", "m = Mul(two, a) y = Add(m, b)", ""),
        (SIZES, "m = Mul(many, a) y = Add(m, b)", ", float[3] many = {2.0, 3.0, 4.0}"),
        (SIZES, "m = Mul(one, a) y = Add(m, b)", ", float[1] one = {2.0}"),  # not a scalar
        (f"{SIZES}, float alpha", "m = Mul(alpha, a) y = Add(m, b)", ""),  # no constant
        (f"{SIZES}, float dflt", "m = Mul(dflt, a) y = Add(m, b)", ", float dflt = {2.0}"),
        (SIZES, "m = Mul(two, a) s = Add(m, b) y = Mul(s, m)", ""),  # m is used elsewhere
        (SIZES, "m = Sub(two, a) y = Add(m, b)", ""),
    ],
)
def test_what_is_not_fused(given: str, body: str, more: str) -> None:
    model = parse(graph_of(body, given, more))
    result = replace(model, rules=fuse())
    assert not result
    assert result.notes == ("no place fits a rule",)
    assert same_nodes(result.model, model)


def test_a_number_that_a_float_does_not_hold_is_not_fused() -> None:
    text = (
        "g (double[N] a, double[N] b) => (double[N] y) <double tenth = {0.1}> "
        "{ m = Mul(tenth, a) y = Add(m, b) }"
    )
    assert not replace(parse(text), rules=fuse())
    assert replace(parse(text.replace("{0.1}", "{0.125}")), rules=fuse())


def test_shapes_that_inference_proves() -> None:
    text = graph_of(
        "r = Relu(a) t = Transpose<perm = [1, 0]>(b) u = Transpose(t) m = Mul(two, r) y = Add(m, u)"
    )
    result = replace(parse(text), rules=fuse())
    assert result
    assert not [value.name for value in result.model.graph.value_info if value.name in "rtu"]


INSIDE = {
    "if": """
        g (bool c, float[N, 3] a, float[N, 3] b) => (float[N, 3] y) <float two = {2.0}> {
            y = If (c) <
                then_branch = t () => (float[N, 3] u) { m = Mul (two, a)  u = Add (m, b) },
                else_branch = e () => (float[N, 3] v) { k = Constant <value = float {3.0}> ()
                    m = Mul (b, k)  v = Add (a, m) }
            > }""",
    "loop": """
        g (float[N, 3] a, float[N, 3] b) => (float[N, 3] y) <float two = {2.0}, int64 n = {3}> {
            y = Loop (n, , a) <
                body = l (int64 i, bool go, float[N, 3] s) => (bool on, float[N, 3] z) {
                    on = Identity (go)  m = Mul (two, s)  z = Add (m, b) }
            > }""",
    "scan": """
        g (float[3] a, float[N, 3] b) => (float[3] y, float[N, 3] all) <float two = {2.0}> {
            y, all = Scan <num_scan_inputs = 1,
                body = s (float[3] p, float[3] q) => (float[3] r, float[3] o) {
                    m = Mul (two, p)  r = Add (m, q)  o = Identity (r) }
            > (a, b) }""",
}


@pytest.mark.parametrize(("kind", "count"), [("if", 2), ("loop", 1), ("scan", 1)])
def test_fusing_in_subgraphs(kind: str, count: int) -> None:
    model = parse(INSIDE[kind])
    result = replace(model, rules=fuse())
    assert len(result.changes) == count
    assert result.proof
    fused = check(result.model)
    assert "Mul" not in op_types(fused)
    feeds = arrays_of(model)
    for kernels in ("native", "none"):
        np.testing.assert_allclose(run(fused, feeds, kernels), run(model, feeds, "none"), rtol=1e-5)


FUNCTIONS = """
    <ir_version: 9, opset_import: ["": 20, "mine": 1]>
    g (float[N, 3] a, float[N, 3] b, float[5, 2] c, float[5, 2] d)
      => (float[N, 3] y, float[5, 2] z) {
        y = mine.Outer (a, b)
        z = mine.Outer (c, d)
    }
    <domain: "mine", opset_import: ["": 20, "mine": 1]>
    Outer (p, q) => (r) { n = Neg (p)  r = mine.Inner (n, q) }
    <domain: "mine", opset_import: ["": 20]>
    Inner (p, q) => (r) {
        k = Constant <value = float {2.0}> ()  m = Mul (p, k)  r = Add (q, m)
    }
"""


def test_fusing_in_functions() -> None:
    """The calls differ in their shapes, but in each both operands have one shape."""
    model = onnx.parser.parse_model(FUNCTIONS)
    result = replace(model, rules=fuse())
    assert result.proof
    fused = check(result.model)
    assert op_types(fused) == {"Neg", "custom_ops::MulAdd"}  # runtimes want no such node inside
    for i, expected in enumerate(session(model).run(None, arrays_of(model))):
        actual = session(fused, kernels="none").run(None, arrays_of(model))[i]
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    other = onnx.parser.parse_model(FUNCTIONS.replace("float[5, 2] d", "float[1, 2] d"))
    assert not replace(other, rules=fuse())


def test_a_pattern_with_a_body_is_refused() -> None:
    """It would match whatever the body is."""

    def pattern(op: Any, n: Any, a: Any) -> Any:
        return op.Loop(n, None, a)

    rule = Rule(pattern, lambda op, n, a: op.Identity(a))
    with pytest.raises(ValueError, match=r"pattern must hold no node with a body .*, got Loop 'y'"):
        replace(parse(INSIDE["loop"]), rules=rule)


def test_attributes_that_the_pattern_does_not_name() -> None:
    rule = Rule(lambda op, x: op.Softmax(x), lambda op, x: op.LogSoftmax(x))
    plain = parse(graph_of("y = Softmax(a)"))
    default = parse(graph_of("y = Softmax<axis = -1>(a)"))
    other = parse(graph_of("y = Softmax<axis = 0>(a)"))
    assert [bool(replace(m, rules=rule, verify=False)) for m in (plain, default, other)] == [
        True,
        True,
        False,
    ]


def test_a_rule_that_changes_the_numbers_is_an_error() -> None:
    rule = Rule(lambda op, x: op.Relu(x), lambda op, x: op.Neg(x))
    with pytest.raises(ValueError, match=r"compute what g does, but output 'y' .*correct the rule"):
        replace(parse(graph_of("y = Relu(a)")), rules=rule)


def test_a_rule_that_matches_what_it_writes() -> None:
    rule = Rule(lambda op, x, y: op.Add(x, y), lambda op, x, y: op.Add(y, x))
    model = replace(parse(graph_of("s = Add(a, b) y = Add(s, b)")), rules=rule).model
    assert [list(node.input) for node in model.graph.node] == [["b", "a"], ["b", "s"]]


def test_an_op_of_the_user_with_its_body() -> None:
    from onnxscript import opset20 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset("mine", 1), default_opset=op)
    def Twice(x):  # type: ignore[no-untyped-def]
        return op.Add(x, x)

    rule = Rule(lambda op, x: op.Add(x, x), lambda op, x: op.Twice(x, _domain="mine"), body=Twice)
    model = parse(graph_of("s = Add(a, a) t = Add(s, s) y = Add(t, b)"))
    result = replace(model, rules=rule)
    assert [str(change) for change in result.changes] == [
        "s: Add -> mine::Twice",
        "t: Add -> mine::Twice",
    ]
    assert result.proof
    assert [(f.domain, f.name) for f in check(result.model).functions] == [("mine", "Twice")]
    with pytest.raises(ValueError, match="body must be of a node that the model has no function"):
        replace(result.model, rules=rule)
    with pytest.raises(ValueError, match=r"body of Twice must be written in opset 18, .* got 20"):
        replace(parse(graph_of("y = Add(a, a)"), 18), rules=rule)


def test_several_rules_and_new_nodes() -> None:
    rules = [
        Rule(lambda op, x: op.Relu(x), lambda op, x: op.Max(x, op.Sub(x, x))),
        Rule(lambda op, x: op.Sub(x, x), lambda op, x: op.Mul(x, op.Constant(value_float=0.0))),
    ]
    model = parse(graph_of("r = Relu(a) y = Add(r, b)"))
    result = replace(model, rules=rules)
    assert result.proof
    assert op_types(check(result.model)) == {"Max", "Mul", "Constant", "Add"}
    names = [name for node in result.model.graph.node for name in node.output]
    assert len(set(names)) == len(names)


# --- the command line --------------------------------------------------------------------------


def convert(*arguments: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute(["convert", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def test_the_command(tmp_path: Path) -> None:
    model, _ = mmcv(opset=20)
    given, written = tmp_path / "m.onnx", tmp_path / "n.onnx"
    onnx.save(model, given)
    code, out, err = convert(given, "--output", written, "--from", "mmcv")
    assert code == 0, err
    for text in ("n.onnx", "dcn", "mmcv::MMCVModulatedDeformConv2d", "custom_ops::DeformConv2d"):
        assert text in out
    code, out, err = convert(given, "--output", written)
    assert code == 1
    assert err.strip().endswith("overwrite it with --force")
    code, out, err = convert(written, "--output", written, "--to", "native", "--force", "--json")
    assert code == 0, err
    assert op_types(onnx.load(written)) == {"DeformConv"}
    result = json.loads(out)
    assert result["ok"]
    assert result["changes"] == [
        {"node": "dcn", "was": "custom_ops::DeformConv2d", "became": "DeformConv"}
    ]
    assert result["proof"]["verdict"] == "equal"
    assert result["proof"]["difference"] < 1e-4


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--to", "best"), 2, "--to must be one of portable"),
        (("--from", "best"), 2, "--from must be one of native, decomposed, mmcv, mmdeploy"),
        (("--target", "onnxruntime"), 2, "target: name must be a release"),
        (
            ("--to", "native", "--target", "onnxruntime==1.20"),
            1,
            "a CPU kernel for DeformConv from",
        ),
        (("--from", "decomposed"), 1, "must have a node to turn, got none"),
    ],
)
def test_the_command_refuses(
    arguments: tuple[str, ...], code: int, sentence: str, tmp_path: Path
) -> None:
    onnx.save(mmcv(opset=20)[0], tmp_path / "m.onnx")
    found, out, err = convert(tmp_path / "m.onnx", "-o", tmp_path / "n.onnx", *arguments)
    assert (found, out) == (code, "")
    assert sentence in err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_the_command_on_junk(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"junk")
    code, _, err = convert(tmp_path / "m.onnx", "--output", tmp_path / "n.onnx")
    assert code == 2
    assert "must hold an ONNX model" in err
