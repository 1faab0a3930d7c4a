"""Perfetto's traces: the wire format on hostile bytes, what packets say, and the rows that are made of it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.clock import Clock
from melt_stream.collectors._dumpsys import Battery as Service
from melt_stream.collectors._perfetto import (
    NEWER,
    SNAPSHOTS,
    VOLTAGE,
    Battery,
    Clocks,
    Dropped,
    Energy,
    Lost,
    Named,
    Rails,
    config,
    said,
)
from melt_stream.collectors._perfetto_rows import Rows
from melt_stream.collectors._protobuf import LARGEST, Records, fields, signed
from melt_stream.emulators import _perfetto_trace as trace
from melt_stream.errors import DataError
from melt_stream.outlet import Hub

NAMES = {0: ("VSYS_PWR_DISPLAY", "Display", 125), 1: ("S2M_VDD_CPUCL2", "CPU", 125)}
DISCHARGING = Service("Discharging", False, 3.9, 80.0, 30.0, None)


def cut(data, size=1):
    """The packets of a trace that comes in pieces."""
    records = Records()
    found = [packet for at in range(0, len(data), size) for packet in records.feed(data[at : at + size])]
    return found, records


def everything(data):
    return [each for packet in cut(data, 7)[0] for each in said(packet)]


def test_a_packet_says_its_clocks_rails_and_battery():
    data = (
        trace.packet(trace.clocks({6: 5_000_000_000, 3: 4, 1: 1_795_546_101_809_149_275}))
        + trace.packet(trace.rails(5, NAMES, [(0, 93_245, 48_213_077), (1, 93_247, 0)]), dropped=True)
        + trace.packet(trace.battery(6, {1: 3_652_000, 2: 83.0, 3: -519_481, 4: 7, 7: 3_850_000}))
        + trace.packet(trace.battery(7, {3: 12}))
        + trace.packet(trace.stats(overwritten=2, lost=3))
        + trace.packet(trace.field(99, "of a later version") + trace.field(98, 1.5))
    )
    assert everything(data) == [
        Clocks(5_000_000_000, 1_795_546_101_809_149_275),
        Dropped(1),
        Rails(
            {0: Named("VSYS_PWR_DISPLAY", "Display", 125), 1: Named("S2M_VDD_CPUCL2", "CPU", 125)},
            [Energy(0, 93_245, 48_213_077), Energy(1, 93_247, 0)],
        ),
        Battery(6, 3_652_000, 83.0, -519_481, 7, 3_850_000),
        Battery(7, current=12),
        Lost({"overwritten chunks": 2, "packets that writers lost": 3}),
    ]


def test_a_snapshot_without_both_clocks_and_a_packet_by_another_clock_say_nothing():
    assert everything(trace.packet(trace.clocks({6: 5, 3: 4}))) == []
    assert everything(trace.packet(trace.battery(7, {3: 12}) + trace.field(58, 3))) == []


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_come_through(number):
    ((field, value),) = fields(trace.field(3, number))
    assert (field, signed(value)) == (3, number)


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data):
    for whole in (data, trace.field(1, data), trace.field(1, trace.field(40, data) + trace.field(38, data))):
        with suppress(DataError):
            everything(whole)


@pytest.mark.parametrize("drop", range(1, 60))
def test_a_trace_that_was_cut_gives_what_came_whole(drop):
    data = b"".join(trace.packet(trace.rails(5, NAMES, [(0, ms, ms)])) for ms in range(4))
    packets, records = cut(data[:-drop], 5)
    assert packets == cut(data)[0][: len(packets)]
    assert 2 <= len(packets) < 4
    assert records.unfinished == len(data) - drop - sum(len(trace.field(1, one)) for one in packets)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (trace.varint(1 << 3 | 2) + trace.varint(LARGEST + 1), r"byte 0: expected a record of at most 4194304 bytes"),
        (b"\x0a" + b"\xff" * 11, r"expected a number in base 128, got more than 64 bits"),
        (b"\x12\x00", r"byte 0: expected a record \(0x0a\), got 0x12"),
        (trace.field(1, b"\x0b"), r"expected a wire type of 0, 1, 2 or 5, got 3"),
        (trace.field(1, b"\x00\x01"), r"expected a field's number from 1 on, got 0"),
        (trace.field(1, trace.varint(40 << 3 | 2) + b"\x7f1"), r"expected 127 bytes of field 40, got 1"),
        (trace.field(1, trace.field(40, 5)), r"expected a message, got the number 5"),
        (trace.field(1, trace.field(8, b"x") + trace.field(38, b"")), r"expected a whole number, got 1 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_told_with_its_place(data, expected):
    with pytest.raises(DataError, match=expected):
        everything(data)


def test_the_configuration_leaves_out_what_an_older_perfetto_does_not_know():
    text = config(250, rails=True, battery=True)
    assert "battery_poll_ms: 250" in text
    assert "collect_power_rails: true" in text
    assert all(word in text for word in (*NEWER, "BATTERY_COUNTER_CURRENT_AVG", "write_into_file: true"))
    old = config(250, rails=False, battery=True, words=())
    assert not any(word in old for word in (VOLTAGE, SNAPSHOTS, "collect_power_rails"))


class Told:
    """Rows of a trace, at a phone of our making."""

    def __init__(self, service=DISCHARGING, **fields):
        self.hub = Hub(now=lambda: 0)
        given = {"unit": "auto", "ignore_plugged": False} | fields
        self.rows = Rows(
            self.hub.outlet("it"),
            4.0,
            real=Clock("phone.realtime", 1000.0),
            epoch=2,
            service=service,
            **given,
        )

    def take(self, *packets):
        for each in everything(b"".join(packets)):
            self.rows.take(each)
        found = {}
        for batch in self.hub.take():
            found.setdefault(batch.source.key, []).extend(batch.data.to_pylist())
        return found


def battery(ms, values, **flags):
    return trace.packet(trace.battery(ms * 1_000_000, values), **flags)


def test_a_rails_repeats_by_its_moment_are_no_rows_and_time_never_goes_back():
    told = Told()
    energies = [(1, 1002, 9), (0, 1000, 5)]
    rows = told.take(trace.packet(trace.rails(1, NAMES, energies)))["it.perfetto_rails"]
    assert [(row["rail"], row["tick"], row["energy"]) for row in rows] == [
        ("VSYS_PWR_DISPLAY", 1000, 5), ("S2M_VDD_CPUCL2", 1002, 9),
    ]  # fmt: skip
    assert told.take(trace.packet(trace.rails(1, {}, energies))) == {}
    rows = told.take(trace.packet(trace.rails(1, {}, [(0, 1001, 6), (1, 1160, 9)])))["it.perfetto_rails"]
    assert [(row["rail"], row["tick"], row["energy"]) for row in rows] == [("S2M_VDD_CPUCL2", 1160, 9)]


def test_rails_without_a_name_or_with_one_name_are_told_apart():
    told = Told()
    names = {0: ("A", "x", 1), 1: ("A", "y", 1), 2: ("", "", 0)}
    found = told.take(trace.packet(trace.rails(1, names, [(n, 1000, n) for n in range(4)])))
    assert [row["rail"] for row in found["it.perfetto_rails"]] == ["A", "A@1", "rail_2", "rail_3"]
    assert {(rail["kind"], rail["boundary"]) for rail in found["run.rails"]} == {("counter", "rail")}


def test_a_snapshot_ties_boottime_to_the_phones_wall_clock():
    (reading,) = Told().take(trace.packet(trace.clocks({6: 5_000_900_000, 1: 1_795_546_101_809_149_275})))[
        "run.readings"
    ]
    assert (reading["clock_of"], reading["count"], reading["against"], reading["against_epoch"]) == (
        "it.boottime", 5000, "phone.realtime", 2,
    )  # fmt: skip
    assert reading["not_before"] < 1_795_546_101_809_149 < reading["not_after"]


@pytest.mark.parametrize(
    ("service", "values", "amps", "volts"),
    [
        (DISCHARGING, {3: -519_481, 7: 3_850_000}, 0.519481, 3.85),
        (DISCHARGING, {3: 519_481}, 0.519481, 3.9),  # no voltage in the trace: the service's
        (DISCHARGING, {3: -519}, 0.519, 3.9),  # mA
        (DISCHARGING, {3: 0}, None, 3.9),
        (DISCHARGING._replace(plugged=True), {3: -519_481}, None, 3.9),
        (DISCHARGING._replace(status="Charging"), {3: 519_481}, None, 3.9),
    ],
)
def test_a_current_counts_while_the_battery_discharges(service, values, amps, volts):
    (row,) = Told(service).take(battery(1000, values))["it.perfetto_battery"]
    assert (row["amps"], row["volts"]) == (pytest.approx(amps), pytest.approx(volts))
    assert row["reported"] == values[3]


def test_what_was_lost_is_a_gap_of_the_gauge_until_its_next_look():
    told = Told()
    assert "run.gaps" not in told.take(
        battery(1000, {3: -5000}, dropped=True), battery(1250, {3: -5000}), trace.packet(trace.stats())
    )
    (gap,) = told.take(
        trace.packet(trace.stats(overwritten=4)), battery(3000, {3: -5000}), battery(3250, {3: -5000})
    )["run.gaps"]
    assert (gap["stream"], gap["start"], gap["stop"]) == ("perfetto_battery", 1250, 3000)
    assert gap["reason"] == "perfetto lost 4 overwritten chunks"
    (gap,) = told.take(battery(9000, {3: -5000}, dropped=True))["run.gaps"]
    assert (gap["start"], gap["stop"], gap["reason"]) == (3250, 9000, "perfetto dropped packets")
    assert json.loads(json.dumps(told.rows.facts()))["perfetto"]["lost"] == {"overwritten chunks": 4}
