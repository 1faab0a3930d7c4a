"""Uncertainties against simulation: what is stated is the spread that comes out."""

import math

import numpy as np
import pytest

from melt_stream.analysis.uncertainty import clock_u, joules_u_of
from tests.made_run import MS, START, Made, S, constant, pick, rail

GAIN, OFFSET, NOISE, SHIFT = 0.01, 0.08, 0.6, MS  # relative, W, W, ns either way
TOKENS = 64
ENDS = [1500 + 30.0 * k for k in range(TOKENS)]
T = np.arange(0, 4_500, 1) * MS


def power(t):
    """Prefill at 9 W, then tokens whose power swings with twice their period: clock errors do not cancel."""
    decode = 6 + 2 * np.cos(2 * np.pi * (t - 1500 * MS) / (60 * MS))
    smooth = 1 / (1 + np.exp(-(t - 1000 * MS) / (8 * MS)))
    return np.where(t < 1500 * MS, 2 + 6 * smooth, np.where(t < (ENDS[-1] + 30) * MS, decode, 3.0))


def simulated_run():
    """A meter on its own clock, known to 1 ms; gain, zero and noise as declared."""
    made = Made(4.5)
    made.read(
        "meter.own",
        0,
        START - SHIFT,
        START + SHIFT,
        kind="round_trip",
        resolution=0,
        rho_ppm=0.0,
        same_rate=True,
    )
    facts = {
        "gain": GAIN,
        "offset": OFFSET,
        "noise": NOISE,
        "clock": "meter.own",
        "epoch": np.zeros(len(T), np.int32),
    }
    made.rails = [rail(T, power(T), **facts)]
    made.ask(1, 1000, ENDS, ENDS[-1] + 10)
    return made.derive()


def spreads(rows, runs=4000, seed=1):
    """Standard deviation over simulated measurements of the sum of these rows' joules."""
    rng = np.random.default_rng(seed)
    edges = np.array([(r["start_ns"], r["stop_ns"]) for r in rows], float)
    true, sums = power(T), []
    for _ in range(runs):
        seen = true * (1 + rng.normal(0, GAIN)) + rng.normal(0, OFFSET) + rng.normal(0, NOISE, len(T))
        energy = np.concatenate([[0], np.cumsum((seen[1:] + seen[:-1]) / 2 * np.diff(T) * 1e-9)])
        shift = rng.uniform(-SHIFT, SHIFT)
        sums.append(
            np.sum(np.interp(edges[:, 1] + shift, T, energy) - np.interp(edges[:, 0] + shift, T, energy))
        )
    return float(np.std(sums))


@pytest.fixture(scope="module")
def derived():
    return simulated_run()


CHOICES = {
    "all tokens": lambda d: pick(d, "tokens")[1:],
    "every second token": lambda d: pick(d, "tokens")[1::2],
    "a token": lambda d: pick(d, "tokens")[7:8],
    "the prefill": lambda d: pick(d, "phases", phase="prefill"),
    "the decode": lambda d: pick(d, "phases", phase="decode"),
    "the request": lambda d: pick(d, "requests"),
    "prefill and idle": lambda d: [r for r in pick(d, "phases") if r["phase"] in ("prefill", "idle")],
}


@pytest.mark.parametrize("what", CHOICES)
def test_the_stated_uncertainty_is_the_simulated_spread(derived, what):
    rows = CHOICES[what](derived)
    u = joules_u_of(rows, derived["factors"])
    assert u == pytest.approx(spreads(rows), rel=0.05)


def test_neither_summing_u_nor_root_sum_square_would_do(derived):
    rows = CHOICES["every second token"](derived)
    spread = spreads(rows)
    alone = [r["joules_u"] for r in rows]
    assert math.sqrt(sum(u * u for u in alone)) < 0.5 * spread
    assert sum(alone) > 1.2 * spread


