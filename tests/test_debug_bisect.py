"""The smallest submodel that shows a symptom: found in few calls, minimal, true to the model."""

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx_pieces import BRANCH, parsed, run, values, with_functions

import custom_ops.onnx
from custom_ops import debug
from custom_ops.debug._bisect import runtime, search
from custom_ops.debug._bisect.runtime import attempt

PATIENT = debug.Runtime(threads=1)


class Counted:
    """A predicate that counts its calls and remembers the largest submodel it has seen."""

    def __init__(self, shows: Callable[[onnx.ModelProto, Path], Any]) -> None:
        self.shows = shows
        self.calls = 0

    def __call__(self, path: Path) -> Any:
        self.calls += 1
        return self.shows(onnx.load(path, load_external_data=False), path)


def has(*op_types: str) -> Counted:
    return Counted(lambda m, _: set(op_types) <= {node.op_type for node in m.graph.node})


def refused(model: onnx.ModelProto, path: Path) -> bool:
    """In this process, as a user would write it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(path, options)
    except Exception:
        return True
    return False


def fails(model: onnx.ModelProto, path: Path) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    with np.load(path.with_suffix(".npz")) as given:
        try:
            session.run(None, dict(given))
        except Exception:
            return True
    return False


def chain(nodes: int, **special: str) -> onnx.ModelProto:
    """A model of nodes behind each other; `special` says what others are, as n17="y = Log(x)"."""
    lines = []
    for i in range(nodes):
        text = special.get(f"n{i}", ("Neg", "Sigmoid", "Tanh")[i % 3] + "({x})")
        lines.append(f"[n{i}] v{i + 1} = {text.replace('{x}', f'v{i}')}")
    return onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18, "elsewhere": 1, "custom_ops": 1]>'
        f"g (float[N, 4] v0) => (float[A, B] v{nodes}) "
        f"<int64[1] seven = {{7}}, float[1] two = {{2}}> {{ {' '.join(lines)} }}"
    )


# The search alone.


@pytest.mark.parametrize("cause", [0, 1, 255, 500, 998, 999])
def test_one_cause_takes_a_logarithm(cause: int) -> None:
    calls = 0

    def test(items: Sequence[int]) -> Sequence[int] | None:
        nonlocal calls
        calls += 1
        return items if cause in items else None

    items = search.shortest_head(range(1000), test)
    items = search.shortest_tail(items, test)
    assert list(search.reduced(items, test)) == [cause]
    assert calls <= 2 * math.ceil(math.log2(1000))


@pytest.mark.parametrize("seed", range(30))
def test_what_is_left_cannot_lose_one(seed: int) -> None:
    """Whatever the test is: here several sets that each suffice, and items that go together."""
    draw = np.random.default_rng(seed)
    causes = [set(draw.choice(40, draw.integers(1, 5)).tolist()) for _ in range(3)]
    partner = {int(i): int(draw.integers(0, i)) for i in draw.choice(range(1, 40), 10)}

    def test(items: Sequence[int]) -> Sequence[int] | None:
        closed, waiting = set(items), list(items)
        while waiting:
            more = partner.get(waiting.pop())
            if more is not None and more not in closed:
                closed.add(more)
                waiting.append(more)
        return sorted(closed) if any(cause <= closed for cause in causes) else None

    items = search.shortest_tail(search.shortest_head(range(40), test), test)
    items = search.reduced(items, test)
    assert test(items) == list(items)
    for i in range(len(items)):
        found = test([*items[:i], *items[i + 1 :]])
        assert found is None or len(found) == len(items)


# Symptoms of one node among many.


@pytest.mark.parametrize(
    "guilty",
    ["elsewhere.Op({x})", "Gelu({x})", "Clip({x}, seven)"],
    ids=["unknown domain", "too new", "types that do not fit"],
)
@pytest.mark.parametrize("place", [0, 100, 239])
def test_a_node_that_does_not_load(guilty: str, place: int, tmp_path: Path) -> None:
    predicate = Counted(refused)
    found = debug.bisect(chain(240, **{f"n{place}": guilty}), predicate, tmp_path / "small.onnx")
    assert found.names == (f"n{place}",)
    assert found.minimal
    assert (found.nodes, found.of) == (1, 240)
    assert found.inputs == (f"v{place}",)
    assert found.calls == predicate.calls <= 2 * math.ceil(math.log2(240)) + 3
    assert os.listdir(tmp_path) == ["small.onnx"]
    small = onnx.load(found.path)
    (given,) = small.graph.input
    sizes = [each.dim_value or each.dim_param for each in given.type.tensor_type.shape.dim]
    assert sizes == ["N", 4]
    assert refused(small, found.path)


def test_a_node_that_does_not_run(tmp_path: Path) -> None:
    """The values at each cut are those of the model; behind the failure there are none."""
    predicate = Counted(fails)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    model = chain(240, n150="Reshape({x}, seven)")
    found = debug.bisect(model, predicate, tmp_path / "small.onnx", inputs={"v0": x})
    assert found.names == ("n150",)
    assert found.inputs == ("v150",)
    assert found.calls == predicate.calls <= 2 * math.ceil(math.log2(240)) + 3
    assert sorted(os.listdir(tmp_path)) == ["small.npz", "small.onnx"]
    assert found.values is not None
    expected = x
    for i in range(150):
        expected = (-expected, 1 / (1 + np.exp(-expected)), np.tanh(expected))[i % 3]
    with np.load(found.values) as saved:
        np.testing.assert_allclose(saved["v150"], expected, rtol=1e-5)


def test_a_failure_in_another_process(tmp_path: Path) -> None:
    predicate = debug.fails_to_run(PATIENT, saying="reshape")
    model = chain(6, n3="Reshape({x}, seven)")
    found = debug.bisect(model, predicate, tmp_path / "small.onnx")
    assert found.op_types == ("Reshape",)
    assert predicate(found.path)
    assert not debug.fails_to_run(PATIENT, saying="something else")(found.path)


def test_where_nan_is_born(tmp_path: Path) -> None:
    """Not where it passes, nor where only random inputs would make it."""
    model = chain(10, n2="Exp({x})", n3="Log({x})", n7="Sqrt({x})")
    x = np.ones((2, 4), np.float32)
    found = debug.bisect(model, debug.gives_nan(PATIENT), tmp_path / "s.onnx", inputs={"v0": x})
    assert found.names == ("n7",)
    with np.load(tmp_path / "s.npz") as saved:
        assert (saved["v7"] < 0).all()
    json.dumps(found.as_dict())
    assert str(found).splitlines()[1] == "  nodes    Sqrt 'n7'"


def test_infinity(tmp_path: Path) -> None:
    model = chain(2, n1="Mul({x}, huge)")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e38).reshape(1), "huge"))
    x = {"v0": np.full((1, 4), 100, np.float32)}
    found = debug.bisect(model, debug.gives_nan(infinite=True), tmp_path / "s.onnx", inputs=x)
    assert found.names == ("n1",)


# Several causes.


@pytest.mark.parametrize(("first", "second"), [(10, 200), (60, 61), (0, 239)])
def test_two_causes_that_must_be_together(first: int, second: int, tmp_path: Path) -> None:
    model = chain(240, **{f"n{first}": "Exp({x})", f"n{second}": "Abs({x})"})
    predicate = has("Exp", "Abs")
    found = debug.bisect(model, predicate, tmp_path / "small.onnx")
    assert found.names == (f"n{first}", f"n{second}")
    assert found.minimal
    assert found.calls == predicate.calls <= 10 * math.ceil(math.log2(240))
    small = onnx.load(found.path)
    onnx.checker.check_model(small, full_check=True)
    if second > first + 1:
        assert found.inputs == (f"v{first}", f"v{second}")


def test_what_only_the_optimization_does(tmp_path: Path) -> None:
    """A BatchNormalization goes into the weights of its Conv, where their product overflows."""
    model = parsed("""
        g (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] z) {
            a = Abs(x) b = Relu(a) c = Conv(b, w) d = BatchNormalization(c, s, t, m, v)
            e = Abs(d) z = Neg(e) }""")
    stored = {"w": ((2, 2, 3, 3), 1e30), "s": (2, 1e20), "t": (2, 0), "m": (2, 0), "v": (2, 1)}
    for name, (shape, number) in stored.items():
        array = np.full(shape, number, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    predicate = debug.differs_from(debug.Runtime("disabled"), PATIENT)
    x = {"x": np.full((1, 2, 4, 4), 1e-25, np.float32)}
    found = debug.bisect(model, predicate, tmp_path / "small.onnx", inputs=x)
    assert found.op_types == ("Conv", "BatchNormalization")
    assert predicate(found.path)


def test_where_two_files_differ(tmp_path: Path) -> None:
    other = chain(5, n3="Mul({x}, two)")
    model = chain(5, n3="Mul({x}, two)")
    next(t for t in model.graph.initializer if t.name == "two").float_data[:] = [2.5]
    onnx.save(other, tmp_path / "other.onnx")
    predicate = debug.differs_from(tmp_path / "other.onnx", PATIENT)
    found = debug.bisect(model, predicate, tmp_path / "small.onnx")
    assert found.names == ("n3",)


def test_where_half_precision_overflows(tmp_path: Path) -> None:
    """The other file has other element types; each piece of it is fed with this one's values."""
    text = """g (KIND[4] x) => (KIND[4] z)
        { [a] a = Mul(x, w) [b] b = Mul(a, a) [c] c = Neg(b) [d] z = Abs(c) }"""
    model, half = (parsed(text.replace("KIND", kind)) for kind in ("float", "float16"))
    for each, dtype in ((model, np.float32), (half, np.float16)):
        each.graph.initializer.append(numpy_helper.from_array(np.full(1, 300, dtype), "w"))
    x = {"x": np.array([1, 2, 3, 4], np.float32)}
    predicate = debug.differs_from(half, PATIENT, rtol=1e-2)
    found = debug.bisect(model, predicate, tmp_path / "small.onnx", inputs=x)
    assert found.names == ("b",)


