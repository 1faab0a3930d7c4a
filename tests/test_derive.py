"""The whole way from raw streams to derived tables."""

import math

import numpy as np
import pyarrow as pa
import pytest

from melt_stream.analysis.derive import derive
from melt_stream.analysis.schemas import SCHEMAS, build
from melt_stream.analysis.uncertainty import joules_u_of
from melt_stream.internal import GAPS, READINGS
from melt_stream.sink import Source
from melt_stream.stream import Stream
from tests.made_run import MS, START, Made, S, constant, pick, rail


def test_a_run_with_nothing_in_it_has_all_tables_empty_and_typed():
    derived = derive(
        "r", 0, 0, readings=READINGS.schema.empty_table(), events=[], gaps=GAPS.schema.empty_table(), rails=[], oracles=[],
        account={},
    )  # fmt: skip
    assert {name: table.schema for name, table in derived.items()} == SCHEMAS
    assert {len(table) for table in derived.values()} == {0}


def test_tables_have_the_columns_that_are_promised():
    made = Made(1.0, rails=[constant(2.0, 1.0)])
    made.ask(1, 100, [300, 400], 450, slot=110)
    made.gap(500, 600)
    for name, table in made.derive().items():
        assert table.schema == SCHEMAS[name]
        assert all(f.metadata[b"doc"] for f in table.schema)
        assert set(table["run"].to_pylist()) <= {"r1"}


def test_a_column_that_no_schema_has_is_refused():
    with pytest.raises(KeyError, match="watts"):
        build("gaps", {"watts": []}, 0)


def test_a_rail_without_a_sample_covers_nothing():
    made = Made(1.0, rails=[rail([], [])])
    made.phase("x", 0, 1000)
    row = made.rows("phases")[0]
    assert (row["joules"], row["quality"], row["rail"]) == (None, "missing", "main")


def test_gaps_as_declared_and_as_seen():
    at = np.concatenate([np.arange(0, 300, 10), np.arange(500, 1001, 10)]) * MS
    made = Made(1.0, rails=[rail(at, np.ones(len(at)))])
    rows = made.rows("gaps")
    assert [(r["instance"], r["stream"], r["start_ns"], r["stop_ns"], r["lost_rows"]) for r in rows] == [
        ("meter", "power/main", 290 * MS, 500 * MS, None)
    ]
    assert rows[0]["reason"] == "silent: 21.0 periods without a sample"
    made.gap(290, 500)
    assert [r["reason"] for r in made.rows("gaps")] == ["unreadable"]


def test_oracles_get_what_we_attribute():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.event("window_start", 200, request=4, name="window 1")
    made.event("window_end", 600, request=4, name="window 1")
    stream = Stream(
        "oracles", role="oracles", request=int, quantity=str, unit=str, reported=float, recomputed=float
    )
    rows = [
        {"tick": 0, "request": 4, "quantity": "joules", "unit": "J", "reported": 2.1, "recomputed": 2.1},
        {"tick": 0, "request": 4, "quantity": "mean_w", "unit": "W", "reported": None, "recomputed": 5.1},
        {"tick": 0, "request": 4, "quantity": "inferences", "unit": "1", "reported": 7.0, "recomputed": 7.0},
    ]
    made.oracles = [pa.Table.from_pylist(rows, Source("energyrunner", stream).schema)]
    found = made.rows("oracles")
    assert [(r["quantity"], r["reported"], r["ours"]) for r in found] == [
        ("joules", 2.1, pytest.approx(2.0)), ("mean_w", None, pytest.approx(5.0)), ("inferences", 7.0, None),
    ]  # fmt: skip


def test_a_rail_that_starts_again_goes_on_in_a_new_epoch():
    made = Made(2.0)
    tick = np.concatenate([np.arange(0, 901, 10), np.arange(0, 901, 10)]) * MS
    epoch = np.repeat([0, 1], 91).astype(np.int32)
    for e, at in ((0, 0), (1, 1000)):
        made.read("meter.own", 0, START + at * MS, START + at * MS, e, kind="exact")
    made.rails = [rail(tick, np.repeat([2.0, 4.0], 91), clock="meter.own", epoch=epoch)]
    made.phase("x", 0, 2000)
    row = made.rows("phases")[0]
    assert (row["joules"], row["coverage"]) == (pytest.approx(1.8 + 3.6), pytest.approx(0.9))
    made.readings = made.readings[:1]
    row = made.rows("phases")[
        0
    ]  # nothing ties the second epoch to the host: it covers nothing, and is not guessed
    assert (row["joules"], row["coverage"]) == (pytest.approx(1.8), pytest.approx(0.45))


