"""What a module does to its buffers, while it runs or is exported, is undone in place."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import custom_ops.debug
import custom_ops.onnx
from custom_ops.debug._record import record
from custom_ops.onnx._inputs import Call
from custom_ops.onnx._unchanged import unchanged

X = (torch.zeros(1),)


class Cache(torch.nn.Module):
    """Writes to a view of its buffer that it holds as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2, 3))
        self.keys = self.cache[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.keys.fill_(1)
        return x + self.cache.sum()


def adding(number: float) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"], name="add")],
        "g", ends[:1], ends[1:], [numpy_helper.from_array(np.float32([number]), "c")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_view_of_a_buffer_stays_one(tmp_path: Path) -> None:
    module = Cache().eval()
    assert custom_ops.onnx.verify(adding(3), module, X)
    assert not custom_ops.onnx.verify(adding(0), module, X)
    assert custom_ops.debug.compare(module, adding(3), X)
    assert custom_ops.onnx.export(module, X, tmp_path / "m.onnx", exporter="torchscript")
    assert torch.equal(module.cache, torch.zeros(2, 3))
    assert module.keys.data_ptr() == module.cache.data_ptr()


class Odd(torch.nn.Module):
    """Buffers of many kinds, all of which it changes."""

    def __init__(self) -> None:
        super().__init__()
        base = torch.tensor([1.0, float("nan"), 3.0])
        with torch.inference_mode():
            self.register_buffer("inference", torch.ones(3))
        for name, buffer in {
            "base": base,
            "view": base[1:],
            "again": base,
            "spread": torch.ones(1).expand(3),
            "narrow": torch.ones(3, dtype=torch.bfloat16),
            "flag": torch.tensor(True),
            "none": None,
            "empty": torch.zeros(0),
            "sparse": torch.eye(2).to_sparse(),
            "turned": torch.arange(6.0).reshape(2, 3),
            "replaced": torch.arange(3.0),
            "moved": torch.arange(2.0),
            "grown": torch.arange(2.0),
        }.items():
            self.register_buffer(name, buffer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.base.add_(1)
        self.view.data.mul_(2)
        self.narrow.zero_()
        self.flag.logical_not_()
        self.sparse.mul_(2)
        self.turned.t_().add_(1)
        self.replaced = self.replaced + 1
        self.moved.data = torch.ones(5)
        self.grown.resize_(50).fill_(4)
        self.spread[:1].add_(1)
        with torch.inference_mode():
            self.inference.add_(1)
        self.register_buffer("new", x)
        del self.none
        return x


def test_all_kinds_of_buffers_are_put_back() -> None:
    module = Odd()
    objects = dict(module._buffers)
    dense = {name: b.to_dense().clone() for name, b in module.named_buffers()}
    strides = {name: b.stride() for name, b in module.named_buffers() if not b.is_sparse}
    with torch.no_grad(), unchanged(module):
        module(*X)
        assert module.turned.shape == (3, 2)
        assert module.replaced[0] == 1
    now = dict(module._buffers)
    assert now.keys() == objects.keys()
    assert all(now[name] is buffer for name, buffer in objects.items())
    for name, before in dense.items():
        assert torch.equal(now[name].to_dense().nan_to_num(), before.nan_to_num()), name
    assert strides == {name: now[name].stride() for name in strides}
    assert module.view.data_ptr() == module.base[1:].data_ptr()


def test_the_state_of_a_scripted_module_stays() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.register_buffer("other", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            self.other = self.other + 1
            return x + self.count + self.other

    module = torch.nn.Sequential(torch.jit.script(Counting().eval()))
    for _ in range(2):
        assert custom_ops.onnx.verify(adding(2), module, X)
    assert module[0].count == 0
    assert module[0].other == 0


def test_memory_that_may_not_be_written_to_is_left_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.float32([np.nan, 2]))
    array = np.load(tmp_path / "c.npy", mmap_mode="r")

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("c", torch.from_numpy(array))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.c[1]

    with pytest.warns(UserWarning, match="not writable"):
        module = Constant().eval()
    assert custom_ops.onnx.verify(adding(2), module, X)


def test_a_buffer_that_is_returned_is_what_it_was_then() -> None:
    class Returning(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(x + 3)
            return self.count

    module = Returning().eval()
    assert custom_ops.onnx.verify(adding(3), module, X)
    assert custom_ops.debug.compare(module, adding(3), X)
    recording = record(module, Call(X, {}))
    assert recording.value(recording.outputs[0]) == 3
    assert module.count == 0


def test_a_lazy_module_makes_its_buffers() -> None:
    norm = torch.nn.LazyBatchNorm1d(affine=False).eval()
    ends = [helper.make_tensor_value_info(name, 1, [2, 3]) for name in ("x", "y")]
    scale = numpy_helper.from_array(np.float32([(1 + 1e-5) ** -0.5]), "s")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "s"], ["y"])], "g", ends[:1], ends[1:], [scale]
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    assert custom_ops.onnx.verify(model, norm, (torch.ones(2, 3),))
    assert torch.equal(norm.running_mean, torch.zeros(3))
