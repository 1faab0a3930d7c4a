"""The fit of clocks: drifts against a linear program, kernels against their twins, bounds that hold."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from melt_stream.analysis.clock_kernels import BLOCK, hull, set_back, slopes, tightest
from melt_stream.analysis.clock_map import Limits
from melt_stream.analysis.clocks import fit, said
from melt_stream.analysis.derive import derive
from melt_stream.clock import Clock, Reading
from melt_stream.internal import GAPS, READINGS
from melt_stream.outlet import Hub
from tests import naive
from tests.made_run import rail

S = 1_000_000_000
MINUTE = np.arange(0, 60 * S, S // 10)


def table(
    count, before=None, after=None, *, resolution=1, rho=15.0, kind="round_trip", same_rate=False, **more
):
    n = len(count)
    columns = {
        "clock_of": ["m.own"] * n, "epoch_of": np.zeros(n, np.int64), "count": np.asarray(count, np.int64),
        "resolution": np.full(n, resolution), "kind": [kind] * n, "tick_ns": np.ones(n), "rho_ppm": np.full(n, rho),
        "same_rate": np.full(n, same_rate), "tick": np.zeros(n, np.int64),
        "not_before": None if before is None else np.asarray(before, np.int64),
        "not_after": None if after is None else np.asarray(after, np.int64),
    } | more  # fmt: skip
    arrays = [
        pa.nulls(n, f.type) if columns.get(f.name) is None else pa.array(columns[f.name], f.type)
        for f in READINGS.schema
    ]
    return pa.Table.from_arrays(arrays, schema=READINGS.schema)


def row(maps, number=0, stop=60 * S):
    return maps.table("r", 0, stop).to_pylist()[number]


def many_points(seed):
    """Some blocks of the hull's first look, noisy, so that few of them are corners."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6 * BLOCK))
    x = np.sort(rng.integers(0, 51, n))
    return list(
        zip(x.tolist(), (rng.integers(0, 80, n) / 8 + rng.integers(-3, 4) * x / 4).tolist(), strict=True)
    )


points = st.lists(st.tuples(st.integers(0, 50), st.integers(-80, 80).map(lambda y: y / 8)), max_size=12).map(
    sorted
)


def xy(values):
    return np.array([v[0] for v in values], float), np.array([v[1] for v in values], float)


@settings(deadline=None)
@given(points | st.integers(0, 2**32).map(many_points))
def test_the_hull_agrees_with_its_twin(values):
    x, y = xy(sorted(values))
    found = hull(x, y)
    for at in np.linspace(-1, 51, 27):
        if len(x) and x[0] <= at <= x[-1]:
            assert np.interp(at, x[found], y[found]) == pytest.approx(naive.below(x, y, at), abs=1e-9)


@settings(deadline=None)
@given(points, points)
def test_slopes_agree_with_their_twin(above, under):
    (ux, upper), (lx, lower) = xy(above), xy(under)
    low, high, i, j = slopes(ux, upper, lx, lower, math.inf, -math.inf, math.inf)
    assert (i, j) == (-1, -1)
    want = naive.slopes(ux, upper, lx, lower)
    if math.isfinite(want[0]) and math.isfinite(want[1]):
        assert (low, high) == pytest.approx(want, abs=1e-9)
    elif want[0] != math.inf and want[1] != -math.inf:
        assert (low, high) == want


@settings(deadline=None)
@given(points, points, st.floats(0, 1))
def test_slopes_stop_at_the_first_limit_that_leaves_nothing(above, under, stray):
    (ux, upper), (lx, lower) = xy(above), xy(under)
    _, _, i, j = slopes(ux, upper, lx, lower, stray, -5.0, 5.0)
    whole = naive.slopes(ux, upper, lx, lower)
    fits = max(whole[0] - stray, -5.0) <= min(whole[1] + stray, 5.0) + 1e-9
    if (i, j) == (-1, -1):
        assert fits
        return
    x = ux[i] if i >= 0 else lx[j]
    seen = naive.slopes(ux[ux < x], upper[ux < x], lx[lx < x], lower[lx < x])
    assert max(seen[0] - stray, -5.0) <= min(seen[1] + stray, 5.0) + 1e-9
    with_it = naive.slopes(ux[ux <= x], upper[ux <= x], lx[lx <= x], lower[lx <= x])
    assert max(with_it[0] - stray, -5.0) > min(with_it[1] + stray, 5.0)


