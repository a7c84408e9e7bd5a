"""custom_ops.onnx.export: what it writes, checks and refuses."""

import warnings
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
import torch
from onnx_net import DYNAMIC, IMAGE, Net, domains, mul_add_args, net, plain
from torch import Tensor

import custom_ops
import custom_ops.debug
from custom_ops.onnx import ExportFailed, _model, export, lowering, session
from custom_ops.onnx._exporters import EXPORTERS
from custom_ops.onnx._lowering import LOWERINGS

BOTH = pytest.mark.parametrize("exporter", list(EXPORTERS))


pytestmark = pytest.mark.usefixtures("quiet")


# --- the file ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", LOWERINGS)
def test_lowerings(exporter: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    result = export(
        net(),
        IMAGE,
        path,
        lowering=kind,
        exporter=exporter,
        dynamic_shapes=DYNAMIC,
        output_names=["result"],
    )
    assert result
    assert len(result.checks) == 3
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert (
        domains(model)
        == {
            "portable": {"", "custom_ops"},
            "custom": {"", "custom_ops"},
            "decomposed": {""},
            "native": {""},
            "auto": {"", "custom_ops"},  # mul_add has no standard counterpart
        }[kind]
    )
    bodies = {"DeformConv2d", "MulAdd"} if kind == "portable" else set()
    assert {f.name for f in model.functions} == ({"MulAdd"} if kind == "auto" else bodies)
    used = {i.domain for i in model.opset_import}
    assert used == domains(model)  # every domain has a version, and none is left over

    graph = model.graph
    assert [i.name for i in graph.input] == ["image"]
    assert [o.name for o in graph.output] == ["result"]
    sizes = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]
    assert model.producer_name == "custom_ops"
    assert model.producer_version == custom_ops.__version__
    assert model.doc_string.startswith("Net, exported from torch ")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@BOTH
