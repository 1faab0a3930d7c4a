"""A marker is found where it is, as exactly as its noise allows, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from melt_stream.analysis.markers import Code, Found, Trace, find, response, scores
from melt_stream.marker import code, edges
from melt_stream.testing import simulate_marker

CHIP_S, RISE_S = 0.0517, 0.010
CODES = [Code(np.array(edges(127, CHIP_S * 1e9, play), np.int64)) for play in (0, 1)]


def moments(t: np.ndarray, watts: np.ndarray) -> Trace:
    return Trace(t, t, watts)


def error(seed: int, known: float | None = RISE_S, **how: Any) -> tuple[Found | None, float]:
    """What is found of a simulated marker, and how late its onset was found, s."""
    rng = np.random.default_rng(seed)
    onset = 3 + rng.uniform()
    at, t, watts = simulate_marker(rng, onset_s=onset, **how)
    made = Code(at)
    found = find(made, moments(t, watts), known)
    true = onset + made.centre * 1e-9 * (1 + how.get("ppm", 0.0) * 1e-6)
    return found, float("nan") if found is None else found.onset_s - true


@pytest.mark.parametrize("play", [0, 1])
@pytest.mark.parametrize("chips", [31, 63, 127, 511])
def test_a_code_is_an_m_sequence(chips, play):
    levels = np.array(code(chips, play))
    assert (len(levels), np.sum(levels), levels[0]) == (chips, chips // 2 + 1, True)
    signs = np.where(levels, 1.0, -1.0)
    assert {round(float(signs @ np.roll(signs, k))) for k in range(1, chips)} == {-1}
    at = edges(chips, 1000.0, play)
    assert len(at) == (chips + 1) // 2
    assert (np.diff(at) > 0).all()


def test_the_codes_of_two_plays_are_not_taken_for_one_another():
    for length in (63, 127, 511):
        one, other = (np.where(code(length, play), 1.0, -1.0) for play in (0, 1))
        assert np.max(np.abs(np.correlate(one, other, "full"))) < 0.3 * length


def test_at_100_hz_it_is_found_within_three_tenths_of_a_sample():
    errors = [error(seed, hz=100.0)[1] for seed in range(200)]
    assert np.quantile(np.abs(errors), 0.95) < 0.3 / 100


def test_at_5_khz_it_is_found_within_a_sample_which_is_what_its_noise_allows():
    """The Cramer-Rao bound of one play is 0.63 samples; both plays of a run together are within one in 95 %."""
    errors = np.array([error(seed, hz=5000.0, seconds=11.0)[1] for seed in range(120)]) * 5000
    corners, in_each = 64, RISE_S * 5000
    least = np.sqrt(10**-0.3 / (corners * in_each)) * in_each
    assert least == pytest.approx(0.63, abs=0.01)
    assert least * 0.8 < np.std(errors) < least * 1.2
    assert np.abs(np.mean(errors)) < 3 * least / np.sqrt(len(errors))
    assert np.quantile(np.abs(errors.reshape(-1, 2).mean(1)), 0.95) < 1.0


@pytest.mark.parametrize("play", [0, 1])
def test_edges_that_came_all_at_once_after_a_pause_of_the_machine_hide_no_code(play):
    at = np.array(edges(127, 4.3e6, play), np.int64)
    for pause in (40_000_000, 210_000_000, 380_000_000):
        inside = np.flatnonzero((at >= pause) & (at < pause + 60_000_000))
        at[inside] = pause + 60_000_000 + np.arange(len(inside)) * 300
    assert np.quantile(np.diff(at), 0.25) < 1000  # ns: more than a quarter of them
    stalled = Code(at)
    t = np.arange(-50_000_000, 650_000_000, 1_000_000)
    watts = 2 + np.random.default_rng(1).normal(0, 0.1, len(t))
    for k, edge in enumerate(at):
        watts += (-1) ** k * np.clip((t - edge) / 1e6, 0, 1)
    found = find(stalled, moments((t - stalled.centre) * 1e-9, watts), 0.001)
    assert found is not None
    assert abs(found.onset_s) < 4 * found.u_s < 0.001


@pytest.mark.parametrize(
    "how",
    [
        {"hz": 100.0}, {"hz": 1000.0}, {"hz": 1000.0, "ppm": 150.0, "snr_db": 20.0}, {"hz": 1000.0, "rise_s": 0.0},
        {"hz": 20.0, "snr_db": 10.0}, {"hz": 250.0, "rise_s": 0.03}, {"hz": 1000.0, "play": 1},
    ],
    ids=str,
)  # fmt: skip
def test_its_standard_uncertainty_is_one(how):
    ratios = []
    for seed in range(40):
        found, off = error(seed, how.get("rise_s", RISE_S), **how)
        assert found is not None
        ratios.append(off / found.u_s)
    assert 0.4 < np.std(ratios) < 1.4
    assert np.max(np.abs(ratios)) < 4


@given(
    seed=st.integers(0, 10**6), hz=st.sampled_from([100.0, 333.0]), snr_db=st.floats(6.0, 40.0),
    rise_s=st.floats(0.0, 0.04), ppm=st.floats(-200.0, 200.0), step_w=st.floats(0.01, 100.0), play=st.integers(0, 1),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_a_rise_that_nobody_knows_is_fitted_and_the_onset_stays_within_four_u(seed, hz, **how):
    found, off = error(seed, None, hz=hz, seconds=12.0, **how)
    assert found is not None
    assert abs(off) < 4 * found.u_s
    assert found.step_w == pytest.approx(how["step_w"], rel=0.2)
    # What no linear rise of a period or more explains is left over, and is counted as noise.
    clear = how["snr_db"] > (20 if how["rise_s"] * hz > 1 else 15)
    assert 10 * np.log10(found.snr) == pytest.approx(how["snr_db"], abs=1.5) or how["ppm"] or clear


def test_a_rise_shorter_than_a_period_is_not_read_out_of_the_noise():
    """Chosen by the samples that chanced to lie in them, short rises put the onset 8 standard uncertainties off."""
    for seed in (141, 83, 158, 128, 44, 75):
        found, off = error(seed, None, hz=100.0, seconds=11.5)
        assert found is not None
        assert abs(off) < 3 * found.u_s


@pytest.mark.parametrize("late_s", [0.002, 0.005, 0.02])
def test_a_rise_of_another_shape_is_within_the_uncertainty_of_a_fitted_one(late_s):
    made, t = CODES[0], np.arange(0, 12, 1e-3)
    power = np.zeros(len(t))
    for k, edge in enumerate(made.edges * 1e-9 + 3.21):
        power += (-1) ** k * (1 - np.exp(-np.maximum(t - edge, 0) / late_s))
    found = find(made, moments(t, power + np.random.default_rng(1).normal(0, 0.2, len(t))))
    assert found is not None
    assert abs(found.onset_s - 3.21 - made.centre * 1e-9) < 3 * found.u_s


def telegraph(rng: np.random.Generator, t: np.ndarray, dwell: float) -> np.ndarray:
    changes = np.cumsum(rng.exponential(dwell, int((t[-1] - t[0]) / dwell * 2) + 50))
    return np.searchsorted(changes, t) % 2 + rng.normal(0, 0.1, len(t))


def answers(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A model that answers: long prefills, tokens whose work goes up and down, pauses."""
    power, at = rng.normal(2.0, 0.3, len(t)), rng.uniform(0, 3)
    while at < t[-1]:
        prefill, itl = rng.uniform(0.1, 2), rng.choice([0.02, 0.03, 0.05, CHIP_S, 2 * CHIP_S, 0.2])
        decode = int(rng.integers(10, 200)) * itl
        power[(t >= at) & (t < at + prefill)] += 6
        inside = (t >= at + prefill) & (t < at + prefill + decode)
        power[inside] += 3 + (((t[inside] - at - prefill) / itl) % 1 < rng.uniform(0.3, 0.7))
        at += prefill + decode + rng.exponential(1.0)
    return power


