"""Rewriting models: bodies embedded, inlined, made native."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models_to_measure import chain
from onnx_models import check, deform_feeds, deform_model, parse, run

from custom_ops.onnx import embed, lower, session, target
from custom_ops.ops._registry import ops

OPSETS = (16, 17, 18, 19, 20, 21, 22, 23, 24)


def op_types(model: onnx.ModelProto | ir.Model) -> set[tuple[str, str]]:
    graph = model if isinstance(model, ir.Model) else ir.from_proto(model)
    nodes = ir.traversal.RecursiveGraphIterator(graph.graph)
    return {(node.domain, node.op_type) for node in nodes}


# --- embed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", OPSETS)
def test_embed_at_each_opset(opset: int) -> None:
    model = deform_model(opset, bias=False, mask=False)
    embedded = check(embed(model))
    assert [(f.domain, f.name) for f in embedded.functions] == [("custom_ops", "DeformConv2d")]
    assert {i.version for f in embedded.functions for i in f.opset_import if i.domain == ""} == {
        opset
    }
    feeds = deform_feeds(bias=False, mask=False)
    np.testing.assert_allclose(
        run(embedded, feeds, "none"), run(model, feeds, "native"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("bias", "mask"), [(b, m) for b in (True, False) for m in (True, False)])
def test_embed_writes_what_is_left_out(bias: bool, mask: bool) -> None:
    model = deform_model(bias=bias, mask=mask)
    before = model.SerializeToString(deterministic=True)
    embedded = check(embed(model))
    assert model.SerializeToString(deterministic=True) == before
    node = next(n for n in embedded.graph.node if n.op_type == "DeformConv2d")
    assert len(node.input) == 5
    assert all(node.input)
    assert {a.name for a in node.attribute} == {
        given.onnx_name for given in ops()["deform_conv2d"].spec.attributes
    }
    feeds = deform_feeds(bias=bias, mask=mask)
    for kernels in ("native", "none"):
        np.testing.assert_allclose(
            run(embedded, feeds, kernels), run(model, feeds, "native"), rtol=1e-4, atol=1e-5
        )


def test_embed_takes_paths_and_bytes_and_is_idempotent(tmp_path: Path) -> None:
    model = deform_model()
    onnx.save(model, tmp_path / "m.onnx")
    once = embed(model)
    assert embed(tmp_path / "m.onnx") == embed(model.SerializeToString()) == once == embed(once)


def test_embed_external_data(tmp_path: Path) -> None:
    model = parse("g (float[512] a) => (float[512] y) { y = custom_ops.MulAdd (a, w) }")
    w = np.arange(512, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    np.testing.assert_allclose(run(embed(tmp_path / "m.onnx"), {"a": w}, "none"), 3 * w)


def test_embed_without_our_nodes_changes_nothing() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N] a) => (float[N] y) { y = Relu (a) }'
    )
    embedded = check(embed(model))
    assert not embedded.functions
    assert [i.domain for i in embedded.opset_import] == [""]


SUBGRAPHS = """
    g (bool c, int64 trips, float[N] a, float[N] b) => (float[N] y) {
        x = If (c) <
            then_branch = t () => (float[N] u) { u = custom_ops.MulAdd (a, b) },
            else_branch = e () => (float[N] v) { v = custom_ops.MulAdd <alpha = -1.0> (a, b) }
        >
        y = Loop (trips, , x) <
            body = l (int64 i, bool go, float[N] s) => (bool on, float[N] z) {
                on = Identity (go)
                z = custom_ops.MulAdd (s, b)
            }
        >
    }"""


@pytest.mark.parametrize("lowering", ["portable", "custom", "decomposed", "native", "auto"])
def test_subgraphs(lowering: str) -> None:
    lowered = check(lower(parse(SUBGRAPHS), lowering))
    a, b = np.float32([1, -2]), np.float32([10, 20])
    kernels = "native" if lowering == "custom" else "none"
    for condition, alpha in ((True, 2), (False, -1)):
        feeds = {"c": np.array(condition), "trips": np.array(3), "a": a, "b": b}
        expected = alpha * a + b
        for _ in range(3):
            expected = 2 * expected + b
        np.testing.assert_allclose(run(lowered, feeds, kernels), expected)


FUNCTIONS = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "mine": 1, "custom_ops": 1]>
    g (float[N] a, double[N] d) => (float[N] y, double[N] z) {
        y = mine.Outer (a)
        z = mine.Inner <factor = 0.5> (d, d)
    }
    <domain: "mine", opset_import: ["": 18, "mine": 1]>
    Outer (p) => (r) { q = mine.Inner <factor = 3.0> (p, p)  r = mine.Other (q) }
    <domain: "mine", opset_import: ["custom_ops": 1]>
    Inner <factor> (p, q) => (r) { r = custom_ops.MulAdd <alpha: float = @factor> (p, q) }
    <domain: "mine", opset_import: ["": 18]>
    Other (p) => (r) { r = Neg (p) }
""")


@pytest.mark.parametrize("lowering", ["portable", "custom", "decomposed", "native", "auto"])
def test_nodes_within_functions_of_the_model(lowering: str) -> None:
    """The same function is called with two types."""
    lowered = check(lower(FUNCTIONS, lowering))
    assert "Other" in {f.name for f in lowered.functions}  # does not hold our nodes
    a = np.float32([1, 2])
    runner = session(lowered, kernels="native" if lowering == "custom" else "none")
    y, z = runner.run(None, {"a": a, "d": a.astype("f8")})
    np.testing.assert_allclose(y, -4 * a)
    np.testing.assert_allclose(z, 1.5 * a.astype("f8"))