# What models have.


def test_external_data_stays_where_it_is(tmp_path: Path) -> None:
    model = chain(240, n30="MatMul({x}, used)", n31="MatMul({x}, w1)", n32="Abs({x})")
    for name in ("used", "w1", "unused"):
        array = np.random.default_rng(len(name)).random((4, 4), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    weights = tmp_path / "model" / "sub"
    weights.mkdir(parents=True)
    file = tmp_path / "model" / "m.onnx"
    onnx.save(*(model, file), save_as_external_data=True, location="sub/m.data", size_threshold=0)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    before = (weights / "m.data").read_bytes(), file.read_bytes()

    def shows(model: onnx.ModelProto, path: Path) -> bool:
        assert not refused(model, path)  # the data is found
        return any("used" in node.input for node in model.graph.node)

    found = debug.bisect(file, Counted(shows), tmp_path / "out" / "small.onnx")
    assert found.names == ("n30",)
    assert sorted(os.listdir(tmp_path / "out")) == ["small.onnx", "small.onnx.data"]
    assert found.data is not None
    assert found.data.stat().st_size == 4 * 4 * 4
    small = onnx.load(found.path)
    (kept,) = small.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(kept), stored["used"])
    assert ((weights / "m.data").read_bytes(), file.read_bytes()) == before