def test_a_row_s_own_u_is_the_rule_for_one_row(derived):
    made = Made(
        5.0,
        rails=[
            rail(T, power(T), gain=0.01, offset=0.1, noise=0.2, resolution=0.05),
            constant(3.0, 5.0, name="b"),
        ],
    )
    made.phase("baseline", 0, 500)
    made.ask(1, 1000, ENDS, 4000, slot=1005.0, delay=7.0)
    for tables in (derived, made.derive()):
        for name in ("phases", "phase_rails", "tokens", "requests"):
            for row in pick(tables, name):
                wanted = joules_u_of([row], tables["factors"])
                assert (row["joules_u"] is None) == (wanted is None)
                if wanted is not None:
                    assert row["joules_u"] == pytest.approx(wanted, rel=1e-12)


def test_bounds_hold_for_every_shift_and_are_reached(derived):
    energy = np.concatenate([[0], np.cumsum((power(T)[1:] + power(T)[:-1]) / 2 * np.diff(T) * 1e-9)])
    shifts = np.linspace(-SHIFT, SHIFT, 2001)
    for row in [*pick(derived, "tokens")[1:9], *pick(derived, "phases", phase="prefill")]:
        moved = np.interp(row["stop_ns"] + shifts, T, energy) - np.interp(row["start_ns"] + shifts, T, energy)
        assert row["joules_lo"] <= moved.min() + 2e-5
        assert row["joules_hi"] >= moved.max() - 2e-5
        assert row["joules_hi"] - row["joules_lo"] == pytest.approx(moved.max() - moved.min(), abs=1e-4)
        slope = (moved[-1] - moved[0]) / (2 * SHIFT * 1e-9)
        assert row["joules_per_clock"] == pytest.approx(slope, abs=0.1)


def test_clock_terms_telescope(derived):
    tokens, decode = pick(derived, "tokens")[1:], pick(derived, "phases", phase="decode")[0]
    assert sum(t["joules_per_clock"] for t in tokens) == pytest.approx(decode["joules_per_clock"], abs=1e-9)
    assert abs(decode["joules_per_clock"]) < 5 < max(abs(t["joules_per_clock"]) for t in tokens) + 2


