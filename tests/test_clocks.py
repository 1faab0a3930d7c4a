"""Clock maps: the truth lies within their bound, whatever the delays."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.clock_kernels import tightest
from melt_stream.analysis.clock_map import Limits
from melt_stream.analysis.clocks import fit
from melt_stream.internal import READINGS
from tests import naive
from tests.made_run import S

FIELDS = {"clock_of": "meter.own", "epoch_of": 0, "resolution": 1, "kind": "round_trip", "tick_ns": 1.0, "rho_ppm": 15.0,
          "same_rate": False}  # fmt: skip


def readings(*rows):
    return pa.Table.from_pylist([{"tick": 0, **FIELDS, **row} for row in rows], READINGS.schema)


def host(maps, tick, epoch=0):
    return int(maps.to_host("meter.own", epoch, np.array([tick], np.int64))[0])


def bound(maps, at, epoch=0):
    low, high = maps.bound("meter.own", epoch, np.array([at], np.int64))
    return float(low[0]), float(high[0])


def test_the_host_s_clock_is_itself():
    maps = fit(readings())
    ticks = np.array([0, 2**62], np.int64)
    assert maps.to_host("host", 0, ticks).tolist() == ticks.tolist()
    assert [b.tolist() for b in maps.bound("host", 0, ticks)] == [[0, 0], [0, 0]]
    assert len(maps.table()) == 0


def test_a_clock_without_readings_cannot_be_placed_and_says_so():
    maps = fit(readings(), [("meter.own", 0), ("host", 0)])
    assert maps.to_host("meter.own", 0, np.zeros(1, np.int64)) is None
    assert maps.to_ticks("meter.own", 0, np.zeros(1, np.int64)) is None
    row = maps.table("r").to_pylist()
    assert [(r["clock"], r["kind"], r["offset_ns"], r["bound_ns"]) for r in row] == [
        ("meter.own", "none", None, None)
    ]


def test_a_round_trip_puts_the_tick_in_its_middle():
    maps = fit(readings({"count": 500, "not_before": 9_000, "not_after": 10_001}))
    assert host(maps, 500) == 9_500
    low, high = bound(maps, 9_500)
    assert low <= -500 <= 500 <= high < 502


def test_exact_readings_define_the_map():
    maps = fit(readings({"count": 0, "not_before": 77, "not_after": 77, "kind": "exact"}))
    assert host(maps, 1000) == 1077
    assert bound(maps, 10**12) == (0, 0)
    two = readings(
        *({"count": k, "not_before": 2 * k, "not_after": 2 * k, "kind": "exact"} for k in (0, 10, 20))
    )
    assert host(fit(two), 15) == 30


def test_an_arrival_alone_leaves_the_latency_open():
    maps = fit(readings({"count": 0, "not_after": 100, "kind": "arrival", "same_rate": True, "rho_ppm": 0.0}))
    assert host(maps, 0) == 100
    assert bound(maps, 100)[0] == -math.inf
    row = maps.table().to_pylist()[0]
    assert (row["kind"], row["latency_ns"], row["offset_lo_ns"], row["bound_ns"]) == (
        "one_way",
        None,
        None,
        None,
    )


def test_the_latency_of_one_way_clocks_is_a_term_of_its_own():
    rows = [{"count": k, "not_before": 1_000, "not_after": 5_000 + k + late, "kind": "arrival", "same_rate": True,
             "rho_ppm": 0.0, "tick_ns": 1.0} for k, late in ((10, 90), (20, 0), (30, 400))]  # fmt: skip
    maps = fit(readings(*rows))
    assert host(maps, 20) == 5_020
    row = maps.table("r", 1_000, 9_000).to_pylist()[0]
    # tick 11 was shown after 1000 at the earliest: 4011 ns before the map has it
    assert (row["offset_ns"], row["latency_ns"]) == (5_010 - 1_000, 4_011)
    assert (row["kind"], row["drift_ppm"], row["readings"]) == ("one_way", 0.0, 3)


def test_ticks_and_back_keep_nanoseconds_of_large_numbers():
    start = 1_760_000_000_000_000_123
    maps = fit(readings({"count": start, "not_before": 50, "not_after": 50, "kind": "exact"}))
    assert host(maps, start + 7) == 57
    assert maps.to_ticks("meter.own", 0, np.array([57], np.int64), start).tolist() == [7.0]


def test_epochs_are_clocks_of_their_own():
    maps = fit(
        readings(
            *(
                {"count": 0, "epoch_of": e, "not_before": 10 * e, "not_after": 10 * e, "kind": "exact"}
                for e in (1, 2)
            )
        )
    )
    assert [host(maps, 5, e) for e in (1, 2)] == [15, 25]
    assert maps.table()["epoch"].to_pylist() == [1, 2]


def test_where_every_reading_contradicts_the_last_the_bound_is_widened_and_shows():
    rows = [
        {"count": 100 * k, "not_before": 5_000 * (k % 2), "not_after": 5_000 * (k % 2) + 10}
        for k in range(12)
    ]
    maps = fit(readings(*({**r, "same_rate": True, "rho_ppm": 0.0} for r in rows)))
    assert maps.steps() == []
    assert maps.table()["residual_ns"].to_pylist() == [5_000 - 101 - (10 - 1_000)]
    for row in rows:
        at = host(maps, row["count"])
        low, high = bound(maps, at)
        assert at + low <= row["not_after"]
        assert at + high >= row["not_before"] - 2


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.floats(0, 600), st.floats(0, 0.05), st.floats(0, 0.05)), min_size=1, max_size=20),
    st.floats(-200, 200), st.sampled_from([1, 1_000, 1_000_000, 15_625_000]), st.floats(0, 15), st.floats(20, 5_000),
    st.floats(0, 6.28), st.integers(-(10**15), 10**15),
)  # fmt: skip
def test_the_truth_lies_within_the_two_way_bound(trips, ppm, resolution, wander, period, phase, offset):
    """Any delays, any resolution, drift, and a rate that wanders within rho."""

    def shown(t):  # device ns at host ns t (since 0): the integral of a rate within wander of 1 + ppm
        slow = (
            wander
            * 1e-6
            * period
            * 1e9
            / (2 * math.pi)
            * (math.sin(2 * math.pi * t / (period * 1e9) + phase) - math.sin(phase))
        )
        return offset + t / (1 + ppm * 1e-6) + slow

    rows = []
    for at, before, after in sorted(trips):
        t = round(at * S)
        tick = math.floor(shown(t) / resolution) * resolution
        rows.append({"count": tick, "resolution": resolution, "rho_ppm": 15.5,
                     "not_before": t - round(before * S), "not_after": t + round(after * S)})  # fmt: skip
    maps = fit(readings(*rows))
    for t in np.linspace(-60 * S, 660 * S, 25).astype(np.int64):
        placed = host(maps, math.floor(shown(int(t))))
        low, high = bound(maps, placed)
        assert low - 2 <= int(t) - placed <= high + 2
    assert maps.table("r", 0, 600 * S)["bound_ns"].to_pylist()[0] >= 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.floats(-150, 150))
def test_drift_and_a_bound_from_two_bursts(seed, ppm):
    rng = np.random.default_rng(seed)
    at = np.concatenate([np.linspace(0, 1, 20), np.linspace(59, 60, 20)])
    rows = [{"count": round(t * S / (1 + ppm * 1e-6)), "not_before": round(t * S) - int(rng.exponential(1e5)),
             "not_after": round(t * S) + int(rng.exponential(3e5)), "rho_ppm": 0.0} for t in at]  # fmt: skip
    row = fit(readings(*rows)).table("r", 0, 60 * S).to_pylist()[0]
    assert abs(row["drift_ppm"] - ppm) <= row["drift_bound_ppm"] + 1e-3
    assert row["drift_bound_ppm"] < 20


def test_one_way_drift_of_a_sample_clock():
    rng = np.random.default_rng(1)
    ppm, n = 80.0, 3000
    ticks = np.arange(n) * 20_000_000
    late = ticks * (1 + ppm * 1e-6) + 400_000 + rng.exponential(1e6, n)
    rows = [
        {"count": int(k), "not_after": int(t), "kind": "arrival", "rho_ppm": 0.0}
        for k, t in zip(ticks, late, strict=True)
    ]
    row = fit(readings(*rows)).table("r", 0, 60 * S).to_pylist()[0]
    assert row["drift_ppm"] == pytest.approx(ppm, abs=2)
    assert abs(row["drift_ppm"] - ppm) <= row["drift_bound_ppm"]
    assert 300_000 < row["offset_ns"] < 700_000


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(-1e6, 1e6)), max_size=12),
    st.floats(0, 1e-3),
    st.floats(-1e8, 2e9),
)
def test_limits_agree_with_their_twin(limits, rho, where):
    limits = sorted(limits)
    at, error = (np.array([x[k] for x in limits]) for k in (0, 1))
    kept = tightest(at, error, -rho, rho)
    found = float(Limits(at[kept], error[kept], rho).lowest(np.array([where]))[0])
    assert found == pytest.approx(naive.lowest(at, error, rho, where), abs=1e-6)


millis = st.floats(0, 20).map(lambda ms: round(ms * 1e6))


@settings(deadline=None)
@given(
    st.lists(millis, min_size=2, max_size=6),
    st.lists(millis, min_size=1, max_size=6),
    millis,
    st.integers(-50, 50),
)
def test_readings_on_several_clocks_leave_what_all_of_them_allow(trips, arrivals, launch, ppm):
    """A request's clock: pieces that arrive here, and a start between two moments of the server's process, which is tied to us."""
    began, rate, slot = 5 * S, 1 + ppm * 1e-6, 7 * S  # host times at which process and request begin

    def process(at):
        return math.floor((at - began) * rate)

    asked = [
        {
            "clock_of": "meter.process", "count": process(at), "not_before": at - trip, "not_after": at + trip + 1,
        }
        for at, trip in zip(range(6 * S, 12 * S, S), trips, strict=False)
    ]  # fmt: skip
    pieces = [
        {"count": math.floor(n * 1e8 * rate), "not_after": slot + round(n * 1e8) + late, "kind": "arrival"}
        for n, late in enumerate(arrivals)
    ]
    task = {
        "count": 0, "not_before": process(slot - launch), "not_after": process(slot) + 2, "against": "meter.process",
        "against_epoch": 0,
    }  # fmt: skip
    cause = {"count": 0, "resolution": 0, "not_before": slot - 30_000_000, "kind": "cause"}
    alone, both = fit(readings(*pieces, cause)), fit(readings(*asked, *pieces, cause, task))
    assert (alone.of("meter.own").kind, both.of("meter.own").kind) == ("one_way", "two_way")
    assert both.of("meter.own").against == "meter.process"
    widths = []
    for maps in (alone, both):
        at = host(maps, 0)
        low, high = bound(maps, at)
        assert at + low - 10 <= slot <= at + high + 10
        widths.append(high - low)
    assert widths[1] <= widths[0] + 1e5  # the process may stray, too


def test_a_chain_of_clocks_of_which_one_cannot_be_placed_leaves_the_other_readings():
    lost = {"count": 0, "not_before": 0, "not_after": 5, "against": "meter.nobody", "against_epoch": 0}
    maps = fit(readings({"count": 500, "not_before": 9_000, "not_after": 10_001}, lost))
    assert host(maps, 500) == 9_500