def test_a_model_that_has_another_body() -> None:
    """The bodies that a file brings are replaced by ours, which suit the nodes."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        g (float[N] a, float[N] b) => (float[N] y) { y = custom_ops.MulAdd (a, b) }
        <domain: "custom_ops", opset_import: ["": 18]>
        MulAdd (a, b) => (y) { y = Sub (a, b) }
    """)
    a, b = np.float32([1, 2]), np.float32([10, 20])
    np.testing.assert_allclose(run(model, {"a": a, "b": b}, "none"), a - b)
    np.testing.assert_allclose(run(check(embed(model)), {"a": a, "b": b}, "none"), 2 * a + b)
    assert not check(lower(model, "custom")).functions


def test_custom_keeps_omitted_inputs() -> None:
    node = next(n for n in lower(deform_model(bias=False), "custom").graph)
    assert [value is None for value in node.inputs] == [False, False, False, True, False]
    assert check(lower(deform_model(13, bias=False), "custom"))  # no opset is too old


def test_kernel_shape_is_taken_and_ignored() -> None:
    """Files that were made from the standard DeformConv carry it."""
    model = deform_model(attributes="<kernel_shape = [3, 3], group = 2, offset_group = 2>")
    feeds = deform_feeds()
    expected = run(deform_model(), feeds, "native")
    for lowering, kernels in (("custom", "native"), ("portable", "none"), ("native", "none")):
        lowered = check(lower(model, lowering))
        np.testing.assert_allclose(run(lowered, feeds, kernels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "opset", "needed"), [("float", 15, 16), ("float16", 15, 16), ("double", 19, 20)]
)
def test_bodies_refuse_old_opsets(kind: str, opset: int, needed: int) -> None:
    with pytest.raises(
        ValueError,
        match=rf"deform_conv2d: opset_version must be at least {needed} for its body in float.*, "
        rf"got {opset}; export with opset_version={needed}, or with the lowering 'custom'",
    ):
        embed(deform_model(opset, kind))


def test_unknown_element_types_are_refused() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1, "other": 1]>
        g (float[N] a) => (float[N] y) {
            x = other.Op (a)
            z = custom_ops.MulAdd (x, x)
            y = other.Op (z)
        }""")
    with pytest.raises(ValueError, match="MulAdd: the element type of 'x' must be known, got none"):
        embed(model)


def test_unknown_lowerings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lower: lowering must be one of portable, .* got 'best'"):
        lower(deform_model(), "best")


# --- native and auto ---------------------------------------------------------------------------


def with_static_channels(opset: int = 20, kind: str = "float") -> onnx.ModelProto:
    """The numbers of channels, which the groups follow from, are in the model's types."""
    return parse(
        f"g ({kind}[n, 4, h, w] x, {kind}[6, 2, 3, 3] weight, {kind}[n, 36, u, v] offset) => "
        f"({kind}[n, 6, u, v] y) {{ y = custom_ops.DeformConv2d (x, weight, offset) }}",
        opset,
    )


@pytest.mark.parametrize("lowering", ["native", "auto"])
def test_native(lowering: str) -> None:
    lowered = check(lower(with_static_channels(), lowering, target("onnxruntime==1.32")))
    assert op_types(lowered) == {("", "DeformConv")}
    node = lowered.graph.node[0]
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert (values["group"], values["offset_group"], len(node.input)) == (2, 2, 3)
    feeds = deform_feeds(bias=False, mask=False)
    np.testing.assert_allclose(
        run(lowered, feeds, "none"),
        run(with_static_channels(), feeds, "native"),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("model", "release", "reason"),
    [
        (with_static_channels(18), "1.32", "DeformConv needs opset 19, got 18"),
        (with_static_channels(), "1.20", "a CPU kernel for DeformConv from 1.25 on, got 1.20"),
        (with_static_channels(20, "bfloat16"), "1.32", "no CPU kernel for DeformConv in bfloat16"),
        (deform_model(), "1.32", "the model does not tell the numbers of channels"),
    ],
)
def test_where_native_cannot_serve(model: onnx.ModelProto, release: str, reason: str) -> None:
    found = target(f"onnxruntime=={release}")
    with pytest.raises(ValueError, match=f"deform_conv2d: .*'native', but .*{reason}") as caught:
        lower(model, "native", found)
    assert str(caught.value).endswith("; use lowering='portable'")
    assert op_types(lower(model, "auto", found)) & {("custom_ops", "DeformConv2d")}


def test_native_through_inference() -> None:
    """A value between two nodes has no type of its own in the file."""
    model = parse(
        "g (float[n, 4, h, w] x, float[n, 18, u, v] offset, float[n, 18, s, t] other) => "
        "(float[n, 4, s, t] y) { z = custom_ops.DeformConv2d (x, w, offset)  r = Relu (z) "
        "y = custom_ops.DeformConv2d (r, w, other) }"
    )
    w = np.ones((4, 4, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    assert op_types(check(lower(model, "native"))) == {("", "DeformConv"), ("", "Relu")}


def test_many_calls_take_names_that_are_near() -> None:
    """For a name that is taken the inliner of onnx-ir tries one number after the other."""
    model = chain(250, "MulAdd")
    lowered = ir.to_proto(lower(model, "decomposed"))
    names = [name for node in lowered.graph.node for name in node.output]
    numbers = [int(found[1]) for found in (re.search(r"_(\d+)$", name) for name in names) if found]
    assert len(set(names)) == len(names)
    assert max(numbers) == 100
    assert not lowered.functions
    feeds = {"v0": np.ones(1, np.float32)}
    np.testing.assert_array_equal(run(lowered, feeds, "none"), run(model, feeds, "native"))
