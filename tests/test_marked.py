"""What a run's markers say of its clocks: readings where they agree, loud words where they do not."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import trio

from melt_stream import recipe
from melt_stream.analysis import marker_notes, summary
from melt_stream.analysis.archive import connect
from melt_stream.analysis.clocks import fit
from melt_stream.analysis.marked import Marked, marked
from melt_stream.analysis.pack import pack
from melt_stream.clock import Clock, Reading, monotonic
from melt_stream.collectors.marker import Marker
from melt_stream.engine import record
from melt_stream.errors import ConfigError
from melt_stream.internal import GAPS, READINGS
from melt_stream.marker import EDGES, edges
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.run import Run, create
from melt_stream.sink import Source
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Stream
from melt_stream.units import W
from tests.made_run import MS, START, Made, S, rail

PPM, AHEAD = 150e-6, 5 * S
RISE_MS = 8.0
METER = "meter.clock"


@dataclass
class Story:
    """A marker at 5 s and one at 20 s of a run of 30 s, seen by a 500 Hz gauge whose clock is 150 ppm fast."""

    made: Made = field(default_factory=lambda: Made(30.0))
    played: dict[int, np.ndarray] = field(default_factory=lambda: {
        play: START + second * S + np.array(edges(127, 51.7e6, play)) for play, second in ((0, 5), (1, 20))
    })  # fmt: skip
    rows: list[dict[str, Any]] = field(default_factory=list)

    def tick(self, host_ns: Any) -> Any:
        return np.rint((np.asarray(host_ns) - START) * (1 + PPM)).astype(np.int64) + AHEAD

    def meter(self, late_ms: float = 0.0, clock: str = METER, **facts: Any) -> None:
        """Add the rail; its power answers ``late_ms`` after the command."""
        t = np.arange(0, 30 * S, 2 * MS) + 12_345
        watts = 3 + np.random.default_rng(1).normal(0, 0.5, len(t))
        for at in self.played.values():
            for k, edge in enumerate(at - START + late_ms * MS):
                watts += (-1) ** k * np.clip((t - edge) / (RISE_MS * MS), 0, 1)
        ticks = t if clock == "host" else self.tick(t + START)
        self.made.rails.append(rail(ticks, watts, clock=clock, **facts))

    def arrivals(self, latency_ms: float = 4.0, off_ms: float = 0.0) -> None:
        """Add one-way readings, at the soonest ``latency_ms`` late, of a clock that says ``off_ms`` too much."""
        rng = np.random.default_rng(2)
        for host in range(START, START + 30 * S, 20 * MS):
            after = host + round((latency_ms + rng.exponential(2.0)) * MS)
            self.made.read(METER, int(self.tick(host + off_ms * MS)), None, after)

    def trips(self, off_ms: float = 0.0) -> None:
        """Add round trips of 1 ms, of a clock that says ``off_ms`` too much."""
        for host in range(START, START + 30 * S, 200 * MS):
            tick = int(self.tick(host + off_ms * MS))
            self.made.read(METER, tick, host - MS // 2, host + MS // 2, kind="round_trip")

    def found(self, *, rise: bool = True, device: str = "host") -> Marked:
        said = [
            {"tick": int(tick), "play": play, "on": k % 2 == 0, "rise": RISE_MS * MS if rise else None}
            for play, at in self.played.items()
            for k, tick in enumerate(at)
        ]
        table = pa.Table.from_pylist(said, Source("marker", EDGES, device).schema)
        readings = pa.Table.from_pylist(self.made.readings, READINGS.schema)
        return marked(readings, [table], self.made.rails, GAPS.schema.empty_table())


def verdicts(found: Marked) -> list[str]:
    return [row["verdict"] for row in found.rows]


def added(story: Story, found: Marked) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.readings.to_pylist()
    return rows[len(story.made.readings) :]


@pytest.mark.parametrize("late_ms", [0.0, 8.0])
def test_it_bounds_the_latency_that_one_way_readings_cannot_know(late_ms):
    story = Story()
    story.meter(late_ms)
    story.arrivals(4.0)
    found = story.found()
    before, after = (fit(r).table("", START, START + 30 * S).to_pylist() for r in
                     (pa.Table.from_pylist(story.made.readings, READINGS.schema), found.readings))  # fmt: skip
    assert verdicts(found) == ["agrees", "agrees"]
    assert [row["kind"] for row in added(story, found)] == ["cause", "cause"]
    assert before[0]["latency_ns"] is None
    assert (4.0 + late_ms) * MS <= after[0]["latency_ns"] < (4.0 + late_ms + 5.0) * MS
    for row in found.rows:  # the map is late by the fastest arrival: 4 ms
        assert row["lag_ns"] == pytest.approx((4 + late_ms) * MS, abs=1.5 * MS)
        assert row["used"]


@pytest.mark.parametrize("rise", [True, False])
def test_the_truth_lies_within_the_reading(rise):
    story = Story()
    story.meter(0.0)
    story.trips()
    for row in added(story, story.found(rise=rise)):
        assert row["count"] <= story.tick(row["not_before"]) < row["count"] + row["resolution"]
        assert row["resolution"] < (3 if rise else 16) * MS
        assert (row["not_after"], row["tick_ns"], row["rho_ppm"]) == (None, 1.0, 15.0)


@pytest.mark.parametrize(
    ("off_ms", "verdict"), [(-10, "early"), (0, "agrees"), (-200, "early"), (100, "late")]
)
def test_readings_that_contradict_it_are_told_and_left_alone(off_ms, verdict):
    """Round trips whose ticks are ``off_ms`` less than the rail's: the map puts the rail so much too early."""
    story = Story()
    story.meter()
    story.trips(-off_ms)
    found = story.found()
    assert verdicts(found) == [verdict] * 2
    assert len(added(story, found)) == (0 if verdict == "early" else 2)
    for row in found.rows:
        assert row["lag_ns"] == pytest.approx(off_ms * MS, abs=1.5 * MS)
        assert row["lag_lo_ns"] < row["lag_ns"] < row["lag_hi_ns"]
        assert (row["lag_hi_ns"] < 0) == (verdict == "early")


