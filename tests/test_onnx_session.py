"""Sessions: who runs the nodes, what they take, what they refuse, and what they survive."""

import gc
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime_extensions
import pytest

import custom_ops
from custom_ops.onnx import _model, embed, session

MUL_ADD = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
    g (float[N] a, float[M] b) => (float[K] y) { y = custom_ops.MulAdd <alpha = 3.0> (a, b) }
""")
DEFORM = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
    g (float[n, c, h, w] x, float[o, i, p, q] weight, float[n, t, u, v] offset, float[n, s, u, v] m)
    => (float[n, o, u, v] y)
    { y = custom_ops.DeformConv2d <pads = [1, 1, 1, 1], strides = [2, 1]> (x, weight, offset, , m) }
""")
# Twice, the second time on the result of the first.
CHAIN = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
    g (float[N] a, float[M] b) => (float[K] y) {
        x = custom_ops.MulAdd (a, b)
        z = Relu (x)
        y = custom_ops.MulAdd (z, b)
    }
""")
A, B = np.float32([1, 2, 3]), np.float32([10, 20, 30])
KERNELS = ["native", "python", "none"]
BAD = "mul_add: b must have the shape of a"


def deform_feeds() -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0).standard_normal
    return {
        "x": draw((2, 4, 6, 5), dtype=np.float32),
        "weight": draw((6, 2, 3, 3), dtype=np.float32),
        "offset": draw((2, 36, 3, 5), dtype=np.float32),
        "m": draw((2, 18, 3, 5), dtype=np.float32),
    }


def deform_expected(feeds: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = custom_ops.numpy.deform_conv2d(
        feeds["x"], feeds["offset"], feeds["weight"], None, (2, 1), 1, 1, feeds["m"]
    )
    return result


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("form", ["path", "str", "bytes", "proto"])
def test_forms_of_the_model(kernels: str, form: str, tmp_path: Path) -> None:
    model = embed(MUL_ADD)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    given = {"path": path, "str": str(path), "bytes": path.read_bytes(), "proto": model}[form]
    before = model.SerializeToString(deterministic=True)
    runner = session(given, kernels=kernels)
    assert isinstance(runner, onnxruntime.InferenceSession)
    np.testing.assert_allclose(runner.run(None, {"a": A, "b": B})[0], 3 * A + B)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kernels", KERNELS)
def test_lists_and_omitted_inputs(kernels: str) -> None:
    feeds = deform_feeds()
    model = embed(DEFORM) if kernels == "none" else DEFORM
    actual = session(model, kernels=kernels).run(None, feeds)[0]
    np.testing.assert_allclose(actual, deform_expected(feeds), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", ["native", "python"])
@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_other_types(kernels: str, kind: str) -> None:
    number = onnx.TensorProto.DataType.Value(kind)
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        g (float[N] a, float[N] b) => (float[N] y) {{
            p = Cast <to = {number}> (a)
            q = Cast <to = {number}> (b)
            r = custom_ops.MulAdd (p, q)
            y = Cast <to = 1> (r)
        }}""")
    actual = session(model, kernels=kernels).run(None, {"a": A, "b": B})[0]
    np.testing.assert_allclose(actual, 2 * A + B)


def test_python_kernels_round_half_types_once() -> None:
    """1/3 and 2049 are no float16; the result is that of the kernels, not of float32."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
        g (float16[N] a, float16[N] b) => (float16[N] y) { y = custom_ops.MulAdd (a, b) }
    """)
    a, b = np.float16([1 / 3, 1024, 0.1]), np.float16([0.1, 1, 1e-4])
    results = [session(model, kernels=k).run(None, {"a": a, "b": b})[0] for k in KERNELS[:2]]
    assert results[0].dtype == np.float16
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kernels", ["native", "python"])
def test_bad_input_raises_the_sentence(kernels: str) -> None:
    runner = session(MUL_ADD, kernels=kernels)
    with pytest.raises(Exception, match=BAD):
        runner.run(None, {"a": A, "b": B[:2]})
    np.testing.assert_allclose(runner.run(None, {"a": A, "b": B})[0], 3 * A + B)  # goes on


