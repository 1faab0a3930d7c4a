"""The workload ``marker`` says when each edge of its load was carried out, and nothing of what it did not play."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import trio

from melt_stream.collectors._marker_child import play
from melt_stream.collectors.marker import Marker
from melt_stream.errors import DeviceError
from melt_stream.marker import edges
from melt_stream.outlet import Hub

MS = 1_000_000


async def played(marker: Marker, times: int = 1) -> list[dict]:
    hub = Hub()
    out = hub.outlet("marker")
    for _ in range(times):
        await marker.collect(out)
    return [
        {"stream": batch.source.stream.name} | row for batch in hub.take() for row in batch.data.to_pylist()
    ]


async def test_each_edge_is_a_row_and_comes_not_before_its_time():
    before = Hub().now()
    rows = await played(Marker(31, chip_ms=2.0, rise_ms=3.0))
    told = [row for row in rows if row["stream"] == "edges"]
    at = np.array([row["tick"] for row in told])
    assert [row["on"] for row in told] == [True, False] * 8
    assert {row["rise"] for row in told} == {3.0 * MS}
    assert (np.diff(at) > 0).all()
    late = at - at[0] - np.array(edges(31, 2.0 * MS))
    assert np.min(late) > -100 * MS  # the first one may itself have been late
    start, end = [row for row in rows if row["stream"] == "events"]
    assert (start["kind"], end["kind"], start["name"], end["name"]) == (
        "phase_start",
        "phase_end",
        "marker",
        "marker",
    )
    assert before <= start["tick"] < at[0] < at[-1] < end["tick"] <= Hub().now()


async def test_the_second_play_is_of_another_code():
    rows = await played(Marker(31, chip_ms=0.5), times=2)
    counts = [sum(row.get("play") == play for row in rows) for play in (0, 1)]
    assert counts == [16, 16]
    assert edges(31, 1.0, 0) != edges(31, 1.0, 1)
    assert {row["rise"] for row in rows if row["stream"] == "edges"} == {None}


async def test_several_cores_play_it_together():
    rows = await played(Marker(31, chip_ms=1.0, cores=2))
    assert len([row for row in rows if row["stream"] == "edges"]) == 16


async def test_a_load_that_was_not_played_to_its_end_has_no_edges(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    hub = Hub()
    with pytest.raises(DeviceError, match="expected 16 edges of its load, got exit status 1"):
        await Marker(31).collect(hub.outlet("marker"))
    assert [batch.source.stream.name for batch in hub.take()] == ["events"]


async def test_a_play_that_is_cancelled_ends_its_phase():
    hub = Hub()
    with trio.move_on_after(0.2):
        await Marker().collect(hub.outlet("marker"))
    (events,) = hub.take()
    assert events.data["kind"].to_pylist() == ["phase_start", "phase_end"]


def test_busy_means_that_an_edge_is_never_early():
    plan = [Hub().now() + k * MS for k in (1, 2, 3, 5)]
    assert all(stamp >= at for stamp, at in zip(play(plan), plan, strict=True))
