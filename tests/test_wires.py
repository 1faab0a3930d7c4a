"""A marker that is played on a wire: found among the meter's logic inputs, and as good as its edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import trio

from melt_stream.analysis.marked import Marked, marked
from melt_stream.analysis.marker_notes import notes
from melt_stream.analysis.pack import pack
from melt_stream.analysis.wires import wires
from melt_stream.clock import Clock, monotonic
from melt_stream.collectors.ppk2 import Ppk2
from melt_stream.emulators import Faults
from melt_stream.emulators.ppk2 import Ppk2 as Emulator
from melt_stream.engine import record
from melt_stream.internal import GAPS, READINGS
from melt_stream.marker import EDGES, edges
from melt_stream.outlet import Outlet
from melt_stream.run import create
from melt_stream.sink import Source
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Stream
from tests.made_run import MS, S
from tests.test_marked import METER, Story, added, verdicts

LOGIC = Source("meter", Stream("logic", clock=Clock("clock"), role="logic", pin=int, level=bool), "host")


def on_wire(story: Story, *, pin: int = 3, late_ms: float = 0.0) -> Marked:
    """The story's markers on one pin; another one changes by itself, a third never does."""
    other = story.tick(7 * S + np.arange(50) * 700 * MS)
    rows = [{"tick": int(story.tick(7 * S)), "epoch": 0, "pin": p, "level": False} for p in (1, pin, 5)]
    rows += [{"tick": int(t), "epoch": 0, "pin": 1, "level": k % 2 == 0} for k, t in enumerate(other[1:])]
    for at in story.played.values():
        ticks = story.tick(at + late_ms * MS)
        rows += [{"tick": int(t), "epoch": 0, "pin": pin, "level": k % 2 == 0} for k, t in enumerate(ticks)]
    played = [
        {"tick": int(tick), "play": play, "on": k % 2 == 0, "rise": None}
        for play, at in story.played.items()
        for k, tick in enumerate(at)
    ]
    return marked(
        pa.Table.from_pylist(story.made.readings, READINGS.schema),
        [pa.Table.from_pylist(played, Source("marker", EDGES, "host").schema)],
        [],
        GAPS.schema.empty_table(),
        [pa.Table.from_pylist(sorted(rows, key=lambda row: row["tick"]), LOGIC.schema)],
    )


def test_the_pin_that_carries_it_is_found_and_no_other_is_told_of():
    story = Story()
    story.arrivals(4.0)
    found = on_wire(story)
    assert verdicts(found) == ["agrees", "agrees"]
    assert {(row["sensor"], row["rail"], row["clock"]) for row in found.rows} == {
        ("meter.logic", "pin 3", METER)
    }
    for row in found.rows:
        assert row["lag_ns"] == pytest.approx(4 * MS, abs=0.5 * MS)  # the fastest arrival's
        assert row["u_ns"] < 0.1 * MS
        assert row["step_w"] is None


def test_an_input_that_has_a_stream_of_its_own_is_called_as_that():
    one = Source("meter", Stream("gpi0", clock=Clock("clock"), role="logic", level=bool), "board")
    table = pa.Table.from_pylist(
        [{"tick": k, "epoch": k // 4, "level": k % 2 == 0} for k in range(8)], one.schema
    )
    assert [(w.sensor, w.name, w.device, w.clock, w.made.epoch) for w in wires([table])] == [
        ("meter.gpi0", "gpi0", "board", METER, epoch) for epoch in (0, 1)
    ]


def test_its_reading_holds_and_leaves_a_fraction_of_a_millisecond():
    story = Story()
    story.trips()
    for reading in added(story, on_wire(story)):
        assert (
            reading["count"] <= story.tick(reading["not_before"]) < reading["count"] + reading["resolution"]
        )
        assert reading["resolution"] < 1 * MS


def test_a_clock_that_shows_it_before_it_was_played_is_told():
    story = Story()
    story.trips(3.0)
    assert verdicts(on_wire(story)) == ["early", "early"]


@dataclass
class Player:
    """Says when each edge of the code on the wire was made."""

    at: list[int]

    async def collect(self, out: Outlet) -> None:
        await trio.sleep(max(0.0, (self.at[-1] - monotonic()) * 1e-9) + 0.1)
        for k, tick in enumerate(self.at):
            out.row(EDGES, tick=tick, play=0, on=k % 2 == 0, rise=None)


@pytest.mark.realtime
def test_a_ppk2_sees_it_on_one_of_its_inputs(tmp_path):
    emulator, begin_s = Emulator(faults=Faults.parse(["rate:150"])), 1.5
    made = edges(31, 20.1 * MS)
    emulator.logic = [(begin_s + at * 1e-9, 4 if k % 2 == 0 else 0) for k, at in enumerate(made)]

    async def play(folder) -> None:
        async with trio.open_nursery() as nursery:
            place = await nursery.start(emulator.play)
            player = Player([emulator.began + round(begin_s * S) + at for at in made])
            meter = Ppk2(3.7, port=str(place["port"]))
            ending = await record({"meter": meter}, [Journal(folder)], {"player": player}, baseline=0.1)
            assert ending.error is None
            folder.finish(ending.reason)
            nursery.cancel_scope.cancel()

    with create(tmp_path, recipe={}) as folder:
        trio.run(partial(play, folder))
    run = pack(folder.path)
    on_pin = [row for row in run.table("markers").to_pylist() if row["sensor"] == "meter.logic"]
    assert [(row["rail"], row["verdict"], row["used"]) for row in on_pin] == [("pin 2", "agrees", True)]
    assert abs(on_pin[0]["lag_ns"]) < 5 * MS
    (clock,) = [row for row in run.table("clocks").to_pylist() if row["clock"] == "meter.sample"]
    assert clock["latency_ns"] < 5 * MS  # without it, the 10 ms that are left out after the start command
    assert any("meter.logic/pin 2" in note for note in notes(run))
