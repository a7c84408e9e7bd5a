"""torchvision's deformable convolution on our kernels: accelerated, and its layers converted."""

import copy
import itertools
import pickle
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrizations, parametrize

import custom_ops
from custom_ops.ops.deform_conv2d.samples import bad_calls, make, samples

torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
from torchvision.ops import deform_conv2d as imported_before  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("quiet", "restored"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

OPS = ("torchvision::deform_conv2d", "torchvision::_deform_conv2d_backward")
# torchvision's own kernel must not see NaN, and knows no broadcasting.
SAMPLES = [
    s
    for s in samples(torch.Generator().manual_seed(0))
    if s.name not in ("non_finite_offsets", "one_element_bias_and_mask")
]


def registrations() -> list[str]:
    return [torch._C._dispatch_dump(name) for name in OPS]


@pytest.fixture
def restored() -> Any:
    """Shows after each test that torchvision's op is as it was before."""
    before = registrations()
    yield
    assert registrations() == before


def ran(function: Callable[[], Any]) -> list[str]:
    """Returns the names of our ops that ran on this thread."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    names = {event.key for event in profile.key_averages()}
    return sorted(name for name in names if name.startswith("custom_ops::"))


def small(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(1, 2, 5, 5).to(dtype), torch.rand(1, 18, 3, 3).to(dtype), WEIGHT.to(dtype)


WEIGHT = torch.linspace(-1, 1, 4 * 2 * 9).reshape(4, 2, 3, 3)
FORWARD, BACKWARD = "custom_ops::deform_conv2d", "custom_ops::_deform_conv2d_backward"


class Calls(torch.nn.Module):
    """One call of the function, scriptable and exportable."""

    def forward(self, input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return imported_before(input, offset, weight)


def raw(input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    none = torch.zeros(4, dtype=input.dtype)
    args = (input, weight, offset, none[:1, None], none, 1, 1, 0, 0, 1, 1, 1, 1, False)
    result: Tensor = torch.ops.torchvision.deform_conv2d(*args)
    return result


def layer(input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    made = torchvision.ops.DeformConv2d(2, 4, 3, bias=False)
    made.weight = torch.nn.Parameter(weight)
    result: Tensor = made(input, offset)
    return result


def grid() -> list[Any]:
    sizes = itertools.product((torch.float32, torch.float64), SAMPLES)
    return [pytest.param(s, d, id=f"{s.name}-{str(d)[6:]}") for d, s in sizes]


@pytest.mark.parametrize(("sample", "dtype"), grid())
def test_results_and_gradients_are_those_of_torchvision(sample: Any, dtype: torch.dtype) -> None:
    def train() -> list[Tensor]:
        leaves: list[Tensor] = []

        def leaf(tensor: Tensor) -> Tensor:
            leaves.append(tensor.to(dtype).requires_grad_())
            return leaves[-1]

        call = sample.map(lambda t: t.detach().clone()).map(leaf)
        output = torchvision.ops.deform_conv2d(*call.args, **call.kwargs)
        weights = torch.linspace(-1, 1, output.numel(), dtype=dtype).view_as(output)
        return [output, *torch.autograd.grad(output, leaves, weights)]

    expected = train()
    with custom_ops.accelerate_torchvision():
        actual = train()
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype is torch.float64 else {}
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **(tolerance or {"rtol": 1e-4, "atol": 1e-4}))


WAYS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "function": lambda: torchvision.ops.deform_conv2d,
    "imported before": lambda: imported_before,
    "op": lambda: raw,
    "module": lambda: layer,
    "scripted": lambda: torch.jit.script(Calls()),
    "traced": lambda: torch.jit.trace(Calls(), small(), check_trace=False),
    "exported": lambda: torch.export.export(Calls(), small()).module(),
    "compiled": lambda: torch.compile(Calls(), backend="aot_eager", fullgraph=True),
}


@pytest.mark.parametrize("made", ["before", "meanwhile"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_calling_is_served(way: str, made: str) -> None:
    torch._dynamo.reset()
    args = small()
    expected = custom_ops.deform_conv2d(*args)
    function = WAYS[way]() if made == "before" else None
    if function is not None:
        torch.testing.assert_close(function(*args), expected)
    leaves = [arg.clone().requires_grad_() for arg in args]
    reference = torch.autograd.grad(custom_ops.deform_conv2d(*leaves).sum(), leaves)

    with custom_ops.accelerate_torchvision():
        function = WAYS[way]() if function is None else function
        assert FORWARD in ran(lambda: torch.testing.assert_close(function(*args), expected))
        with torch.no_grad():
            assert FORWARD in ran(lambda: function(*args))
        with torch.inference_mode():
            assert FORWARD in ran(lambda: function(*args))
        if way != "module":  # it makes a leaf of its own of the weight
            assert BACKWARD in ran(lambda: function(*leaves).sum().backward())
            for leaf, gradient in zip(leaves, reference, strict=True):
                torch.testing.assert_close(leaf.grad, gradient)
    assert ran(lambda: function(*args)) == []
    torch.testing.assert_close(function(*args), expected)


def test_only_needed_gradients_are_computed() -> None:
    input, offset, weight = small()
    offset.requires_grad_()
    with custom_ops.accelerate_torchvision():
        output = imported_before(input, offset, weight)
        assert output.grad_fn is not None
        assert output.grad_fn.needs_input_grad[:5] == (False, False, True, False, False)


def test_backward_after_the_end_stays_ours() -> None:
    input, offset, weight = small()
    offset[0, 0, 0, 0] = float("nan")
    offset.requires_grad_()
    with custom_ops.accelerate_torchvision():
        output = imported_before(input, offset, weight)
    assert BACKWARD in ran(lambda: output.sum().backward())
    assert offset.grad is not None
    assert bool(offset.grad.isfinite().all())


@pytest.mark.parametrize("compiled", [False, True])
def test_nan_offsets_count_nothing(compiled: bool) -> None:
    (input, offset, weight), kwargs = make(torch.Generator().manual_seed(1), padding=1)
    for channel, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e20)):
        offset[:, 2 * channel] = value
    function = torchvision.ops.deform_conv2d
    results = []
    with custom_ops.accelerate_torchvision():
        if compiled:
            torch._dynamo.reset()
            function = torch.compile(function, backend="aot_eager")
        for f in (function, custom_ops.deform_conv2d):
            leaves = [t.clone().requires_grad_() for t in (input, offset, weight)]
            output = f(*leaves, **kwargs)
            results.append([output, *torch.autograd.grad(output.sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        assert bool(actual.isfinite().all())
        torch.testing.assert_close(actual, expected)


def test_undo_in_any_order() -> None:
    before = registrations()
    for order in itertools.permutations(range(3)):
        accelerations = [custom_ops.accelerate_torchvision() for _ in range(3)]
        for i in order:
            assert registrations() != before
            assert ran(lambda: imported_before(*small())) == [FORWARD]
            assert repr(accelerations[i]) == "<Acceleration of torchvision, on>"
            accelerations[i].undo()
            assert repr(accelerations[i]) == "<Acceleration of torchvision, undone>"
            accelerations[i].undo()  # once is enough
        assert registrations() == before
        assert ran(lambda: imported_before(*small())) == []


def test_blocks_nest_and_end_by_exceptions() -> None:
    with custom_ops.accelerate_torchvision() as outer:
        with pytest.raises(KeyError), custom_ops.accelerate_torchvision():
            raise KeyError
        assert ran(lambda: imported_before(*small())) == [FORWARD]
    assert ran(lambda: imported_before(*small())) == []
    with pytest.raises(RuntimeError, match="accelerate_torchvision: acceleration must be entered"):
        outer.__enter__()


def test_a_registration_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    impl = torch.library.Library.impl

    def fails(self: Any, name: str, function: Any, key: str, **options: Any) -> None:
        if key == "CPU":
            raise OSError("no")
        impl(self, name, function, key, **options)

    before = registrations()
    with monkeypatch.context() as patch:
        patch.setattr(torch.library.Library, "impl", fails)
        with pytest.raises(OSError, match="no"):
            custom_ops.accelerate_torchvision()
    assert registrations() == before
    with custom_ops.accelerate_torchvision():
        assert ran(lambda: imported_before(*small())) == [FORWARD]


def test_torch_is_told_of_the_end_while_it_compiles() -> None:
    """torch keeps which kernel a key leads to; a stale one gives no gradient and a warning."""

    def train() -> Tensor:
        torch._dynamo.reset()
        leaf = offset.clone().requires_grad_()
        torch.compile(imported_before, backend="aot_eager")(input, leaf, weight).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    input, offset, weight = small()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*autograd kernel was not registered")
        expected = train()
        for _ in range(2):
            with custom_ops.accelerate_torchvision():
                torch.testing.assert_close(train(), expected)
            torch.testing.assert_close(train(), expected)


def test_a_compiled_function_follows_without_compiling_again() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(imported_before, backend="aot_eager", fullgraph=True)
    args = small()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            assert ran(lambda: compiled(*args)) == []
            with custom_ops.accelerate_torchvision():
                assert ran(lambda: compiled(*args)) == [FORWARD]


def test_inductor_trains_on_channels_last() -> None:
    """It holds an op to the strides that torchvision promised."""
    torch._dynamo.reset()
    (input, offset, weight), kwargs = make(torch.Generator().manual_seed(5), padding=1, groups=2)
    last = torch.channels_last
    results = []
    with custom_ops.accelerate_torchvision():
        for f in (torch.compile(imported_before), custom_ops.deform_conv2d):
            leaves = [
                t.to(memory_format=last).requires_grad_() for t in map(torch.clone, (input, offset))
            ]
            output = f(*leaves, weight.to(memory_format=last), **kwargs)
            results.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_other_devices_are_left_alone() -> None:
    def rows() -> dict[str, str]:
        lines = "\n".join(map(torch._C._dispatch_dump_table, OPS)).splitlines()
        return {f"{i} {line.split(':')[0]}": line for i, line in enumerate(lines)}

    before = rows()
    with custom_ops.accelerate_torchvision():
        changed = {key.split()[1] for key, line in rows().items() if before[key] != line}
        meta = [t.to("meta") for t in small()]
        assert ran(lambda: imported_before(*meta)) == []
        assert imported_before(*meta).shape == (1, 4, 3, 3)
    assert changed == {"CPU", "AutogradCPU", "AutocastCPU"}


def test_second_and_forward_derivatives_are_refused() -> None:
    input, offset, weight = small()
    offset.requires_grad_()
    with custom_ops.accelerate_torchvision():
        output = imported_before(input, offset, weight)
        (gradient,) = torch.autograd.grad(output.sum(), offset, create_graph=True)
        with pytest.raises(NotImplementedError, match="deform_conv2d: second derivatives are not"):
            gradient.sum().backward()
        with pytest.raises(NotImplementedError, match="forward-mode derivatives are not"):
            torch.func.jvp(lambda x: imported_before(x, offset, weight), (input,), (input,))


def test_transforms() -> None:
    input, offset, weight = small()
    inputs = torch.stack([input, input + 1])

    def gradient(function: Any) -> Any:
        return torch.func.grad(lambda x: function(x, offset, weight).square().sum())

    with custom_ops.accelerate_torchvision():
        for transform in (gradient, lambda f: torch.func.vmap(gradient(f))):
            args = input if transform is gradient else inputs
            torch.testing.assert_close(
                transform(imported_before)(args), transform(custom_ops.deform_conv2d)(args)
            )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(dtype: torch.dtype) -> None:
    args = small(dtype)
    with custom_ops.accelerate_torchvision():
        assert torch.equal(imported_before(*args), custom_ops.deform_conv2d(*args))


def test_autocast_computes_in_float32_and_keeps_the_dtype_of_the_input() -> None:
    input, offset, weight = small()
    with torch.autocast("cpu", torch.bfloat16):
        expected = imported_before(input, offset, weight)
        with custom_ops.accelerate_torchvision():
            actual = imported_before(input, offset, weight)
            assert ran(lambda: imported_before(input, offset, weight)) == [FORWARD]
            leaf = weight.clone().requires_grad_()
            half = imported_before(input.bfloat16(), offset.bfloat16(), leaf)
            wide = imported_before(input.double(), offset.double(), weight.double())
    assert (actual.dtype, half.dtype, wide.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float64,
    )
    torch.testing.assert_close(actual, expected)
    wanted = custom_ops.deform_conv2d(input.bfloat16().float(), offset.bfloat16().float(), leaf)
    torch.testing.assert_close(half, wanted.bfloat16())
    half.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype is torch.float32


# Found by torchvision's function before it calls its op, or not to be said by its arguments.
UNREACHED = {
    "rank_of_input",
    "rank_of_weight",
    "rank_of_offset",
    "padding",
    "empty_kernel",
    "offset_channels",
    "missing_offset",
}
BAD_CALLS = [
    bad for bad in bad_calls(torch.Generator().manual_seed(0)) if bad.sample.name not in UNREACHED
]


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: bad.sample.name)
def test_bad_calls_get_our_sentences(bad: Any) -> None:
    with custom_ops.accelerate_torchvision(), pytest.raises(ValueError, match=bad.sentence):
        torchvision.ops.deform_conv2d(*bad.sample.args, **bad.sample.kwargs)


def test_the_op_itself_refuses_all_else() -> None:
    input, offset, weight = small()
    with custom_ops.accelerate_torchvision():
        for args, sentence in (
            ((input[0], offset, weight), "deform_conv2d: input must have 4 dimensions"),
            ((input, offset[:, :17], weight), "deform_conv2d: offset must have channels that"),
        ):
            with pytest.raises(ValueError, match=sentence):
                raw(*args)


def test_threads_have_accelerations_of_their_own() -> None:
    args = small()
    expected = custom_ops.deform_conv2d(*args)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                with custom_ops.accelerate_torchvision():
                    torch.testing.assert_close(imported_before(*args), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_programs_captured_meanwhile_are_the_same() -> None:
    def capture() -> list[str]:
        args = small()
        exported = torch.export.export(Calls(), args)
        needed = tuple(arg.clone().requires_grad_() for arg in args)
        traced = [torch.jit.trace(Calls(), a, check_trace=False).graph for a in (args, needed)]
        return [
            *(re.sub(r" : __torch__.*|#.*", "", str(graph)) for graph in traced),
            str(exported.graph),
            str(exported.run_decompositions().graph),
        ]

    before = capture()
    with custom_ops.accelerate_torchvision():
        assert capture() == before


class Net(torch.nn.Module):
    """A small residual network; its 3 x 3 convolutions learn where to look."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        for block in (resnet.layer2[0], resnet.layer4[0]):
            block.conv2 = Deformable(block.conv2)
        self.resnet = resnet

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.resnet(image)
        return result


class Deformable(torch.nn.Module):
    def __init__(self, conv: torch.nn.Conv2d) -> None:
        super().__init__()
        channels = conv.in_channels
        self.head = torch.nn.Conv2d(channels, 27, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.head(x).split([18, 9], 1)
        result: Tensor = self.conv(x, offset, mask.sigmoid())
        return result


def step(net: torch.nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Trains once and returns the loss, and the gradients by name."""
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = torch.nn.functional.cross_entropy(net(image), torch.tensor([1, 5]))
    loss.backward()
    optimizer.step()
    return loss.detach(), {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


def test_a_network_trains_as_before() -> None:
    net = Net()
    loss, gradients = step(copy.deepcopy(net))
    with custom_ops.accelerate_torchvision():
        found: list[Any] = []
        trained = copy.deepcopy(net)
        assert ran(lambda: found.append(step(trained))) == [BACKWARD, FORWARD]
    found.append(step(custom_ops.convert(copy.deepcopy(net))))
    for actual, grads in found:
        torch.testing.assert_close(actual, loss)
        assert grads.keys() == gradients.keys()
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=1e-5)


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deform = Deformable(torch.nn.Conv2d(4, 4, 3))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.deform(image)
        return result


IMAGE = (torch.rand(2, 4, 6, 5),)


@pytest.mark.parametrize("how", ["ours", "plain"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_exported_files_are_the_same(exporter: str, how: str, tmp_path: Path) -> None:
    net = Small().eval()

    def write() -> onnx.ModelProto:
        path = tmp_path / "m.onnx"
        if how == "ours":
            assert custom_ops.onnx.export(net, IMAGE, path, exporter=exporter)
        else:
            options: dict[str, Any] = {"dynamo": exporter == "dynamo"}
            if exporter == "dynamo":
                options["custom_translation_table"] = custom_ops.onnx.translation_table()
                options["verbose"] = False
            torch.onnx.export(net, IMAGE, path, **options)
        model = onnx.load(path)
        for node in model.graph.node:  # where the exporting Python stood, line by line
            del node.metadata_props[:]
        return model

    before = write()
    with custom_ops.accelerate_torchvision():
        assert write().SerializeToString() == before.SerializeToString()
    converted = custom_ops.convert(copy.deepcopy(net))
    after = custom_ops.onnx.export(converted, IMAGE, tmp_path / "c.onnx", exporter=exporter)
    assert after


def test_convert_reaches_every_layer() -> None:
    shared = torchvision.ops.DeformConv2d(4, 4, 3)
    inner = torch.nn.ModuleDict({"a": shared, "list": torch.nn.ModuleList([shared])})
    other = torchvision.ops.DeformConv2d(2, 6, (1, 3), stride=2, groups=2, bias=False).half()
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), inner, other)
    text, state = repr(model), {k: v.data_ptr() for k, v in model.state_dict().items()}
    parameters = list(model.parameters())
    assert custom_ops.convert(model) is model
    assert repr(model) == text
    assert {k: v.data_ptr() for k, v in model.state_dict().items()} == state
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert type(shared) is type(other) is custom_ops.DeformConv2d
    assert model[1]["a"] is model[1]["list"][0] is shared
    assert type(model[0]) is torch.nn.Conv2d
    assert custom_ops.convert(model) is model  # nothing left to do, and no warning
    alone = torchvision.ops.DeformConv2d(4, 4, 3)
    assert type(custom_ops.convert(alone)) is custom_ops.DeformConv2d


def test_convert_keeps_what_hangs_on_a_layer() -> None:
    layer = torchvision.ops.DeformConv2d(2, 4, 3).double().eval()
    layer.weight.requires_grad_(False)
    layer.note = "mine"
    seen: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_: seen.append("forward")),
        layer.register_forward_pre_hook(lambda *_: seen.append("before")),
        layer.register_full_backward_hook(lambda *_: seen.append("backward")),
        layer.register_state_dict_pre_hook(lambda *_: seen.append("state")),
    ]
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    converted = custom_ops.convert(layer)
    assert not converted.training
    assert not converted.weight.requires_grad
    assert converted.weight.dtype is torch.float64
    assert converted.note == "mine"
    input, offset, _ = small(torch.float64)
    assert FORWARD in ran(lambda: converted(input.requires_grad_(), offset).sum().backward())
    converted.state_dict()
    assert seen == ["before", "forward", "backward", "state"]
    before = converted.bias.detach().clone()
    optimizer.step()
    assert not torch.equal(converted.bias, before)
    for handle in handles:
        handle.remove()
    converted(input, offset)
    assert len(seen) == 4


def test_convert_keeps_parametrizations() -> None:
    layer = parametrizations.weight_norm(torchvision.ops.DeformConv2d(2, 4, 3))
    other = parametrizations.weight_norm(torchvision.ops.DeformConv2d(2, 4, 3))
    input, offset, _ = small()
    expected, name, names = layer(input, offset), type(layer).__name__, list(layer.state_dict())
    converted = custom_ops.convert(torch.nn.ModuleList([layer]))[0]
    assert isinstance(converted, custom_ops.DeformConv2d)
    assert not isinstance(converted, torchvision.ops.DeformConv2d)
    assert type(converted).__name__ == name
    assert list(converted.state_dict()) == names
    for module in (converted, copy.deepcopy(converted)):
        assert FORWARD in ran(lambda m=module: m(input, offset))
        torch.testing.assert_close(module(input, offset), expected)
        assert parametrize.is_parametrized(module, "weight")
    parametrize.remove_parametrizations(converted, "weight")
    assert type(converted) is custom_ops.DeformConv2d
    torch.testing.assert_close(converted(input, offset), expected)
    assert isinstance(other, torchvision.ops.DeformConv2d)


def test_a_converted_model_needs_no_torchvision(tmp_path: Path) -> None:
    model = custom_ops.convert(torch.nn.Sequential(torchvision.ops.DeformConv2d(2, 4, 3)))
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    assert torch.equal(copy.deepcopy(model)[0].weight, model[0].weight)
    done = without_torchvision(
        "import pickle\n"
        "model = pickle.load(open('model.pickle', 'rb'))\n"
        "output = model[0](torch.ones(1, 2, 5, 5), torch.zeros(1, 18, 3, 3))\n"
        "print(type(model[0]).__module__, *output.shape)",
        tmp_path,
    )
    assert done.stdout.strip() == "custom_ops.ops.deform_conv2d.module 1 4 3 3"


class Pack(torchvision.ops.DeformConv2d):  # type: ignore[misc]
    """As frameworks have it: a layer that makes its offsets itself."""

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = super().forward(input, torch.zeros(1, 18, 3, 3))
        return result


def test_convert_refuses_what_it_would_lose() -> None:
    model = torch.nn.Sequential(torchvision.ops.DeformConv2d(2, 4, 3), Pack(2, 4, 3))
    with pytest.raises(TypeError, match=r"convert: 1 must be a .* itself, got its subclass .*Pack"):
        custom_ops.convert(model)
    with pytest.raises(TypeError, match=r"convert: model must be a .* itself"):
        custom_ops.convert(parametrizations.weight_norm(Pack(2, 4, 3)))
    assert type(model[0]) is torchvision.ops.DeformConv2d  # nothing is changed
    with custom_ops.accelerate_torchvision():
        assert ran(lambda: model[1](torch.ones(1, 2, 5, 5))) == [FORWARD]

    patched = torchvision.ops.DeformConv2d(2, 4, 3)
    patched.forward = patched.forward
    with pytest.raises(ValueError, match="convert: model must have the forward of its class"):
        custom_ops.convert(patched)
    with pytest.raises(TypeError, match=r"convert: model must be a torch.nn.Module, got function"):
        custom_ops.convert(raw)  # type: ignore[type-var]


def test_convert_says_that_there_is_nothing_to_do() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    with pytest.warns(UserWarning, match="convert: model must hold a .*, got Sequential with none"):
        assert custom_ops.convert(model) is model
    scripted = torch.jit.script(torchvision.ops.DeformConv2d(2, 4, 3))
    with pytest.warns(UserWarning, match="serves calls of the function and scripted models"):
        custom_ops.convert(scripted)


def without_torchvision(code: str, folder: Path) -> Any:
    head = "import sys\nsys.modules['torchvision'] = None\nimport torch, custom_ops\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], cwd=folder, capture_output=True, text=True, check=True
    )


def test_without_torchvision(tmp_path: Path) -> None:
    code = """
import warnings
try:
    custom_ops.accelerate_torchvision()
except ImportError as error:
    print(error)
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    custom_ops.convert(torch.nn.Linear(1, 1))
    print(found[-1].message)
"""
    first, second = without_torchvision(code, tmp_path).stdout.splitlines()
    assert first.startswith("accelerate_torchvision: torchvision must be installed and fit torch ")
    assert first.endswith("; pip install the torchvision of that release")
    assert second.startswith("convert: model must hold a torchvision.ops.DeformConv2d")