def test_times_on_the_rail_s_own_clock_need_no_map():
    made = Made(4.5)
    made.read(
        "llama.server",
        0,
        START - 50 * MS,
        START + 50 * MS,
        1,
        kind="round_trip",
        tick_ns=1000.0,
        rho_ppm=0.0,
        same_rate=True,
    )
    epoch = np.ones(len(T), np.int32)
    made.rails = [rail(T // 1000, power(T), clock="llama.server", tick_ns=1000.0, epoch=epoch)]
    for kind, ms in (("window_start", 1200), ("window_end", 1400)):
        made.server.append({"tick": ms * 1000, "epoch": 1, "kind": kind, "request": 1})
    row = made.rows("phases", phase="window")[0]
    assert (row["joules_lo"], row["joules_hi"]) == (row["joules"], row["joules"])
    assert row["joules_per_clock"] == 0
    assert row["joules"] == pytest.approx(8 * 0.2, rel=1e-6)


def test_a_slot_that_may_have_started_earlier_moves_energy_from_queue_to_prefill():
    made = Made(4.5, rails=[constant(5.0, 4.5)])
    made.ask(1, 1000, ENDS, 4000, slot=1000.0, delay=20.0)
    rows = {r["phase"]: r for r in made.rows("phases", request=1)}
    assert rows["queue"]["joules"] == pytest.approx(0.1)
    assert rows["queue"]["joules_lo"] == pytest.approx(0.0, abs=1e-9)
    assert rows["queue"]["joules_per_clock"] == pytest.approx(5.0)
    assert rows["prefill"]["joules_lo"] == pytest.approx(rows["prefill"]["joules_hi"])


def test_a_clock_without_a_bound_leaves_bounds_and_its_factor_unknown():
    made = Made(4.5)
    made.read("meter.own", 0, None, START, rho_ppm=0.0, same_rate=True)
    made.rails = [rail(T, power(T), clock="meter.own", epoch=np.zeros(len(T), np.int32), gain=0.01)]
    made.phase("x", 1000, 2000)
    derived = made.derive()
    row = pick(derived, "phases", name="x")[0]
    assert (row["joules_lo"], row["joules_hi"]) == (None, None)
    assert row["joules"] is not None
    told = pick(derived, "factors", kind="clock")[0]
    assert (told["u"], told["source"], told["unit"]) == (None, "unknown", "s")


def test_accuracy_that_nobody_states_is_not_invented():
    made = Made(4.5, rails=[rail(T, power(T))])
    made.phase("x", 1000, 2000)
    told = {f["kind"]: f for f in made.rows("factors") if not f["factor"].startswith("sampling")}
    assert {(f["u"], f["source"]) for f in told.values()} == {(None, "unknown")}
    assert set(told) == {"gain", "offset"}


def beaten(rng, jittered, phase):
    """Energy of a decode of 31.7 ms tokens, each 12 ms at 9 W and the rest at 3 W, sampled at 100 Hz."""
    slots = np.arange(0, 2_600, 10) * float(MS)
    at = np.sort(slots + (rng.uniform(0, 10 * MS, len(slots)) if jittered else phase * 10 * MS)).astype(
        np.int64
    )
    seen = np.where((at % (31.7 * MS)) < 12 * MS, 9.0, 3.0)
    made = Made(2.6, rails=[rail(at, seen, gain=0.0, offset=0.0, period_ns=1e7)])
    made.phase("x", 100, 2500)
    return pick(made.derive(), "phases", name="x")[0]


def test_sampling_at_random_moments_averages_out_and_says_by_how_much():
    rng = np.random.default_rng(5)
    rows = [beaten(rng, True, 0) for _ in range(150)]
    spread = float(np.std([r["joules"] for r in rows]))
    stated = float(np.mean([r["joules_u"] for r in rows]))
    assert spread < stated < 2 * spread


def test_a_regular_grid_may_beat_so_its_scatter_never_averages_out():
    rng = np.random.default_rng(5)
    rows = [beaten(rng, False, p) for p in (0.0, 0.3, 0.6, 0.9)]
    assert min(r["joules_u"] for r in rows) > 0.3 * 2.4  # watts of scatter x seconds, not divided by a root
    assert max(r["joules_var"] for r in rows) == 0


def test_noise_of_every_kind():
    at = np.arange(0, 101) * 10 * MS
    made = Made(1.0)
    for kind, values, noise, wanted in (
        ("mean", np.full(101, 2.0), 0.5, 50 * (0.5 * 0.01) ** 2),
        ("delta", np.full(101, 0.02), 0.003, 50 * 0.003**2),
        ("counter", np.arange(101.0), None, 0.1**2 / 6),
    ):
        column = "watts" if kind == "mean" else "energy"
        made.rails = [
            rail(
                at,
                values,
                kind,
                column,
                "W" if kind == "mean" else "J",
                noise=noise,
                resolution=0.1 if kind == "counter" else None,
            )
        ]
        made.host = []
        made.phase("x", 250, 750, engine=False)
        assert made.rows("phases", name="x")[0]["joules_var"] == pytest.approx(wanted)


def test_a_uniform_shift():
    both = np.array([-6.0]) * S, np.array([6.0]) * S
    assert clock_u(*both) == pytest.approx(6 / math.sqrt(3))
    assert clock_u(np.array([-6.0]) * S, np.zeros(1)) == pytest.approx(6 / math.sqrt(3))
    assert clock_u(np.array([-math.inf]), np.zeros(1)) is None


def test_no_rows_no_uncertainty():
    assert joules_u_of([], Made(1.0).derive()["factors"]) is None
    assert joules_u_of([{"joules": None}], Made(1.0).derive()["factors"]) is None
