"""Joules of rows: exact by kind, conserved, honest about what was not measured."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.account import Candidate, choose
from melt_stream.analysis.between import running
from melt_stream.analysis.integrate import pieces
from melt_stream.errors import ConfigError, DataError
from melt_stream.internal import GAPS
from tests import naive
from tests.made_run import MS, START, Made, S, constant, pick, rail

SLOTS = np.arange(11) * 100 * MS


def only(made, *, start=250, stop=550):
    """The energy of one named phase."""
    made.phase("x", start, stop)
    return made.rows("phases", phase="other")[0]


def test_a_gauge_is_the_exact_integral_of_the_line_between_samples():
    row = only(Made(1.0, rails=[rail(SLOTS, np.arange(11.0))]))
    assert row["joules"] == pytest.approx((2.5 + 5.5) / 2 * 0.3, rel=1e-12)
    assert (row["seconds"], row["coverage"], row["quality"]) == (pytest.approx(0.3), 1.0, "measured")


def test_volts_and_amps_are_watts_and_prefixes_are_heeded():
    volts = rail(
        SLOTS, np.full(11, 5000.0), column="volts", unit="mV", more={"amps": (np.full(11, 2.0), "A")}
    )
    assert only(Made(1.0, rails=[volts]))["joules"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("anchor", "joules"),
    [
        ("end", 0.05 * 3 + 0.1 * 4 + 0.1 * 5 + 0.05 * 6),
        ("start", 0.05 * 2 + 0.1 * 3 + 0.1 * 4 + 0.05 * 5),
        ("centre", 0.1 * 3 + 0.1 * 4 + 0.1 * 5),
    ],
)
@pytest.mark.parametrize("window", [None, 100 * MS])
def test_a_mean_holds_over_its_window(anchor, joules, window):
    mean = rail(SLOTS, np.arange(11.0), "mean", anchor=anchor, window_ns=window)
    assert only(Made(1.0, rails=[mean]))["joules"] == pytest.approx(joules)


def test_a_moving_average_counts_no_instant_twice():
    mean = rail(SLOTS, np.full(11, 7.0), "mean", window_ns=S)
    assert only(Made(1.0, rails=[mean]), start=0, stop=400)["joules"] == pytest.approx(2.8)


def test_short_windows_are_bridged_as_a_gauge_s():
    mean = rail(SLOTS, np.arange(11.0), "mean", window_ns=10 * MS, anchor="centre")
    row = only(Made(1.0, rails=[mean]))
    assert (row["joules"], row["coverage"]) == (pytest.approx(1.2, rel=1e-3), 1.0)


@pytest.mark.parametrize(
    ("anchor", "joules"), [("end", 0.5 * 3 + 4 + 5 + 0.5 * 6), ("start", 0.5 * 2 + 3 + 4 + 0.5 * 5)]
)
def test_a_delta_s_energy_is_spread_over_its_window(anchor, joules):
    delta = rail(SLOTS, np.arange(11.0), "delta", "energy", "J", anchor=anchor)
    row = only(Made(1.0, rails=[delta]))
    assert row["joules"] == pytest.approx(joules)


def test_a_delta_of_charge_needs_a_voltage():
    charge = rail(SLOTS, np.full(11, 0.1), "delta", "charge", "mA.h", nominal_volts=5.0)
    assert only(Made(1.0, rails=[charge]))["joules"] == pytest.approx(0.1 * 3.6 * 5 * 3)
    with pytest.raises(DataError, match="nominal_volts"):
        pieces(rail(SLOTS, np.full(11, 0.1), "delta", "charge", "C"))


def test_deltas_stamped_alike_keep_their_energy():
    at = np.array([0, 100, 100, 200, 300]) * MS
    made = Made(0.3, rails=[rail(at, np.ones(5), "delta", "energy", "J")])
    assert only(made, start=0, stop=300)["joules"] == pytest.approx(4.0)


def test_a_counter_is_linear_between_changes_in_its_own_integers():
    big = 2**60  # a float64 would round it to 256
    counter = rail(SLOTS, big + np.arange(11) * 1_000_000, "counter", "energy", "uJ")
    assert only(Made(1.0, rails=[counter]))["joules"] == pytest.approx(3.0, rel=1e-12)


def test_a_counter_that_changes_seldom_is_stamped_by_the_first_sample_that_changed():
    values = np.array([5, 5, 5, 8, 8, 8, 14, 14, 14, 20, 20])
    made = Made(1.0, rails=[rail(SLOTS, values, "counter", "energy", "J")])
    assert only(made, start=300, stop=600)["joules"] == pytest.approx(6.0)
    row = only(Made(1.0, rails=made.rails), start=0, stop=300)
    # what came before the first change began before anybody looked
    assert (row["joules"], row["quality"], row["coverage"]) == (None, "missing", 0.0)
    row = only(Made(1.0, rails=made.rails), start=400, stop=500)
    assert (row["joules"], row["quality"]) == (pytest.approx(2.0), "interpolated")


def test_a_counter_wraps_and_is_reset():
    values = np.array([90, 92, 94, 96, 98, 0, 2, 4, 6, 8, 10])
    wraps = rail(SLOTS, values, "counter", "energy", "J", modulus=100.0)
    assert only(Made(1.0, rails=[wraps]))["joules"] == pytest.approx(6.0)
    reset = rail(
        SLOTS, np.array([50, 52, 54, 56, 58, 0, 2, 4, 6, 8, 10]), "counter", "energy", "J", modulus=100.0
    )
    row = only(Made(1.0, rails=[reset]))
    assert (row["joules"], row["coverage"], row["quality"]) == (
        pytest.approx(4.0),
        pytest.approx(2 / 3),
        "partial",
    )
    assert row["mean_w"] is None


def test_a_counter_that_counts_down_measures_what_was_drawn():
    down = rail(
        SLOTS, 100 - np.arange(11.0), "counter", "charge", "C", more={"volts": (np.full(11, 4.0), "V")}
    )
    assert only(Made(1.0, rails=[down]))["joules"] == pytest.approx(12.0)


def test_a_kind_that_nobody_knows_is_damage():
    with pytest.raises(DataError, match="expected a kind of gauge"):
        pieces(rail(SLOTS, np.ones(11), "novel"))
    with pytest.raises(DataError, match="watts, or volts and amps"):
        pieces(rail(SLOTS, np.ones(11), column="energy"))


KINDS = ("gauge", "mean", "delta", "counter")
GOES_ON = {("mean", "silent"), ("counter", "silent"), ("counter", "null")}
"""A counter, and a mean since the last sample, tell the energy of a late step in full (decision 0008)."""


@pytest.mark.parametrize(
    ("kind", "hole"),
    [(k, h) for k in KINDS for h in ("silent", "declared", "null") if (k, h) not in GOES_ON],
)
def test_gaps_are_never_bridged(kind, hole):
    at = np.arange(0, 1001, 10) * MS
    values = np.arange(101.0) * 0.02 if kind == "counter" else np.full(101, 0.02 if kind == "delta" else 2.0)
    keep = np.ones(101, bool)
    if hole == "silent":
        keep[31:70] = False
    elif hole == "null":
        values[31:70] = math.nan
    column = "energy" if kind in ("delta", "counter") else "watts"
    made = Made(1.0, rails=[rail(at[keep], values[keep], kind, column, "J" if column == "energy" else "W")])
    if hole == "declared":
        made.gap(301, 699)
    row = only(made, start=0, stop=1000)
    # of the hole of 0.4 s a window that ends after it may be known
    assert row["coverage"] == pytest.approx(0.6, abs=0.011)
    assert row["joules"] == pytest.approx(2.0 * row["seconds"])
    assert (row["quality"], row["mean_w"], row["joules_per_token"]) == ("partial", None, None)
    gaps = made.rows("gaps")
    assert len(gaps) == (hole != "null")
    inside = only(Made(1.0, rails=made.rails, gaps=made.gaps), start=400, stop=500)
    assert (inside["joules"], inside["quality"], inside["seconds"]) == (None, "missing", 0.0)


@pytest.mark.parametrize(("kind", "hole"), sorted(GOES_ON))
def test_what_goes_on_unseen_is_measured_by_the_late_reading(kind, hole):
    """2 W until 300 ms, 5 W in 400 ms that nobody looked at, then 2 W: 3.2 J, and only their split is uncertain."""
    at = np.arange(0, 1001, 10) * MS
    power = np.where((at > 300 * MS) & (at <= 700 * MS), 5.0, 2.0)
    unseen = (at > 300 * MS) & (at < 700 * MS)
    values = np.cumsum(power * 0.01) if kind == "counter" else power
    column, unit = ("energy", "J") if kind == "counter" else ("watts", "W")
    if hole == "null":
        values[unseen] = math.nan
        unseen[:] = False
    made = rail(at[~unseen], values[~unseen], kind, column, unit)
    row = only(Made(1.0, rails=[made]), start=0, stop=1000)
    assert (row["joules"], row["coverage"]) == (pytest.approx(3.2, abs=0.021), pytest.approx(1.0, abs=0.011))
    assert Made(1.0, rails=[made]).rows("gaps") == []
    whole = only(Made(1.0, rails=[made]), start=200, stop=800)
    cut = only(Made(1.0, rails=[made]), start=200, stop=400)
    assert cut["joules"] == pytest.approx(0.7, abs=0.021)
    # at a quarter of 0.4 s with a step of 3 W to either side: 3/16 x 0.4 s x 3 W / sqrt 3
    assert cut["joules_var"] - whole["joules_var"] == pytest.approx((3 / 16 * 0.4 * 3) ** 2 / 3, rel=1e-6)


def test_small_holes_widen_the_uncertainty():
    at = np.delete(np.arange(0, 1001), np.arange(300, 306)) * MS
    rows = [
        only(Made(1.0, rails=[rail(at, np.where(at < 500 * MS, 2.0, p), noise=0.01)]), start=0, stop=1000)
        for p in (2.0, 8.0)
    ]
    assert [r["quality"] for r in rows] == ["measured"] * 2
    assert rows[0]["coverage"] == pytest.approx(0.993)
    assert rows[0]["mean_w"] == pytest.approx(2.0)
    assert rows[1]["joules_var"] - rows[0]["joules_var"] == pytest.approx(
        (0.007 * 6 / 12**0.5) ** 2, rel=0.05
    )


def test_equal_stamps_are_legal():
    at = np.array([0, 100, 100, 200]) * MS
    made = Made(0.2, rails=[rail(at, np.array([1.0, 1.0, 3.0, 3.0]))])
    assert only(made, start=0, stop=200)["joules"] == pytest.approx(0.4)


def test_no_rail_is_missing_never_zero():
    made = Made(1.0)
    made.ask(1, 100, [300, 400], 450)
    derived = made.derive()
    for table in ("phases", "tokens", "requests"):
        for row in pick(derived, table):
            if row.get("index") != 0:
                assert (row["joules"], row["joules_u"], row["quality"], row["sensor"]) == (
                    None,
                    None,
                    "missing",
                    None,
                )


def test_flags():
    at = np.arange(0, 10_001, 10) * MS
    power = 2 + 0.1 * np.sin(np.arange(1001))
    power[100:110] = 9.0
    power[500:800] = 4.0
    made = Made(10.0, rails=[rail(at, power, full_scale=9.0, gain=0.01)])
    for name, start, stop in (("a", 0, 500), ("b", 900, 1200), ("c", 6000, 7000)):
        made.phase(name, start, stop)
    flags = {r["name"]: r["flags"] for r in made.rows("phases", phase="other")}
    assert flags == {"a": [], "b": ["saturated"], "c": ["stale"]}
    made.rails[0].facts["gain"] = None
    assert made.rows("phases", name="a")[0]["flags"] == ["unstated"]


def test_rows_between_samples_are_interpolated():
    row = only(Made(1.0, rails=[rail(SLOTS, np.arange(11.0))]), start=310, stop=390)
    assert (row["quality"], row["joules"]) == ("interpolated", pytest.approx(3.5 * 0.08))


def test_a_model_s_joules_are_estimated_everywhere():
    made = Made(1.0, rails=[constant(5.0, 1.0, estimated=True, instrument="model")])
    made.ask(1, 100, [300, 400], 450)
    derived = made.derive()
    for table in ("phases", "phase_rails", "tokens", "requests"):
        rows = [r for r in pick(derived, table) if r.get("index") != 0]
        assert {(r["estimated"], r["quality"]) for r in rows} == {(True, "estimated")}
    assert [(f["kind"], f["u"]) for f in pick(derived, "factors")] == [("model", 0.5)]
    row = pick(derived, "phases", phase="decode")[0]
    assert row["joules_u"] == pytest.approx(0.5 * row["joules"])


def test_net_takes_off_the_idle_power_measured_before_and_after():
    t = np.arange(0, 10_001, 10) * MS
    power = np.where(t < 1500 * MS, 2.0, np.where(t < 8500 * MS, 6.0, 3.0))
    made = Made(10.0, rails=[rail(t, power)])
    made.phase("baseline", 0, 1000)
    made.phase("baseline", 9000, 10_000)
    made.ask(1, 2000, [4000, 5000, 6000], 6100)
    derived = made.derive()
    row = pick(derived, "phases", phase="decode")[0]
    assert row["net_joules"] == pytest.approx(12.0 - 2.5 * 2)
    assert pick(derived, "phases", phase="baseline")[0]["net_joules"] == pytest.approx(2 - 2.5)
    factor = pick(derived, "factors", applies="net_joules")[0]
    assert (factor["kind"], factor["unit"], factor["u"]) == ("offset", "W", pytest.approx(1 / 12**0.5))


def test_one_total_a_device_and_the_others_are_cross_checks():
    rails = [
        constant(6.0, 1.0, sensor_of="wall.power", instrument="meter", boundary="wall"),
        constant(3.0, 1.0, sensor_of="cpu.power", estimated=True, instrument="model"),
        constant(4.0, 1.0, sensor_of="nvml.power"),
    ]
    made = Made(1.0, rails=rails)
    made.phase("x", 0, 1000)
    derived = made.derive()
    assert [(r["sensor"], r["boundary"]) for r in pick(derived, "phases")] == [("wall.power", "wall")]
    assert [(r["sensor"], r["account"]) for r in pick(derived, "phase_rails")] == [
        ("wall.power", True), ("cpu.power", False), ("nvml.power", False),
    ]  # fmt: skip
    made.account = {"host": "nvml.power/main"}
    assert made.rows("phases")[0]["joules"] == pytest.approx(4.0)
    made.account = {"host": "typo"}
    with pytest.raises(ConfigError, match=r"nvml\.power/main"):
        made.derive()


def rails_by(**changes):
    return Candidate(**{"sensor": "a.x", "rail": "r", "boundary": "rail", "kind": "gauge", "instrument": "gauge",
                        "estimated": False, "coverage": 1.0} | changes)  # fmt: skip


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"instrument": "meter"}, {"kind": "counter"}),
        ({"kind": "counter"}, {"kind": "mean", "boundary": "wall"}),
        ({"kind": "mean"}, {"kind": "gauge"}),
        ({"kind": "gauge"}, {"estimated": True, "kind": "counter"}),
        ({"boundary": "board"}, {"boundary": "package"}),
        ({"coverage": 0.9}, {"coverage": 0.5}),
        ({"sensor": "a.x"}, {"sensor": "b.x"}),
        ({"estimated": True}, {"instrument": "meter", "coverage": 0.0}),
    ],
)
def test_the_account_s_order(better, worse):
    good, bad = rails_by(**better), rails_by(**worse)
    assert choose("host", [bad, good], {}) is good
    assert choose("host", [], {}) is None


samples = st.lists(
    st.tuples(st.integers(0, 400), st.floats(-1e3, 1e6) | st.just(math.nan)), min_size=2, max_size=40
)


@settings(deadline=None, max_examples=100)
@given(
    samples, st.sampled_from(["gauge", "mean", "delta", "counter"]),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 3000), st.integers(0, 2000), st.integers(1, 6)), max_size=5),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 2000)), max_size=3),
)  # fmt: skip
def test_energy_is_conserved_for_any_samples_and_edges(told, kind, asked, named):
    at = np.cumsum([step for step, _ in told]) * MS
    values = np.array([value for _, value in told])
    column, unit = ("energy", "J") if kind in ("delta", "counter") else ("watts", "W")
    made = Made(
        10.0, rails=[rail(at, np.cumsum(values) if kind == "counter" else values, kind, column, unit)]
    )
    for number, (sent, prefill, step, n) in enumerate(asked, 1):
        made.ask(number, sent, [sent + prefill + k * step for k in range(n)], sent + prefill + n * step)
    for start, length in named:
        made.phase("x", start, start + length)
    derived = made.derive()
    rows = pick(derived, "phases")
    whole = [
        naive.sweep(
            p.left, p.right, p.p0, p.p1, p.limit, [], p.base, [START - p.tick0, START + 10 * S - p.tick0]
        )[0]
        for p in pieces(made.rails[0])
    ]
    scale = math.fsum(abs(r["joules"] or 0.0) for r in rows)
    if rows:
        assert math.fsum(r["joules"] or 0.0 for r in rows) == pytest.approx(
            math.fsum(w[0] for w in whole) * 1e-9, abs=1e-9 * scale + 1e-300
        )
        assert math.fsum(r["seconds"] for r in rows) == pytest.approx(
            math.fsum(w[1] for w in whole) * 1e-9, abs=1e-9
        )
    for row in pick(derived, "phases", phase="decode"):
        tokens = pick(derived, "tokens", request=row["request"])
        total, size = (
            math.fsum(t["joules"] or 0.0 for t in tokens),
            math.fsum(abs(t["joules"] or 0.0) for t in tokens),
        )
        assert total == pytest.approx(row["joules"] or 0.0, abs=1e-9 * size + 1e-300)


def test_running_energy_agrees_with_rows_at_its_samples():
    rng = np.random.default_rng(3)
    at = np.sort(rng.integers(0, 10_000, 500)) * MS
    made = rail(at, rng.normal(5, 2, 500), period_ns=1e9)
    joules, covered = running(made, None)
    wanted = [math.fsum((a + b) / 2 * dt for a, b, dt in zip(made.values["watts"][:k], made.values["watts"][1 : k + 1],
              np.diff(at[: k + 1]) * 1e-9, strict=False)) for k in (0, 1, 250, 499)]  # fmt: skip
    assert joules[[0, 1, 250, 499]] == pytest.approx(wanted)
    assert covered[-1] == at[-1] - at[0]
    regular = rail(SLOTS, np.arange(11.0))
    assert running(regular, None)[0] == pytest.approx(np.arange(11.0) ** 2 / 20)
    assert running(regular, None)[1].tolist() == (SLOTS).tolist()
    declared = pa.Table.from_pylist(
        [{"tick": 0, "instance_of": "meter", "stream": "power", "clock_of": "host", "epoch_of": 0, "start": START + 210 * MS,
          "stop": START + 280 * MS, "lost_rows": None, "reason": "x"}], GAPS.schema)  # fmt: skip
    assert running(regular, declared)[1].tolist() == [
        0,
        100 * MS,
        *(k * 100 * MS for k in (2, 2, 3, 4, 5, 6, 7, 8, 9)),
    ]