def test_python_kernels_raise_the_error_of_the_op_itself() -> None:
    with pytest.raises(ValueError, match=BAD):
        session(CHAIN, kernels="python").run(None, {"a": A, "b": B[:2]})


def test_python_kernels_raise_from_every_way_to_run() -> None:
    runner = session(CHAIN, kernels="python")
    to_value = onnxruntime.OrtValue.ortvalue_from_numpy
    a, b, short = to_value(A), to_value(B), to_value(B[:2])
    with pytest.raises(ValueError, match=BAD):
        runner.run_with_ort_values(None, {"a": a, "b": short})
    y = runner.run_with_ort_values(None, {"a": a, "b": b})[0].numpy()
    np.testing.assert_allclose(y, 2 * (2 * A + B) + B)
    with pytest.raises(NotImplementedError, match="session: run_with_iobinding must not be used"):
        runner.run_with_iobinding(runner.io_binding())
    with pytest.raises(NotImplementedError, match="session: run_async must not be used"):
        runner.run_async(None, {"a": A, "b": B}, lambda *_: None, None)


def test_native_kernels_with_iobinding() -> None:
    runner = session(CHAIN)
    binding = runner.io_binding()
    binding.bind_cpu_input("a", A)
    binding.bind_cpu_input("b", B)
    binding.bind_output("y")
    runner.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], 2 * (2 * A + B) + B)
    binding.bind_cpu_input("b", B[:2])
    with pytest.raises(Exception, match=BAD):
        runner.run_with_iobinding(binding)