LOADS = {
    "noise": lambda rng, t: rng.normal(0, 1, len(t)),
    "answers": answers,
    "chips": lambda rng, t: rng.integers(0, 2, int(t[-1] / CHIP_S) + 2)[(t / CHIP_S).astype(int)] + rng.normal(0, 0.1, len(t)),
    "quick": lambda rng, t: telegraph(rng, t, 0.03),
    "slow": lambda rng, t: telegraph(rng, t, 0.2),
    "wandering": lambda rng, t: np.cumsum(rng.normal(0, 0.1, len(t))),
    "constant": lambda _, t: np.full(len(t), 3.0),
}  # fmt: skip


@pytest.mark.parametrize("hz", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("load", LOADS)
def test_where_there_is_none_nothing_is_found(load, hz):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        t = np.arange(int(rng.choice([8, 20, 120]) * hz)) / hz
        assert find(CODES[seed % 2], moments(t, LOADS[load](rng, t))) is None


@pytest.mark.parametrize("hz", [100.0, 1000.0])
def test_another_code_a_falling_one_and_one_that_runs_backwards_are_none(hz):
    for seed in range(20):
        _, t, watts = simulate_marker(np.random.default_rng(seed), hz=hz, snr_db=20.0)
        assert find(CODES[0], moments(t, watts)) is not None
        assert find(CODES[1], moments(t, watts)) is None
        assert find(CODES[0], moments(t, -watts)) is None
        assert find(CODES[0], moments(t, watts[::-1])) is None


@pytest.mark.parametrize(("first", "last"), [(0.0, 3.5), (7.5, 9.5), (8.0, 20.0), (0.0, 4.6)])
@pytest.mark.parametrize("blank", [False, True])
def test_a_marker_with_a_hole_is_found_in_what_is_left(first, last, blank):
    """It runs from 3 s to 9.5 s. Missing samples may be gone, or there without a value."""
    rng = np.random.default_rng(5)
    at, t, watts = simulate_marker(rng, hz=1000.0, onset_s=3.0, snr_db=6.0)
    hole = (t >= first) & (t < last)
    trace = moments(t, np.where(hole, np.nan, watts)) if blank else moments(t[~hole], watts[~hole])
    found = find(Code(at), trace, RISE_S)
    assert found is not None
    assert abs(found.onset_s - 3.0 - Code(at).centre * 1e-9) < 4 * found.u_s < 2e-3


@given(start=st.floats(0.0, 9.0), length=st.floats(0.0, 9.0), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_whatever_is_missing_the_answer_is_right_or_there_is_none(start, length, seed):
    at, t, watts = simulate_marker(np.random.default_rng(seed), hz=200.0, onset_s=3.0)
    kept = (t < start) | (t > start + length)
    assume(kept.any())
    found = find(Code(at), moments(t[kept], watts[kept]), RISE_S)
    assert found is None or abs(found.onset_s - 3.0 - Code(at).centre * 1e-9) < 4.5 * found.u_s


@pytest.mark.parametrize("few", [0, 1, 5])
def test_a_trace_without_samples_is_no_marker(few):
    assert find(CODES[0], moments(np.arange(few) * 0.01, np.ones(few))) is None


@pytest.mark.parametrize("window", [0.004, 0.02, 0.1])
def test_a_meter_that_averages_shows_the_mean_over_each_window(window):
    left = np.arange(0, 13, window) + 0.0003
    trace = Trace(left, left + window, np.zeros(len(left)))
    fine = (left[:, None] + (np.arange(2000) + 0.5) / 2000 * window).ravel()
    mean = response(CODES[0], moments(fine, fine), 6.0, RISE_S).reshape(len(left), -1).mean(1)
    assert np.max(np.abs(response(CODES[0], trace, 6.0, RISE_S) - mean)) < 1e-5


@pytest.mark.parametrize("window", [0.004, 0.02, 0.05])
def test_it_is_found_in_means_as_in_moments(window):
    left = np.arange(0, 13, window) + 0.0003
    trace = Trace(left, left + window, np.zeros(len(left)))
    noise = np.random.default_rng(3).normal(0, 0.3, len(left))
    trace = Trace(trace.left, trace.right, 2 + response(CODES[0], trace, 6.0123, RISE_S) + noise)
    found = find(CODES[0], trace, RISE_S)
    assert found is not None
    assert abs(found.onset_s - 6.0123) < 4 * found.u_s


def test_a_fast_meter_is_averaged_first():
    at, t, watts = simulate_marker(np.random.default_rng(4), hz=50_000.0, onset_s=3.0, seconds=11.0)
    found = find(Code(at), moments(t, watts), RISE_S)
    assert found is not None
    assert abs(found.onset_s - 3.0 - Code(at).centre * 1e-9) < 4 * found.u_s < 4e-4
    assert 10 * np.log10(found.snr) == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("stalled", [slice(10, 12), slice(20, 30)])
def test_edges_that_a_busy_machine_carried_out_together_do_not_matter(stalled):
    at = CODES[0].edges.copy()
    at[stalled] = at[stalled.stop] - 1000 * np.arange(stalled.stop - stalled.start, 0, -1)
    made, t = Code(at), np.arange(0, 13, 2e-3)
    watts = response(made, moments(t, t), 6.0, RISE_S) + np.random.default_rng(7).normal(0, 0.5, len(t))
    found = find(made, moments(t, watts), RISE_S)
    assert found is not None
    assert abs(found.onset_s - 6.0) < 4 * found.u_s


def naive_scores(template: np.ndarray, power: np.ndarray, mask: np.ndarray) -> list[float]:
    found = []
    for lag in range(1 - len(template), len(power)):
        here = [k for k in range(len(template)) if 0 <= lag + k < len(power) and mask[lag + k]]
        a, b = template[here], power[[lag + k for k in here]]
        r = np.corrcoef(a, b)[0, 1] if len(here) >= len(template) / 2 else 0.0
        found.append(r * np.sqrt(len(here) / len(template)))
    return found


def test_correlation_is_that_of_the_bins_that_are_there():
    rng = np.random.default_rng(6)
    template, power = rng.normal(size=40), rng.normal(size=150)
    mask = (rng.uniform(size=150) < 0.9).astype(float)
    score, _ = scores(template, np.where(mask, power, 0.0), mask)
    assert np.allclose(score, naive_scores(template, power, mask), atol=1e-9)
