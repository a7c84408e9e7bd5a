"""Metrics of two arrays, beside their plain definitions."""

import cmath
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from custom_ops.debug import Metrics
from custom_ops.debug._arrays import _CHUNK
from custom_ops.debug._metrics import detail, measure

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
INTEGERS = [np.bool_, np.int8, np.uint8, np.int32, np.int64, np.uint64]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


@st.composite
def pairs(draw, dtypes):
    """Two arrays of one shape and dtype, made of few bit patterns: NaN and equal ones are many."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(SHAPES)
    sides = []
    for _ in range(2):
        if dtype == np.dtype(np.bool_):
            sides.append(draw(arrays.arrays(np.bool_, shape)))
            continue
        bits = np.dtype(f"u{dtype.itemsize}")
        special = [0, 1, 2 ** (bits.itemsize * 8 - 1), 2 ** (bits.itemsize * 8 - 1) - 1]
        if dtype.kind not in "iu":
            numbers = [math.nan, math.inf, -math.inf, 1.0, -1.0, 1e-3, 3.5, 1e4]
            special += np.array(numbers).astype(dtype).view(bits).tolist()
        elements = st.sampled_from(special) | st.integers(0, 2 ** (bits.itemsize * 8) - 1)
        sides.append(draw(arrays.arrays(bits, shape, elements=elements)).view(dtype))
    return sides


def number(element):
    return element.item() if isinstance(element.item(), (int, float)) else float(element)


def slowly(expected, actual):
    """The metrics by their definition, in rationals."""
    wanted = [number(x) for x in expected.reshape(-1)]
    found = [number(x) for x in actual.reshape(-1)]
    both = [(w, f) for w, f in zip(wanted, found, strict=True)]
    apart = [
        abs(Fraction(w) - Fraction(f)) for w, f in both if math.isfinite(w) and math.isfinite(f)
    ]
    alike = [w == f or (math.isnan(w) and math.isnan(f)) for w, f in both]
    special = [not (math.isfinite(w) and math.isfinite(f)) for w, f in both]
    count = max(len(apart), 1)
    return {
        "max_abs": rounded(max(apart, default=0)),
        "mean_abs": rounded(sum(apart, Fraction()) / count),
        "mean_square": rounded(sum((x * x for x in apart), Fraction()) / count),
        "largest": rounded(max((abs(Fraction(w)) for w in wanted if math.isfinite(w)), default=0)),
        "nan": (sum(map(math.isnan, wanted)), sum(map(math.isnan, found))),
        "infinite": (sum(map(math.isinf, wanted)), sum(map(math.isinf, found))),
        "disagree": sum(s and not a for s, a in zip(special, alike, strict=True)),
    }


def rounded(exact):
    try:
        return float(exact)
    except OverflowError:
        return math.inf


def agree(metrics, slow):
    assert metrics.mismatch == ""
    for name, wanted in slow.items():
        found = getattr(metrics, name)
        if isinstance(wanted, float):
            assert found == pytest.approx(wanted, rel=1e-12, abs=1e-320), name
        else:
            assert found == wanted, name


@given(pairs(FLOATS))
@settings(deadline=None, max_examples=50)
def test_floats_are_measured_as_defined(pair):
    agree(measure(*pair), slowly(*pair))


@given(pairs(INTEGERS))
@settings(deadline=None, max_examples=50)
def test_integers_are_measured_exactly(pair):
    slow = slowly(*pair)
    agree(measure(*pair), slow)
    assert measure(*pair).max_abs == slow["max_abs"]


@given(pairs(FLOATS), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_the_layout_does_not_matter(pair, random):
    expected, actual = pair
    axes = list(range(expected.ndim))
    random.shuffle(axes)
    turned = actual.transpose(axes).copy().transpose(np.argsort(np.array(axes, dtype=int)))
    one, other = measure(expected, actual), measure(expected, turned)
    agree(other, {"max_abs": one.max_abs, "nan": one.nan, "disagree": one.disagree})
    assert repr(detail(expected, turned)) == repr(detail(expected, actual))


def test_all_pieces_of_a_large_array_count():
    random = np.random.default_rng(0)
    expected = random.standard_normal(3 * _CHUNK + 5).astype(np.float32)
    actual = expected + random.standard_normal(expected.size).astype(np.float32) * 1e-3
    expected[-1], actual[-1], actual[_CHUNK], expected[0] = 50.0, 57.0, np.nan, -np.inf
    keep = np.isfinite(expected) & np.isfinite(actual)
    apart = np.abs(expected[keep].astype(np.float64) - actual[keep])
    found = measure(expected, actual)
    assert found == Metrics(
        7.0,
        pytest.approx(apart.mean()),
        pytest.approx((apart**2).mean()),
        50.0,
        nan=(0, 1),
        infinite=(1, 0),
        disagree=2,
    )


def test_a_float64_copy_of_a_large_array_is_not_made():
    import tracemalloc

    expected = np.zeros(4_000_000, dtype=np.float32)
    actual = expected + np.float32(1)
    tracemalloc.start()
    try:
        measure(expected, actual)
        assert tracemalloc.get_traced_memory()[1] < expected.nbytes / 4
    finally:
        tracemalloc.stop()


def test_int64_keeps_the_difference_that_float64_loses():
    expected, actual = np.int64([2**62, -(2**63)]), np.int64([2**62 + 1, 2**63 - 1])
    assert measure(expected[:1], actual[:1]).max_abs == 1.0
    assert measure(expected, actual).max_abs == 2.0**64
    assert detail(expected[:1], actual[:1]).counts[-1] == 1


def test_signed_and_unsigned_integers_are_measured_exactly():
    found = measure(np.int64([2**62, -1]), np.uint64([2**62 + 1, 1]))
    assert (found.max_abs, found.mean_abs) == (2.0, 1.5)
    assert found.mismatch == "dtype uint64, not int64"


def test_another_dtype_is_a_mismatch_whose_numbers_are_measured():
    found = measure(np.int32([1, 2]), np.int64([1, 2]))
    assert (found.max_abs, found.mismatch) == (0.0, "dtype int64, not int32")
    assert measure(np.float32([1]), np.float16([1.5])).max_abs == 0.5


def test_another_shape_is_measured_by_nothing_but_its_special_numbers():
    found = measure(np.float32([[1, np.nan]]), np.float32([[np.inf], [2]]))
    assert found.mismatch == "shape [2, 1], not [1, 2]"
    assert (found.max_abs, found.nan, found.infinite) == (math.inf, (1, 0), (0, 1))
    assert detail(np.zeros(2), np.zeros(3)).worst == ()


def test_complex_numbers_are_measured_by_their_distance():
    expected, actual = np.complex64([3 + 4j, 1]), np.complex64([0, complex(0, math.nan)])
    found = measure(expected, actual)
    assert (found.max_abs, found.largest, found.nan, found.disagree) == (5.0, 5.0, (0, 1), 1)
    worst = detail(expected, actual).worst
    assert worst[0].expected == 1
    assert cmath.isnan(worst[0].actual)
    assert worst[1].expected == 3 + 4j


@pytest.mark.parametrize("dtype", [object, "U9"])
def test_strings_agree_or_not(dtype):
    expected = np.array([["a", "b"], ["c", "longer"]], dtype=dtype)
    actual = np.array([["a", "b"], ["x", "longer"]], dtype=object)
    found = measure(expected, actual)
    assert (found.disagree, found.max_abs, found.mismatch) == (1, 0.0, "")
    (element,) = detail(expected, actual).worst
    assert (element.index, element.expected, element.actual) == ((1, 0), "c", "x")
    assert measure(expected, np.zeros((2, 2))).mismatch == "dtype float64, not string"


@pytest.mark.parametrize("dtype", FLOATS)
def test_steps_between_numbers_are_counted(dtype):
    bits = np.dtype(f"i{np.dtype(dtype).itemsize}")
    start = np.array([1, 2, 4, -3, 0], dtype=dtype)
    further = (start.view(bits) + np.array([5, 1, 0, 2, 0], dtype=bits)).view(dtype)
    further[4] = -further[4]  # minus zero is no step away
    found = detail(start, further)
    assert (found.ulp_max, found.ulp_median) == (5.0, 1.0)
    across = np.array([1], dtype=bits).view(dtype)  # the smallest number
    assert detail(across, -across).ulp_max == 2.0


@given(pairs(FLOATS))
@settings(deadline=None, max_examples=50)
def test_details_agree_with_their_definitions(pair):
    expected, actual = pair
    found = detail(expected, actual)
    wanted = [number(x) for x in expected.reshape(-1)]
    given_ = [number(x) for x in actual.reshape(-1)]
    both = [
        (Fraction(w), Fraction(g))
        for w, g in zip(wanted, given_, strict=True)
        if math.isfinite(w) and math.isfinite(g)
    ]
    relative = max((abs(w - g) / abs(w) for w, g in both if w), default=Fraction())
    assert found.max_relative == pytest.approx(rounded(relative), rel=1e-12, abs=1e-320)
    assert sum(found.counts) in (len(both), 0)
    assert len(found.edges) == len(found.counts) + bool(found.counts)
    noise = sum((w - g) ** 2 for w, g in both)
    signal = sum(w * w for w, _ in both)
    if not noise:
        assert found.sqnr == math.inf
    elif signal and math.isfinite(found.sqnr):
        ratio = math.log10(signal.numerator) - math.log10(signal.denominator)
        ratio -= math.log10(noise.numerator) - math.log10(noise.denominator)
        assert found.sqnr == pytest.approx(10 * ratio, rel=1e-9, abs=1e-6)
    other = sum(g * g for _, g in both)
    if signal and other:
        product = sum(w * g for w, g in both)
        squared = float(product * product / (signal * other))
        assert found.cosine**2 == pytest.approx(squared, rel=1e-9, abs=1e-12)
        assert found.cosine * float(product > 0) >= 0
    metrics = measure(expected, actual)
    assert bool(found.worst) == bool(metrics.max_abs or metrics.disagree)


def test_the_worst_come_first_and_special_numbers_before_them():
    expected = np.zeros((4, 5), dtype=np.float32)
    actual = np.arange(20, dtype=np.float32).reshape(4, 5)
    actual[0, 3] = np.nan
    worst = detail(expected, actual).worst
    assert [element.index for element in worst[:3]] == [(0, 3), (3, 4), (3, 3)]
    assert len(worst) == 10
    assert [element.index for element in detail(expected, expected + 1).worst[:2]] == [
        (0, 0),
        (0, 1),
    ]


def test_the_heat_map_shows_the_largest_of_each_cell():
    expected = np.zeros((2, 70, 3), dtype=np.float16)
    actual = expected.copy()
    actual[1, 69, 2], actual[0, 0, 0], actual[0, 35, 1] = 5, -2, np.inf
    heat = np.array(detail(expected, actual).heat)
    assert heat.shape == (32, 3)
    assert (heat[31, 2], heat[0, 0], heat[16, 1]) == (5, 2, math.inf)
    assert np.count_nonzero(heat) == 3
    assert detail(np.zeros(3), np.ones(3)).heat == ()


def test_numbers_at_the_ends_of_float64_are_looked_at_too():
    large = detail(np.float64([1e300, 1e299]), np.float64([1e300, 2e299]))
    assert large.cosine == pytest.approx(1.02 / math.sqrt(1.01 * 1.04))
    assert large.sqnr == pytest.approx(20 * math.log10(math.sqrt(1.01) / 0.1))
    small = detail(np.float64([5e-324]), np.float64([1e-323]))
    assert (small.counts[-1], small.max_relative) == (1, 1.0)


def test_the_worst_of_many_are_found_whatever_is_equal():
    random = np.random.default_rng(1)
    for size in (1, 11, 1023, 1024, 1025, 30_000):
        actual = random.integers(0, 9, size).astype(np.float32)
        worst = [element.index[0] for element in detail(np.zeros_like(actual), actual).worst]
        order = np.lexsort([np.arange(size), -actual])
        assert worst == [place for place in order[:10].tolist() if actual[place]]
