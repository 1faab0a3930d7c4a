"""A clock that is only heard, and was set: a segment of its own; a host that is busy for a while: none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.clock_heard import LASTING, LEAST_NS, WINDOW, steps
from melt_stream.analysis.clocks import Maps, fit, said
from melt_stream.internal import READINGS

S = 1_000_000_000
MS = 1_000_000
LEAST_DELAY = 0.5 * MS


def heard(host: np.ndarray, delay: np.ndarray, shown: np.ndarray, **declared: Any) -> pa.Table:
    """Arrivals of a clock that showed ``shown`` at the host times ``host``."""
    about = {"rho_ppm": 15.0, "same_rate": False} | declared
    rows = [
        {"clock_of": "meter.own", "epoch_of": 0, "count": int(tick), "resolution": 1, "not_after": int(at), "kind": "arrival",
         "tick_ns": 1.0} | about
        for tick, at in zip(shown, host + delay, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, READINGS.schema)


def delays(rng: np.random.Generator, count: int) -> np.ndarray:
    return LEAST_DELAY + rng.exponential(1 * MS, count)


def after(maps: Maps, host: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far the truth is after the map, and what its bound says."""
    placed = maps.to_host("meter.own", 0, shown)
    assert placed is not None
    return host - placed, *maps.bound("meter.own", 0, placed)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32), ppm=st.floats(-150, 150), at=st.integers(100, 500),
    ahead_ms=st.floats(20, 10_000) | st.floats(-10_000, -20),
)  # fmt: skip
def test_a_step_is_one_new_segment_where_it_was_and_no_arrival_is_before_its_sample(seed, ppm, at, ahead_ms):
    rng = np.random.default_rng(seed)
    host = np.linspace(0, 60, 600) * S
    ahead = np.where(np.arange(600) >= at, ahead_ms * MS, 0.0)
    shown = np.rint(host * (1 - ppm * 1e-6) + ahead).astype(np.int64)
    maps = fit(heard(host, delays(rng, 600), shown))
    (step,) = maps.steps()
    assert (step.tick_before, step.tick_after) == (shown[at - 1], shown[at])
    assert step.ahead_ns == pytest.approx(ahead_ms * MS, abs=3 * MS)
    assert step.heard
    again = ahead_ms < 0 and (shown >= shown[at]) & (
        shown <= shown[at - 1]
    )  # shown twice: the map has the first
    off, _, high = (column[~np.asarray(again) | (np.arange(600) < at)] for column in after(maps, host, shown))
    assert (off <= high + 1).all()
    assert np.quantile(np.abs(off), 0.9) < 3 * MS


def test_it_is_said_that_heard_one_way_a_step_may_be_a_delay():
    host = np.linspace(0, 30, 300) * S
    rng = np.random.default_rng(1)
    for ahead_ms, words in (
        (50, ["set ahead", "came late by it before"]),
        (-50, ["set back", "come late by it since"]),
    ):
        shown = np.rint(host + np.where(host > 12 * S, ahead_ms * MS, 0.0)).astype(np.int64)
        (step,) = fit(heard(host, delays(rng, 300), shown)).steps()
        assert all(word in said(step) for word in [*words, "clock meter.own", "nobody can tell"])


@pytest.mark.parametrize("busy_ms", [20.0, 500.0])
def test_a_host_that_is_busy_for_a_while_is_no_step(busy_ms):
    rng = np.random.default_rng(2)
    host = np.linspace(0, 60, 600) * S
    busy = np.where((host > 20 * S) & (host < 45 * S), busy_ms * MS, 0.0)
    assert len(fit(heard(host, delays(rng, 600) + busy, host.astype(np.int64))).of("meter.own").segments) == 1


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["exponential", "uniform", "heavy", "bursts"]),
    st.floats(-190, 190),
)
def test_no_delays_of_a_steady_clock_are_a_step(seed, kind, ppm):
    rng, n = np.random.default_rng(seed), 900
    host = np.linspace(0, 90, n) * S
    tails = {
        "exponential": lambda: rng.exponential(5 * MS, n), "uniform": lambda: rng.uniform(0, 16 * MS, n),
        "heavy": lambda: np.minimum(rng.pareto(1.1, n), 1e4) * MS,
        "bursts": lambda: 1 * MS + (np.cumsum(rng.random(n) < 0.02) % 2) * rng.uniform(0, 300 * MS),
    }  # fmt: skip
    delay = LEAST_DELAY + tails[kind]()
    if kind == "bursts":
        delay[:64], delay[-64:] = (
            LEAST_DELAY,
            LEAST_DELAY,
        )  # at both ends it is idle, as every run's baseline is
    shown = np.rint(host * (1 - ppm * 1e-6)).astype(np.int64)
    assert fit(heard(host, delay, shown)).steps() == []


def test_the_hosts_own_oscillator_cannot_be_set():
    host = np.linspace(0, 30, 300) * S
    late = np.where(host > 10 * S, 80.0 * MS, 0.0)
    table = heard(host, delays(np.random.default_rng(3), 300) + late, host.astype(np.int64), same_rate=True)
    assert fit(table).steps() == []


def test_too_few_arrivals_and_too_small_a_step_are_left_alone():
    rng = np.random.default_rng(4)
    few = WINDOW * 2 * LASTING - 1
    host = np.arange(few) * 0.1 * S
    late = np.where(np.arange(few) > few // 2, 1e9, 0.0)
    assert steps(host, late, 2e-4) == []
    host = np.arange(600) * 0.1 * S
    late = np.where(np.arange(600) > 300, 0.8 * LEAST_NS, 0.0) + rng.uniform(0, 1e4, 600)
    assert steps(host, late, 2e-4) == []
    late = np.where(np.arange(600) > 300, 1.2 * LEAST_NS, 0.0) + rng.uniform(0, 1e4, 600)
    assert steps(host, late, 2e-4) == [301]
