"""The energy of any intervals of a rail, on any number of threads."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis import between
from melt_stream.analysis.between import energies
from melt_stream.analysis.integrate import RailData, pieces
from tests import naive

START = 1_760_000_000_000_000_000
PERIOD = 100
FACTS = {"kind": "gauge", "sensor_of": "meter.power", "name": "main"}


def made(ticks, watts):
    ticks, watts = START + np.asarray(ticks, np.int64), np.asarray(watts, np.float64)
    (found,) = pieces(
        RailData(FACTS, "host", 1.0, PERIOD, ticks, None, None, {"watts": watts}, {"watts": "W"})
    )
    return found


def wanted(rail, start, stop):
    told = naive.between(
        rail.left, rail.right, rail.p0, rail.p1, rail.limit, rail.base, start - rail.tick0, stop - rail.tick0
    )
    return [energy * 1e-9 for energy, _ in told]


steps = st.lists(st.integers(1, 150) | st.just(301), min_size=1, max_size=40)
intervals = st.lists(st.tuples(st.integers(-200, 3000), st.integers(0, 900)), max_size=12)


@settings(deadline=None)
@given(steps, intervals, st.randoms(use_true_random=False), st.integers(1, 3))
def test_intervals_in_any_order_that_may_overlap(step, cut, random, threads):
    at = np.cumsum([0, *step])
    watts = [random.choice([random.uniform(-5, 50), random.uniform(0, 50), math.nan]) for _ in at]
    rail = made(at, watts)
    start = START + np.array([a for a, _ in cut], np.int64)
    stop = start + np.array([n for _, n in cut], np.int64)
    found = energies(rail, start, stop, threads=threads)
    assert found == pytest.approx(wanted(rail, start, stop), rel=1e-12, abs=1e-21, nan_ok=True)


@pytest.mark.parametrize("threads", [2, 3, 5, None])
def test_threads_change_nothing(threads, monkeypatch):
    monkeypatch.setattr(between, "MANY", 100)
    rng = np.random.default_rng(5)
    watts = rng.normal(6, 1, 20_000)
    watts[rng.integers(0, len(watts), 50)] = np.nan
    rail = made(np.cumsum(rng.integers(50, 150, len(watts))), watts)
    edges = START + np.sort(rng.integers(-5_000, 2_005_000, 3_001))
    alone = energies(rail, edges[:-1], edges[1:], threads=1)
    assert np.array_equal(energies(rail, edges[:-1], edges[1:], threads=threads), alone, equal_nan=True)


def test_whole_of_time_is_a_fine_interval():
    rail = made(np.arange(11) * PERIOD, np.full(11, 2.0))
    start, stop = np.array([START - 2**62, START + 50]), np.array([START + 2**62, START + 2**62])
    assert energies(rail, start, stop) == pytest.approx([2e-6, 1.9e-6])


def test_nothing_asked_nothing_measured_and_time_that_runs_backwards():
    rail = made(np.arange(11) * PERIOD, np.full(11, 2.0))
    none = np.zeros(0, np.int64)
    assert not len(energies(rail, none, none))
    empty = made([0], [1.0])
    at = np.array([START, START + 10, START - 10])
    assert np.isnan(energies(empty, at, at + 5)).all()
    assert np.isnan(energies(rail, at + 200, at)).all()


def test_a_place_must_keep_the_order_of_times():
    rail = made(np.arange(11) * PERIOD, np.full(11, 2.0))
    at = np.array([START, START + 10, START + 20])
    with pytest.raises(ValueError, match="a place that keeps the order of times"):
        energies(rail, at, at + 5, lambda t: -rail.positions(t))
