"""Every registered op through every check; the calls come from the op's own file."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import custom_ops
from custom_ops import _library
from custom_ops.onnx._lowering import lower
from custom_ops.onnx._single_node import single_node
from custom_ops.onnx._verify import to_array
from custom_ops.ops._registry import Op, ops
from custom_ops.ops._samples import BadCall, Sample

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def calls() -> Iterator[Any]:
    """Every op with every sample, in float64."""
    for op in ops().values():
        for sample in op.samples(torch.Generator().manual_seed(0)):
            yield pytest.param(op, sample, id=f"{op.name}-{sample.name}")


def bad_calls() -> Iterator[Any]:
    """Every op with every bad call."""
    for op in ops().values():
        for bad in op.bad_calls(torch.Generator().manual_seed(0)):
            yield pytest.param(op, bad, id=f"{op.name}-{bad.sample.name}")


every_call = pytest.mark.parametrize(("op", "sample"), list(calls()))
every_bad_call = pytest.mark.parametrize(("op", "bad"), list(bad_calls()))
every_op = pytest.mark.parametrize("op", [pytest.param(o, id=n) for n, o in ops().items()])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))


def cast(sample: Sample, dtype: torch.dtype) -> Sample:
    """Returns the call with its floating tensors in another dtype; layouts stay."""
    return sample.map(lambda t: t.to(dtype) if t.is_floating_point() else t)


def tuple_of(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def reference(op: Op, sample: Sample) -> tuple[Any, ...]:
    """Computes the call in float64 from the values that the call's dtype holds."""
    wide = sample.map(lambda t: t.double().numpy() if t.is_floating_point() else t.numpy())
    return tuple_of(op.reference(*wide.args, **wide.kwargs))


def check(op: Op, dtype: torch.dtype, actual: Any, expected: tuple[Any, ...]) -> None:
    """Asserts that results lie within the op's tolerance of the reference."""
    tolerance = op.tolerances[str(dtype).removeprefix("torch.")]
    results = tuple_of(actual)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        if isinstance(result, torch.Tensor):
            assert result.dtype == dtype
            result = result.double().numpy()
        np.testing.assert_allclose(
            np.asarray(result).astype(np.float64), wanted, rtol=tolerance.rtol, atol=tolerance.atol
        )


def run(
    model: Any, feeds: dict[str, Any], kernels: str = "native", threads: int = 0
) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = custom_ops.onnx.session(model, kernels=kernels, sess_options=options)
    results: list[np.ndarray[Any, Any]] = session.run(None, feeds)
    return results


# The halves of an op


def test_every_kernel_has_a_python_half() -> None:
    for name, spec in _library.specs().items():
        if spec.onnx_name:
            assert name in ops(), f"{name} has no Python half: add it to custom_ops/ops/__init__.py"


@every_op
def test_the_body_states_what_the_kernel_states(op: Op) -> None:
    function = op.onnx.body.function(op.onnx.body.min_opset, frozenset(["float32"]))
    proto = function.to_function_proto()
    assert proto.name == op.spec.onnx_name
    assert len(proto.input) == len(op.spec.inputs)
    assert len(proto.output) == len(op.spec.outputs)
    names = {*proto.attribute, *(a.name for a in proto.attribute_proto)}
    assert names == {a.onnx_name for a in op.spec.attributes}


@every_op
def test_the_body_is_valid_at_its_oldest_opsets(op: Op) -> None:
    for dtype in op.spec.dtypes:
        opset = op.onnx.body.minimum(dtype)
        proto = op.onnx.body.function(opset, frozenset([dtype])).to_function_proto()
        context = onnx.checker.C.CheckerContext()
        context.ir_version, context.opset_imports = 9, {"": opset, "custom_ops": 1}
        onnx.checker.check_function(proto, context)


# The kernels against the reference


@every_dtype
@every_call
def test_torch_computes_the_reference(op: Op, sample: Sample, dtype: torch.dtype) -> None:
    sample = cast(sample, dtype)
    check(op, dtype, op.public(*sample.args, **sample.kwargs), reference(op, sample))


