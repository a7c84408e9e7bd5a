"""Mappings of users: what a function gets from both exporters, and who wins."""

import importlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import pytest
import torch
from onnxscript import opset18
from torch import Tensor

import custom_ops.onnx
from custom_ops.onnx import (
    MappingRefused,
    export,
    install_mappings,
    register_mapping,
    remove_mapping,
    translation_table,
)
from custom_ops.onnx._mappings import registry

pytestmark = pytest.mark.usefixtures("quiet")
BOTH = pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
X = torch.tensor([[0.5, -1.5, 2.0], [3.0, 0.0, -0.25]])


class Net(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = list(registry._mappings)
    yield
    registry._mappings[:] = before
    registry._tell()


def exported(
    function: Callable[..., Any],
    path: Path,
    exporter: str,
    x: Tensor = X,
    opset: int | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """Exports, compares with torch in onnxruntime, and returns what was written."""
    assert export(
        Net(function).eval(), (x,), path, exporter=exporter, opset_version=opset, **options
    )
    return onnx.load(path)


def types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def asinh(op: Any, x: Any) -> Any:
    one = op.Constant(value_float=1.0)
    return op.Log(op.Add(x, op.Sqrt(op.Add(op.Mul(x, x), one))))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_a_builder_function(exporter: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Its numbers take the dtype of the tensor; in-place calls are mapped too."""
    register_mapping("aten::asinh", asinh, since_opset=7)
    x = X.abs().to(dtype)
    dynamic = ({0: "n"},)
    for function in (torch.asinh, lambda x: x.clone().asinh_()):
        model = exported(function, tmp_path / "m.onnx", exporter, x, dynamic_shapes=dynamic)
        assert types(model) == ["Mul", "Add", "Sqrt", "Add", "Log"]


@BOTH
def test_arguments_are_those_of_the_schema(exporter: str, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    @register_mapping("aten::avg_pool2d")
    def pool(op: Any, x: Any, *rest: Any) -> Any:
        seen.append((x.dtype, x.rank, *rest))
        return op.AveragePool(x, kernel_shape=rest[0], strides=rest[1] or rest[0], ceil_mode=0)

    def function(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, (2, 2))

    exported(function, tmp_path / "m.onnx", exporter, torch.rand(1, 2, 4, 6))
    found = seen[0]
    assert str(found[0]) == "FLOAT"
    assert found[1] == 4
    assert found[2] == [2, 2]
    assert list(found[4]) == [0, 0]
    assert found[5:] == (False, True, None)


@BOTH
def test_dtypes_strings_lists_of_tensors_and_several_outputs(exporter: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    @register_mapping("aten::sum.dim_IntList")
    def total(op: Any, x: Any, dim: Any, keepdim: Any, *, dtype: Any) -> Any:
        seen.append((dim, keepdim, dtype))
        return op.ReduceSum(op.Cast(x, to=dtype), dim, keepdims=keepdim)

    @register_mapping("aten::cat")
    def cat(op: Any, tensors: Any, dim: Any) -> Any:
        seen.append((len(tensors), dim))
        return op.Concat(*tensors, axis=dim)

    @register_mapping("aten::topk")
    def topk(op: Any, x: Any, k: Any, dim: Any, largest: Any, ordered: Any) -> Any:
        seen.append((k, dim, largest, ordered))
        return op.TopK(x, [k], axis=dim, largest=largest, sorted=ordered)

    def function(x: Tensor) -> Any:
        y = torch.cat([x, x.sum(1, keepdim=True, dtype=torch.float32)], 1)
        return tuple(torch.topk(y, 2))

    exported(function, tmp_path / "m.onnx", exporter)
    assert seen[0] == ([1], True, 1)
    assert seen[1] == (2, 1)
    assert seen[2] == (2, -1, True, True)


@BOTH
def test_a_size_that_is_computed_comes_as_a_tensor(exporter: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    @register_mapping("aten::expand")
    def expand(op: Any, x: Any, size: Any) -> Any:
        seen.extend(size)
        return op.Expand(x, size)

    def function(x: Tensor) -> Tensor:
        return x.sum(0).expand(x.shape[0], 3)

    exported(function, tmp_path / "m.onnx", exporter, dynamic_shapes=({0: "n"},))
    assert isinstance(seen[0], custom_ops.onnx.Tensor)
    assert seen[1] == 3


@BOTH
def test_subgraphs(exporter: str, tmp_path: Path) -> None:
    """x * 2^3 by a Loop, then an If inside whose branch uses a value from outside."""

    @register_mapping("aten::asinh")
    def odd(op: Any, x: Any) -> Any:
        def body(i: Any, go_on: Any, total: Any) -> Any:
            twice = op.If(
                op.Less(i, 3), then_branch=lambda: op.Mul(total, 2.0), else_branch=lambda: total
            )
            return go_on, twice, op.ReduceSum(twice, keepdims=0)

        result, sums = op.Loop(5, True, x, body=body)
        last = op.Gather(sums, 4)
        return op.Sub(op.Add(result, last), last)

    net = Net(torch.asinh).eval()
    path = tmp_path / "m.onnx"
    export(net, (X,), path, exporter=exporter, verify=False, dynamic_shapes=({0: "n"},))
    runner = onnxruntime.InferenceSession(path)
    for x in (X.numpy(), X.numpy()[:1]):
        np.testing.assert_allclose(runner.run(None, {"x": x})[0], 8 * x, rtol=1e-5)


@BOTH
def test_scan(exporter: str, tmp_path: Path) -> None:
    @register_mapping("aten::cumsum")
    def cumsum(op: Any, x: Any, dim: Any) -> Any:
        def body(total: Any, row: Any) -> Any:
            now = op.Add(total, row)
            return now, now

        start = op.Mul(op.Gather(x, 0), 0.0)
        return op.Scan(start, x, body=body, num_scan_inputs=1)[1]

    model = exported(lambda x: torch.cumsum(x, 0), tmp_path / "m.onnx", exporter)
    assert ("Scan" if exporter == "dynamo" else "Loop") in types(model)


@onnxscript.script(onnxscript.values.Opset("mine", 1), default_opset=opset18)
def Scaled(x, factor: float = 2.0):
    return x * opset18.CastLike(opset18.Constant(value_float=factor), x)


@BOTH
@pytest.mark.parametrize("opset", [18, 21])
def test_an_onnxscript_function(exporter: str, opset: int, tmp_path: Path) -> None:
    register_mapping("aten::celu", Scaled)
    path = tmp_path / "m.onnx"
    net = Net(lambda x: torch.nn.functional.celu(x, alpha=3.0)).eval()
    export(net, (X,), path, exporter=exporter, opset_version=opset, verify=False)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": X.numpy()})
    np.testing.assert_array_equal(found, 3 * X.numpy())


@BOTH
@pytest.mark.parametrize("kind", ["portable", "decomposed"])
def test_a_custom_node_with_a_body(exporter: str, kind: str, tmp_path: Path) -> None:
    @register_mapping("aten::celu")
    def celu(op: Any, x: Any, alpha: Any) -> Any:
        return op.Add(op.custom("mine::Scaled", x, body=Scaled, factor=alpha), 1.0)

    path = tmp_path / "m.onnx"
    net = Net(lambda x: torch.nn.functional.celu(x, alpha=3.0)).eval()
    export(net, (X,), path, exporter=exporter, lowering=kind, verify=False)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": X.numpy()})
    np.testing.assert_array_equal(found, 3 * X.numpy() + 1)
    assert ("Scaled" in types(onnx.load(path))) == (kind == "portable")
    assert len(onnx.load(path).functions) == (kind == "portable")


@BOTH
def test_a_custom_node_without_a_body(exporter: str, tmp_path: Path) -> None:
    @register_mapping("aten::celu")
    def celu(op: Any, x: Any, alpha: Any) -> Any:
        return op.custom("mine::Unknown", x, factor=alpha)

    path = tmp_path / "m.onnx"
    net = Net(torch.nn.functional.celu).eval()
    export(net, (X,), path, exporter=exporter, verify=False)
    model = onnx.load(path)
    assert [(n.domain, n.op_type) for n in model.graph.node] == [("mine", "Unknown")]
    assert not model.functions


@BOTH
def test_ops_of_the_asked_opset(exporter: str, tmp_path: Path) -> None:
    @register_mapping("aten::gelu")
    def gelu(op: Any, x: Any, *, approximate: Any) -> Any:
        return op.Gelu(x, approximate=approximate)

    net = Net(lambda x: torch.nn.functional.gelu(x, approximate="tanh"))
    model = exported(net, tmp_path / "m.onnx", exporter, opset=20)
    assert types(model) == ["Gelu"]
    with pytest.raises(MappingRefused, match="needs opset 20 for Gelu, got 18"):
        exported(net, tmp_path / "n.onnx", exporter, opset=18)
    assert not (tmp_path / "n.onnx").exists()


@BOTH
@pytest.mark.parametrize("opset", [16, 18])
def test_below_since_opset(exporter: str, opset: int, tmp_path: Path) -> None:
    register_mapping("aten::asinh", asinh, since_opset=19)
    sentence = f"aten::asinh: opset_version must be at least 19 for its mapping, got {opset}"
    with pytest.raises(ValueError, match=sentence):
        exported(torch.asinh, tmp_path / "m.onnx", exporter, opset=opset)
    assert "Log" in types(exported(torch.asinh, tmp_path / "m.onnx", exporter, X.abs(), opset=19))


@BOTH
def test_a_mapping_refuses_or_leaves_a_call(exporter: str, tmp_path: Path) -> None:
    @register_mapping("aten::tanh")
    def choosy(op: Any, x: Any) -> Any:
        if x.rank == 3:
            raise ValueError("x must not have 3 dimensions, got 3; flatten it")
        return NotImplemented

    assert types(exported(torch.tanh, tmp_path / "m.onnx", exporter)) == ["Tanh"]
    with pytest.raises(ValueError, match=r"^aten::tanh: x must not have 3 dimensions, got 3"):
        exported(torch.tanh, tmp_path / "m.onnx", exporter, X[None])


REFUSALS: dict[str, tuple[Callable[..., Any], str]] = {
    "unknown op": (lambda op, x: op.Asin_(x), "did you mean Asin"),
    "unknown attribute": (lambda op, x: op.ReduceSum(x, keepdim=0), "did you mean keepdims"),
    "dtypes": (lambda op, x: op.Add(x, op.Cast(x, to=11)), "of one dtype, got float and double"),
    "a type": (lambda op, x: op.Not(x), "must have X in bool, got float"),
    "a fraction": (lambda op, x: op.Add(op.Cast(x, to=7), 0.5), "tensor of int64 must be one"),
    "inputs": (lambda op, x: op.Add(x), "must have 2 to 2 inputs, got 1"),
    "outputs": (lambda op, x: (x, x), "must return 1 tensor"),
    "nothing": (lambda op, x: None, "must return 1 tensor"),
    "parameters": (lambda op, x, y: x, "its mapping must take op and the 1 arguments"),
    "a name": (lambda op, x: op.custom("Foo", x), "must be named like 'mine::Inverse'"),
}


@BOTH
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_faulty_mapping_is_refused(exporter: str, fault: str, tmp_path: Path) -> None:
    function, sentence = REFUSALS[fault]
    register_mapping("aten::asinh", function)
    with pytest.raises(MappingRefused, match="aten::asinh: ") as caught:
        exported(torch.asinh, tmp_path / "m.onnx", exporter, opset=18)
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    causes: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        assert all(error is not other for other in causes)  # no error has led to itself
        causes.append(error)
        error = error.__cause__


@BOTH
def test_an_argument_left_out_must_be_its_default(exporter: str, tmp_path: Path) -> None:
    register_mapping("aten::celu", lambda op, x: op.Celu(x, alpha=1.0))
    exported(torch.nn.functional.celu, tmp_path / "m.onnx", exporter)
    with pytest.raises(MappingRefused, match=r"alpha must be 1.* for its mapping, got 3"):
        exported(lambda x: torch.nn.functional.celu(x, 3.0), tmp_path / "m.onnx", exporter)


@BOTH
def test_an_input_returned_as_it_is(exporter: str, tmp_path: Path) -> None:
    register_mapping("aten::dropout", lambda op, x, p, train: x)
    register_mapping("aten::asinh", lambda op, x: x)
    path = tmp_path / "m.onnx"
    net = Net(lambda x: torch.asinh(torch.nn.functional.dropout(x, training=False))).eval()
    export(net, (X,), path, exporter=exporter, verify=False)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": X.numpy()})
    np.testing.assert_array_equal(found, X.numpy())


# who wins


def constant(number: float) -> Callable[..., Any]:
    return lambda op, x: op.Add(op.Mul(x, 0.0), number)


def first(path: Path, exporter: str) -> float:
    export(Net(torch.tanh).eval(), (X,), path, exporter=exporter, verify=False)
    return float(onnxruntime.InferenceSession(path).run(None, {"x": X.numpy()})[0][0, 0])


@BOTH
def test_override_remove_and_block(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    one = register_mapping("aten::tanh", constant(1))
    with pytest.raises(ValueError, match="aten::tanh must have one mapping"):
        register_mapping("aten::tanh", constant(2), exporter=exporter)
    with register_mapping("aten::tanh", constant(2), exporter=exporter, override=True):
        assert first(path, exporter) == 2
        register_mapping("aten::tanh.default", constant(3))
        assert first(path, exporter) == 3  # the one of an overload goes first
        remove_mapping("aten::tanh.default")
        assert first(path, exporter) == 2
    assert first(path, exporter) == 1
    one.remove()
    one.remove()
    assert first(path, exporter) == pytest.approx(float(torch.tanh(X)[0, 0]))
    with pytest.raises(ValueError, match="remove_mapping: name must be registered"):
        remove_mapping("aten::tanh")


def test_an_exporter_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    register_mapping("aten::tanh", constant(1), exporter="dynamo")
    register_mapping("aten::tanh", constant(2), exporter="torchscript")
    assert (first(path, "dynamo"), first(path, "torchscript")) == (1, 2)


@BOTH
def test_a_user_goes_before_the_pack(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    net = Net(torch.nn.functional.softplus).eval()
    with register_mapping("aten::softplus", lambda op, x, beta, threshold: op.Neg(x)):
        export(net, (X,), path, exporter=exporter, verify=False)
        assert types(onnx.load(path)) == ["Neg"]
    assert export(net, (X,), path, exporter=exporter)


@BOTH
def test_the_pack_takes_nothing_away_at_older_opsets(exporter: str, tmp_path: Path) -> None:
    @registry.packed("aten::tanh", since_opset=18)
    def tanh(op: Any, x: Any) -> Any:
        return op.Neg(x)

    path, net = tmp_path / "m.onnx", Net(torch.tanh).eval()
    for opset, wanted in ((17, "Tanh"), (18, "Neg")):
        export(net, (X,), path, exporter=exporter, opset_version=opset, verify=False)
        assert types(onnx.load(path)) == [wanted]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus(exporter: str, dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.tensor([-40.0, -20.0, -3.0, 0.0, 1.4, 1.6, 50.0, 1000.0], dtype=dtype)

    def function(x: Tensor) -> Any:
        softplus = torch.nn.functional.softplus
        return softplus(x), softplus(x, beta=2.0), softplus(x, 2.0, 3.0), softplus(x, -0.5)

    exported(function, tmp_path / "m.onnx", exporter, x)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("aten::asihn", asinh), "did you mean aten::asin"),
        (("asinh", asinh), "name must be like 'aten::asinh'"),
        (("aten::add.Tensr", asinh), "name must be an overload of aten::add"),
        (("aten::asinh", 3), "function must be one"),
    ],
)
def test_wrong_registration(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match="register_mapping: ") as caught:
        register_mapping(*arguments)
    assert sentence in str(caught.value)


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="since_opset must be 1 or more, got 0"):
        register_mapping("aten::asinh", asinh, since_opset=0)
    with pytest.raises(ValueError, match="exporter must be one of both, dynamo, torchscript"):
        register_mapping("aten::asinh", asinh, exporter="fx")


@BOTH
def test_an_installed_package(
    exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "import custom_ops.onnx\n"
        "def register():\n"
        "    custom_ops.onnx.register_mapping('aten::asinh', lambda op, x: op.Neg(x))\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[custom_ops.mappings]\ntheirs = theirs:register\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setattr(registry, "_packages_are_loaded", False)
    path = tmp_path / "m.onnx"
    export(Net(torch.asinh).eval(), (X,), path, exporter=exporter, verify=False)
    assert types(onnx.load(path)) == ["Neg"]
    with pytest.raises(ValueError, match="beside that of theirs"):
        register_mapping("aten::asinh", asinh)


# plain export


def plain(function: Callable[..., Any], path: Path, exporter: str, opset: int = 20) -> list[str]:
    options: dict[str, Any] = {"dynamo": False}
    if exporter == "dynamo":
        table = translation_table(opset_version=opset)
        options = {"dynamo": True, "verbose": False, "custom_translation_table": table}
    net = Net(function).eval()
    torch.onnx.export(net, (X,), path, opset_version=opset, input_names=["x"], **options)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return types(onnx.load(path))


def test_plain_torchscript_export(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    register_mapping("aten::tanh", constant(1))
    assert plain(torch.tanh, path, "torchscript") == ["Tanh"]
    outer = install_mappings()
    assert plain(torch.tanh, path, "torchscript") == ["Mul", "Add"]
    with install_mappings(), register_mapping("aten::cos", constant(2)):
        assert plain(torch.cos, path, "torchscript") == ["Mul", "Add"]
    assert plain(torch.cos, path, "torchscript") == ["Cos"]
    assert plain(torch.tanh, path, "torchscript") == ["Mul", "Add"]
    outer.uninstall()
    outer.uninstall()
    assert plain(torch.tanh, path, "torchscript") == ["Tanh"]


def test_a_symbolic_function_of_the_user_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    torch.onnx.register_custom_op_symbolic("aten::tanh", lambda g, x: g.op("Neg", x), 9)
    try:
        with install_mappings(), register_mapping("aten::tanh", constant(1)):
            assert plain(torch.tanh, path, "torchscript") == ["Mul", "Add"]
        assert plain(torch.tanh, path, "torchscript") == ["Neg"]
        with install_mappings(), register_mapping("aten::tanh", lambda op, x: NotImplemented):
            assert plain(torch.tanh, path, "torchscript") == ["Neg"]
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::tanh", 9)


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_plain_dynamo_export(opset: int, tmp_path: Path) -> None:
    register_mapping("aten::tanh", constant(1))
    assert plain(torch.tanh, tmp_path / "m.onnx", "dynamo", opset) == ["Mul", "Add"]


def test_the_table_is_for_one_opset() -> None:
    register_mapping("aten::tanh", constant(1))
    with pytest.raises(Exception, match="Failed to") as caught:
        torch.onnx.export(
            Net(torch.tanh).eval(),
            (X,),
            io.BytesIO(),
            dynamo=True,
            verbose=False,
            opset_version=20,
            custom_translation_table=translation_table(opset_version=18),
        )
    assert "opset_version must be that of the export" in str(
        caught.value.__cause__.__cause__.__cause__
    )
