"""A phone whose /sys is closed, over a real adb server: its rails, gauge, charge, temperatures and processes by its own tools.

Its load is known, and so are its joules; its wall clock is 1.5 s ahead and 80 ppm fast, and CLOCK_BOOTTIME is its own.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from melt_stream.analysis.clocks import fit
from melt_stream.collectors.battery import Battery
from melt_stream.collectors.dumpsys_battery import DumpsysBattery
from melt_stream.collectors.dumpsys_thermal import DumpsysThermal
from melt_stream.collectors.memory import Memory
from melt_stream.collectors.odpm import Odpm
from melt_stream.collectors.perfetto_power import PerfettoPower
from melt_stream.collectors.process_memory import ProcessMemory
from melt_stream.collectors.thermal import Thermal
from melt_stream.devices import Place, Sampled
from melt_stream.devices.adb import Adb
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.internal import READINGS
from melt_stream.testing import Keep
from tests.emulators.playing_android import ADBS, playing, serving

pytestmark = [
    pytest.mark.skipif(
        shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="expected root, for a phone with clocks of its own"),
]
SHARES = {"VSYS_PWR_DISPLAY": 0.25, "S2M_VDD_CPUCL2": 0.4, "S2S_VDD_G3D": 0.15, "VSYS_PWR_MODEM": 0.2}
AHEAD_NS = 1.5e9


@pytest.fixture(scope="module")
def server():
    with serving(ADBS[0]) as it:
        yield it


@asynccontextmanager
async def a_phone(server, *faults, **fields):
    async with playing(*faults, **fields) as (phone, place):
        yield phone, Place(Adb("phone", place["serial"], port=server.port))


async def recorded(collectors, enough):
    """Record until there is enough; return what came, and how it ended."""
    keep = Keep()

    class Until:
        async def collect(self, out):
            while not enough(keep):
                await out.flushing()

    with trio.fail_after(60):
        ending = await record(
            collectors,
            [keep],
            {"until": Until()},
            devices=dict.fromkeys(collectors, "phone"),
            flush_every=0.05,
        )
    return keep, ending


def of(keep, key, **which):
    return [row for row in keep.rows(key) if all(row[name] == value for name, value in which.items())]


@pytest.mark.realtime
async def test_a_closed_phones_joules_currents_and_clocks_are_those_of_its_load(server):
    load = {"load": "square:2W,4W,1s", "ahead_ms": 1500, "closed": True}
    async with a_phone(server, "rate:80", **load) as (phone, place):
        collectors = {
            "power": PerfettoPower(hz=10).on(place), "heat": DumpsysThermal().on(place), "charge": DumpsysBattery(energy=True).on(place),
        }  # fmt: skip
        keep, ending = await recorded(collectors, lambda kept: len(of(kept, "charge.battery_service")) >= 4)
        began = phone.began
    assert ending.error is None
    maps = fit(keep.table("run.readings").cast(READINGS.schema))
    for rail, share in SHARES.items():
        rows = of(keep, "power.perfetto_rails", rail=rail)
        ticks = np.array([row["tick"] for row in rows], np.int64)
        assert len(rows) >= 10
        assert (np.diff(ticks) > 50).all()  # a refresh each 160 ms, and no repeats
        host = maps.to_host("power.boottime", 0, ticks)
        low, high = maps.bound("power.boottime", 0, host)
        assert (high - low <= 20e6).all()
        joules = np.array([row["energy"] for row in rows]) * 1e-6
        # at the host's moments the load had used so much; the clock may be off by its bound, at 4 W
        exact = [used((at - began) / 1e9) * share for at in host]
        late = 4.0 * share * (np.maximum(-low, high).max() / 1e9 + 0.01)
        assert joules == pytest.approx(np.array(exact), abs=late)
    currents = {round(row["amps"] * 3.85, 3) for row in keep.rows("power.perfetto_battery")}
    assert currents == {2.0, 4.0}
    (fact,) = of(keep, "run.facts", name="perfetto")
    assert json.loads(fact["value"])["gauge"]["sign"] == "negative while discharging"
    charges = [row["charge"] for row in keep.rows("charge.battery_service")]
    assert charges == sorted(charges, reverse=True)
    assert 0.1 < charges[0] - charges[-1] < 4 * 6 / 3.85 / 3.6
    assert {row["zone"] for row in keep.rows("heat.thermal")} == {"battery", "cpu-little", "cpu-big", "skin"}
    assert {row["name"] for row in keep.rows("heat.throttling")} <= {"none", "light"}
    wall = maps.to_host("phone.realtime", 0, np.array([keep.rows("heat.thermal")[0]["tick"]], np.int64))
    assert 0 < wall[0] - began < 30e9


def used(seconds):
    """Joules of the square load since it began."""
    whole, part = divmod(seconds, 1.0)
    return whole * 3.0 + (2.0 * part if part < 0.5 else 1.0 + 4.0 * (part - 0.5))


async def test_an_older_perfetto_is_asked_without_what_it_does_not_know_and_a_charger_hides_the_load(server):
    async with a_phone(server, closed=True, plugged=True) as (phone, place):
        phone.phone.environment["RENOUNCED"] = "BATTERY_COUNTER_VOLTAGE snapshot_interval_ms"
        keep, ending = await recorded(
            {"power": PerfettoPower(rails=False, hz=10).on(place)},
            lambda kept: len(kept.rows("power.perfetto_battery")) >= 3,
        )
    assert ending.error is None
    assert not keep.rows("power.perfetto_rails")
    row = keep.rows("power.perfetto_battery")[0]
    assert (row["amps"], row["plugged"], row["volts"]) == (None, True, pytest.approx(3.85))
    assert row["reported"] == pytest.approx(-2e6 / 3.85, abs=1)


async def test_a_phone_without_perfetto_says_so_and_a_cut_link_begins_anew(server):
    async with a_phone(server, closed=True) as (_, place):
        _, ending = await recorded(
            {"power": PerfettoPower(command=("no-perfetto",)).on(place)}, lambda _: False
        )
    assert "expected perfetto to trace until it is stopped" in "".join(
        traceback.format_exception(ending.error)
    )
    async with a_phone(server, closed=True) as (phone, place):
        cut = []

        def enough(kept):
            rows = kept.rows("power.perfetto_battery")
            if rows and not cut:
                phone.unplug(0.5)
                cut.append(rows[-1]["tick"])
            return len({row["epoch"] for row in rows}) == 2

        keep, ending = await recorded({"power": PerfettoPower(hz=10).on(place)}, enough)
    assert ending.error is None
    gaps = [gap for gap in keep.rows("run.gaps") if gap["stream"] == "perfetto_battery"]
    assert gaps[0]["start"] >= cut[0]


async def test_sensors_of_a_closed_phone_name_what_to_try(server):
    async with a_phone(server, closed=True) as (_, place):
        for sensor, said in (
            (Thermal(), "dumpsys_thermal"), (Battery(), "perfetto_power or dumpsys_battery"), (Odpm(), "perfetto_power"),
        ):  # fmt: skip
            _, ending = await recorded({"it": Sampled(sensor, place.device)}, lambda _: False)
            assert isinstance(ending.error, DeviceError)
            assert f"on a phone try kind = {said}" in str(ending.error)


@pytest.mark.realtime
async def test_an_open_phones_rails_are_the_same_through_odpm_and_a_process_is_found_by_name(server):
    async with a_phone(server, load="constant:2W") as (_, place):
        collectors = {
            "odpm": Sampled(Odpm(total=tuple(SHARES)), place.device, place.boots),
            "memory": ProcessMemory(process="sh").on(place),
        }
        keep, ending = await recorded(
            collectors,
            lambda kept: len(of(kept, "odpm.odpm", rail="total")) >= 6 and kept.rows("memory.process"),
        )
    assert ending.error is None
    rows = of(keep, "odpm.odpm", rail="total")
    seconds, joules = (
        (rows[-1]["tick"] - rows[0]["tick"]) / 1e3,
        (rows[-1]["energy"] - rows[0]["energy"]) * 1e-6,
    )
    assert joules == pytest.approx(2.0 * seconds, abs=2.0 * 0.05)
    row = keep.rows("memory.process")[0]
    assert row["peak"] >= row["rss"] >= row["uss"] > 0


async def test_memory_on_a_device_knows_no_names_and_says_where_to_look(server):
    async with a_phone(server) as (_, place):
        _, ending = await recorded({"it": Sampled(Memory(process="sh"), place.device)}, lambda _: False)
        assert isinstance(ending.error, ConfigError)
        assert "kind = 'process_memory'" in str(ending.error)
        keep, ending = await recorded(
            {"it": Sampled(Memory(hz=5), place.device)}, lambda kept: len(kept.rows("it.memory")) >= 2
        )
        assert keep.rows("it.memory")[0]["total"] > 0