@pytest.mark.parametrize("kind", ["portable", "decomposed", "custom"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(exporter: str, kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Nothing but our ops: ONNX Runtime has no bfloat16 kernels for others."""

    class Two(torch.nn.Module):
        def forward(self, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
            y = custom_ops.deform_conv2d(x, offset, weight, padding=1)
            return custom_ops.mul_add(y, x)

    args = (torch.randn(1, 2, 4, 5), torch.randn(1, 18, 4, 5), torch.randn(2, 2, 3, 3))
    args = tuple(a.to(dtype) for a in args)
    model = Two().eval()
    assert export(model, args, tmp_path / "m.onnx", lowering=kind, exporter=exporter)
    loaded = onnx.load(tmp_path / "m.onnx")
    assert loaded.graph.output[0].type == loaded.graph.input[0].type or exporter == "torchscript"


@BOTH
def test_nested_inputs_keywords_and_numbers(exporter: str, tmp_path: Path) -> None:
    class Nested(torch.nn.Module):
        def forward(
            self,
            x: Any,
            pair: Any,
            table: Any,
            factor: Any = 2,
            skip: Any = None,
            *,
            late: Any,
            last: Any,
        ) -> Any:
            y = custom_ops.mul_add(x, pair[0], alpha=3.0) * factor - pair[1][0]
            z = table["b"] * 5 + table["a"] if skip is None else x
            return {"y": y, "rest": [z + late, y * last]}

    def draw(n: int) -> Tensor:
        return torch.randn(n, 3)

    args = (draw(2), (draw(2), [draw(2)]), {"b": draw(2), "a": draw(2)}, 7)
    kwargs = {"last": draw(2), "late": draw(2)}  # not the order of the signature
    row = {0: "n"}
    shapes = {
        "x": row,
        "pair": (row, [row]),
        "table": {"b": row, "a": row},
        "factor": None,
        "last": row,
        "late": row,
    }
    more = (
        (draw(4), (draw(4), [draw(4)]), {"b": draw(4), "a": draw(4)}, 7),
        {"last": draw(4), "late": draw(4)},
    )
    for verify_args in ([], [more]):
        path = tmp_path / "m.onnx"
        result = export(
            Nested().eval(),
            args,
            path,
            kwargs=kwargs,
            exporter=exporter,
            dynamic_shapes=shapes,
            verify_args=verify_args,
        )
        assert result
        assert len(result.checks) == (2 if verify_args else 3)
    model = onnx.load(path)
    names = ["x", "pair_0", "pair_1_0", "table_b", "table_a", "last", "late"]
    assert [i.name for i in model.graph.input] == names
    assert {i.type.tensor_type.shape.dim[0].dim_param for i in model.graph.input} == {"n"}


@BOTH
def test_inputs_that_are_not_used(exporter: str, tmp_path: Path) -> None:
    class Skips(torch.nn.Module):
        def forward(self, a: Tensor, unused: Tensor, b: Tensor) -> Tensor:
            return custom_ops.mul_add(a, b)

    args = (*mul_add_args(2, 3), torch.randn(2, 3))
    shapes = ({}, {0: "m"}, {}) if exporter == "dynamo" else (None, {0: "m"}, None)
    assert export(
        Skips().eval(), args, tmp_path / "m.onnx", exporter=exporter, dynamic_shapes=shapes
    )


@BOTH
def test_some_sizes_dynamic(exporter: str, tmp_path: Path) -> None:
    """Of the second input only."""

    class Mean(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return custom_ops.mul_add(a, b.mean(0))

    args = torch.randn(3), torch.randn(4, 3)
    result = export(
        Mean().eval(), args, tmp_path / "m.onnx", exporter=exporter, dynamic_shapes=(None, {0: "n"})
    )
    assert result
    assert str(result).splitlines()[-1].startswith("[3], [8, 3]: equal")


@BOTH
def test_dims_of_torch_export(exporter: str, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=3)
    result = export(
        net(), IMAGE, tmp_path / "m.onnx", exporter=exporter, dynamic_shapes={"image": {0: batch}}
    )
    assert result
    largest = {"dynamo": 3, "torchscript": 4}[exporter]  # which knows no ranges
    assert f"[{largest}, 3, 6, 5]: equal" in str(result)
    dims = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "batch"


@BOTH
def test_external_data(exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models over 2 GB go to two files; here what counts as large is small."""
    monkeypatch.setattr(_model, "LARGEST_FILE", 1000)
    assert export(net(), IMAGE, tmp_path / "net.onnx", exporter=exporter)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "net.onnx.data"}
    (tmp_path / "moved").mkdir()
    for path in tmp_path.glob("net*"):
        path.rename(tmp_path / "moved" / path.name)
    feeds = {"image": IMAGE[0].numpy()}
    session(tmp_path / "moved" / "net.onnx").run(None, feeds)


# --- what export refuses and warns about -------------------------------------------------------


class Liar(torch.nn.Module):
    """Computes something else while it is exported."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        y = custom_ops.mul_add(a, b)
        lies = torch.jit.is_tracing() or torch.compiler.is_exporting()
        return y + 1 if lies else y


@BOTH
def test_a_model_that_differs_is_not_written(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(RuntimeError, match="export: the model must compute what the module") as e:
        export(Liar().eval(), mul_add_args(2, 3), path, exporter=exporter)
    assert "DIFFERS, output 0 is off by 1" in str(e.value)
    assert list(tmp_path.iterdir()) == []
    path.write_text("older")
    with pytest.raises(RuntimeError, match="export: the model must compute"):
        export(Liar().eval(), mul_add_args(2, 3), path, exporter=exporter)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "older")]
    assert export(Liar().eval(), mul_add_args(2, 3), path, exporter=exporter, verify=False) is None
    assert onnx.load(path).producer_name == "custom_ops"


def test_a_model_that_differs_at_other_sizes_only(tmp_path: Path) -> None:
    class Frozen(torch.nn.Module):
        """Its size becomes a constant while it is traced."""

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return custom_ops.mul_add(a, b) * a.detach().numpy().shape[0]

    args = mul_add_args(2, 3)
    options: dict[str, Any] = {"exporter": "torchscript", "dynamic_shapes": ({0: "n"}, {0: "n"})}
    with pytest.raises(RuntimeError, match=r"\[2, 3\], \[2, 3\]: equal(.|\n)*\[4, 3\]: DIFFERS"):
        export(Frozen().eval(), args, tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


class Small(torch.nn.Module):
    """Refuses large sizes."""

    def forward(self, a: Tensor) -> Tensor:
        exported = torch.compiler.is_exporting() or torch.jit.is_tracing()
        if not exported and a.shape[0] > 5:
            raise ValueError("the size must be at most 5")
        return custom_ops.mul_add(a, a)


@BOTH
def test_sizes_that_torch_refuses(exporter: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"exporter": exporter, "dynamic_shapes": ({0: "n"},)}
    a, path = torch.randn(4), tmp_path / "m.onnx"
    for more in ([], [(torch.randn(9),), (torch.randn(2),)]):
        result = export(Small().eval(), (a,), path, verify_args=more, **options)
        assert result
        refused = [check for check in result.checks if check.difference is None]
        assert len(refused) == 1
        assert str(refused[0]).endswith(
            ": not checked, torch refuses it: the size must be at most 5"
        )
    with pytest.raises(ValueError, match="the size must be at most 5"):
        export(Small().eval(), (torch.randn(6),), path, **options)


def test_verify_args_of_other_sizes(tmp_path: Path) -> None:
    result = export(
        net(),
        IMAGE,
        tmp_path / "m.onnx",
        exporter="torchscript",
        dynamic_shapes=DYNAMIC,
        verify_args=[(torch.randn(1, 3, 9, 3),), (torch.randn(0, 3, 9, 3),)],
    )
    assert result
    assert [check.sizes for check in result.checks] == [
        "[2, 3, 6, 5]",
        "[1, 3, 9, 3]",
        "[0, 3, 9, 3]",
    ]


@BOTH
@pytest.mark.parametrize("which", ["below", "above"])
def test_opsets_outside_the_range(exporter: str, which: str, tmp_path: Path) -> None:
    low, high = EXPORTERS[exporter]
    opset = low - 1 if which == "below" else high + 1
    with pytest.raises(
        ValueError, match=rf"export: opset_version must be {low} to {high} .*, got {opset}; "
    ):
        export(net(), IMAGE, tmp_path / "m.onnx", exporter=exporter, opset_version=opset)
    other = next(name for name in EXPORTERS if name != exporter)
    if EXPORTERS[other][0] <= opset <= EXPORTERS[other][1]:
        with pytest.raises(ValueError, match=f"use exporter='{other}'"):
            export(net(), IMAGE, tmp_path / "m.onnx", exporter=exporter, opset_version=opset)


@BOTH
def test_opsets_are_those_that_torch_writes(exporter: str, tmp_path: Path) -> None:
    """Both ends of the range, and what torch itself does one step further."""
    path = tmp_path / "m.onnx"
    for opset in EXPORTERS[exporter]:
        export(net(), IMAGE, path, lowering="custom", exporter=exporter, opset_version=opset)
        assert onnx.load(path).opset_import[0].version == opset
    for opset in (EXPORTERS[exporter][0] - 1, EXPORTERS[exporter][1] + 1):
        try:
            with lowering("custom"):
                plain(
                    torch.nn.Sequential(net(), torch.nn.GELU()),
                    IMAGE,
                    path,
                    exporter,
                    opset_version=opset,
                )
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
            written = next(i.version for i in model.opset_import if i.domain == "")
        except Exception:
            continue
        assert written != opset


@pytest.mark.parametrize(("kind", "module"), [("portable", Net), ("custom", custom_ops.MulAdd)])
def test_opsets_that_dynamo_does_not_convert_to(kind: str, module: Any, tmp_path: Path) -> None:
    """Below 18 the exporter converts; what it cannot convert it leaves, or raises."""

    class Asinh(torch.nn.Module):
        def forward(self, a: Tensor) -> Tensor:
            return torch.nn.functional.group_norm(custom_ops.mul_add(a, a), 1)

    model, args = (
        (Asinh(), (torch.randn(2, 3, 4),)) if module is Net else (module(), mul_add_args(2, 3))
    )
    with pytest.raises(ValueError, match="export: opset_version must be one that the model can be"):
        export(model.eval(), args, tmp_path / "m.onnx", lowering=kind, opset_version=14)


@pytest.mark.parametrize("release", ["1.17", "1.20", "1.32"])
@BOTH
def test_targets(release: str, exporter: str, tmp_path: Path) -> None:
    found = custom_ops.onnx.target(f"onnxruntime=={release}")
    path = tmp_path / "m.onnx"
    export(net(), IMAGE, path, lowering="auto", exporter=exporter, target=f"onnxruntime=={release}")
    model = onnx.load(path)
    assert model.opset_import[0].version <= found.opset
    assert model.ir_version <= found.ir_version
    has_kernel = release == "1.32"
    assert ("DeformConv" in {n.op_type for n in model.graph.node}) == has_kernel


def test_what_a_target_cannot_run(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(
        ValueError,
        match=r"export: opset_version must be at most 21 for onnxruntime 1.20, got 23; use opset",
    ):
        export(net(), IMAGE, path, opset_version=23, target="onnxruntime==1.20")
    with pytest.raises(
        ValueError,
        match=r"deform_conv2d: .* a CPU kernel for DeformConv from 1.25 on, got 1.20; use",
    ):
        export(net(), IMAGE, path, lowering="native", target="onnxruntime==1.20")
    with pytest.raises(
        ValueError, match=r"DeformConv needs opset 19, got 18; use lowering='portable'"
    ):
        export(net(), IMAGE, path, lowering="native", opset_version=18)
    with pytest.raises(
        ValueError,
        match=r"deform_conv2d: opset_version must be at least 20 for its body in float64",
    ):
        export(net(torch.float64), (IMAGE[0].double(),), path, opset_version=19)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("opset", "error", "sentence"),
    [
        (
            20,
            RuntimeError,
            "export: the model must be valid, got: .*Conv.*bfloat16.*; export at another opset",
        ),
        (
            22,
            ValueError,
            "export: Conv in bfloat16 must have a CPU kernel in onnxruntime .* at opset 22, got "
            "kernels for .*; .*convert it to float32",
        ),
    ],
)
def test_what_no_release_has_a_kernel_for(
    opset: int, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    model, args = net(torch.bfloat16), (IMAGE[0].bfloat16(),)
    with pytest.raises(error, match=sentence):
        export(model, args, tmp_path / "m.onnx", lowering="custom", opset_version=opset)
    assert list(tmp_path.iterdir()) == []


class Sampled(torch.nn.Module):
    def forward(self, image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(image, grid, align_corners=False)


@BOTH
def test_what_the_target_has_no_kernel_for(exporter: str, tmp_path: Path) -> None:
    """Even where the installed release has one, and the file is not run."""
    args = (torch.ones(1, 1, 4, 4).double(), torch.zeros(1, 2, 2, 2).double())
    path = tmp_path / "m.onnx"
    keywords = {"exporter": exporter, "target": "onnxruntime==1.20", "verify": False}
    with pytest.raises(
        ValueError,
        match=r"export: GridSample in float64 must have a CPU kernel in onnxruntime 1.20 at opset "
        r"18, got kernels for float32; export at opset 20, or convert it to float32",
    ):
        export(Sampled().eval(), args, path, opset_version=18, **keywords)
    assert list(tmp_path.iterdir()) == []
    export(Sampled().eval(), args, path, opset_version=20, **keywords)
    assert path.exists()


@BOTH
def test_other_refusals(exporter: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(
        ValueError, match=r"export: lowering must be one of portable, .*, got 'best'"
    ):
        export(net(), IMAGE, path, lowering="best", exporter=exporter)
    with pytest.raises(ValueError, match=r"export: exporter must be one of dynamo, .*, got 'jit'"):
        export(net(), IMAGE, path, exporter="jit")
    with pytest.raises(ValueError, match=r"export: input_names must name the 1 tensors .* got 2"):
        export(net(), IMAGE, path, exporter=exporter, input_names=["a", "b"])
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_training_mode_is_warned_about(exporter: str, tmp_path: Path) -> None:
    class Drops(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.drop(custom_ops.mul_add(a, b))

    path = tmp_path / "m.onnx"
    with pytest.warns(UserWarning, match=r"export: model must be in evaluation mode"):
        export(Drops(), mul_add_args(20, 3), path, exporter=exporter, verify=False)
    with pytest.warns(UserWarning, match=r"call model.eval\(\) first"), pytest.raises(RuntimeError):
        export(Drops(), mul_add_args(20, 3), path, exporter=exporter)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="export:")
        export(Drops().eval(), mul_add_args(20, 3), path, exporter=exporter)


@BOTH
def test_the_state_of_a_module_and_of_the_generator_stays(exporter: str, tmp_path: Path) -> None:
    norm = torch.nn.BatchNorm1d(3)
    module = torch.nn.Sequential(norm, torch.nn.Dropout(0.5)).train()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    path, args = tmp_path / "m.onnx", (torch.randn(4, 3),)
    torch.manual_seed(0)
    drawn = torch.rand(2)
    for run in (
        lambda: export(module, args, path, exporter=exporter, verify=False),
        lambda: custom_ops.onnx.verify(path, module, args),
    ):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
        assert torch.equal(torch.rand(2), drawn)
        for name, buffer in module.named_buffers():
            assert torch.equal(buffer, before[name]), name


@BOTH
def test_gradients_are_off_and_the_module_is_left_alone(exporter: str, tmp_path: Path) -> None:
    seen = []

    class Sees(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(2, 3))

        def forward(self, pair: Any) -> Tensor:
            seen.append(torch.is_grad_enabled())
            return custom_ops.mul_add(pair[0] * self.w, pair[1])

    model = Sees().eval()
    assert export(model, (mul_add_args(2, 3),), tmp_path / "m.onnx", exporter=exporter)
    assert set(seen) == {False}
    assert torch.is_grad_enabled()
    assert "forward" not in vars(model)
    assert model.w.requires_grad


@pytest.mark.parametrize("names", ["ab", "ba", "pq", "ax"])
def test_inputs_go_by_their_names_where_the_model_has_them(names: str) -> None:
    class Minus(torch.nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a - b

    one, other = names if names != "ba" else "ab"
    given = ", ".join(f"float[2] {name}" for name in names)
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 18]> g ({given}) => (float[2] y) '
        f"{{ y = Sub({one}, {other}) }}"
    )
    args = (torch.tensor([1.0, 2.0]), torch.tensor([9.0, 5.0]))
    assert custom_ops.onnx.verify(model, Minus(), args)
    assert custom_ops.debug.compare(Minus(), model, args)


def test_one_tensor_is_one_input(tmp_path: Path) -> None:
    assert export(net(), IMAGE[0], tmp_path / "m.onnx")


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"img": {0: "N"}}, r"dynamic_shapes must name inputs \(a, b\), got 'img'"),
        (({0: "N"},), r"dynamic_shapes must have one entry for each input \(a, b\), got 1"),
        (({9: "N"}, None), r"dynamic_shapes of a must name axes 0 to 1, got 9"),
    ],
    ids=["name", "count", "axis"],
)
def test_wrong_dynamic_shapes_are_refused(
    exporter: str, shapes: Any, sentence: str, tmp_path: Path
) -> None:
    args = (torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=sentence):
        custom_ops.onnx.export(
            custom_ops.MulAdd().eval(),
            args,
            tmp_path / "m.onnx",
            exporter=exporter,
            dynamic_shapes=shapes,
        )
    assert not list(tmp_path.iterdir())


def test_an_odd_size_is_tried_where_the_example_is_even(tmp_path: Path) -> None:
    class Parity(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            return custom_ops.mul_add(a, a) * (1 if a.shape[0] % 2 == 0 else 7)

    with pytest.raises(RuntimeError, match=r"\[5, 3\]: DIFFERS"):
        custom_ops.onnx.export(
            Parity().eval(),
            (torch.ones(4, 3),),
            tmp_path / "m.onnx",
            exporter="torchscript",
            dynamic_shapes=({0: "N"},),
        )
    assert not list(tmp_path.iterdir())


def test_the_model_must_be_a_module(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export: model must be a torch.nn.Module, got"):
        custom_ops.onnx.export(lambda a: a, (torch.ones(2),), tmp_path / "m.onnx")


class Airy(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(a)  # an op that neither exporter nor our pack knows


@BOTH
def test_what_an_exporter_does_not_take_is_one_sentence(exporter: str, tmp_path: Path) -> None:
    other = next(name for name in EXPORTERS if name != exporter)
    with pytest.raises(
        ExportFailed,
        match=rf"^export: torch's exporter must take the module, got .*special_airy_ai.*; "
        rf"try exporter='{other}', or write the module in other ops$",
    ) as caught:
        export(Airy().eval(), torch.ones(2), tmp_path / "m.onnx", exporter=exporter)
    assert len(str(caught.value).splitlines()) == 1
    assert "\x1b" not in str(caught.value)
    assert caught.value.__cause__ is not None  # with the exporter's own account
    assert list(tmp_path.iterdir()) == []


class Refuses(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        raise ValueError("the size must be 4")


@BOTH
def test_inputs_that_the_module_does_not_take(exporter: str, tmp_path: Path) -> None:
    sentence = r"^export: model must run on args, got ValueError: the size must be 4; give inputs"
    with pytest.raises(ValueError, match=sentence):
        export(Refuses().eval(), torch.ones(3), tmp_path / "m.onnx", exporter=exporter)
    assert list(tmp_path.iterdir()) == []