def test_data_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    model = chain(6, n3="MatMul({x}, w)")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    given = sorted(os.listdir(tmp_path))
    predicate = Counted(lambda m, path: not refused(m, path) and "MatMul" in str(m))
    found = debug.bisect(tmp_path / "m.onnx", predicate, tmp_path / "small.onnx")
    assert found.op_types == ("MatMul",)
    assert sorted(os.listdir(tmp_path)) == sorted([*given, "small.onnx", "small.onnx.data"])


def test_our_ops(tmp_path: Path) -> None:
    """Their types, which onnx cannot infer, are onnxruntime's."""
    model = chain(30, n3="custom_ops.MulAdd({x}, {x})", n12="custom_ops.MulAdd({x}, {x})")
    found = debug.bisect(model, has("MulAdd"), tmp_path / "small.onnx")
    assert found.nodes == 1
    session = custom_ops.onnx.session(found.path)
    (output,) = session.run(None, {found.inputs[0]: np.ones((2, 4), np.float32)})
    assert output.shape == (2, 4)
    model = chain(30, n3="custom_ops.MulAdd({x}, {x})", n20="elsewhere.Op({x})")
    found = debug.bisect(model, has("Op"), tmp_path / "other.onnx")
    assert found.names == ("n20",)
    model = chain(9, n3="custom_ops.MulAdd({x}, {x})", n4="Log({x})")
    x = {"v0": np.ones((2, 4), np.float32)}
    predicate = has("Log")
    found = debug.bisect(model, predicate, tmp_path / "log.onnx", inputs=x)
    assert found.names == ("n4",)
    (given,) = onnx.load(found.path).graph.input
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT


