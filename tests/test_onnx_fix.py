"""Mending models: what is done, what is refused, and that onnxruntime computes the same."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import custom_ops.onnx
from custom_ops.cli import execute
from custom_ops.onnx._fix import ir_version
from custom_ops.onnx._proof import Differs, compare, feeds, required


def parsed(text: str, ir: int = 9, imports: str = '"": 18') -> onnx.ModelProto:
    return onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]> {text}")


def relu(ir: int = 9, imports: str = '"": 18') -> onnx.ModelProto:
    return parsed("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }", ir, imports)


def with_weight(size: int = 400) -> onnx.ModelProto:
    model = parsed(f"g (float[N, {size}] x) => (float[N, {size}] y) {{ y = Add(x, w) }}")
    weight = np.arange(size, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def run(model: Path | onnx.ModelProto, **given: Any) -> list[Any]:
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    outputs: list[Any] = onnxruntime.InferenceSession(content).run(None, given)
    return outputs


def codes(fixed: custom_ops.onnx.Fixed) -> list[str]:
    return [change.code for change in fixed.changes]


# IR version


def test_ir_version_is_lowered_and_metadata_stays() -> None:
    model = relu(14)
    model.graph.node[0].metadata_props.add(key="namespace", value="layer3")
    changed = custom_ops.onnx.set_ir_version(model, 9)
    assert (model.ir_version, changed.ir_version) == (14, 9)
    assert changed.graph == model.graph


def test_ir_version_of_a_file(tmp_path: Path) -> None:
    onnx.save(relu(14), tmp_path / "a.onnx")
    custom_ops.onnx.set_ir_version(tmp_path / "a.onnx", 8, tmp_path / "b.onnx")
    assert onnx.load(tmp_path / "b.onnx").ir_version == 8
    with pytest.raises(ValueError, match="output must be a new file"):
        custom_ops.onnx.set_ir_version(tmp_path / "a.onnx", 7, tmp_path / "b.onnx")
    custom_ops.onnx.set_ir_version(tmp_path / "a.onnx", 7, tmp_path / "b.onnx", force=True)
    assert onnx.load(tmp_path / "b.onnx").ir_version == 7
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx"]


def _of_type(name: str) -> onnx.ModelProto:
    model = relu(14, '"": 25')
    number = onnx.TensorProto.DataType.Value(name)
    model.graph.value_info.append(helper.make_tensor_value_info("y", number, [1]))
    return model


def _with_function(**fields: Any) -> onnx.ModelProto:
    model = parsed("g (float[N] x) => (float[N] y) { y = f.f(x) }", 14, '"": 18, "f": 1')
    function = model.functions.add(domain="f", name="f", input=["x"], output=["y"])
    function.opset_import.add(domain="", version=18)
    function.node.append(helper.make_node("Relu", ["x"], ["y"]))
    for name, value in fields.items():
        setattr(function, name, value)
    return model


def _with_default() -> onnx.ModelProto:
    model = _with_function()
    model.functions[0].attribute_proto.append(helper.make_attribute("alpha", 1.0))
    return model


def _with_sparse() -> onnx.ModelProto:
    model = relu(14)
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "s_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    return model


def _with_annotation() -> onnx.ModelProto:
    model = relu(14)
    model.graph.quantization_annotation.add(tensor_name="x")
    return model


def _with_training() -> onnx.ModelProto:
    model = relu(14)
    model.training_info.add()
    return model


def _with_cast() -> onnx.ModelProto:
    return parsed("g (float[N] x) => (y) { y = Cast <to=23> (x) }", 14, '"": 25')


@pytest.mark.parametrize(
    ("model", "since"),
    [
        (with_weight(), 4),
        (_of_type("BFLOAT16"), 4),
        (_with_annotation(), 5),
        (_with_sparse(), 6),
        (_with_training(), 7),
        (_with_function(), 8),
        (_of_type("FLOAT8E4M3FN"), 9),
        (_with_default(), 9),
        (_of_type("INT4"), 10),
        (_with_function(overload="o"), 10),
        (_of_type("FLOAT4E2M1"), 11),
        (_with_cast(), 11),
        (_of_type("FLOAT8E8M0"), 12),
        (_of_type("UINT2"), 13),
        (_of_type("FLOAT6E2M3"), 14),
    ],
)
def test_ir_version_has_what_is_in_use(model: onnx.ModelProto, since: int) -> None:
    assert custom_ops.onnx.set_ir_version(model, since).ir_version == since
    with pytest.raises(ValueError, match=f"needs {since}"):
        custom_ops.onnx.set_ir_version(model, since - 1)


def test_every_element_type_has_its_ir_version() -> None:
    first = set(onnx.TensorProto.DataType.keys()[: onnx.TensorProto.COMPLEX128 + 1])
    later = set(onnx.TensorProto.DataType.keys()) - first
    assert later <= set(ir_version._TYPES)


@pytest.mark.parametrize(("version", "remedy"), [(2, "give one of"), (99, "newer"), (-1, "give")])
def test_no_such_ir_version(version: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"IR version must be 3 to .*; .*{remedy}"):
        custom_ops.onnx.set_ir_version(relu(), version)


# fix for a release


def test_fix_for_a_release(tmp_path: Path) -> None:
    model = relu(14, '"": 22')
    model.graph.node[0].metadata_props.add(key="namespace", value="layer3")
    onnx.save(model, tmp_path / "a.onnx")
    fixed = custom_ops.onnx.fix(
        tmp_path / "a.onnx", tmp_path / "b.onnx", target="onnxruntime==1.17"
    )
    assert codes(fixed) == ["ir-version", "opset"]
    assert fixed
    assert fixed.left == ()
    written = onnx.load(tmp_path / "b.onnx")
    assert (written.ir_version, written.opset_import[0].version) == (9, 20)
    assert written.graph == model.graph
    assert written == fixed.model
    assert fixed.proof
    assert fixed.proof.difference == 0.0
    assert fixed.proof.sizes == ("x=1x4", "x=3x4")
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx"]


def test_nothing_to_fix(tmp_path: Path) -> None:
    fixed = custom_ops.onnx.fix(relu(), tmp_path / "b.onnx")
    assert str(fixed).startswith("nothing to change\nproof: outputs equal bit for bit")
    assert onnx.load(tmp_path / "b.onnx") == relu()


def test_what_cannot_be_mended_is_left() -> None:
    model = parsed("g (float[N] x) => (float[N] y) { y = other.Op(x) }", 10)
    fixed = custom_ops.onnx.fix(model, target="onnxruntime==1.17")
    assert codes(fixed) == ["ir-version"]
    assert not fixed
    assert "domain-import" in [finding.code for finding in fixed.left]
    assert fixed.as_dict()["ok"] is False
    assert not fixed.proof
    assert "does not run here" in fixed.proof.note


def test_only_the_fixed_model_runs() -> None:
    fixed = custom_ops.onnx.fix(relu(onnx.IR_VERSION + 1))
    assert fixed.proof.verdict is custom_ops.onnx.Verdict.ONLY_AFTER
    assert "Unsupported model IR version" in fixed.proof.note
    assert fixed.model.ir_version == custom_ops.onnx.target().ir_version


def test_our_ops_run_in_the_proof() -> None:
    text = "g (float[N] a, float[N] b) => (float[N] y) { y = custom_ops.MulAdd(a, b) }"
    model = parsed(text, 10, '"": 18, "custom_ops": 1')
    assert custom_ops.onnx.fix(model, target="onnxruntime==1.17").proof


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"embed": True, "external": True}, "embed must be without external"),
        ({"external": True}, "external must have a file"),
        ({"opset": 22, "target": "onnxruntime==1.17"}, "opset must be at most 20"),
        ({"ir_version": 10, "target": "onnxruntime==1.17"}, "ir_version must be at most 9"),
        ({"target": "onnxruntime==1.3"}, "must be 1.17 or later"),
        ({"opset": 10}, "opset must be 11 to"),
        ({"rename_inputs": {"X": "y"}}, "rename_inputs must name inputs, got 'X'"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        custom_ops.onnx.fix(relu(), **given)


def test_nothing_is_written_where_outputs_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(model: onnx.ModelProto, *_: Any) -> list[str]:
        model.graph.node[0].op_type = "Neg"
        return []

    monkeypatch.setattr("custom_ops.onnx._fix.names.rename", wrongly)
    onnx.save(relu(), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="'y' is off by"):
        custom_ops.onnx.fix(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert os.listdir(tmp_path) == ["a.onnx"]
    assert custom_ops.onnx.fix(relu(), verify=False).proof.verdict.value == "skipped"


def test_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(relu(14, '"": 22'), path)
    for place in (path, tmp_path):
        with pytest.raises(ValueError, match="output must be a"):
            custom_ops.onnx.fix(path, place, target="onnxruntime==1.17")
    assert custom_ops.onnx.fix(path, path, target="onnxruntime==1.17", force=True)
    assert onnx.load(path).ir_version == 9


def test_a_file_of_text(tmp_path: Path) -> None:
    onnx.save(relu(14), tmp_path / "a.textproto")
    assert custom_ops.onnx.fix(tmp_path / "a.textproto", tmp_path / "b.onnx").proof
    assert run(tmp_path / "b.onnx", x=np.ones((1, 4), np.float32))
    custom_ops.onnx.fix(tmp_path / "b.onnx", tmp_path / "c.json", verify=False)
    assert onnx.load(tmp_path / "c.json") == onnx.load(tmp_path / "b.onnx")


# the proof


def compared(before: onnx.ModelProto, after: onnx.ModelProto, folder: Path, **more: Any) -> Any:
    onnx.save(before, folder / "before.onnx")
    onnx.save(after, folder / "after.onnx")
    files = folder / "before.onnx", folder / "after.onnx"
    return compare(required(before), *files, (), **more)


def test_random_models_are_not_compared(tmp_path: Path) -> None:
    model = parsed("g (float[2] x) => (float[2] y) { y = RandomNormalLike(x) }")
    assert "each time" in compared(model, model, tmp_path).note


def test_a_proof_ends(tmp_path: Path) -> None:
    assert "within 0.01 s" in compared(relu(), relu(), tmp_path, seconds=0.01).note


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    model = parsed("g (seq(float) x) => (float y) { y = SequenceAt(x, i) }")
    assert "'x' is no tensor" in compared(model, model, tmp_path).note


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "double", "int64", "bool", "string"])
def test_types_of_inputs(kind: str, tmp_path: Path) -> None:
    model = parsed(f"g ({kind}[N, 2] x) => ({kind}[N, 2] y) {{ y = Identity(x) }}")
    assert compared(model, model, tmp_path).difference == 0.0


def test_sequences_that_come_out(tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (seq(float[N]) y) { y = SequenceConstruct(x, x) }")
    other = parsed("g (float[N] x) => (seq(float[N]) y) { z = Neg(x) y = SequenceConstruct(x, z) }")
    assert compared(model, model, tmp_path)
    with pytest.raises(Differs, match="'y' is off by"):
        compared(model, other, tmp_path)


def test_a_model_that_stops_running_differs(tmp_path: Path) -> None:
    broken = parsed("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, x) }")
    with pytest.raises(Differs, match="does not run as the original"):
        compared(relu(), broken, tmp_path)


def test_sizes_are_shared_by_name() -> None:
    model = parsed("g (float[N, M] a, float[N] b, float[3, K] c) => (float y) { y = Identity(a) }")
    for feed in feeds(required(model)):
        a, b, c = feed.arrays
        assert a.shape[0] == b.shape[0]
        assert c.shape[0] == 3


# places of data


def external(folder: Path, **given: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        with_weight(), folder / "m.onnx", save_as_external_data=True, location="w.bin", **given
    )
    return folder / "m.onnx"


def test_external_and_back(tmp_path: Path) -> None:
    two = custom_ops.onnx.fix(with_weight(), tmp_path / "two.onnx", external=True)
    assert two.proof
    assert (tmp_path / "two.onnx.data").stat().st_size == 1600
    assert (tmp_path / "two.onnx").stat().st_size < 500
    one = custom_ops.onnx.fix(tmp_path / "two.onnx", tmp_path / "sub" / "one.onnx", embed=True)
    assert one.proof
    assert os.listdir(tmp_path / "sub") == ["one.onnx"]
    assert onnx.load(tmp_path / "sub" / "one.onnx") == with_weight()
    x = np.ones((2, 400), np.float32)
    for path in (tmp_path / "two.onnx", tmp_path / "sub" / "one.onnx"):
        np.testing.assert_array_equal(run(path, x=x)[0], x + np.arange(400, dtype=np.float32))


def test_data_in_other_files_is_copied(tmp_path: Path) -> None:
    path = external(tmp_path / "from")
    fixed = custom_ops.onnx.fix(path, tmp_path / "to" / "n.onnx")
    assert fixed.proof
    assert sorted(os.listdir(tmp_path / "to")) == ["n.onnx", "n.onnx.data"]
    assert (tmp_path / "to" / "n.onnx.data").read_bytes() == (path.parent / "w.bin").read_bytes()


def test_data_that_tensors_share_is_copied_once(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    again = model.graph.initializer.add()
    again.CopyFrom(model.graph.initializer[0])
    again.name = "again"
    onnx.save(model, path)
    custom_ops.onnx.fix(path, tmp_path / "n.onnx")
    assert (tmp_path / "n.onnx.data").stat().st_size == 1600


def test_data_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "n.onnx.data").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"n\.onnx\.data"):
        custom_ops.onnx.fix(with_weight(), tmp_path / "n.onnx", external=True)
    assert (tmp_path / "n.onnx.data").read_bytes() == b"precious"


def test_links_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    path = external(tmp_path / "cache")
    os.rename(tmp_path / "cache" / "w.bin", tmp_path / "blob")
    (tmp_path / "cache" / "w.bin").symlink_to(tmp_path / "blob")
    with pytest.raises(ValueError, match="--follow-links"):
        custom_ops.onnx.fix(path, tmp_path / "b.onnx")
    for place, given in (("b.onnx", {}), ("c.onnx", {"embed": True})):
        fixed = custom_ops.onnx.fix(path, tmp_path / place, follow_links=True, **given)
        assert fixed
        np.testing.assert_array_equal(
            run(tmp_path / place, x=np.zeros((1, 400), np.float32))[0][0], np.arange(400)
        )
    assert not (tmp_path / "b.onnx.data").is_symlink()


def test_bad_data_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(custom_ops.onnx.UnreadableModel, match="must have 1600 bytes"):
        custom_ops.onnx.fix(path, tmp_path / "b.onnx")
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "w.bin"]


def test_other_ways_to_hold_numbers_become_external(tmp_path: Path) -> None:
    model = parsed("g (float[N, 400] x) => (float[N, 400] y) { y = Add(x, w) }")
    numbers = np.arange(400, dtype=np.float32)
    model.graph.initializer.append(
        helper.make_tensor("w", onnx.TensorProto.FLOAT, [400], numbers.tolist())
    )
    assert custom_ops.onnx.fix(model, tmp_path / "b.onnx", external=True).proof
    assert (tmp_path / "b.onnx.data").read_bytes() == numbers.tobytes()


# names

CAPTURE = """g (bool c, float[N] x) => (float[N] y) {
    y = If (c) <
        then_branch = a () => (float[N] t) { t = Neg(x) },
        else_branch = b () => (float[N] e) { e = Relu(x) }
    > }"""


def test_renaming() -> None:
    given = {"c": np.array(True), "image": np.ones(2, np.float32)}
    fixed = custom_ops.onnx.fix(
        parsed(CAPTURE), rename_inputs={"x": "image"}, rename_outputs={"y": "result"}
    )
    assert fixed.proof
    assert [value.name for value in fixed.model.graph.output] == ["result"]
    np.testing.assert_array_equal(run(fixed.model, **given)[0], [-1, -1])


def test_names_can_be_swapped() -> None:
    model = parsed("g (float[N] a, float[N] b) => (float[N] y) { y = Sub(a, b) }")
    fixed = custom_ops.onnx.fix(model, rename_inputs={"a": "b", "b": "a"})
    assert fixed.proof
    assert list(fixed.model.graph.node[0].input) == ["b", "a"]


@pytest.mark.parametrize("new", ["c", "y", "t", "e"])
def test_names_that_are_taken(new: str) -> None:
    with pytest.raises(ValueError, match="new names must be free"):
        custom_ops.onnx.fix(parsed(CAPTURE), rename_inputs={"x": new})


def test_what_is_input_and_output_keeps_its_name() -> None:
    model = parsed("g (float[N] x) => (float[N] x, float[N] y) { y = Relu(x) }")
    with pytest.raises(ValueError, match="input and output"):
        custom_ops.onnx.fix(model, rename_inputs={"x": "z"})


# the command line


def call(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = execute(["fix", *arguments])
    return code, out.getvalue(), err.getvalue()


def test_the_command(tmp_path: Path) -> None:
    given, output = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    onnx.save(relu(14, '"": 22'), given)
    arguments = (given, "--output", output, "--target", "onnxruntime==1.17")
    code, out, _ = call(*arguments, "--rename-input", "x=image", "--dynamic", "x:1=M")
    assert code == 0
    assert "opset: opset 22 to 20" in out
    assert "proof: outputs equal bit for bit" in out
    assert [value.name for value in onnx.load(output).graph.input] == ["image"]
    code, out, err = call(*arguments, "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert "overwrite it with force=True (--force)" in err
    code, out, _ = call(*arguments, "--json", "--force", "--no-verify")
    assert (code, json.loads(out)["proof"]["verdict"]) == (0, "skipped")


def test_the_command_leaves_an_error(tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (float[N] y) { y = other.Op(x) }")
    onnx.save(model, tmp_path / "a.onnx")
    code, out, _ = call(str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"))
    assert code == 1
    assert "left: error" in out


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (b"junk", ()),
        (b"", ()),
        (relu().SerializeToString()[:-7], ()),
        (relu().SerializeToString(), ("--target", "onnxruntime==1")),
        (relu().SerializeToString(), ("--dynamic", "x0")),
        (relu().SerializeToString(), ("--rename-input", "x")),
        (relu().SerializeToString(), ("--opset", "x")),
    ],
)
def test_wrong_usage(content: bytes, more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    code, out, err = call(str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"), *more)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    model = with_weight()
    model.graph.initializer[0].raw_data = b"short"
    with pytest.raises(custom_ops.onnx.UnreadableModel, match="'w' must hold the numbers"):
        custom_ops.onnx.fix(model, tmp_path / "b.onnx", external=True)
    assert os.listdir(tmp_path) == []