@every_dtype
@every_call
def test_numpy_computes_the_same_bits_as_torch(op: Op, sample: Sample, dtype: torch.dtype) -> None:
    sample = cast(sample, dtype)
    arrays = sample.map(to_array)
    function = getattr(custom_ops.numpy, op.name)
    actual = tuple_of(function(*arrays.args, **arrays.kwargs))
    expected = tuple_of(op.public(*sample.args, **sample.kwargs))
    for array, tensor in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(array, to_array(tensor), strict=True)


@pytest.mark.parametrize("kernels", ["native", "python", "none"])
@every_dtype
@every_call
def test_onnxruntime_computes_the_reference(
    op: Op, sample: Sample, dtype: torch.dtype, kernels: str
) -> None:
    sample = cast(sample, dtype)
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs), dynamic=True)
    if kernels == "none":
        model = custom_ops.onnx.embed(model)
    results = run(model, feeds, kernels)
    tolerance = op.tolerances[str(dtype).removeprefix("torch.")]
    for result, wanted in zip(results, reference(op, sample), strict=True):
        np.testing.assert_allclose(
            result.astype(np.float64), wanted, rtol=tolerance.rtol, atol=tolerance.atol
        )


@every_call
def test_decomposed_and_native_compute_the_reference(op: Op, sample: Sample) -> None:
    sample = cast(sample, torch.float32)
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs))
    for lowering in ("decomposed", "auto"):
        lowered = lower(model, lowering)
        assert lowering == "auto" or "custom_ops" not in lowered.opset_imports
        kernels = "native" if lowering == "auto" else "none"
        results = [torch.from_numpy(r) for r in run(lowered, feeds, kernels)]
        check(op, torch.float32, results, reference(op, sample))


@every_op
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(randomness=st.randoms(use_true_random=False))
def test_drawn_shapes(op: Op, randomness: random.Random) -> None:
    sample = cast(op.random_sample(randomness), torch.float32)
    expected = reference(op, sample)
    check(op, torch.float32, op.public(*sample.args, **sample.kwargs), expected)
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs), dynamic=True)
    for kernels, runnable in (("native", model), ("none", custom_ops.onnx.embed(model))):
        results = tuple(torch.from_numpy(r) for r in run(runnable, feeds, kernels))
        check(op, torch.float32, results, expected)


# torch


@every_call
def test_opcheck(op: Op, sample: Sample) -> None:
    arguments = op.arguments(*sample.args, **sample.kwargs)
    overload = getattr(torch.ops.custom_ops, op.name).default
    torch.library.opcheck(overload, arguments)
    torch.library.opcheck(overload, tuple(_with_grad(a) for a in arguments))


def _with_grad(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    return value


@every_call
def test_gradcheck(op: Op, sample: Sample) -> None:
    if op.is_smooth_at is not None and not op.is_smooth_at(sample):
        pytest.skip("the function has a kink at this call")
    flags = [isinstance(a, torch.Tensor) and a.is_floating_point() for a in sample.args]
    named = [k for k, v in sample.kwargs.items() if isinstance(v, torch.Tensor)]
    tensors = [a for a, flag in zip(sample.args, flags, strict=True) if flag]
    tensors = [_with_grad(t) for t in (*tensors, *(sample.kwargs[k] for k in named))]
    if sum(t.numel() for t in tensors) > 5000:
        pytest.skip("a large call; the small ones cover its gradient")

    def function(*values: torch.Tensor) -> Any:
        rest = iter(values)
        args = [next(rest) if flag else a for a, flag in zip(sample.args, flags, strict=True)]
        return op.public(*args, **{**sample.kwargs, **dict(zip(named, rest, strict=True))})

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)
    if op.differentiable_twice:
        assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@every_call
def test_fake_tensors_have_the_shape_and_strides_of_real_ones(op: Op, sample: Sample) -> None:
    real = tuple_of(op.public(*sample.args, **sample.kwargs))
    with FakeTensorMode() as mode:
        fakes = sample.map(mode.from_tensor)
        fake = tuple_of(op.public(*fakes.args, **fakes.kwargs))
    metas = sample.map(lambda t: t.to("meta"))
    meta = tuple_of(op.public(*metas.args, **metas.kwargs))
    for r, f, m in zip(real, fake, meta, strict=True):
        assert (r.shape, r.stride(), r.dtype) == (f.shape, f.stride(), f.dtype)
        assert (m.shape, m.stride(), m.dtype) == (r.shape, r.stride(), r.dtype)


