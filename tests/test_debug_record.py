"""What is recorded of a pass, where ops overwrite what others have made."""

import torch
from torch.utils import _pytree as pytree

from custom_ops.debug._record import record
from custom_ops.debug._recording import Ref
from custom_ops.onnx._inputs import Call


def recorded(module, *inputs):
    return record(module.eval(), Call(inputs, {}))


class Overwriting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x):
        y = x * 1
        z = x.mul_(2).add_(1)
        self.count.add_(3)
        torch.sub(z, 1, out=y)
        return z * self.count + y


def test_what_an_op_overwrites_is_its_result_from_then_on():
    chain = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 2)
    )
    recording = recorded(chain, torch.ones(2, 3))
    relu = next(step for step in recording.steps if step.name == "aten.relu_")
    last = recording.steps[-1]
    assert last.name == "aten.addmm"
    assert Ref(relu.index, 0) in last.refs
    assert recording.outputs == [Ref(last.index, 0)]


def test_inputs_and_buffers_are_recorded_as_the_op_found_them():
    x = torch.tensor([1.0, 2.0, 3.0])
    recording = recorded(Overwriting(), x)
    steps = {step.name: step for step in recording.steps}
    first, twice = recording.steps[:2]
    assert torch.equal(first.args[0], x)
    assert torch.equal(twice.args[0], x)
    assert torch.equal(x, torch.tensor([1.0, 2.0, 3.0]))
    count = next(step for step in recording.steps if step.args[1:] == (3,))
    assert torch.equal(count.args[0], torch.zeros(3))
    assert steps["aten.sub"].kwargs["out"] == Ref(0, 0)
    assert torch.equal(recording.value(Ref(0, 0)), x)
    assert torch.equal(recording.value(recording.outputs[0]), (2 * x + 1) * 3 + 2 * x)


def test_each_op_gives_what_is_recorded_when_it_runs_again():
    torch.manual_seed(0)
    for module, x in (
        (torch.nn.GRU(3, 4), torch.randn(5, 2, 3)),  # overwrites parts of what it has split
        (Overwriting(), torch.randn(3)),
    ):
        recording = recorded(module, x)
        for step in recording.steps:
            if step.name in ("aten.zeros", "aten.empty"):
                continue

            args, kwargs = pytree.tree_map(
                lambda leaf, recording=recording: (
                    recording.value(leaf) if isinstance(leaf, Ref) else leaf
                ),
                (step.args, step.kwargs),
                is_leaf=lambda leaf: isinstance(leaf, Ref),
            )
            copies = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
            with torch.no_grad():
                again = step.func(*copies[0], **copies[1])
            leaves = pytree.tree_leaves(again)
            for now, before in zip(leaves, step.outputs, strict=True):
                assert torch.equal(now, before), step.name


def test_a_view_of_what_was_overwritten_is_a_tensor_of_its_own():
    class Module(torch.nn.Module):
        def forward(self, x):
            y = x + 1
            row = y[0]
            y.mul_(2)
            return row * 1

    recording = recorded(Module(), torch.ones(2, 3))
    last = recording.steps[-1]
    assert torch.equal(last.args[0], torch.full((3,), 4.0))
    assert torch.equal(recording.steps[1].outputs[0], torch.full((3,), 2.0))


def test_the_state_of_a_module_stays():
    norm = torch.nn.BatchNorm1d(3)
    module = torch.nn.Sequential(norm, Overwriting())
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    memory = norm.running_mean.data_ptr()
    record(module.train(), Call((torch.randn(5, 3),), {}))
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert norm.running_mean.data_ptr() == memory


def test_what_a_module_draws_is_drawn_again():
    torch.manual_seed(0)
    drawn = torch.rand(2)
    torch.manual_seed(0)
    record(torch.nn.Dropout(0.5).train(), Call((torch.ones(5),), {}))
    assert torch.equal(torch.rand(2), drawn)