@pytest.mark.parametrize("kernels", ["native", "python"])
def test_threads_share_a_session(kernels: str) -> None:
    runner = session(CHAIN, kernels=kernels)
    outcomes: list[str] = []

    def outcome(bad: bool) -> str:
        try:
            y = runner.run(None, {"a": A, "b": B[:2] if bad else B})[0]
        except Exception as error:
            return "bad" if BAD in str(error) else f"other: {error}"
        return "right" if np.allclose(y, 2 * (2 * A + B) + B) else "wrong"

    def work(bad: bool) -> None:
        outcomes.extend(outcome(bad) for _ in range(50))

    threads = [threading.Thread(target=work, args=(i % 2 == 1,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {kind: outcomes.count(kind) for kind in set(outcomes)} == {"right": 100, "bad": 100}


def test_python_sessions_keep_their_errors_apart() -> None:
    first, second = session(MUL_ADD, kernels="python"), session(CHAIN, kernels="python")
    with pytest.raises(ValueError, match=BAD):
        first.run(None, {"a": A, "b": B[:2]})
    second.run(None, {"a": A, "b": B})
    del first
    gc.collect()
    for _ in range(20):  # where an id were used, one of these would have that of `first`
        third = session(MUL_ADD, kernels="python")
        third.run(None, {"a": A, "b": B})
        with pytest.raises(ValueError, match=BAD):
            third.run(None, {"a": A, "b": B[:2]})


def test_parallel_execution_mode() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    runner = session(CHAIN, kernels="python", sess_options=options)
    np.testing.assert_allclose(runner.run(None, {"a": A, "b": B})[0], 2 * (2 * A + B) + B)
    with pytest.raises(ValueError, match=BAD):
        runner.run(None, {"a": A, "b": B[:2]})


@pytest.mark.parametrize("kernels", KERNELS)
def test_options_serve_several_sessions(kernels: str) -> None:
    options = onnxruntime.SessionOptions()
    feeds = deform_feeds()
    for _ in range(2):
        runner = session(embed(MUL_ADD), kernels=kernels, sess_options=options)
        np.testing.assert_allclose(runner.run(None, {"a": A, "b": B})[0], 3 * A + B)
    runner = session(embed(DEFORM), kernels=kernels, sess_options=options)
    np.testing.assert_allclose(
        runner.run(None, feeds)[0], deform_expected(feeds), rtol=1e-4, atol=1e-5
    )


def test_options_with_the_library_are_refused() -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(custom_ops.get_library_path())
    with pytest.raises(ValueError, match="session: sess_options must not have the library"):
        session(MUL_ADD, sess_options=options)


STRINGS = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "custom_ops": 1, "ai.onnx.contrib": 1]>
    g (float[N] a, float[M] b, string[S] s) => (float[K] y, string[S] t) {
        y = custom_ops.MulAdd <alpha = 3.0> (a, b)
        t = ai.onnx.contrib.StringUpper (s)
    }""")


@pytest.mark.parametrize("kernels", KERNELS)
def test_beside_onnxruntime_extensions(kernels: str) -> None:
    options = onnxruntime.SessionOptions()
    if kernels != "python":  # which registers it
        options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    runner = session(embed(STRINGS), kernels=kernels, sess_options=options)
    y, t = runner.run(None, {"a": A, "b": B, "s": np.array(["ab"])})
    np.testing.assert_allclose(y, 3 * A + B)
    assert list(t) == ["AB"]


def test_python_kernels_refuse_options_that_have_onnxruntime_extensions() -> None:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    with pytest.raises(ValueError, match="session: sess_options must not have the library"):
        session(STRINGS, kernels="python", sess_options=options)


def test_own_python_ops_live_beside_ours() -> None:
    code = """
        import numpy as np, onnx, custom_ops
        from onnxruntime_extensions import PyCustomOpDef, onnx_op

        kind = [PyCustomOpDef.dt_float]

        @onnx_op(op_type="mine::Twice", inputs=kind, outputs=kind)
        def twice(x):
            return 2 * x

        model = onnx.parser.parse_model('''
            <ir_version: 9, opset_import: ["": 18, "custom_ops": 1, "mine": 1]>
            g (float[N] a) => (float[N] y) { x = mine.Twice(a)  y = custom_ops.MulAdd(x, a) }''')
        a = np.float32([1, 2])
        print(custom_ops.onnx.session(model, kernels="python").run(None, {"a": a})[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[ 5. 10.]", done.stderr


WEIGHTS = onnx.parser.parse_model("""
    <ir_version: 9, opset_import: ["": 18, "custom_ops": 1]>
    g (float[1024] a) => (float[1024] y) { y = custom_ops.MulAdd (a, w) }
""")


@pytest.mark.parametrize("kernels", KERNELS)
def test_external_data(kernels: str, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(WEIGHTS)
    w = np.arange(1024, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(embed(model), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").stat().st_size >= w.nbytes
    runner = session(path, kernels=kernels)
    np.testing.assert_allclose(runner.run(None, {"a": w})[0], 3 * w)


@pytest.mark.parametrize("kernels", KERNELS)
def test_models_that_no_message_holds(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_model, "LARGEST_FILE", 1000)
    model = onnx.ModelProto()
    model.CopyFrom(WEIGHTS)
    w = np.arange(1024, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    runner = session(embed(model), kernels=kernels)
    np.testing.assert_allclose(runner.run(None, {"a": w})[0], 3 * w)


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"session: kernels must be one of native, .*, got 'gpu'"):
        session(MUL_ADD, kernels="gpu")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model: path must be an ONNX file, got "):
        session(tmp_path / "none.onnx", kernels="python")


def test_none_needs_bodies() -> None:
    with pytest.raises(Exception, match="MulAdd"):
        session(MUL_ADD, kernels="none")


@pytest.mark.parametrize("kernels", KERNELS)
def test_subgraphs_and_functions(kernels: str) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "custom_ops": 1, "mine": 1]>
        g (bool c, float[N] a, float[N] b) => (float[N] y) {
            x = If (c) <
                then_branch = t () => (float[N] u) { u = custom_ops.MulAdd (a, b) },
                else_branch = e () => (float[N] v) { v = mine.Outer <factor = 5.0> (a, b) }
            >
            y = Identity (x)
        }
        <domain: "mine", opset_import: ["": 18, "mine": 1]>
        Outer <factor> (p, q) => (r) { r = mine.Inner <factor: float = @factor> (p, q) }
        <domain: "mine", opset_import: ["": 18, "custom_ops": 1]>
        Inner <factor> (p, q) => (r) { r = custom_ops.MulAdd <alpha: float = @factor> (p, q) }
    """)
    runner = session(embed(model) if kernels == "none" else model, kernels=kernels)
    for condition, alpha in ((True, 2), (False, 5)):
        y = runner.run(None, {"c": np.array(condition), "a": A, "b": B})[0]
        np.testing.assert_allclose(y, alpha * A + B)