@settings(deadline=None)
@given(points, st.floats(-1, 0), st.floats(0, 1), st.floats(-5, 55))
def test_what_is_left_out_was_needless(values, falls, rises, at):
    x, y = xy(values)
    kept = tightest(x, y, falls, rises)
    assert naive.sloped(x[kept], y[kept], falls, rises, at) == pytest.approx(
        naive.sloped(x, y, falls, rises, at)
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=15))  # fmt: skip
def test_clocks_that_were_set_back_agree_with_their_twin(values):
    tick, width = (np.array([v[k] for v in values], np.int64) for k in (0, 1))
    before = np.array([np.nan if v[4] else 3.0 * k - v[2] for k, v in enumerate(values)])
    after = np.array([3.0 * k + v[3] for k, v in enumerate(values)])
    order = np.argsort(np.where(np.isnan(before), after, before), kind="stable")
    columns = tuple(c[order] for c in (tick, width, before, after))
    assert set_back(*columns).tolist() == naive.set_back(*columns)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(2, 30), st.floats(-300, 300))
def test_without_wander_drift_and_bound_are_those_of_a_linear_program(seed, n, ppm):
    """Of all lines (a + b x) between the limits: the least and most slope, and the ends of what they cover."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.choice(60_000, n, replace=False)) * 1_000_000
    count = np.floor(t / (1 + ppm * 1e-6)).astype(np.int64)
    before, after = (t + sign * rng.exponential(1e6, n).astype(np.int64) for sign in (-1, 1))
    found = row(fit(table(count, before, after, rho=0.0)))
    x, scale = (count - count[0]) / S, 1e6  # s; ms
    a = np.concatenate([np.stack([np.ones(n), x], 1), -np.stack([np.ones(n), x + 1e-9], 1)])
    b = np.concatenate([(after - count) / scale, -(before - count - 1) / scale])

    def program(c):
        result = linprog(
            c,
            a,
            b,
            bounds=[(None, None)] * 2,
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10},
        )
        assert result.status == 0
        return result.fun

    low, high = program([0, 1]) * 1e-3, -program([0, -1]) * 1e-3  # ms a s
    if low < -200e-6 or high > 200e-6:
        return  # where the prior cuts, see below
    assert found["drift_ppm"] - found["drift_bound_ppm"] == pytest.approx(low * 1e6, abs=1e-3)
    assert found["drift_ppm"] * 1e-6 == pytest.approx((low + high) / 2, abs=1e-9)
    assert found["drift_bound_ppm"] * 1e-6 == pytest.approx((high - low) / 2, abs=1e-9)
    placed = fit(table(count, before, after, rho=0.0)).of("m.own", 0)
    for at in np.linspace(-10, 70, 9):
        tick = np.array([round(at * S)], np.int64) + count[0]
        host = placed.to_host(tick)
        lo, hi = (float(v[0]) + host[0] - tick[0] for v in placed.bound(host))
        assert lo == pytest.approx(program([1, at]) * scale, abs=2.0)
        assert hi == pytest.approx(-program([-1, -at]) * scale, abs=2.0)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([1, 1_000_000, 15_625_000, 15_600_000]),
    st.sampled_from(["exponential", "pareto", "lognormal", "none"]), st.floats(-150, 150), st.floats(0, 15), st.booleans(),
)  # fmt: skip
def test_the_truth_lies_within_the_bound(seed, n, resolution, delays, ppm, wander, two_bursts):
    """Asymmetric, heavy-tailed delays; a rate that wanders within rho, as far as it can."""
    rng = np.random.default_rng(seed)
    draw = {
        "exponential": lambda: rng.exponential(1e6, n), "pareto": lambda: rng.pareto(0.7, n) * 1e5,
        "lognormal": lambda: rng.lognormal(11, 3, n), "none": lambda: np.zeros(n),
    }[delays]  # fmt: skip
    t = np.sort(rng.uniform(0, 600, n) * S).astype(np.int64)
    if two_bursts:
        t = np.sort(
            np.where(rng.random(n) < 0.5, rng.uniform(0, 0.1, n), rng.uniform(599, 600, n)) * S
        ).astype(np.int64)
    turns = np.sort(rng.uniform(-60 * S, 660 * S, 6))
    knots = np.concatenate([[-100.0 * S], turns, [700.0 * S]])
    rates = 1 / (1 + ppm * 1e-6) + wander * 1e-6 * rng.choice([-1.0, 1.0], 7)
    device = np.concatenate([[0.0], np.cumsum(np.diff(knots) * rates)]) + rng.integers(-(10**14), 10**14)

    def shown(at):
        return np.interp(at, knots, device)

    count = np.floor(shown(t) / resolution).astype(np.int64) * resolution
    before, after = t - draw().astype(np.int64), t + (draw() * rng.uniform(0, 3)).astype(np.int64)
    maps = fit(table(count, before, after, rho=15.01, resolution=resolution))
    assert maps.steps() == []
    at = np.linspace(-50 * S, 650 * S, 141).astype(np.int64)
    placed = maps.of("m.own", 0)
    host = placed.to_host(np.floor(shown(at)).astype(np.int64))
    low, high = placed.bound(host)
    assert (host + low - 3 <= at).all()
    assert (at <= host + high + 3).all()


@pytest.mark.parametrize("delay", ["exponential", "uniform"])
def test_one_way_drift_is_within_2_ppm_after_a_minute(delay):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ppm = rng.uniform(-150, 150)
        late = rng.exponential(1e6, 600) if delay == "exponential" else rng.uniform(0, 1e6, 600)
        arrival = MINUTE * (1 + ppm * 1e-6) + 400_000 + late
        found = row(fit(table(MINUTE, after=arrival, rho=0.0, kind="arrival")))
        assert abs(found["drift_ppm"] - ppm) < 2, seed
        assert abs(found["drift_ppm"] - ppm) <= found["drift_bound_ppm"], seed
        assert (found["kind"], found["latency_ns"], found["bound_ns"]) == ("one_way", None, None)


@pytest.mark.parametrize("n", [600, 20_000])
@pytest.mark.parametrize("delay", ["pareto", "lognormal", "bursts"])
def test_one_way_drift_covers_heavy_tails(n, delay):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ppm = rng.uniform(-150, 150)
        tick = np.linspace(0, 60 * S, n).astype(np.int64)
        late = {
            "pareto": rng.pareto(0.6, n) * 1e6, "lognormal": rng.lognormal(13, 2, n),
            "bursts": rng.exponential(3e5, n) + 5e7 * (rng.random(n) < 0.3),
        }[delay]  # fmt: skip
        arrival = (tick * (1 + ppm * 1e-6) + late).astype(np.int64)
        found = row(fit(table(tick, after=arrival, rho=0.0, kind="arrival")))
        assert abs(found["drift_ppm"] - ppm) <= found["drift_bound_ppm"], seed
        assert found["drift_bound_ppm"] < 200


def test_few_arrivals_leave_the_prior():
    tick = MINUTE[:20]
    found = row(fit(table(tick, after=tick + 1000, kind="arrival", rho=0.0)))
    assert (found["drift_ppm"], found["drift_bound_ppm"]) == pytest.approx((0, 200))


def exchange(count, rng, t=MINUTE, scale=3e5, **more):
    before, after = (t + sign * rng.exponential(scale, len(t)) for sign in (-1, 1))
    return table(count, before, after, **more)


@pytest.mark.parametrize("jump", [5 * S, 7_000_000, -7_000_000, -3 * S])
def test_a_step_starts_a_segment_and_the_bound_covers_it(jump):
    rng = np.random.default_rng(abs(jump))

    def shown(t):
        return (t / (1 + 60e-6) + np.where(t > 30.05 * S, jump, 0)).astype(np.int64)

    maps = fit(exchange(shown(MINUTE), rng))
    (step,) = maps.steps()
    assert step.tick_before == shown(np.array([30.0 * S]))[0]
    assert step.tick_after == shown(np.array([30.1 * S]))[0]
    assert step.host_before <= 30.05 * S <= step.host_after
    assert step.ahead_ns == pytest.approx(jump, abs=2e6)
    assert f"was set {'ahead' if jump > 0 else 'back'} by" in said(step)
    placed = maps.of("m.own", 0)
    ticks = np.arange(shown(MINUTE).min() - S, shown(MINUTE).max() + S, 1_000_003)
    host = placed.to_host(ticks)
    assert (np.diff(host) > 0).all()
    assert np.abs(placed.to_ticks(host, int(ticks[0])) - (ticks - ticks[0])).max() < 1 + abs(jump) / 2e7
    at = np.arange(-S, 61 * S, 9_999_991)
    host = placed.to_host(shown(at))
    low, high = placed.bound(host)
    assert (host + low - 2 <= at).all()
    assert (at <= host + high + 2).all()
    rows = maps.table("r", 0, 60 * S).to_pylist()
    assert [r["segment"] for r in rows] == [0, 1]
    assert rows[0]["stop_ns"] == rows[1]["start_ns"]
    assert sum(r["readings"] for r in rows) == len(MINUTE)


def test_slow_wander_gets_segments_as_long_as_the_data_allow():
    rng = np.random.default_rng(3)
    t = np.arange(0, 3600 * S, S)
    swing = 40e-6 * 600 * S / (2 * math.pi) * np.sin(2 * math.pi * t / (600 * S))  # +- 40 ppm, declared 15
    maps = fit(exchange((t + swing).astype(np.int64), rng, t, 1e5))
    count = len(maps.steps()) + 1
    assert 12 <= count <= 36  # a range of 80 ppm, 30 at a time, twice in each of 6 periods
    placed = maps.of("m.own", 0)
    host = placed.to_host((t + swing).astype(np.int64))
    assert (np.diff(host) > 0).all()
    low, high = placed.bound(host)
    inside = (host + low - 2 <= t) & (t <= host + high + 2)
    assert inside.mean() > 0.99
    assert np.median(high - low) < 1e6


def test_a_grid_that_was_not_declared_is_found_before_steps_are_invented():
    rng = np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 1300, 14)) * S
    count = np.floor((t + 48e6) / 15_625_000).astype(np.int64) * 15_625_000
    before, after = (t + sign * rng.uniform(5e5, 1e6, 14) for sign in (-1, 1))
    for resolution in (0, 1):
        maps = fit(table(count, before, after, resolution=resolution, rho=0.0))
        assert maps.steps() == []
        assert row(maps)["resolution_ns"] == 15_625_000
        host = maps.to_host("m.own", 0, count)
        low, high = maps.bound("m.own", 0, host)
        assert (host + low - 2 <= count - 48e6 + 15_625_000).all()
        assert (count - 48e6 <= host + high + 2).all()


def test_a_nominal_rate_that_is_far_off_is_no_chain_of_steps():
    rng = np.random.default_rng(6)
    maps = fit(exchange((MINUTE * 0.6).astype(np.int64), rng))
    assert maps.steps() == []
    assert row(maps)["drift_ppm"] == pytest.approx((1 / 0.6 - 1) * 1e6, rel=1e-3)


def test_bounds_add_up_along_a_chain():
    rng = np.random.default_rng(7)
    board = exchange((MINUTE * (1 + 20e-6)).astype(np.int64) + 10**12, rng)
    of_board = MINUTE * (1 + 20e-6) + 10**12
    meter = table((MINUTE * 2).astype(np.int64), of_board - 40_000, of_board + 60_000, clock_of=["b.meter"] * 600,
                  tick_ns=np.full(600, 0.5), against=["m.own"] * 600, against_epoch=np.zeros(600, np.int64))  # fmt: skip
    for readings in (pa.concat_tables([board, meter]), pa.concat_tables([meter, board])):
        maps = fit(readings)
        host = maps.to_host("b.meter", 0, (MINUTE * 2).astype(np.int64))
        low, high = maps.bound("b.meter", 0, host)
        assert (host + low - 2 <= MINUTE).all()
        assert (host + high + 2 >= MINUTE).all()
        widths = [np.subtract(*maps.bound(c, 0, np.array([30 * S]))[::-1])[0] for c in ("m.own", "b.meter")]
        assert widths[1] > widths[0] > 0
        found = {r["clock"]: r for r in maps.table("r", 0, 60 * S).to_pylist()}
        assert [found[c]["against"] for c in ("m.own", "b.meter")] == ["host", "m.own"]
        assert found["b.meter"]["rho_ppm"] == pytest.approx(30)
    alone = fit(meter)
    assert alone.to_host("b.meter", 0, np.zeros(1, np.int64)) is None
    circle = fit(table([1, 2], [1, 2], [3, 4], against=["m.own"] * 2, against_epoch=[0, 0]))
    assert circle.of("m.own").kind == "none"


def test_peaks_are_where_limits_are_furthest_out():
    rng = np.random.default_rng(8)
    at = np.sort(rng.uniform(0, 1e9, 8))
    error = rng.uniform(0, 1e5, 8)
    kept = tightest(at, error, -4e-4, 4e-4)
    limits = Limits(at[kept], error[kept], 1e-4, 3e-4)
    fine = np.linspace(at[kept][0], at[kept][-1], 100_001)
    assert limits.lowest(fine).max() <= limits.lowest(limits.peaks()).max() + 1e-6


def test_many_readings_are_thinned_without_a_change():
    rng = np.random.default_rng(9)
    t = np.sort(rng.integers(0, 600 * S, 30_000))
    before, after = (t + sign * rng.exponential(1e6, len(t)).astype(np.int64) for sign in (-1, 1))
    count = (t * (1 + 70e-6)).astype(np.int64)
    found = row(fit(table(count, before, after, rho=0.0)), stop=600 * S)
    ux, lx = (count - count[0]).astype(float), (count - count[0] + 1).astype(float)
    low, high, _, _ = slopes(ux, after - ux, lx, before - lx, math.inf, -math.inf, math.inf)
    assert found["drift_ppm"] * 1e-6 == pytest.approx((low + high) / 2, abs=1e-12)
    assert found["drift_bound_ppm"] * 1e-6 == pytest.approx((high - low) / 2, abs=1e-12)


def test_a_step_leaves_a_gap_row_for_what_was_measured_on_that_clock():
    count = np.where(MINUTE > 30.05 * S, MINUTE + 2 * S, MINUTE)
    readings = exchange(count, np.random.default_rng(10), scale=1e5)
    power = rail(
        count, np.full(len(count), 5.0), clock="m.own", epoch=np.zeros(len(count), np.int32), period_ns=1e8
    )
    found = derive(
        "r", 0, 60 * S, readings=readings, events=[], gaps=GAPS.schema.empty_table(), rails=[power]
    )
    rows = [g for g in found["gaps"].to_pylist() if "was set" in g["reason"]]
    assert [(g["instance"], g["stream"]) for g in rows] == [("meter", "power")]
    assert rows[0]["start_ns"] <= 30.05 * S <= rows[0]["stop_ns"]
    assert "clock m.own was set ahead by 2000" in rows[0]["reason"]


def test_a_reading_against_another_clock_names_it_as_it_is_stored():
    hub = Hub(now=lambda: 0)
    board = Clock("board")
    hub.outlet("m").clock_reading(Reading(Clock("chip"), 5, not_after=7, against=board, against_epoch=2))
    hub.outlet("m").clock_reading(Reading(board, 5, not_after=7))
    rows = [row for batch in hub.take() for row in batch.data.to_pylist()]
    assert [(r["clock_of"], r["against"], r["against_epoch"]) for r in rows] == [
        ("m.chip", "m.board", 2), ("m.board", None, None),
    ]  # fmt: skip