def test_an_epoch_s_clock_answers_for_its_own_time_only():
    """Two bursts of readings, 1000 s apart: far from either, each would know little."""
    made = Made(1010.0)
    at = np.arange(0, 10_000, 100) * MS
    for e, start in ((0, 0), (1, 1000 * S)):
        for k in range(0, 100, 10):
            made.read(
                "meter.own",
                int(at[k]),
                START + start + int(at[k]) - 1000,
                START + start + int(at[k]) + 1000,
                e,
                kind="round_trip",
            )
    made.rails = [
        rail(
            np.tile(at, 2),
            np.tile(2 + at / S, 2),
            clock="meter.own",
            epoch=np.repeat([0, 1], 100).astype(np.int32),
        )
    ]
    made.phase("x", 2000, 3000)
    row = made.rows("phases", phase="other")[0]
    assert row["joules_hi"] - row["joules_lo"] < 1e-4


def drifting(ppm, offset_ms, half_trip_us):
    """The same run, seen by a meter whose clock is fast and off; with round trips at start and end."""
    made = Made(20.0)
    wall = np.arange(0, 20_001, 2) * MS
    power = np.where(wall < 5 * S, 2.0, np.where(wall < 9 * S, 9.0, 6.0 + np.sin(wall / S * 40)))
    tick = np.rint((wall + offset_ms * MS) * (1 + ppm * 1e-6)).astype(np.int64)
    rng = np.random.default_rng(2)
    for at in np.concatenate([np.linspace(0, 0.5, 10), np.linspace(19.5, 20, 10)]):
        host = round(at * S)
        shown = round((host + offset_ms * MS) * (1 + ppm * 1e-6))
        trips = rng.exponential(half_trip_us * 1000, 2)
        made.read(
            "meter.own",
            shown,
            START + host - int(trips[0]),
            START + host + int(trips[1]),
            kind="round_trip",
            rho_ppm=1.0,
        )
    made.rails = [
        rail(tick, power, clock="meter.own", epoch=np.zeros(len(tick), np.int32), gain=0.001, offset=0.0)
    ]
    made.ask(1, 5000, [9000 + 37 * k for k in range(200)], 17_000)
    return made


def test_a_meter_that_is_fast_and_off_gives_the_same_joules_within_what_it_states():
    ideal, real = drifting(0, 0, 0.001).derive(), drifting(150, 37_000, 300).derive()
    clock = pick(real, "clocks", clock="meter.own")[0]
    assert clock["drift_ppm"] == pytest.approx(-150, abs=5)
    assert clock["bound_ns"] < 2 * MS
    for phase in ("prefill", "decode"):
        one, two = (pick(d, "phases", phase=phase)[0] for d in (ideal, real))
        assert abs(one["joules"] - two["joules"]) < 2 * two["joules_u"]
        assert two["joules_u"] < 2 * one["joules_u"] + 0.01
        assert two["joules_lo"] * (1 - 2e-4) <= one["joules"] <= two["joules_hi"] * (1 + 2e-4)
    assert two["coverage"] == pytest.approx(1.0)
    tokens = pick(real, "tokens")
    assert joules_u_of(tokens, real["factors"]) == pytest.approx(two["joules_u"], rel=0.02)


def test_what_several_devices_draw_is_kept_apart():
    made = Made(
        1.0,
        rails=[constant(5.0, 1.0), constant(3.0, 1.0, device_of="phone", sensor_of="fuel.power")],
        device="phone",
    )
    made.ask(1, 100, [300, 400], 450)
    derived = made.derive()
    assert pick(derived, "requests")[0]["joules"] == pytest.approx(0.9)
    assert {r["device"] for r in pick(derived, "tokens")} == {"phone"}
    assert sum(r["joules"] for r in pick(derived, "phases", device="host")) == pytest.approx(5.0)
    assert sum(r["joules"] for r in pick(derived, "phases", device="phone")) == pytest.approx(3.0)


def a_shared_task(**phone):
    """A phone's request that an Orin has a part in: 3 W and 5 W at one boundary, phases on the server's clock."""
    made = Made(
        1.0,
        rails=[
            constant(5.0, 1.0, device_of="orin", sensor_of="wall.power", boundary="wall", gain=0.03),
            constant(3.0, 1.0, **{"device_of": "phone", "sensor_of": "plug.power", "boundary": "wall", "gain": 0.02} | phone),
        ],
        device="phone", involves=["orin"],
    )  # fmt: skip
    made.phase("baseline", 0, 90)
    made.ask(1, 100, [300, 350, 400], 450, slot=130)
    made.ask(2, 500, [700, 800], 850)
    return made


