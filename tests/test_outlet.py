"""Rows are checked when they come, never block, and come out in order."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.clock import Clock, Reading
from melt_stream.outlet import Hub
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.testing import Keep
from melt_stream.units import Unit, W

ALL = Stream("all", rail=str, watts=W, count=int, fine=bool, plain=float, uj=Column(Unit("uJ"), pa.int32()))
DEVICE = Stream("device", clock=Clock("device", tick_ns=1000.0), watts=W)
SHARED = Stream("shared", clock=Clock("phone.boot"), watts=W)


def hub_at(tick: int, **options: int) -> Hub:
    return Hub(now=lambda: tick, **options)


def taken(hub: Hub) -> Keep:
    keep = Keep()
    keep.add(hub.take())
    return keep


def test_a_row_is_stamped_now_and_what_is_left_out_is_null():
    hub = hub_at(7)
    hub.outlet("it").row(ALL, watts=1)
    (row,) = taken(hub).rows("it.all")
    assert row == {
        "tick": 7,
        "rail": None,
        "watts": 1.0,
        "count": None,
        "fine": None,
        "plain": None,
        "uj": None,
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wats": 1.0}, "it.all: expected columns"),
        ({"watts": "1"}, "it.all, column 'watts': expected a number in W, got '1'"),
        ({"watts": True}, "got True"),
        ({"watts": 10**400}, "too large"),
        ({"plain": 1j}, "expected float"),
        ({"count": 1.5}, "expected int, got 1.5"),
        ({"count": 1 << 63}, "does not fit in 64 bits"),
        ({"count": True}, "got True"),
        ({"uj": 1 << 31}, "expected int32 in uJ"),
        ({"rail": 5}, "expected str, got 5"),
        ({"rail": "\ud800"}, "surrogates"),
        ({"fine": 1}, "expected bool, got 1"),
        ({"tick": 1.5}, "column 'tick': expected int, got 1.5"),
        ({"tick": 1, "epoch": 1}, "expected no epoch"),
    ],
)
def test_a_wrong_value_raises_at_once_and_leaves_no_trace(values, said):
    hub = hub_at(7)
    with pytest.raises(TypeError) as caught:
        hub.outlet("it").row(ALL, **values)
    assert said in str(caught.value)
    assert hub.take() == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"wats": [1.0, 2.0]}, "expected columns"),
        ({"watts": ["a", "b"]}, "column 'watts': expected double"),
        ({"watts": [1.0]}, "expected 2 rows, one a tick, got 1"),
        ({"count": [1.5, 2.0]}, "expected int64"),
        ({"count": [1 << 64, 1]}, "expected int64"),
        ({"uj": np.array([1 << 40, 1])}, "expected int32"),
        ({"count": np.array([1.5, 2.0])}, "expected int64"),
        ({"count": pa.array([1.5, 2.0])}, "expected int64, got double; cast it"),
        ({"watts": ["1", "2"]}, "expected double"),
        ({"rail": [b"a", b"b"]}, "expected string"),
    ],
)
def test_a_wrong_block_raises_at_once(columns, said):
    hub = hub_at(7)
    with pytest.raises((TypeError, ValueError)) as caught:
        hub.outlet("it").rows(ALL, tick=np.arange(2), **columns)
    assert said in str(caught.value)
    assert hub.take() == []


@pytest.mark.parametrize("kind", [list, tuple, np.array, pa.array])
def test_a_block_may_come_as_any_kind_of_array(kind):
    hub = hub_at(7)
    hub.outlet("it").rows(
        ALL, tick=np.arange(2), watts=kind([1.5, 2.5]), count=kind([1, 2]), rail=kind(["a", "b"])
    )
    keep = taken(hub)
    assert [keep.column("it.all", name) for name in ("watts", "count", "rail")] == [
        [1.5, 2.5],
        [1, 2],
        ["a", "b"],
    ]


def test_a_column_may_be_of_any_type_that_arrow_has():
    cells = Stream(
        "cells", volts=Column(Unit("V"), pa.list_(pa.float32())), raw=Column(Unit("1"), pa.uint8())
    )
    hub = hub_at(7)
    out = hub.outlet("it")
    out.row(cells, volts=[1.5, 2.5], raw=255)
    out.rows(cells, tick=np.array([8]), volts=[[3.5]], raw=[0])
    for wrong in ({"volts": "12"}, {"volts": [1.0, "2"]}, {"raw": -1}, {"raw": 256}):
        with pytest.raises(TypeError, match=r"it\.cells, column"):
            out.row(cells, **wrong)
    assert taken(hub).column("it.cells", "volts") == [[1.5, 2.5], [3.5]]


def test_a_block_without_all_its_ticks_is_refused():
    out = hub_at(7).outlet("it")
    with pytest.raises(TypeError, match="column 'tick': expected a number in every row, got 1 nulls"):
        out.rows(ALL, tick=[1, None])
    with pytest.raises(TypeError, match="column 'tick': expected int64"):
        out.rows(ALL, tick=np.array([1.5, 2.5]))


def test_flags_may_come_as_an_array():
    hub = hub_at(7)
    hub.outlet("it").rows(ALL, tick=np.arange(2), fine=np.array([True, False]))
    assert taken(hub).column("it.all", "fine") == [True, False]


def test_numpys_scalars_are_numbers():
    hub = hub_at(7)
    values = {"watts": np.float32(1.5), "count": np.int16(-3), "fine": np.bool_(True), "uj": np.uint8(9)}
    hub.outlet("it").row(ALL, tick=np.int64(3), **values)
    (row,) = taken(hub).rows("it.all")
    assert (row["tick"], row["watts"], row["count"], row["fine"], row["uj"]) == (3, 1.5, -3, True, 9)


finite = st.floats(allow_nan=False, width=64)
ints = st.integers(-(1 << 63), (1 << 63) - 1)
rows = st.fixed_dictionaries(
    {},
    optional={
        "rail": st.text("a\x00\n\u00b5\U0001f50b"),
        "watts": finite,
        "count": ints,
        "fine": st.booleans(),
    },
)


@given(st.lists(rows, max_size=5))
def test_what_goes_in_comes_out(some):
    hub = hub_at(7)
    for row in some:
        hub.outlet("it").row(ALL, **row)
    for row, stored in zip(some, taken(hub).rows("it.all"), strict=True):
        assert {name: value for name, value in stored.items() if value is not None} == row | {"tick": 7}


def test_blocks_and_rows_keep_their_order_and_blocks_are_copied():
    hub = hub_at(7)
    out = hub.outlet("it")
    watts = np.array([2.0, 3.0])
    out.row(ALL, tick=1, watts=1.0)
    out.rows(ALL, tick=np.array([2, 3]), watts=watts)
    watts[:] = 99
    out.row(ALL, tick=4, watts=4.0)
    out.rows(ALL, tick=np.array([], np.int64))
    keep = taken(hub)
    assert keep.column("it.all", "watts") == [1.0, 2.0, 3.0, 4.0]
    assert hub.take() == []


def test_another_clock_needs_a_tick_and_has_epochs():
    hub = hub_at(7)
    out = hub.outlet("it")
    with pytest.raises(TypeError, match="expected tick"):
        out.row(DEVICE, watts=1.0)
    out.row(DEVICE, tick=5, epoch=2, watts=1.0)
    out.rows(DEVICE, tick=np.array([6]), epoch=2, watts=[1.0])
    keep = taken(hub)
    assert keep.column("it.device", "epoch") == [2, 2]
    assert keep.schema("it.device").metadata[b"clock"] == b"it.device"


def test_own_clocks_get_new_epochs_after_a_failure_and_shared_ones_do_not():
    hub = hub_at(7)
    out = hub.outlet("it")
    for stream in (DEVICE, SHARED):
        out.row(stream, tick=1, epoch=3, watts=1.0)
    out.broken("unplugged")
    for stream in (DEVICE, SHARED):
        out.row(stream, tick=1, epoch=0, watts=1.0)
    out.clock_reading(Reading(DEVICE.clock, 1, epoch=0))
    out.gap(DEVICE, 1, 2, "a hole", epoch=0)
    keep = taken(hub)
    assert keep.column("it.device", "epoch") == [3, 4]
    assert keep.column("it.shared", "epoch") == [3, 0]
    assert keep.column("run.readings", "epoch_of") == [4]
    assert [(gap["stream"], gap["epoch_of"], gap["start"], gap["stop"]) for gap in keep.rows("run.gaps")] == [
        ("device", 3, 1, 1), ("shared", 3, 1, 1), ("device", 4, 1, 2),
    ]  # fmt: skip


def test_two_streams_of_one_name_are_refused():
    out = hub_at(7).outlet("it")
    out.row(Stream("meter", watts=W), watts=1.0)
    out.row(Stream("meter", watts=W), watts=1.0)
    with pytest.raises(TypeError, match="two that differ"):
        out.row(Stream("meter", watts=W, extra=int), watts=1.0)


def test_an_overrun_is_a_gap_per_stream_and_epoch_and_there_is_room_again():
    hub = hub_at(7, limit_rows=2)
    out = hub.outlet("it")
    for tick in range(1, 6):
        out.row(DEVICE, tick=tick, epoch=1, watts=1.0)
    out.rows(ALL, tick=np.array([10, 11, 12]))
    keep = taken(hub)
    assert keep.column("it.device", "tick") == [1, 2]
    seen = [
        (g["stream"], g["epoch_of"], g["start"], g["stop"], g["lost_rows"]) for g in keep.rows("run.gaps")
    ]
    assert seen == [("device", 1, 3, 5, 3), ("all", 0, 10, 12, 3)]
    out.row(ALL, watts=1.0)
    assert len(taken(hub).rows("it.all")) == 1


async def test_room_waits_for_the_shipper():
    hub = hub_at(7, limit_rows=4)
    out = hub.outlet("it")
    await out.room()
    out.rows(ALL, tick=np.arange(3))
    with trio.move_on_after(0) as scope:
        await out.room()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.room)
        await trio.testing.wait_all_tasks_blocked()
        hub.take()


async def test_those_who_wait_for_a_flush_are_part_of_it():
    hub = hub_at(7)
    out = hub.outlet("it")

    async def late() -> None:
        await out.flushing()
        out.row(ALL, watts=1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        await hub.announce()
        assert len(taken(hub).rows("it.all")) == 1


def test_a_rail_is_declared_once_with_its_streams_facts():
    hub = hub_at(7)
    out = hub.outlet("meter", "phone")
    polled = Stream("power", watts=W).as_polled(1e8)
    for _ in range(2):
        out.rail(polled, Rail("vdd", "rail", "gauge", gain=0.005))
    (row,) = taken(hub).rows("run.rails")
    facts = (
        row["sensor_of"],
        row["device_of"],
        row["sample_period_ns"],
        row["clock_of"],
        row["gain"],
        row["noise"],
    )
    assert facts == ("meter.power", "phone", 1e8, "host", 0.005, None)


def test_facts_are_json_and_requests_are_numbered_for_the_whole_run():
    hub = hub_at(7)
    one, two = hub.outlet("one"), hub.outlet("two")
    one.fact("model", {"name": "µ", "layers": 3})
    assert json.loads(taken(hub).column("run.facts", "value")[0]) == {"name": "µ", "layers": 3}
    assert [one.next_request(), two.next_request(), one.next_request()] == [1, 2, 3]


def test_the_first_row_says_ready_and_a_refused_one_does_not():
    out = hub_at(7).outlet("it")
    out.fact("board", "x")
    with pytest.raises(TypeError):
        out.row(ALL, wats=1)
    assert not out.is_ready.is_set()
    out.row(ALL)
    assert out.is_ready.is_set()


def test_a_hole_on_a_clock_that_goes_on_ends_with_the_next_row_and_on_one_that_began_anew_has_no_length():
    hub = hub_at(7)
    for instance, epoch in (("same", 3), ("booted", 4)):
        out = hub.outlet(instance)
        out.row(SHARED, tick=100, epoch=3, watts=1.0)
        out.broken("the link")
        out.row(SHARED, tick=150, epoch=epoch, watts=1.0)
    gaps = {
        gap["instance_of"]: (gap["start"], gap["stop"], gap["epoch_of"])
        for gap in taken(hub).rows("run.gaps")
    }
    assert gaps == {"same": (100, 150, 3), "booted": (100, 100, 3)}
