"""Each kernel against its slow twin, for any pieces and edges."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.kernels import FAR, LANES, between, extremes, fixed, place, prefix, sweep
from tests import naive

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # of numpy scalars, with the JIT off
BASE = 1_760_000_000_000_000_000  # ns since 1970: a float64 would lose 128 ns of it

watts = st.floats(-50, 50) | st.sampled_from([math.nan, math.inf, 0.0])


@st.composite
def pieces(draw, *, gauge=None, most=12):
    """Pieces that never overlap, some empty, some apart, some not numbers."""
    linked = draw(st.booleans()) if gauge is None else gauge
    steps = draw(st.lists(st.integers(0, 40), min_size=1, max_size=most))
    at = BASE + np.cumsum([0, *steps])
    if linked:
        power = draw(st.lists(watts, min_size=len(at), max_size=len(at)))
        return at[:-1], at[1:], np.array(power[:-1]), np.array(power[1:])
    holes = draw(st.lists(st.integers(0, 15), min_size=len(steps), max_size=len(steps)))
    left = at[:-1] + np.cumsum(holes)
    p0, p1 = (np.array(draw(st.lists(watts, min_size=len(steps), max_size=len(steps)))) for _ in range(2))
    return left, left + np.array(steps), p0, p1


edges = st.lists(st.floats(-30, 300) | st.integers(-10, 200).map(float), min_size=2, max_size=10).map(sorted)


def as_kernel(left, right, p0, p1):
    return fixed(left, np.int64), fixed(right, np.int64), fixed(p0, np.float64), fixed(p1, np.float64)


@settings(deadline=None)
@given(pieces(), edges, st.sampled_from([5.0, 30.0, math.inf]), st.booleans())
def test_sweep_agrees_with_its_twin(made, cut, limit, with_rate):
    rate = np.arange(1.0, len(made[0]) + 1) if with_rate else np.zeros(0)
    found = sweep(*as_kernel(*made), limit, fixed(rate, np.float64), BASE, fixed(cut, np.float64))
    wanted = naive.sweep(*made, limit, rate, BASE, cut)
    for k, (energy, covered, variance, _) in enumerate(wanted):
        assert found[0][k] == pytest.approx(energy, abs=1e-9)
        assert found[1][k] == pytest.approx(covered, abs=1e-9)
        assert found[2][k] == pytest.approx(variance, abs=1e-9)


@settings(deadline=None)
@given(pieces(gauge=True), edges)
def test_sweep_counts_the_samples_that_end_in_each_interval(made, cut):
    found = sweep(*as_kernel(*made), math.inf, fixed([], np.float64), BASE, fixed(cut, np.float64))
    wanted = naive.sweep(*made, math.inf, [], BASE, cut)
    assert [n for n, a, b in zip(found[3], cut, cut[1:], strict=False) if a < b] == [
        w[3] for w, a, b in zip(wanted, cut, cut[1:], strict=False) if a < b
    ]


@settings(deadline=None)
@given(pieces(gauge=True), edges)
def test_powers_at_the_edges_are_what_energy_changes_by(made, cut):
    kernel = as_kernel(*made)
    *_, after, before = sweep(*kernel, math.inf, fixed([], np.float64), BASE, fixed(cut, np.float64))
    h = 1e-5
    for k, (a, b) in enumerate(itertools.pairwise(cut)):
        if b - a > 1e-3:
            wanted = naive.energy(*made, math.inf, BASE, a, a + h) / h
            assert after[k] == pytest.approx(wanted, abs=2e-3 + 60 * h) or naive_step(made, a, h)
            wanted = naive.energy(*made, math.inf, BASE, b - h, b) / h
            assert before[k] == pytest.approx(wanted, abs=2e-3 + 60 * h) or naive_step(made, b, h)


def naive_step(made, at, h):
    """A sample lies within h of the edge, so that the difference quotient straddles it."""
    return any(0 < abs(int(x) - BASE - at) < h for x in (*made[0], *made[1]))


def test_sweep_keeps_the_digits_of_a_token_after_a_megajoule():
    at = np.arange(0, 4_000_000, 1_000_000, dtype=np.int64)
    power = np.array([1e12, 1e12, 0.1, 0.1])
    found = sweep(*as_kernel(at[:-1], at[1:], power[:-1], power[1:]), math.inf, fixed([], float), 0,
                  fixed([0.0, 2e6, 3e6], float))  # fmt: skip
    assert found[0][1] == 0.1 * 1e6


def test_sweep_of_nothing_is_nothing():
    none = fixed([], np.int64)
    found = sweep(
        none, none, fixed([], float), fixed([], float), math.inf, fixed([], float), 0, fixed([0, 1.0], float)
    )
    assert [float(x[0]) for x in found] == [0, 0, 0, 0, 0, 0]


def between_of(kernel, limit, base, start, stop):
    energy, covered = np.zeros((2, len(start)))
    none = np.zeros(0)
    assert between(*kernel, limit, base, fixed(start, float), fixed(stop, float), energy, covered)
    again = np.zeros(len(start))
    assert between(*kernel, limit, base, fixed(start, float), fixed(stop, float), again, none)
    assert np.array_equal(energy, again, equal_nan=True)
    return energy, covered


def _close(found, wanted):
    return found == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(pieces(most=4 * LANES), edges, st.integers(0, 1), st.sampled_from([5.0, 39.0, math.inf]))
def test_between_agrees_with_its_twin(made, cut, skip, limit):
    """Intervals that touch (``skip`` 0), or with pauses between them."""
    start, stop = cut[: -1 : skip + 1], cut[1 :: skip + 1]
    start = start[: len(stop)]
    energy, covered = between_of(as_kernel(*made), limit, BASE, start, stop)
    wanted = naive.between(*made, limit, BASE, start, stop)
    assert all(_close(e, w[0]) for e, w in zip(energy, wanted, strict=True))
    assert all(_close(c, w[1]) for c, w in zip(covered, wanted, strict=True))


@settings(deadline=None)
@given(st.integers(1, 6 * LANES), st.integers(0, 6 * LANES), st.sampled_from([None, math.nan, math.inf]))
def test_between_finds_the_one_piece_that_measured_nothing_in_any_lane(count, where, bad):
    at = np.arange(6 * LANES + 1) * 10 + BASE
    power = np.linspace(1.0, 2.0, len(at))
    if bad is None:
        at[where:] += 100  # a gap
    else:
        power[where] = bad
    made = at[:-1], at[1:], power[:-1], power[1:]
    cut = [-5.0, count * 5.0 + 3, count * 10.0 + 3, 1e6]
    energy, covered = between_of(as_kernel(*made), 30.0, BASE, cut[:-1], cut[1:])
    wanted = naive.between(*made, 30.0, BASE, cut[:-1], cut[1:])
    assert energy == pytest.approx([w[0] for w in wanted], nan_ok=True)
    assert covered == pytest.approx([w[1] for w in wanted])


@pytest.mark.parametrize(
    ("start", "stop"),
    [([2.0], [1.0]), ([0.0, 1.0], [2.0, 3.0]), ([math.nan], [1.0]), ([0.0], [math.inf]), ([-2 * FAR], [0.0])],
)
def test_between_says_where_intervals_do_not_rise(start, stop):
    at, power = np.arange(5) * 10, np.ones(5)
    energy, none = np.zeros(len(start)), np.zeros(0)
    kernel = as_kernel(at[:-1], at[1:], power[:-1], power[1:])
    assert not between(*kernel, 30.0, 0, fixed(start, float), fixed(stop, float), energy, none)


def test_between_keeps_the_digits_of_a_token_after_a_megajoule():
    at = np.arange(0, 4_000_000, 1_000_000, dtype=np.int64)
    power = np.array([1e12, 1e12, 0.1, 0.1])
    kernel = as_kernel(at[:-1], at[1:], power[:-1], power[1:])
    assert between_of(kernel, math.inf, 0, [0.0, 2e6], [2e6, 3e6])[0][1] == pytest.approx(
        0.1 * 1e6, rel=1e-15
    )


@settings(deadline=None)
@given(
    st.integers(-(2**62), 2**62), st.lists(st.integers(-(2**43), 2**43), max_size=20), st.integers(1, 1000)
)
def test_places_are_exact_however_far_the_ticks_are_from_zero(tick0, since, sub):
    ticks = [tick0 + tick for tick in since]
    found = np.full(len(ticks), np.nan)
    place(fixed(ticks, np.int64), tick0, sub, found)
    assert found.tolist() == naive.place(ticks, tick0, sub)


@settings(deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), max_size=50))
def test_prefix_loses_nothing(values):
    high, low = prefix(fixed(values, np.float64))
    for k, wanted in enumerate(naive.prefix(values)):
        assert high[k] + low[k] == pytest.approx(wanted, rel=1e-15, abs=1e-15)


@settings(deadline=None)
@given(
    pieces(), st.lists(st.floats(-20, 200), min_size=1, max_size=4),
    st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.floats(-60, 0), st.floats(0, 60), st.sampled_from([20.0, math.inf]),
)  # fmt: skip
def test_extremes_agree_with_their_twin(made, at, weights, low, high, limit):
    weights = weights[: len(at)]
    least, most = extremes(
        *as_kernel(*made), limit, BASE, fixed(at, float), fixed(weights, float), fixed([0, len(at)], np.int64),
        fixed([low], float), fixed([high], float),
    )  # fmt: skip
    wanted = naive.extremes(*made, limit, BASE, at, weights, low, high)
    assert (least[0], most[0]) == pytest.approx(wanted, abs=1e-6, rel=1e-9)


def test_a_peak_loses_when_shifted_either_way():
    at = np.array([0, 10, 20], np.int64)
    power = np.array([0.0, 10.0, 0.0])
    least, most = extremes(
        *as_kernel(at[:-1], at[1:], power[:-1], power[1:]), math.inf, 0, fixed([5.0, 15.0], float),
        fixed([-1.0, 1.0], float), fixed([0, 2], np.int64), fixed([-3.0], float), fixed([3.0], float),
    )  # fmt: skip
    assert most[0] == 0
    assert least[0] == pytest.approx(-9)


def test_arrays_of_every_origin_look_alike_to_the_kernels(tmp_path):
    np.arange(5.0).tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float64, "r")
    for values in (mapped, np.arange(5.0), np.arange(10.0)[::2], [0, 1, 2, 3, 4]):
        seen = fixed(values, np.float64)
        assert (type(seen), seen.flags.writeable, seen.flags.c_contiguous) == (np.ndarray, False, True)
