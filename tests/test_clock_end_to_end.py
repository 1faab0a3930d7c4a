"""Journal, pack, phases: a meter whose clock is 150 ppm fast and 37 ms off says the same joules as one with a perfect clock."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.clock import Clock, Reading
from melt_stream.events import EVENTS
from melt_stream.outlet import Hub
from melt_stream.rail import Rail
from melt_stream.run import Run
from melt_stream.sink import Batch
from melt_stream.stream import Stream
from melt_stream.units import W
from tests.recorded import record

MS, S = 1_000_000, 1_000_000_000
USB = Clock("usb", tick_ns=1000.0)
POWER = Stream("power", clock=USB, period_ns=1e6, watts=W)
FAST, AHEAD_NS = 1 + 150e-6, 37 * MS
SECONDS = 40
GAIN = 0.001
REQUESTS = [4.0, 14.0, 26.0]
"""When each is sent, s: 20 ms of queue, 0.4 s of prefill, 40 tokens of 30 ms."""


def watts(t_s: np.ndarray) -> np.ndarray:
    """2 W idle, 12 W in prefill, 6 W in decode: steps where a clock that is off loses joules."""
    power = np.full(len(t_s), 2.0)
    for sent in REQUESTS:
        power[(t_s >= sent + 0.02) & (t_s < sent + 0.42)] = 12.0
        power[(t_s >= sent + 0.42) & (t_s < sent + 0.42 + 39 * 0.03)] = 6.0
    return power


def shown(host_ns: np.ndarray | float, perfect: bool) -> np.ndarray:
    """The meter's microseconds."""
    ns = np.asarray(host_ns) if perfect else np.asarray(host_ns) * FAST + AHEAD_NS
    return np.floor(ns / USB.tick_ns).astype(np.int64)


def round_trips(count: int, seed: int = 8) -> list[Reading]:
    """Of the meter that is off: requests and replies that took 0.1 ms and often longer, each way."""
    rng = np.random.default_rng(seed)
    # the first and the last moment, and then more and more between them, so that fewer are a part of more
    at = np.concatenate([[0.05, SECONDS - 0.05], rng.uniform(0.05, SECONDS - 0.05, 1000)])[:count] * S
    out, back = (1e5 + rng.exponential(4e5, 1002)[:count] for _ in range(2))
    ticks = shown(at, perfect=False).tolist()
    ends = zip(ticks, np.floor(at - out).tolist(), np.ceil(at + back).tolist(), strict=True)
    return [Reading(USB, tick, 1, int(low), int(high)) for tick, low, high in ends]


def recorded(readings: Sequence[Reading], *, perfect: bool = False) -> list[Batch]:
    """The meter's samples, each at its own clock's whole millisecond, and three requests on the host's clock."""
    hub = Hub(now=lambda: 0)
    meter, app = hub.outlet("meter", "board"), hub.outlet("app", "board")
    meter.rail(POWER, Rail("main", "board", "gauge", gain=GAIN, instrument="meter"))
    first, last = (int(shown(t * S, perfect)) // 1000 for t in (0, SECONDS))
    ticks = np.arange(first, last + 1) * 1000
    host_ns = ticks * USB.tick_ns if perfect else (ticks * USB.tick_ns - AHEAD_NS) / FAST
    meter.rows(POWER, tick=ticks, watts=watts(host_ns / S))
    for reading in readings:
        meter.clock_reading(reading)
    for number, sent in enumerate(REQUESTS, 1):
        begin = round(sent * S)
        app.row(EVENTS, tick=begin, kind="request_sent", request=number)
        app.row(EVENTS, tick=begin + 20 * MS, kind="prefill_start", request=number)
        for index in range(40):
            at = begin + (420 + 30 * index) * MS
            app.row(EVENTS, tick=at, kind="token", request=number, index=index, count=1, visible=True)
        app.row(EVENTS, tick=begin + (420 + 30 * 39) * MS, kind="request_end", request=number)
    return hub.take()


def packed(folder: Path, readings: Sequence[Reading], **kind: bool) -> Run:
    return pack(record(folder, [recorded(readings, **kind)], imported="made").path)


def phases(run: Run) -> dict[tuple[int, str], dict[str, float]]:
    rows = run.table("phases").to_pylist()
    return {(r["request"], r["phase"]): r for r in rows if r["phase"] in ("prefill", "decode")}


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], dict[str, float]]:
    exact = [Reading(USB, t // 1000, 1, t, t, kind="exact") for t in (0, SECONDS * S)]
    return phases(packed(tmp_path_factory.mktemp("ideal"), exact, perfect=True))


def test_the_same_joules_in_every_phase_with_at_most_twice_the_uncertainty(tmp_path, ideal):
    found = phases(packed(tmp_path, round_trips(100)))
    assert len(found) == len(ideal) == 2 * len(REQUESTS)
    for key, perfect in ideal.items():
        truth = 12.0 * 0.4 if key[1] == "prefill" else 6.0 * 39 * 0.03
        mine = found[key]
        assert mine["coverage"] == pytest.approx(1.0, abs=1e-6)
        assert mine["joules_u"] <= 2 * perfect["joules_u"]
        assert abs(mine["joules"] - perfect["joules"]) <= mine["joules_u"]
        slack = GAIN * truth + 12e-3 * 1e-3  # a step falls anywhere in its sample's millisecond
        assert mine["joules_lo"] - slack <= truth <= mine["joules_hi"] + slack
        assert mine["joules"] == pytest.approx(truth, rel=0.005)


def test_without_a_map_37_ms_would_put_a_tenth_of_a_prefill_elsewhere(tmp_path, ideal):
    naive = [Reading(USB, t // 1000, 1, t, t, kind="exact") for t in (0, SECONDS * S)]
    found = phases(packed(tmp_path, naive))
    lost = ideal[1, "prefill"]["joules"] - found[1, "prefill"]["joules"]
    assert lost == pytest.approx(0.037 * 10.0, rel=0.05)


def test_the_uncertainty_shrinks_as_readings_are_added(tmp_path, ideal):
    counts = [2, 6, 20, 100, 400]
    found = [phases(packed(tmp_path / str(n), round_trips(n))) for n in counts]
    for key in ideal:
        widths = [rows[key]["joules_hi"] - rows[key]["joules_lo"] for rows in found]
        assert all(b <= a * 1.001 for a, b in itertools.pairwise(widths))
        assert widths[-1] < widths[0] / 2
        assert found[-1][key]["joules_u"] < found[0][key]["joules_u"]


def test_the_clock_tells_its_offset_drift_and_bound(tmp_path):
    run = packed(tmp_path, round_trips(100))
    with connect([run], "from clocks") as database:
        (row,) = database.sql("from clocks").to_arrow_table().to_pylist()
    assert (row["clock"], row["readings"], row["kind"]) == ("meter.usb", 100, "two_way")
    assert abs(row["drift_ppm"] + 150) <= row["drift_bound_ppm"] + 0.03
    at_tick0 = (row["tick0"] * USB.tick_ns - AHEAD_NS) / FAST
    assert row["offset_lo_ns"] - 1000 <= at_tick0 <= row["offset_hi_ns"] + 1000
    assert 0 < row["bound_ns"] < 2 * MS