def test_an_unknown_number_of_axes_is_not_none(tmp_path: Path) -> None:
    """What onnxruntime says of both is the same."""
    model = parsed("""g (float[4] x, int64[K] to) => (float[A, B] z) {
        a = Neg(x) b = Reshape(a, to) c = custom_ops.MulAdd(b, b) d = Exp(c) z = Abs(d) }""")
    model.opset_import.append(onnx.helper.make_opsetid("custom_ops", 1))
    found = debug.bisect(model, has("Exp"), tmp_path / "small.onnx")
    (given,) = onnx.load(found.path).graph.input
    assert given.name == "c"
    assert not given.type.tensor_type.HasField("shape")
    x = {"x": np.ones(4, np.float32), "to": np.array([2, 2])}

    def shows(model: onnx.ModelProto, path: Path) -> bool:
        outcome = attempt(path, PATIENT, path.with_suffix(".npz"))
        assert outcome.ran, outcome.error
        return any(node.op_type == "Exp" for node in model.graph.node)

    found = debug.bisect(model, Counted(shows), tmp_path / "small.onnx", inputs=x, force=True)
    assert (found.inputs, found.unresolved) == (("c",), 0)
    (given,) = onnx.load(found.path).graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [2, 2]


def test_wrong_sizes_inside_of_a_model_are_no_failure_of_a_submodel(tmp_path: Path) -> None:
    model = parsed("""g (float[4] x) => (float[A] z) <float[9] b> {
        a = Neg(x) b = Relu(a) c = Exp(b) z = Reshape(c, seven) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.array([7]), "seven"))
    found = debug.bisect(model, debug.fails_to_run(PATIENT), tmp_path / "small.onnx")
    assert found.op_types == ("Reshape",)


def test_a_cut_is_never_at_a_value_of_unknown_type(tmp_path: Path) -> None:
    model = chain(30, n20="elsewhere.Op({x})", n21="elsewhere.Op({x})", n25="Exp({x})")
    found = debug.bisect(model, has("Exp"), tmp_path / "small.onnx")
    assert found.names == tuple(f"n{i}" for i in range(20, 26))


def test_bodies_stay_whole(tmp_path: Path) -> None:
    found = debug.bisect(parsed(BRANCH), has("If"), tmp_path / "small.onnx")
    assert found.op_types == ("If",)
    assert set(found.inputs) == {"c", "s", "y"}
    assert not refused(onnx.load(found.path), found.path)
    inside = Counted(lambda m, _: "deep" in str(m))
    assert debug.bisect(parsed(BRANCH), inside, tmp_path / "in.onnx").op_types == ("If",)


def test_functions_stay_whole(tmp_path: Path) -> None:
    found = debug.bisect(with_functions(), has("outer"), tmp_path / "small.onnx")
    assert found.op_types == ("outer",)
    assert {each.name for each in onnx.load(found.path).functions} == {"outer", "inner"}


def test_constants_stay_with_those_that_use_them(tmp_path: Path) -> None:
    model = parsed("""g (float[2, 6] x) => (float[3, 4] z) {
        a = Relu(x) three = Constant <value = int64[1] {3}> ()
        four = Constant <value = int64[1] {4}> () to = Concat <axis = 0> (three, four)
        b = Reshape(a, to) z = Neg(b) }""")
    found = debug.bisect(model, has("Reshape"), tmp_path / "small.onnx")
    assert found.op_types == ("Constant", "Constant", "Concat", "Reshape")
    assert found.inputs == ("a",)
    assert debug.bisect(model, has("Concat"), tmp_path / "c.onnx").op_types[-1] == "Concat"


@pytest.mark.parametrize("seed", range(2))
def test_submodels_compute_what_the_model_computes(seed: int, tmp_path: Path) -> None:
    """On a net of branches, whatever the search cuts."""
    draw = np.random.default_rng(seed)
    lines = []
    for i in range(1, 61):
        a, b = (int(x) for x in draw.integers(max(0, i - 6), i, 2))
        kind = ("Add(v{a}, v{b})", "Sub(v{a}, v{b})", "Sin(v{a})", "Max(v{a}, w, v{b})")[i % 4]
        lines.append(f"v{i} = {kind.format(a=a, b=b)}")
    # Each value has a use, so none of the nodes is dead.
    lines.append(f"z = Sum({', '.join(f'v{i}' for i in range(1, 61))})")
    model = parsed(
        "g (float[N] v0) => (float[N] z, float[N] v30) <float[1] w = {0.25}> "
        f"{{ {' '.join(lines)} }}"
    )
    x = {"v0": draw.standard_normal(5).astype(np.float32)}
    expected = values(model, tuple(f"v{i}" for i in range(1, 61)), x) | values(model, ("z",), x)
    wanted = {f"v{i}" for i in draw.choice(range(5, 60), 2, replace=False)}

    def shows(model: onnx.ModelProto, path: Path) -> bool:
        onnx.checker.check_model(model, full_check=True)
        with np.load(path.with_suffix(".npz")) as given:
            actual = run(path, None, dict(given))
        for info, array in zip(model.graph.output, actual, strict=True):
            np.testing.assert_allclose(array, expected[info.name], rtol=1e-6, atol=1e-6)
        return wanted <= {name for node in model.graph.node for name in node.output}

    found = debug.bisect(model, Counted(shows), tmp_path / "small.onnx", inputs=x)
    assert {n.output[0] for n in onnx.load(found.path).graph.node} == wanted
    assert found.unresolved == 0


def test_outputs_that_are_not_needed_go(tmp_path: Path) -> None:
    model = parsed("""g (float[6] x) => (float[3] p, float[3] s) {
        a = Neg(x) b, c = Split <num_outputs = 2> (a) p = Exp(b) q = Relu(c) s = Abs(q) }""")
    found = debug.bisect(model, has("Split"), tmp_path / "small.onnx")
    assert (found.op_types, len(found.outputs)) == (("Split",), 1)
    found = debug.bisect(model, has("Exp", "Abs"), tmp_path / "two.onnx")
    assert set(found.outputs) == {"p", "s"}  # no node is there in vain


def test_nodes_that_no_output_needs(tmp_path: Path) -> None:
    model = parsed("g (float[N] x) => (float[N] z) { a = Neg(x) b = None1(a) z = Relu(a) }")
    found = debug.bisect(model, Counted(refused), tmp_path / "small.onnx")
    assert found.op_types == ("None1",)
    model = parsed("g (float[N] x) => (float[N] z) { a = Neg(x) b = Sqrt(a) z = Sqrt(a) }")
    x = {"x": np.ones(3, np.float32)}
    found = debug.bisect(model, debug.gives_nan(PATIENT), tmp_path / "n.onnx", inputs=x)
    assert found.outputs == ("z",)


def test_a_value_that_nothing_makes_stays_missing(tmp_path: Path) -> None:
    model = chain(20, n9="Add({x}, nowhere)")
    found = debug.bisect(model, Counted(refused), tmp_path / "small.onnx")
    assert (found.names, found.inputs) == (("n9",), ("v9",))


def test_values_that_numpy_cannot_write(tmp_path: Path) -> None:
    model = parsed("""g (float[4] x) => (float[4] z) {
        a = Neg(x) b = Cast <to = 16> (a) c = Cast <to = 1> (b) d = Sqrt(c) z = Relu(d) }""")

    def shows(model: onnx.ModelProto, path: Path) -> bool:
        outcome = attempt(path, PATIENT, path.with_suffix(".npz"))
        assert outcome.ran, outcome.error
        return any("b" in node.input for node in model.graph.node)

    x = {"x": np.array([1, 2, 3, 4], np.float32)}
    found = debug.bisect(model, Counted(shows), tmp_path / "small.onnx", inputs=x)
    assert found.inputs == ("b",)
    with np.load(tmp_path / "small.npz") as saved:
        np.testing.assert_array_equal(saved["b"], [-1, -2, -3, -4])


# Limits and errors.


def test_at_the_limit_the_smallest_so_far_is_returned(tmp_path: Path) -> None:
    sizes = []
    predicate = Counted(lambda m, _: sizes.append(len(m.graph.node)) or len(m.graph.node) > 100)
    found = debug.bisect(chain(240), predicate, tmp_path / "small.onnx", limit=3)
    assert (found.calls, predicate.calls) == (3, 3)
    assert found.nodes == min(size for size in sizes if size > 100)
    assert not found
    assert "may not be minimal: stopped by the limit of 3 calls" in str(found)
    found = debug.bisect(chain(9), has("Neg"), tmp_path / "other.onnx", seconds=1e9)
    assert found.minimal
    with pytest.raises(ValueError, match="must leave a call for the whole model"):
        debug.bisect(chain(9), has("Neg"), tmp_path / "third.onnx", seconds=0)


@pytest.mark.parametrize("answer", [None, RuntimeError("of mine"), ValueError()])
def test_no_answer_is_not_a_symptom(answer: Any, tmp_path: Path) -> None:
    def shows(model: onnx.ModelProto, path: Path) -> Any:
        if len(model.graph.node) < 5:
            if answer is None:
                return None
            raise answer
        return True

    found = debug.bisect(chain(16), Counted(shows), tmp_path / "small.onnx")
    assert found.nodes == 5
    assert found.unresolved >= 2
    assert found.reason in ("the predicate returned None", "of mine", "ValueError")
    assert f"no answer for {found.unresolved}" in str(found)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"predicate": has("Exp")}, "must be true of the whole model, got false"),
        (
            {"predicate": Counted(lambda m, _: 1 / 0)},
            r"whole model, got no answer \(division by zero\)",
        ),
        ({"inputs": {}}, r"must be those of the model \(v0\), got none for 'v0'"),
        ({"inputs": {"v0": 1, "w": 2}}, r"must be those of the model \(v0\), got 'w'"),
        ({"inputs": {"v0": np.ones((2, 4))}}, r"got float64\[2, 4\] for 'v0'; convert it to"),
        ({"inputs": {"v0": np.ones((2, 3), "f4")}}, r"got float32\[2, 3\] for 'v0'"),
        ({"inputs": {"v0": np.ones(4, "f4")}}, r"got float32\[4\] for 'v0'"),
        ({"limit": 0}, "limit must be at least 1"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    given = {"predicate": has("Neg"), "path": tmp_path / "small.onnx", **arguments}
    with pytest.raises(ValueError, match=sentence) as raised:
        debug.bisect(chain(9), **given)
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_no_inputs_can_be_drawn(tmp_path: Path) -> None:
    model = parsed("g (seq(float[N]) s) => (int64 z) { z = SequenceLength(s) }")
    with pytest.raises(ValueError, match="inputs must be given where they cannot be drawn"):
        debug.bisect(model, debug.fails_to_run(), tmp_path / "small.onnx")


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    (tmp_path / "small.npz").write_text("mine")
    with pytest.raises(ValueError, match=r"got '.*small.npz', which exists; .*force=True"):
        debug.bisect(chain(2), has("Neg"), tmp_path / "small.onnx")
    (tmp_path / "small.onnx").write_text("mine")
    with pytest.raises(ValueError, match=r"small.onnx', which exists"):
        debug.bisect(chain(2), has("Neg"), tmp_path / "small.onnx")
    assert debug.bisect(chain(2), has("Neg"), tmp_path / "small.onnx", force=True).nodes == 1


def test_the_model_does_not_go_where_its_values_lie(tmp_path: Path) -> None:
    given: dict[str, Any] = {"inputs": {"x": np.ones(2, np.float32)}, "force": True}
    with pytest.raises(ValueError, match=r"^bisect: path must be of a model, got '.*\.npz', where"):
        debug.bisect(chain(2), has("Neg"), tmp_path / "small.npz", **given)
    assert os.listdir(tmp_path) == []


def test_arguments_of_predicates() -> None:
    with pytest.raises(ValueError, match="seconds, or ratio with than, must be given"):
        debug.slower_than()
    with pytest.raises(ValueError, match="seconds, or ratio with than, must be given"):
        debug.slower_than(ratio=2.0)
    with pytest.raises(ValueError, match=r"optimization must be one of all, .* got 'most'"):
        debug.Runtime("most")
    with pytest.raises(ValueError, match=r"providers must be installed .* got 'Nobody'"):
        debug.Runtime(providers=("Nobody",))


def test_what_is_slow(tmp_path: Path) -> None:
    """Every run takes longer than none, and no run an age."""
    file = tmp_path / "model.onnx"
    onnx.save(chain(3), file)
    assert debug.slower_than(0.0, runtime=PATIENT, runs=1)(file)
    assert not debug.slower_than(1e9, runtime=PATIENT, runs=1)(file)
    assert debug.slower_than(ratio=1e-9, than=debug.Runtime("disabled"), runs=1)(file)


def test_what_is_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(chain(2, n0="elsewhere.Op({x})"), file)
    for predicate in (debug.fails_to_run(PATIENT), debug.gives_nan(PATIENT)):
        with pytest.raises(Exception, match=r"does not (load|run): .* not a registered"):
            predicate(file)
    np.savez(tmp_path / "model.npz", other=np.ones(2))  # the wrong inputs are no failure of it
    onnx.save(chain(2), file)
    with pytest.raises(RuntimeError, match="no session could be tried"):
        debug.fails_to_run(PATIENT)(file)


def test_a_crash_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what has not been said to be done."""
    file, child = tmp_path / "model.onnx", tmp_path / "child.py"
    onnx.save(chain(2), file)
    monkeypatch.setattr(runtime, "_CHILD", child)
    child.write_text("import os; os.abort()")
    assert debug.fails_to_load(saying="ended the process with -6")(file)
    with pytest.raises(Exception, match="does not load: onnxruntime ended the process"):
        debug.fails_to_run()(file)
    child.write_text("import os; print('{\"loaded\": true}', flush=True); os.abort()")
    assert not debug.fails_to_load()(file)
    assert debug.fails_to_run(saying="ended the process")(file)


def test_no_end_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(chain(2), file)
    assert debug.fails_to_load(debug.Runtime(seconds=0.001), saying="did not end")(file)
    assert not debug.fails_to_load(PATIENT)(file)