def test_a_request_s_phases_are_those_of_every_device_that_it_involves():
    derived = a_shared_task().derive()
    for device, watts in (("phone", 3.0), ("orin", 5.0)):
        (decode,) = pick(derived, "phases", device=device, request=1, phase="decode")
        assert decode["joules"] == pytest.approx(0.1 * watts)
        assert decode["joules_per_token"] == pytest.approx(0.05 * watts)
        assert sum(r["joules"] for r in pick(derived, "phases", device=device)) == pytest.approx(watts)
    assert len(pick(derived, "requests")) == 2
    assert {r["device"] for r in pick(derived, "tokens")} == {"phone"}  # a token is one row
    (decode,) = pick(derived, "together", request=1, phase="decode")
    assert (decode["devices"], decode["boundary"], decode["tokens"]) == (["orin", "phone"], "wall", 2)
    assert decode["joules"] == pytest.approx(0.8)
    assert decode["net_joules"] == pytest.approx(0.0, abs=1e-9)
    assert (decode["mean_w"], decode["joules_per_token"]) == (pytest.approx(8.0), pytest.approx(0.4))


def test_together_gains_are_apart_and_an_edge_that_both_were_cut_at_moves_for_both():
    derived = a_shared_task().derive()
    (decode,) = pick(
        derived, "together", request=2, phase="decode"
    )  # on the host's clock: nothing but the gains
    assert decode["joules_u"] == pytest.approx(0.1 * math.hypot(0.03 * 5, 0.02 * 3))
    parts = pick(derived, "phases", request=1, phase="decode")
    assert pick(derived, "together", request=1, phase="decode")[0]["joules_u"] == pytest.approx(
        joules_u_of(parts, derived["factors"])
    )
    (prefill,) = pick(derived, "together", request=1, phase="prefill")
    parts = pick(derived, "phases", request=1, phase="prefill")
    names = {f["factor"] for f in pick(derived, "factors", kind="clock", request=1)}
    assert len(names) == 1  # the server's clock: one random quantity for both devices
    (u,) = {f["u"] for f in pick(derived, "factors", kind="clock", request=1)}
    gains = math.hypot(*(f * p["joules"] for f, p in zip((0.03, 0.02), parts, strict=True)))
    edges = u * sum(p["joules_per_clock"] for p in parts)
    assert prefill["joules_u"] == pytest.approx(math.hypot(gains, edges))


def test_joules_at_two_boundaries_or_of_a_device_that_nothing_measured_are_not_added():
    (decode,) = pick(a_shared_task(boundary="battery").derive(), "together", request=1, phase="decode")
    assert (decode["boundary"], decode["joules"], decode["joules_u"], decode["joules_per_token"]) == (
        None,
    ) * 4
    made = a_shared_task()
    made.involves = ["orin", "tablet"]
    derived = made.derive()
    (decode,) = pick(derived, "together", request=1, phase="decode")
    assert (decode["devices"], decode["joules"], decode["quality"]) == (
        ["orin", "phone", "tablet"],
        None,
        "missing",
    )
    assert [r["joules"] for r in pick(derived, "phases", device="tablet", phase="decode")] == [None, None]


def test_a_request_that_involves_one_device_has_no_row_of_several():
    made = a_shared_task()
    made.involves = []
    derived = made.derive()
    assert pick(derived, "together") == []
    assert pick(derived, "phases", device="orin", request=1) == []


def test_a_request_is_the_sum_of_its_phases():
    made = Made(1.0, rails=[constant(5.0, 1.0, gain=0.02)])
    made.phase("baseline", 0, 90)
    made.ask(1, 100, [300, 400], 450, slot=130, delay=0.0)
    made.ask(2, 200, [350, 450], 450)
    derived = made.derive()
    for request in pick(derived, "requests"):
        parts = pick(derived, "phases", request=request["request"])
        for name in ("joules", "net_joules", "seconds", "joules_per_clock", "joules_var"):
            assert request[name] == pytest.approx(sum(p[name] for p in parts))
        assert request["window_joules"] == pytest.approx(5e-9 * (request["stop_ns"] - request["start_ns"]))
        assert "shared" in request["flags"]


def test_factors_of_another_run_stay_its_own():
    made = Made(1.0, rails=[constant(5.0, 1.0, gain=0.02)])
    made.phase("baseline", 0, 500)
    derived = made.derive()
    assert {f["run"] for f in pick(derived, "factors")} == {"r1"}
    assert [f["factor"] for f in pick(derived, "factors", kind="offset", applies="net_joules")] == [
        "baseline meter.power/main in r1"
    ]
    row = pick(derived, "phases")[0]
    assert joules_u_of([row, row | {"run": "r2"}], derived["factors"]) == pytest.approx(row["joules_u"])


def test_a_request_with_an_unmeasured_part_is_partial_not_missing():
    at = np.arange(150, 1001) * MS
    made = Made(1.0, rails=[rail(at, np.full(len(at), 5.0))])
    made.ask(1, 100, [300, 400], 450, slot=140, delay=0.0)
    derived = made.derive()
    assert [r["quality"] for r in pick(derived, "phases", request=1)] == ["missing", "partial", "measured"]
    row = pick(derived, "requests")[0]
    assert (row["quality"], row["joules"]) == ("partial", pytest.approx(1.25))
