"""The limit of a result: what rounding may do to it, and no more."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from custom_ops.debug._float64 import Replay
from custom_ops.debug._limit import cheap, limit
from custom_ops.debug._record import record
from custom_ops.onnx._inputs import Call

FACTOR = 8.0


def made(function, *inputs):
    """Records a function; returns the recording, and what its result is."""

    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    recorder = record(Module(), Call(inputs, {}))
    return recorder, recorder.outputs[0]


def limited(function, *inputs):
    recorder, target = made(function, *inputs)
    return limit(recorder, target, [], factor=FACTOR), recorder.value(target)


def numbers(*shape, mean=0.0, scale=1.0, seed=0, dtype=torch.float32):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * scale + mean).to(dtype)


def test_the_cheap_term_is_one_eps_of_the_largest():
    assert cheap(np.float32([1, -2, np.inf, np.nan])) == 2.0**-22
    assert cheap(np.zeros((), ml_dtypes.bfloat16) + 4) == 2.0**-5
    assert cheap(np.float16([1]), largest=8.0) == 2.0**-7
    assert cheap(np.complex64([3 + 4j])) == pytest.approx(5 * 2.0**-23)
    assert cheap(np.array([2**40])) == cheap(np.array(["a"])) == cheap(np.array([True])) == 0.0


def test_what_is_not_rounded_must_be_exact():
    found, _ = limited(lambda x: x.argmax(1), numbers(3, 4))
    assert (found.value, found.by) == (0.0, "exact")


def test_a_convolution_may_round_as_torch_does():
    conv = torch.nn.Conv2d(16, 8, 3)
    recorder, target = made(conv, numbers(1, 16, 12, 12))
    found = limit(recorder, target, [], factor=FACTOR)
    with torch.no_grad():
        exact = conv.double()(numbers(1, 16, 12, 12).double())
    error = float((recorder.value(target) - exact).abs().max())
    assert error < found.value < 1e-4
    assert found.note == ""


def test_a_sum_that_cancels_is_allowed_what_torch_loses_in_it():
    x = numbers(4, 1000, mean=1000.0)
    x[:, 1:] -= x[:, 1:].mean(1, keepdim=True) + x[:, :1] / 999
    found, value = limited(lambda x: x.sum(1), x)
    assert found.by in ("float64", "conditioning")
    assert found.value > FACTOR * cheap(value.numpy())


def test_softmax_of_large_logits_may_move_as_much_as_the_logits_do():
    logits = numbers(4, 50, mean=3e4, scale=2.0)
    found, value = limited(lambda x: torch.softmax(x, -1), logits)
    assert found.by == "conditioning"
    nearly = torch.softmax(torch.nextafter(logits, logits * 2), -1)  # all by as much: no change
    moved = torch.softmax(logits + (numbers(4, 50, seed=1) > 0) * 2e-3, -1)  # an ulp
    assert float((nearly - value).abs().max()) < float((moved - value).abs().max()) < found.value
    assert found.value < 0.1


def test_a_variance_of_a_large_mean_is_allowed_its_conditioning():
    x = numbers(3, 4000, mean=1e6)
    found, value = limited(lambda x: x.var(1), x)
    assert found.by == "conditioning"
    at_once = (x.double() ** 2).mean(1) - x.double().mean(1) ** 2  # another order of the same
    rounded = x + (numbers(3, 4000, seed=2) > 0) * 0.0625 - 0.03125
    assert float((rounded.var(1) - value).abs().max()) < found.value
    assert float((at_once * 4000 / 3999 - value).abs().max()) < found.value < 1
    assert found.value > 100 * FACTOR * cheap(value.numpy())


def test_layer_norm_is_allowed_a_rounding_but_no_other_epsilon():
    x = numbers(2, 8, 64, scale=0.01)
    norm = torch.nn.LayerNorm(64)
    found, value = limited(norm, x)
    wrong = torch.nn.functional.layer_norm(x, (64,), norm.weight, norm.bias, 1e-3)
    assert float((value - wrong).detach().abs().max()) > 100 * found.value
    in_parts = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    ) ** 0.5
    assert float((value - in_parts).abs().max()) < found.value


def test_the_logarithm_of_one_plus_little_is_not_excused():
    x = numbers(100, scale=1e-6).abs()
    found, value = limited(torch.log1p, x)
    lost = torch.log(1 + x)
    assert float((lost - value).abs().max()) > 1000 * found.value
    assert found.value > 0


def test_half_is_judged_by_its_own_precision():
    x, weight = numbers(4, 64, dtype=torch.float16), numbers(64, 8, seed=3, dtype=torch.float16)
    found, value = limited(torch.mm, x, weight)
    exact = x.double() @ weight.double()
    assert float((value - exact).abs().max()) < found.value
    assert 0.01 < found.value < 1
    found, _ = limited(torch.mm, x.bfloat16(), weight.bfloat16())
    assert 0.1 < found.value < 8


def test_hard_coded_dtypes_and_factories_become_float64():
    def function(x):
        y = x.to(torch.float16).to(torch.float32) * torch.full((3,), 1 / 3, dtype=torch.float32)
        return y + torch.arange(3, dtype=torch.float32)

    recorder, target = made(function, numbers(3))
    result = Replay(recorder, target, []).run()
    assert result.dtype == torch.float64
    wanted = numbers(3).double() / 3 + torch.arange(3)
    assert torch.allclose(result, wanted, rtol=1e-15)


def test_ops_in_place_leave_what_was_recorded():
    x = numbers(5, 5)
    kept = x.clone()

    def function(x):
        y = x.mul_(3)
        y.add_(1).relu_()
        return torch.mul(y, y, out=torch.empty(0))

    recorder, target = made(function, x)
    steps = [[output.clone() for output in step.outputs] for step in recorder.steps]
    result = Replay(recorder, target, []).run()
    assert torch.equal(x, kept)
    for step, before in zip(recorder.steps, steps, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(step.outputs, before, strict=True))
    assert torch.allclose(result, (kept.double() * 3 + 1).relu() ** 2, rtol=1e-14)


def test_the_ops_end_at_the_results_given():
    def function(x):
        first = x.exp()
        return torch.cat([first, first.sqrt()]).log(), first

    recorder, target = made(function, numbers(50))
    start = recorder.outputs[1]
    given = recorder.value(start).double()
    replay = Replay(recorder, target, [start])
    assert [step.name for step in replay.steps] == ["aten.sqrt", "aten.cat", "aten.log"]
    assert torch.equal(replay.run(), torch.cat([given, given.sqrt()]).log())


def test_one_output_may_be_given_and_another_computed():
    def function(x):
        values, where = x.sort(dim=1)
        small, large = (values * 3).split([4, 5], dim=1)
        return small.sum(1) + large.sum(1), small, where

    x = numbers(4, 9)
    recorder, target = made(function, x)
    _, small, where = recorder.outputs
    large = (x.double().sort(dim=1).values * 3)[:, 4:]
    wanted = recorder.value(small).double().sum(1) + large.sum(1)
    found = Replay(recorder, target, [small, where]).run()
    assert torch.allclose(found, wanted, rtol=1e-14)


def test_choices_stay_as_recorded():
    def function(x):
        best = (x * 1.1).argmax(1)
        return x[torch.arange(len(x)), best] * (x > 0.5).any(1)

    recorder, target = made(function, numbers(6, 4))
    exact = Replay(recorder, target, []).run()
    moved = Replay(recorder, target, []).run(seed=1)
    assert float((exact - recorder.value(target)).abs().max()) < 1e-6
    assert 0 < float((exact - moved).abs().max()) < 1e-6


def test_random_numbers_stay_as_recorded():
    def function(x):
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(40)

    found, _ = limited(function, numbers(40))
    assert found.value < 1e-4


def test_numbers_that_are_exact_do_not_move():
    x = torch.tensor([0.0, 1.0, -3.0, 0.5, 255.0, math.pi, -math.inf, math.nan])
    recorder, target = made(lambda x: x.clone(), x)
    moved = Replay(recorder, target, []).run(seed=0)
    half = torch.nextafter(x[5], torch.tensor(4.0)).double() - x[5].double()
    assert torch.equal(moved[[0, 1, 2, 3, 4, 6]], x[[0, 1, 2, 3, 4, 6]].double())
    assert abs(moved[5] - x[5].double()) == half / 2
    assert torch.isnan(moved[7])


def test_a_floor_of_integers_is_judged_as_exactly_as_it_is():
    x = torch.arange(20, dtype=torch.float32)
    found, value = limited(torch.floor, x)
    assert found.value == FACTOR * cheap(value.numpy())


def test_what_is_read_twice_moves_once():
    recorder, target = made(lambda x: x - x.view(10, 2).view(20), numbers(20))
    assert torch.equal(Replay(recorder, target, []).run(seed=0), torch.zeros(20).double())


def test_the_same_limit_comes_each_time():
    x = numbers(3, 4000, mean=1e6)
    assert limited(lambda x: x.var(1), x)[0] == limited(lambda x: x.var(1), x)[0]


def test_terms_that_cost_are_left_out_where_a_smaller_limit_is_enough():
    recorder, target = made(torch.log1p, numbers(100).abs())
    recorder.steps[target.step].func = None  # nobody runs it
    found = limit(recorder, target, [], factor=FACTOR, enough=1e-9)
    assert found.by == "rounding"
    with pytest.raises(AttributeError):
        limit(recorder, target, [], factor=FACTOR)


@pytest.mark.parametrize("train", [False, True])
def test_attention_takes_float64(train):
    def function(q):
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    recorder, target = made(function, numbers(2, 2, 8, 16).requires_grad_(train))
    exact = Replay(recorder, target, []).run()
    q = numbers(2, 2, 8, 16).double()
    assert torch.allclose(exact, torch.softmax(q @ q.transpose(-1, -2) / 4, -1) @ q, rtol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_an_lstm_runs_in_float64(bias):
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True, bias=bias).eval()
    for output in range(2):
        recorder, target = made(
            lambda x, o=output: lstm(x)[0] if not o else lstm(x)[1][1], numbers(3, 7, 6)
        )
        assert any("mkldnn_rnn_layer" in str(step.func) for step in recorder.steps)
        found = limit(recorder, target, [], factor=FACTOR)
        replay = Replay(recorder, target, [])
        exact = replay.run()
        assert (replay.lacking, found.note) == ([], "")
        assert float((exact - recorder.value(target)).abs().max()) < found.value < 1e-4


def test_our_ops_run_in_float64():
    import custom_ops

    found, _ = limited(custom_ops.mul_add, numbers(9), numbers(9, seed=1))
    assert found.note == ""


def test_an_op_without_float64_runs_in_its_own_type_and_is_named():
    with torch.library._scoped_library("numbers_test", "DEF") as library:
        library.define("narrow(Tensor x) -> Tensor")

        def narrow(x):
            if x.dtype == torch.float64:
                raise NotImplementedError("not implemented for 'Double'")
            return x.exp()

        library.impl("narrow", narrow, "CPU")
        x = numbers(200)
        recorder, target = made(lambda x: torch.ops.numbers_test.narrow(x * 3).log(), x)
        found = limit(recorder, target, [], factor=FACTOR)
        assert found.note.startswith("not in float64: numbers_test.narrow; ")
        exact = Replay(recorder, target, []).run()
    assert exact.dtype == torch.float64
    assert torch.allclose(exact, x.double() * 3, atol=1e-6)
    assert found.value >= FACTOR * cheap(recorder.value(target).numpy())


def test_views_of_results_in_another_memory_order_are_replayed():
    def function(x):
        y = torch.nn.functional.conv2d(x.to(memory_format=torch.channels_last), numbers(4, 3, 2, 2))
        return y.permute(0, 2, 3, 1).view(-1, 4) * 2

    recorder, target = made(function, numbers(1, 3, 6, 6))
    assert Replay(recorder, target, []).run().shape == (25, 4)


def test_complex_numbers_are_replayed():
    found, value = limited(lambda x: torch.fft.fft(x).mul(1j), numbers(64))
    assert value.dtype == torch.complex64
    assert FACTOR * cheap(value.numpy()) <= found.value < 1e-3
    found, value = limited(lambda x: x * x, torch.complex(numbers(64), numbers(64, seed=5)))
    assert found.value < 1e-4


def test_a_mean_may_lose_what_a_running_sum_does():
    found, value = limited(lambda x: x.mean((1, 2)), numbers(64, 112, 112, mean=1.0))
    assert found.by == "summation"
    assert found.value == pytest.approx(FACTOR * math.sqrt(12544) / 6 * cheap(value.numpy()))
    half = numbers(64, 112, 112, mean=1.0, dtype=torch.float16)
    found, value = limited(lambda x: x.mean((1, 2)), half)
    assert found.value < 1.5 * FACTOR * cheap(value.numpy())  # 5% wrong is a fault


@pytest.mark.parametrize("choosing", [False, True])
@pytest.mark.parametrize("apart", [2.0**-23, 0.01])
def test_rounding_may_change_an_order_where_the_input_was_rounded(choosing, apart):
    x = 1.0 + 1e-3 + apart * torch.randperm(50, generator=torch.Generator().manual_seed(0))
    recorder, target = made(lambda x: x.sort()[1], x)
    found = limit(recorder, target, [], factor=FACTOR, choosing=choosing)
    if choosing and apart < 1e-6:
        assert found.by == "choice"
        assert FACTOR <= found.value <= FACTOR * 50
    else:
        assert (found.value, found.by) == (0.0, "exact")


def test_as_many_as_rounding_chooses_need_not_be_as_many():
    x = 1.0 + 1e-3 + 2.0**-23 * torch.arange(-50, 50)
    recorder, target = made(lambda x: x[x > 1.0 + 1e-3], x)
    found = limit(recorder, target, [], factor=FACTOR, enough=1.0, choosing=True)
    assert found.by == "choice"
    assert found.value == pytest.approx(FACTOR, rel=0.01)  # the largest number is 1
    assert limit(recorder, target, [], factor=FACTOR, enough=1.0).value < 1e-5
