"""deform_conv2d against torchvision, forward and backward, and against the tests of onnx."""

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases

import custom_ops
from custom_ops.ops.deform_conv2d.samples import make

torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

GRID = list(
    itertools.product(
        [1, 2, 4],  # groups
        [1, 2],  # offset groups
        [(3, 3), (1, 2)],  # kernel
        [1, (2, 1)],  # stride
        [0, (2, 1)],  # padding
        [1, 2],  # dilation
        [True, False],  # mask
        [True, False],  # bias
    )
)


@pytest.mark.parametrize(
    ("groups", "offset_groups", "kernel", "stride", "padding", "dilation", "mask", "bias"), GRID
)
def test_equals_torchvision(
    groups: int,
    offset_groups: int,
    kernel: tuple[int, int],
    stride: Any,
    padding: Any,
    dilation: int,
    mask: bool,
    bias: bool,
) -> None:
    args, kwargs = make(
        torch.Generator().manual_seed(1),
        channels=8,
        outputs=4,
        size=(9, 7),
        kernel=kernel,
        groups=groups,
        offset_groups=offset_groups,
        mask=mask,
        bias=bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    results = []
    for function in (custom_ops.deform_conv2d, torchvision.ops.deform_conv2d):
        leaves = [a.clone().requires_grad_() for a in args]
        named = {
            k: v.clone().requires_grad_() if isinstance(v, torch.Tensor) else v
            for k, v in kwargs.items()
        }
        leaves += [v for v in named.values() if isinstance(v, torch.Tensor)]
        output = function(*leaves[:3], **named)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        results.append([output, *torch.autograd.grad(output, leaves, weights)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_offset_gradient_at_the_border() -> None:
    """With padding 1 and zero offsets training starts exactly at -1, where slopes are not 0."""
    (input, offset, weight), kwargs = make(torch.Generator().manual_seed(2), padding=1)
    gradients = []
    for function in (custom_ops.deform_conv2d, torchvision.ops.deform_conv2d):
        leaf = torch.zeros_like(offset).requires_grad_()
        function(input, leaf, weight, **kwargs).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0][0, :, 0, 0].abs().sum() > 0


def test_samples_out_of_sight_have_zero_gradients() -> None:
    (input, offset, weight), kwargs = make(torch.Generator().manual_seed(3), padding=1)
    lost = [float("nan"), float("inf"), -float("inf"), 1e20, -1e20]
    for channel, value in enumerate(lost):
        offset[:, 2 * channel] = value  # the vertical offset of a tap
    leaves = [t.clone().requires_grad_() for t in (input, offset, weight)]
    mask = kwargs.pop("mask").requires_grad_()
    custom_ops.deform_conv2d(*leaves, mask=mask, **kwargs).sum().backward()
    for leaf in (*leaves, mask):
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())
    assert not leaves[1].grad[:, : 2 * len(lost)].any()
    assert not mask.grad[:, : len(lost)].any()
    assert not leaves[2].grad.flatten(2)[:, :, : len(lost)].any()


@pytest.mark.parametrize("size", [(2**32, 2**32), (2**40, 1), (2**16, 2**16)])
def test_huge_kernels_are_refused(size: tuple[int, int]) -> None:
    weight = torch.empty_strided((0, 1, *size), (0, 0, 0, 0))
    input, offset = torch.ones(1, 1, 4, 4), torch.ones(1, 18, 2, 2)
    with pytest.raises(ValueError, match="weight must have a kernel of at most 32768 pixels"):
        custom_ops.deform_conv2d(input, offset, weight)


def test_empty_results_need_no_memory() -> None:
    weight = torch.zeros(1).expand(2**30, 1, 512, 1024)
    result = custom_ops.deform_conv2d(
        torch.ones(0, 1, 512, 1024), torch.ones(0, 2**20, 1, 1), weight
    )
    assert result.shape == (0, 2**30, 1, 1)


def test_gradient_of_a_broadcast_half_mask_does_not_overflow_on_the_way() -> None:
    input = torch.full((1, 1, 1, 2), 300.0, dtype=torch.half)
    input[..., 1] = -300.0
    weight = torch.full((1, 1, 1, 1), 300.0, dtype=torch.half)
    mask = torch.ones(1, 1, 1, 1, dtype=torch.half, requires_grad=True)
    offset = torch.zeros(1, 2, 1, 2, dtype=torch.half)
    custom_ops.deform_conv2d(input, offset, weight, mask=mask).sum().backward()
    assert mask.grad is not None
    assert float(mask.grad) == 0.0  # 90000 - 90000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": (1, 3), "stride": 2, "padding": (0, 1), "dilation": 2},
        {"groups": 2, "bias": False},
    ],
    ids=str,
)
def test_module_is_that_of_torchvision(options: dict[str, Any]) -> None:
    options = {"kernel_size": 3, **options}
    torch.manual_seed(0)
    theirs = torchvision.ops.DeformConv2d(4, 6, **options)
    torch.manual_seed(0)
    ours = custom_ops.DeformConv2d(4, 6, **options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)  # the same initialisation
    ours.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    (input, offset, _), _ = make(
        torch.Generator().manual_seed(4),
        kernel=ours.kernel_size,
        mask=False,
        **{k: v for k, v in options.items() if k in ("stride", "padding", "dilation", "groups")},
    )
    torch.testing.assert_close(
        ours(input.float(), offset.float()), theirs(input.float(), offset.float())
    )


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "groups"), [(3, 4, 2), (4, 3, 2), (4, 4, 0)]
)
def test_module_refuses_groups_that_do_not_divide(
    in_channels: int, out_channels: int, groups: int
) -> None:
    with pytest.raises(ValueError, match=r"DeformConv2d: .* must be divisible by groups"):
        custom_ops.DeformConv2d(in_channels, out_channels, 3, groups=groups)


CASES = [c for c in collect_testcases("DeformConv") if "expanded" not in c.name]


@pytest.mark.parametrize("kernels", ["native", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_node_tests_of_onnx(case: Any, kernels: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for node in model.graph.node:
        node.domain, node.op_type = "custom_ops", "DeformConv2d"
    del model.opset_import[:]
    model.opset_import.extend(
        [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("custom_ops", 1)]
    )
    model.ir_version = 9
    session = custom_ops.onnx.session(custom_ops.onnx.embed(model), kernels=kernels)
    for inputs, outputs in case.data_sets:
        feeds = {i.name: value for i, value in zip(session.get_inputs(), inputs, strict=True)}
        for actual, expected in zip(session.run(None, feeds), outputs, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_there_are_node_tests() -> None:
    assert len(CASES) >= 3