@every_op
def test_compiles_with_dynamic_shapes(op: Op) -> None:
    compiled = torch.compile(op.public, fullgraph=True, dynamic=True, backend="aot_eager")
    for sample in list(op.samples(torch.Generator().manual_seed(0)))[:2]:
        expected = tuple_of(op.public(*sample.args, **sample.kwargs))
        for a, b in zip(tuple_of(compiled(*sample.args, **sample.kwargs)), expected, strict=True):
            torch.testing.assert_close(a, b)


# Errors


def sentence_of(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - onnxruntime has its own classes
        function(*args, **kwargs)
    return str(caught.value)


@every_bad_call
def test_every_runtime_says_the_same_sentence(op: Op, bad: BadCall) -> None:
    sample = bad.sample
    eager = sentence_of(op.public, *sample.args, **sample.kwargs)
    assert re.search(bad.sentence, eager), eager
    with FakeTensorMode() as mode:
        fakes = sample.map(mode.from_tensor)
        assert eager in sentence_of(op.public, *fakes.args, **fakes.kwargs)
    arrays = sample.map(to_array)
    assert eager == sentence_of(getattr(custom_ops.numpy, op.name), *arrays.args, **arrays.kwargs)
    if bad.kind != "shape":
        return
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs), dynamic=True)
    assert eager in sentence_of(run, model, feeds)
    assert eager in sentence_of(run, model, feeds, "python")


@every_op
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(randomness=st.randoms(use_true_random=False))
def test_any_shape_computes_or_is_refused(op: Op, randomness: random.Random) -> None:
    """One tensor gets another shape: the result is that of the reference, or a sentence."""
    sample = cast(op.random_sample(randomness), torch.float32)
    places = [i for i, a in enumerate(sample.args) if isinstance(a, torch.Tensor)]
    chosen = randomness.choice(places)
    shape = list(sample.args[chosen].shape)
    for _ in range(randomness.randint(1, 2)):
        axis = randomness.randint(0, len(shape))
        change = randomness.choice(["drop", "insert", "resize"])
        if change == "insert" or not shape:
            shape.insert(axis, randomness.randint(0, 3))
        elif change == "drop":
            shape.pop(axis % len(shape))
        else:
            shape[axis % len(shape)] = randomness.randint(0, 20)
    args = list(sample.args)
    args[chosen] = torch.ones(shape)
    changed = Sample("changed", tuple(args), sample.kwargs)
    arrays = changed.map(to_array)
    function = getattr(custom_ops.numpy, op.name)
    refused = ""
    try:
        result = op.public(*changed.args, **changed.kwargs)
    except ValueError as error:
        refused = str(error)
    if not refused:
        check(op, torch.float32, result, reference(op, changed))
        return
    assert re.match(rf"{op.name}: \w+ .*, got ", refused)
    assert sentence_of(function, *arrays.args, **arrays.kwargs) == refused


# Memory and threads


@every_call
def test_bits_do_not_depend_on_threads(op: Op, sample: Sample) -> None:
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs))
    arrays = sample.map(to_array)
    function = getattr(custom_ops.numpy, op.name)
    before = torch.get_num_threads(), custom_ops.numpy.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            custom_ops.numpy.set_num_threads(threads)
            grads = _gradients(op, sample)
            results.append(
                [
                    *map(to_array, tuple_of(op.public(*sample.args, **sample.kwargs))),
                    *tuple_of(function(*arrays.args, **arrays.kwargs)),
                    *run(model, feeds, threads=threads),
                    *grads,
                ]
            )
    finally:
        torch.set_num_threads(before[0])
        custom_ops.numpy.set_num_threads(before[1])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def _gradients(op: Op, sample: Sample) -> list[np.ndarray[Any, Any]]:
    leaves: list[torch.Tensor] = []

    def leaf(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            tensor = _with_grad(tensor)
            leaves.append(tensor)
        return tensor

    changed = sample.map(leaf)
    outputs = tuple_of(op.public(*changed.args, **changed.kwargs))
    grads = torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])
    return [to_array(g) for g in grads]


