"""Counters that wrap: whatever the arrivals, the true ticks come out, or a hole whose lengths hold the true one."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melt_stream.unwrap import Unwrap


def test_a_wrap_between_blocks_and_within_one():
    unwrap = Unwrap(1024, 1000.0, period=50.0)
    ticks, holes = unwrap.feed(np.array([900, 950, 1000, 26]), 1_000_000_000)
    assert (ticks.tolist(), holes) == ([900, 950, 1000, 1050], [])
    ticks, holes = unwrap.feed(np.array([76, 126]), 1_000_100_000)
    assert (ticks.tolist(), holes) == ([1100, 1150], [])
    assert unwrap.feed(np.zeros(0, np.int64), 1_000_200_000)[0].tolist() == []


def test_a_hole_longer_than_the_counter_is_told_by_the_arrivals():
    unwrap = Unwrap(1 << 16, 1e6, period=10.0, latency_ns=1e9)
    unwrap.feed(np.array([65_530]), 0)
    ticks, (hole,) = unwrap.feed(np.array([4, 14]), (3 * 65_536 + 20) * 1_000_000)
    assert ticks.tolist() == [65_530 + 3 * 65_536 + 10, 65_530 + 3 * 65_536 + 20]
    assert not hole.ambiguous
    assert (hole.row, hole.start, hole.shortest) == (0, 65_530, 3 * 65_536 + 10)
    assert hole.reason() == "rows are missing"


def test_a_hole_that_may_hide_wraps_comes_with_both_lengths():
    unwrap = Unwrap(1024, 1000.0, period=50.0, latency_ns=2e6)
    for k in range(10):
        unwrap.feed(np.array([k * 50]), k * 50_000)
    ticks, (hole,) = unwrap.feed(np.array([700]), 700_000 + 1_024_000)
    assert hole.ambiguous
    assert (hole.start, hole.shortest, hole.longest) == (450, 250, 250 + 2 * 1024)
    assert ticks.tolist() == [700 + 1024]
    assert hole.reason() == "the counter may have wrapped unseen: 250 to 2298 ticks passed"


def test_without_a_period_every_row_is_placed_by_its_arrival():
    unwrap = Unwrap(1 << 16, 1e6, latency_ns=1e9)
    for second in (0, 50, 100, 500):
        ticks, holes = unwrap.feed(np.array([second * 1000 % 65_536]), second * 10**9)
        assert ticks.tolist() == [second * 1000]
        assert not any(hole.ambiguous for hole in holes)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([(1024, 1000.0, 50), (1 << 16, 1e6, 10), (1 << 32, 1000.0, 1000)]), st.integers(0, 2**32),
    st.floats(-150, 150), st.lists(st.integers(0, 5000), max_size=6), st.floats(0.01, 0.99),
)  # fmt: skip
def test_ticks_are_true_or_lie_in_a_hole_that_says_so(counter, seed, ppm, lost, jitter):
    """Regular rows in blocks, some of them lost; delays of any size below the latency."""
    modulus, tick_ns, period = counter
    rng = np.random.default_rng(seed)
    keep = np.ones(4000 + sum(lost), bool)
    for size in lost:
        start = int(rng.integers(100, len(keep) - size))
        keep[start : start + size] = False
    true = int(rng.integers(0, modulus)) + period * np.flatnonzero(keep)
    latency = 3e6
    unwrap = Unwrap(modulus, tick_ns, float(period), latency_ns=latency)
    slack = 0
    for rows in np.split(true, np.sort(rng.integers(1, len(true), 200))):
        if not len(rows):
            continue
        arrival = rows[-1] * tick_ns * (1 + ppm * 1e-6) + rng.uniform(0, jitter) * latency
        ticks, holes = unwrap.feed(rows % modulus, round(arrival))
        slack += sum(hole.longest - hole.shortest for hole in holes)
        assert (np.diff(ticks) > 0).all()
        assert ((ticks - rows) % modulus == (true[0] % modulus - true[0]) % modulus).all()
        off = np.abs(ticks - rows - (true[0] % modulus - true[0]))
        unplaced = max(
            (hole.longest for hole in holes), default=0
        )  # within a block, whole wraps lost leave no trace
        assert (off <= slack + unplaced).all()
        assert off[-1] <= slack
    if modulus * tick_ns > 20 * latency and not slack:
        assert unwrap._last == true[-1] + true[0] % modulus - true[0]


def test_a_row_never_comes_earlier_than_a_period_after_another():
    unwrap = Unwrap(1024, 1000.0, period=50.0)
    for k in range(10):
        unwrap.feed(np.array([k * 50]), k * 50_000)
    ticks, (hole,) = unwrap.feed(np.array([476]), 476_000)  # 26 after the last: it went round at least once
    assert (hole.shortest, ticks[0]) == (26 + 1024, 476 + 1024)


def test_rows_of_a_steady_converter_tell_the_length_where_arrivals_do_not():
    for steady in (False, True):
        unwrap = Unwrap(1024, 1000.0, period=50.0, latency_ns=20e6, steady=steady)
        rows = np.arange(0, 100_000, 50)
        for some in np.split(rows, 10):
            unwrap.feed(some % 1024, int(some[-1]) * 1000)
        later = 99_950 + 50 * 41
        ticks, (hole,) = unwrap.feed(np.array([later % 1024]), later * 1000)
        assert ticks.tolist() == [later]
        assert hole.ambiguous != steady
        assert hole.shortest <= 2050 <= hole.longest


def lost_unseen(lost, period, jitter):
    """Whether so many lost rows leave a step that looks as if none were."""
    off = (lost * period) % 1024
    return lost and min(off, 1024 - off) <= jitter + 1


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32), st.sampled_from([50, 48, 400 / 7, 20]), st.floats(-150, 150),
    st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([0.0, 1e6, 5e6, np.inf])), max_size=5),
)  # fmt: skip
# one hole on time is ambiguous, and too short for good: later ones have their own length, or (rarely) make it good
@example(464690, 50, -135.0, [(0, 0.0), (1527, np.inf), (20_000, 0.0), (1, 0.0)])
@example(736721876, 50, -150.0, [(20_000, np.inf), (19_259, 0.0)])
@example(930535517, 48, -150.0, [(20_000, np.inf), (1, np.inf), (0, np.inf), (0, 0.0), (1, np.inf)])
# late by little: not placed too late, for nothing takes that back
@example(3596912367, 400 / 7, -150.0, [(20_000, 5e6), (24, 0.0), (20_000, np.inf)])
# rows on the beat whose arrivals leave it open whether they make good the hole before
@example(
    1321420084, 48, 146.6161702267636, [(134, 5e6), (17_433, 5e6), (0, 5e6), (20_000, 0.0), (20_000, 5e6)]
)
def test_the_fastest_arrivals_of_a_steady_converter_place_every_hole(seed, period, ppm, losses):
    """Stretches of rows, each with the fastest of its arrivals, which may be late (ns)."""
    rng, jitter, spread = np.random.default_rng(seed), 1.5, 300e3
    unwrap = Unwrap(1024, 1000.0, period, jitter, 20e6, spread, steady=True)
    true, first, short, unsure = 0, 0, 0, 0  # short: by what the last row on time was placed too early
    for k, (wanted, late) in enumerate([(0, 0.0)] * 4 + losses + [(0, 0.0)]):
        lost = wanted + 1 if lost_unseen(wanted, period, jitter) else wanted
        rows = true + lost + np.arange(int(rng.integers(2000, 6000)))
        true = int(rows[-1]) + 1
        stamps = np.floor(rows * period).astype(np.int64)
        delay = rng.uniform(0, min(late, 300e6) or spread)
        arrival = round(stamps[-1] * 1000 * (1 + ppm * 1e-6) + delay)
        ticks, holes = unwrap.feed(stamps % 1024, arrival, late_ns=late)
        first = first if k else int(stamps[0] - ticks[0])
        assert len(holes) == 1 if lost else (len(holes) == 0 or unsure)
        for hole in holes:  # with what those since the last row on time were too short by, or all before
            lengths = stamps[0] - first - hole.start - np.array([short, min(short, 0)])
            assert ((hole.shortest <= lengths) & (lengths <= hole.longest)).any()
            unsure += hole.longest - hole.shortest
        assert (np.diff(ticks) > 0).all()
        early = stamps - first - ticks
        assert early[0] == early[-1]
        assert abs(early[0]) <= unsure
        if late:
            assert early[0] >= short
        else:  # makes all of that good, or a hole says that it may not
            assert early[0] in (short, min(short, 0)) or any(hole.ambiguous for hole in holes)
            short = early[0]


@pytest.mark.parametrize("bits", [10, 16, 32])
def test_nothing_is_said_of_rows_that_follow_each_other(bits):
    unwrap = Unwrap(1 << bits, 1000.0, period=50.0)
    rng = np.random.default_rng(bits)
    ticks = np.arange(0, 40_000) * 50
    for k, rows in enumerate(np.split(ticks, 400)):
        got, holes = unwrap.feed(rows % (1 << bits), int(rows[-1]) * 1000 + int(rng.exponential(1e6)))
        assert holes == []
        assert (got == rows).all(), k