def test_a_clock_that_nothing_else_ties_to_the_hosts_is_placed_by_it():
    story = Story()
    story.meter()
    found = story.found()
    assert verdicts(found) == ["alone", "alone"]
    maps = fit(found.readings)
    ticks = story.tick(np.array([START + 12 * S]))
    assert abs(int(maps.to_host(METER, 0, ticks)[0]) - START - 12 * S) < 5 * MS
    assert np.isinf(maps.bound(METER, 0, np.array([START + 12 * S]))[1][0])


def test_a_rail_on_the_hosts_clock_is_checked_and_gives_no_reading():
    story = Story()
    story.meter(5.0, clock="host")
    found = story.found()
    assert verdicts(found) == ["agrees", "agrees"]
    assert added(story, found) == []
    assert found.rows[0]["lag_ns"] == pytest.approx(5 * MS, abs=1.5 * MS)


def test_a_stamp_that_is_too_early_on_the_hosts_clock_is_told():
    story = Story()
    story.meter(-12.0, clock="host")
    assert verdicts(story.found()) == ["early", "early"]


@pytest.mark.parametrize("kind", ["mean", "delta", "counter"])
def test_it_is_found_in_rails_of_every_kind(kind):
    story = Story()
    story.meter(clock="host")
    (gauge,) = story.made.rails
    watts = gauge.values["watts"]
    if kind == "mean":
        story.made.rails = [rail(gauge.tick - START, watts, kind, anchor="start")]
    else:
        joules = watts * 2e-3 if kind == "delta" else np.concatenate([[0.0], np.cumsum(watts * 2e-3)[:-1]])
        story.made.rails = [rail(gauge.tick - START, joules, kind, "energy", "J", anchor="start")]
    found = story.found()
    assert verdicts(found) == ["agrees", "agrees"]
    assert found.rows[0]["lag_ns"] == pytest.approx(0, abs=2 * MS)