@every_call
def test_nothing_outside_the_views_is_read_or_written(op: Op, sample: Sample) -> None:
    sample = cast(sample, torch.float32)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def guarded(tensor: torch.Tensor) -> torch.Tensor:
        """Puts the tensor into a buffer of NaN: what is read beside it spoils the result."""
        if not tensor.is_floating_point():
            return tensor
        room = 64
        buffer = torch.full((tensor.numel() + 2 * room,), float("nan"))
        view = buffer[room : room + tensor.numel()].view(tensor.shape)
        view.copy_(tensor)
        kept.append((buffer, buffer.clone()))
        return view

    inside = sample.map(guarded)
    expected = reference(op, sample)
    check(op, torch.float32, op.public(*inside.args, **inside.kwargs), expected)
    arrays = inside.map(to_array)
    results = getattr(custom_ops.numpy, op.name)(*arrays.args, **arrays.kwargs)
    check(op, torch.float32, [*map(torch.from_numpy, tuple_of(results))], expected)
    for buffer, before in kept:
        assert torch.equal(buffer.view(torch.int32), before.view(torch.int32))


@every_call
def test_onnxruntime_writes_only_its_outputs(op: Op, sample: Sample) -> None:
    sample = cast(sample, torch.float32)
    expected = [np.asarray(e, dtype=np.float32) for e in reference(op, sample)]
    if any(e.size == 0 for e in expected):
        pytest.skip("an empty output has no memory to bind")
    model, feeds = single_node(op, op.arguments(*sample.args, **sample.kwargs))
    session = custom_ops.onnx.session(model)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    buffers = []
    for name, wanted in zip(op.spec.outputs, expected, strict=True):
        buffer = np.full(wanted.size + 128, 1234.5, dtype=np.float32)
        pointer = buffer[64:].ctypes.data
        binding.bind_output(name, "cpu", 0, np.float32, wanted.shape, pointer)
        buffers.append(buffer)
    session.run_with_iobinding(binding)
    for buffer, wanted in zip(buffers, expected, strict=True):
        assert np.all(buffer[:64] == 1234.5)
        assert np.all(buffer[-64:] == 1234.5)
        np.testing.assert_allclose(
            buffer[64:-64].reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("method", ["fork", "spawn"])
@every_op
def test_runs_in_data_loader_workers(op: Op, method: str) -> None:
    """In a process of its own: forking one whose other tests have left threads may lock up."""
    script = Path(__file__).parent / "in_workers.py"
    done = subprocess.run(
        [sys.executable, str(script), op.name, method],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0.0, 0.0, 0.0, 0.0]"


# Exporters


class Call(torch.nn.Module):
    """A call of an op as a module: its tensors are the inputs."""

    def __init__(self, op: Op, sample: Sample) -> None:
        super().__init__()
        self.op, self.sample = op, sample
        places = [*enumerate(sample.args), *sample.kwargs.items()]
        self.tensors = {k: v for k, v in places if isinstance(v, torch.Tensor)}

    def forward(self, *values: torch.Tensor) -> Any:
        given = dict(zip(self.tensors, values, strict=True))
        args = [given.get(i, a) for i, a in enumerate(self.sample.args)]
        kwargs = {k: given.get(k, v) for k, v in self.sample.kwargs.items()}
        return self.op.public(*args, **kwargs)


@pytest.mark.parametrize("lowering", ["portable", "custom", "decomposed", "auto"])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@every_op
def test_exports(op: Op, exporter: str, lowering: str, tmp_path: Any) -> None:
    for sample in list(op.samples(torch.Generator().manual_seed(0)))[:3]:
        sample = cast(sample, torch.float32)
        module = Call(op, sample).eval()
        inputs = tuple(module.tensors.values())
        path = tmp_path / "call.onnx"
        report = custom_ops.onnx.export(module, inputs, path, exporter=exporter, lowering=lowering)
        assert report, str(report)
        session = custom_ops.onnx.session(path)
        names = [given.name for given in session.get_inputs()]
        feeds = {n: to_array(t) for n, t in zip(names, inputs, strict=True)}
        results = [torch.from_numpy(r) for r in session.run(None, feeds)]
        check(op, torch.float32, results, reference(op, sample))