def test_a_rail_of_another_device_and_one_that_shows_nothing():
    story = Story()
    story.meter(device_of="board")
    story.made.rails.append(rail(np.arange(0, 30 * S, 10 * MS), np.random.default_rng(3).normal(4, 1, 3000)))
    found = story.found()
    assert [(row["rail"], row["verdict"], row["used"]) for row in found.rows] == [
        ("main", "not found", False)
    ] * 2
    assert verdicts(story.found(device="board")) == ["alone", "alone"]


@pytest.mark.parametrize("cut", [slice(0, 7), slice(1, None), slice(0, 0)])
def test_a_play_without_all_of_its_edges_is_none(cut):
    story = Story()
    story.meter()
    story.played = {0: story.played[0][cut]}
    assert story.found().rows == []


def test_what_was_played_while_nothing_was_recorded_is_not_looked_for():
    story = Story()
    t = np.arange(0, 4 * S, 2 * MS)
    story.made.rails.append(rail(t, np.ones(len(t))))
    assert story.found().rows == []


SLOW_METER = Stream("power", clock=Clock("clock"), watts=W)


@dataclass
class Heard(Marker):
    """A marker on an idle machine: every edge comes when it should, and a meter knows of it.

    The real load, which a busy machine disturbs, is tested in tests/collectors/test_marker.py.
    """

    heard: list[int] = field(default_factory=list)

    async def _play(self, play: int) -> list[int]:
        begin = monotonic() + 20 * MS
        told = [begin + edge for edge in edges(self.chips, self.chip_ms * 1e6, play)]
        self.heard += told
        await trio.sleep((told[-1] + 20 * MS - monotonic()) * 1e-9)
        return told


@dataclass
class Meter:
    """Follows the marker's load on a clock of its own, 37 ms ahead, and hands over all samples at the end."""

    marker: Heard
    off_ns: int = 0
    """By how much its readings are wrong."""

    async def collect(self, out: Outlet) -> None:
        start = out.now()
        out.rail(SLOW_METER, Rail("board", "board", "gauge"))
        out.ready()
        try:
            while True:
                before = out.now()
                tick = before - self.off_ns + 37 * MS
                out.clock_reading(Reading(Clock("clock"), tick, not_before=before, not_after=out.now()))
                await trio.sleep(0.02)
        finally:
            t = np.arange(start, out.now(), MS)
            watts = np.random.default_rng(1).normal(2.0, 0.1, len(t))
            for k, edge in enumerate(self.marker.heard):
                watts += (-1) ** k * np.clip((t - edge) / (1 * MS), 0, 1)
            out.rows(SLOW_METER, tick=t + 37 * MS, watts=watts)


def recorded(tmp_path: Any, off_ns: int = 0) -> Run:
    marker = Heard(127, chip_ms=4.3, rise_ms=1.0)
    with create(tmp_path, recipe={}) as folder:
        ending = trio.run(partial(
            record, {"meter": Meter(marker, off_ns)}, [Journal(folder)], {"nap": Nap()}, marker=marker, baseline=0.05,
        ))  # fmt: skip
        assert (ending.reason, ending.error) == ("workloads ended", None)
        folder.finish(ending.reason)
    return pack(folder.path)


class Nap:
    async def collect(self, out: Outlet) -> None:
        del out
        await trio.sleep(0.05)


def test_recorded_packed_and_found(tmp_path):
    run = recorded(tmp_path)
    rows = run.table("markers").to_pylist()
    assert [(row["play"], row["verdict"], row["used"]) for row in rows] == [
        (0, "agrees", True),
        (1, "agrees", True),
    ]
    assert [abs(row["lag_ns"]) < MS for row in rows] == [True, True]
    assert run.table("run.readings").num_rows > 10
    (clock,) = [row for row in run.table("clocks").to_pylist() if row["clock"] == METER]
    causes = 2
    raw = [row for row in run.table("run.readings").to_pylist() if row["clock_of"] == METER]
    assert clock["readings"] == len(raw) + causes
    phases = [
        row["phase"] for row in sorted(run.table("phases").to_pylist(), key=lambda row: row["start_ns"])
    ]
    assert [phase for phase in phases if phase != "idle"] == ["marker", "baseline", "baseline", "marker"]
    assert marker_notes.warnings(run) == []
    assert any("Markers agree" in note for note in summary.summarise(run).notes)
    with connect(tmp_path) as connection:
        assert connection.execute("SELECT count(*) FROM markers WHERE verdict = 'agrees'").fetchone() == (2,)


def test_a_clock_that_lies_is_told_of_wherever_its_joules_are(tmp_path, capfd):
    from melt_stream.cli._app import run as cli

    run = recorded(tmp_path, 25 * MS)
    assert [row["verdict"] for row in run.table("markers").to_pylist()] == [
        "agrees",
        "agrees",
    ]  # late is possible
    run = recorded(tmp_path, -25 * MS)
    assert [row["verdict"] for row in run.table("markers").to_pylist()] == ["early", "early"]
    assert summary.summarise(run).notes[0].startswith("CLOCKS DISAGREE: meter.power/board shows marker 1 25.")
    assert [row["verdict"] for row in summary.payload(run)["markers"]] == ["early", "early"]
    capfd.readouterr()
    assert cli(("energy", "last", "--archive", str(tmp_path))) == 0
    said = capfd.readouterr()
    assert said.err.count("CLOCKS DISAGREE") == 2
    assert "CLOCKS DISAGREE" in said.out
    cli(("report", "last", "--archive", str(tmp_path)))
    assert "CLOCKS DISAGREE" in (run.path / "report.html").read_text()


def test_a_run_of_before_has_no_markers(tmp_path):
    run = recorded(tmp_path)
    del run.manifest.tables["markers"]
    assert marker_notes.rows(run) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melt_stream.collectors.marker.edges", lambda *_: [0, 2 * MS, 4 * MS, 6 * MS])


@pytest.mark.usefixtures("quick")
def test_record_plays_it_at_start_and_end_besides_the_seconds(tmp_path):
    from melt_stream.cli._app import run as cli

    assert cli(("record", "-c", "cpu", "--marker", "--seconds", "0.2", "--archive", str(tmp_path))) == 0
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    run = Run(folder)
    assert [row["play"] for row in run.table("marker.edges").to_pylist()] == [0] * 4 + [1] * 4
    assert run.manifest.recipe["marker"] is True
    assert run.manifest.exit["reason"] == "time limit"


@pytest.mark.parametrize(
    ("said", "chips", "device"),
    [(True, 127, "host"), ({"chips": 63, "cores": 2}, 63, "host"), ({"device": "board"}, 127, "board")],
)
def test_a_recipe_says_it(said, chips, device):
    plan = recipe.plan(recipe.parse({"collectors": {"cpu": {}}, "marker": said}, "here"), "here")
    assert plan.marker.chips == chips
    assert plan.devices["marker"] == device


def test_a_recipe_without_one_has_none_and_mistakes_are_named():
    assert recipe.plan(recipe.parse({"collectors": {"cpu": {}}}, "here"), "here").marker is None
    with pytest.raises(ConfigError, match=r"marker\.chips: .*got 100"):
        recipe.plan(recipe.parse({"marker": {"chips": 100}}, "here"), "here")
    with pytest.raises(ConfigError, match=r"marker\.chipss"):
        recipe.plan(recipe.parse({"marker": {"chipss": 127}}, "here"), "here")
    with pytest.raises(ConfigError, match="expected no instance of that name"):
        recipe.parse({"collectors": {"marker": {"kind": "cpu"}}, "marker": True}, "here")


def test_a_load_that_does_not_come_to_its_end_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("melt_stream.collectors.marker.sys.executable", "false")
    with create(tmp_path, recipe={}) as folder:
        ending = trio.run(partial(record, {}, [Journal(folder)], {"nap": Nap()}, marker=Marker()))
    assert (
        "workload 'marker' failed: marker: expected 64 edges of its load, got exit status 1" in ending.reason
    )


def test_nothing_of_it_outlives_a_run_that_is_cut_short():
    marker = Marker(chip_ms=777.0)
    ending = trio.run(partial(record, {}, [], {"nap": marker}, seconds=0.6))
    assert ending.reason == "time limit"
    listed = subprocess.run(["ps", "ax", "-o", "args"], check=True, capture_output=True, text=True).stdout
    assert "777000000" not in listed
