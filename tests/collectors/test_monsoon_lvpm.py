"""The Monsoon collector against the emulated box: readings, every fault, and what it refuses."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from melt_stream.collectors import _monsoon
from melt_stream.collectors.monsoon_lvpm import MonsoonLvpm
from melt_stream.emulators import Faults, Load
from melt_stream.emulators import monsoon_lvpm as box
from melt_stream.errors import DeviceError, MeltError, Transient
from melt_stream.plugins import configure
from tests.collectors.collecting import Watched, collecting

pytestmark = pytest.mark.realtime

RAMP = "ramp:0W,4W,700ms"
"""Each sample differs from its neighbours by twice the coarse range's step: a wrong number of a sample is seen."""
CALIBRATION = "calibration: the box measured its own reference"


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    _monsoon.warm_up()


def count(watched: Watched) -> int:
    return sum(batch.data.num_rows for batch in watched.batches if batch.source.key == "it.main")


def columns(watched: Watched) -> dict[str, np.ndarray]:
    table = watched.table("it.main")
    return {name: table[name].to_numpy() for name in table.column_names}


def emulated(*faults: str, load: str = RAMP, **fields) -> box.MonsoonLvpm:
    made = box.MonsoonLvpm(**fields)
    made.load, made.faults = Load.parse(load), Faults.parse(faults, box.MonsoonLvpm.own_faults)
    return made


@asynccontextmanager
async def recorded(emulator: box.MonsoonLvpm, **fields):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        collector = MonsoonLvpm(**{"voltage": 4.0, "port": place["port"], **fields})
        async with collecting(collector) as watched:
            yield watched
        nursery.cancel_scope.cancel()


def right(emulator: box.MonsoonLvpm, watched: Watched, volts: float = 4.0) -> None:
    """No reading is wrong, and each one that is missing lies in one gap that says so."""
    rows = columns(watched)
    tick = rows["tick"]
    assert (np.diff(tick) > 0).all()
    at = emulator.started + tick / (box.HZ * emulator.faults.rate)
    true = emulator.load.amps(at, volts)
    off = np.flatnonzero(np.abs(rows["amps"] - true) > 1.1 * 2.88 / box.COARSE_SPAN)
    assert not len(off), (
        f"wrong: {[(int(tick[i]), float(rows['amps'][i]), float(true[i])) for i in off[:5]]}, {len(off)} in all"
    )
    assert np.unique(rows["volts"]) == pytest.approx([volts], abs=5e-4)
    missing = np.setdiff1d(np.arange(tick[-1] + 1), tick)
    gaps = [gap for gap in watched.gaps("main") if gap["stop"] <= tick[-1] + 1]
    said = np.concatenate([np.arange(gap["start"], gap["stop"]) for gap in gaps])
    assert sorted(said.tolist()) == missing.tolist(), "a hole that no gap tells of, or the other way round"
    assert all(gap["lost_rows"] == gap["stop"] - gap["start"] for gap in gaps)


def lost(watched: Watched) -> list[tuple[int, int]]:
    return [(gap["start"], gap["lost_rows"]) for gap in watched.gaps("main") if gap["reason"] != CALIBRATION]


async def test_it_measures_what_the_load_draws():
    emulator = emulated()
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 11_000)
        right(emulator, watched)
        assert lost(watched) == []
        assert [gap["lost_rows"] for gap in watched.gaps("main")][:3] == [14, 14, 14]
        (rail,) = watched.rows("run.rails")
        assert (rail["name"], rail["boundary"], rail["kind"]) == ("main", "battery", "gauge")
        assert rail["gain"] == pytest.approx(0.00577, rel=0.01)
        facts = {fact["name"]: fact["value"] for fact in watched.rows("run.facts")}
        assert (facts["serial_number"], facts["volts"]) == ("12345", "4.0")
        readings = [row for row in watched.rows("run.readings") if row["clock_of"] == "it.sample"]
        assert readings[0]["kind"] == "cause"
        assert readings[0]["not_before"] <= emulator.began + emulator.started * 1e9
        arrivals = [row for row in readings if row["kind"] == "arrival"]
        assert len(arrivals) >= 6
        began = emulator.began + emulator.started * 1e9
        late = [row["not_after"] - (began + row["count"] * 200_000) for row in arrivals]
        assert min(late) > 0


async def test_fine_and_coarse_meet():
    emulator = emulated(load="ramp:0mA,80mA,500ms")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 4000)
        right(emulator, watched)
        amps = columns(watched)["amps"]
        fine = amps[amps < 0.03]
        at = emulator.started + columns(watched)["tick"][amps < 0.03] / box.HZ
        assert np.abs(fine - emulator.load.amps(at, 4.0)).max() < 3e-6


@pytest.mark.parametrize(
    "fault",
    ["skip@1.2:35", "skip@1.2:112", "skip@1.2:581", "skip@1.2:2240", "stall@1.1:0.7", "skip@0.55/0.6:14"],
)
@pytest.mark.parametrize("rate", ["rate:150", "rate:-400"])
async def test_what_was_never_sent_is_a_gap_of_its_true_length(fault, rate):
    emulator = emulated(fault, rate)
    async with recorded(emulator) as watched:
        await watched.until(lambda: columns(watched)["tick"][-1] > 15_000 if count(watched) > 8000 else False)
        right(emulator, watched)
        reached = columns(watched)["tick"][-1]
        assert lost(watched)
        # where it fell on a calibration, the two touch: compared sample by sample
        true = np.concatenate(
            [np.arange(first, first + many) for first, many in emulator.lost if first < reached]
        )
        said = np.concatenate([np.arange(first, first + many) for first, many in lost(watched)])
        assert sorted(said.tolist()) == true.tolist()


@pytest.mark.parametrize(
    "fault", ["lose@1.3:1", "lose@1.3:30", "lose@1.3:64", "lose@1.3:100", "lose@0.45/0.35:17", "lose@1.3:700"]
)
async def test_lost_bytes_cost_the_packets_they_were_in_and_no_more(fault):
    emulator = emulated(fault)
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 10_000)
        right(emulator, watched)
        many, times = emulator.faults.done[0].amount, len(emulator.faults.done)
        assert 7 <= sum(many for _, many in lost(watched)) <= times * 7 * (many // 62 + 3)


@pytest.mark.parametrize("junk", [1, 5, 62, 63, 200, 3000])
async def test_junk_between_packets_costs_the_one_before(junk):
    emulator = emulated(f"junk@1.3:{junk}")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 10_000)
        right(emulator, watched)
        assert sum(many for _, many in lost(watched)) <= 7
        assert any(fact["name"] == "resynchronised" for fact in watched.rows("run.facts"))


async def test_a_lost_calibration_is_made_good_by_the_next():
    emulator = emulated("skip@0.99:140")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 12_000)
        rows = columns(watched)
        off = np.abs(rows["amps"] - emulator.load.amps(emulator.started + rows["tick"] / box.HZ, 4.0))
        before, after = off[rows["tick"] < 4900], off[rows["tick"] > 10_010]
        assert max(before.max(), after.max()) < 1.1 * 2.88 / box.COARSE_SPAN
        assert off.max() < 3.3 * 2.88 / box.COARSE_SPAN  # by what the zero has moved: two counts


async def test_a_stale_stream_is_stopped_and_thrown_away():
    emulator = emulated("stale")
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        await trio.sleep(0.2)
        async with collecting(MonsoonLvpm(4.0, place["port"])) as watched:
            await watched.until(lambda: count(watched) > 3000)
            right(emulator, watched)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("unplug@0.5", Transient, "unplugged"),
        ("stall@0.5:5", Transient, "expected bytes within 1 s"),
        ("over_current@0.5", DeviceError, r"expected 4 V at the output, got 0 V: over-current, event 1"),
    ],
)
async def test_what_ends_the_stream_is_named(fault, kind, said):
    emulator = emulated(fault)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(kind, match=said):
            await _alone(MonsoonLvpm(4.0, place["port"]))
        nursery.cancel_scope.cancel()


async def _alone(collector: MonsoonLvpm) -> None:
    from melt_stream.outlet import Hub

    collector.prepare()
    with trio.fail_after(20):
        await collector.collect(Hub().outlet("it"))


async def test_a_load_above_the_limit_trips_the_box():
    emulator = emulated(load="constant:2A")
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(DeviceError, match=r"limit 1\.49 A"):
            await _alone(MonsoonLvpm(4.0, place["port"], current_limit=1.5))
        nursery.cancel_scope.cancel()


async def test_the_box_is_set_up_and_left_as_ordered():
    emulator = emulated(hardware_revision=1)
    async with recorded(
        emulator, voltage=3.81, current_limit=3.0, power_up_limit=2.0, usb="on", at_end="off"
    ) as watched:
        await watched.until(lambda: count(watched) > 500)
        right(emulator, watched, 3.81)
        facts = {fact["name"]: fact["value"] for fact in watched.rows("run.facts")}
        assert facts["passthrough"] == '"on"'
        assert float(facts["run_limit"]) == pytest.approx(3.0, abs=0.01)
        assert float(facts["power_up_limit"]) == pytest.approx(2.0, abs=0.01)
    emulator = emulated()
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        for at_end, volts in (("leave", 4.0), ("off", 0.0)):
            async with collecting(MonsoonLvpm(4.0, place["port"], at_end=at_end)) as watched:
                await watched.until(lambda watched=watched: count(watched) > 500)
            with trio.fail_after(5):
                while emulator._streaming or emulator.volts != volts:  # noqa: ASYNC110 - a box tells nobody
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("volts", [0, 2.0, 4.6, 5.0, -1, float("nan")])
def test_a_voltage_that_the_box_cannot_give_is_refused(volts):
    with pytest.raises(MeltError, match=r"expected 2\.01 to 4\.55 V|voltage"):
        configure(MonsoonLvpm, {"voltage": volts}, "meter")


def test_a_voltage_is_needed():
    with pytest.raises(MeltError, match="expected 'voltage', got none"):
        configure(MonsoonLvpm, {"port": "/dev/ttyACM0"}, "meter")


async def test_what_does_not_answer_is_told():
    from melt_stream.emulators._pty import plugged_in

    async with plugged_in() as line:
        with pytest.raises(DeviceError, match="expected a status packet"):
            await _alone(MonsoonLvpm(4.0, line.path))


# The decoder alone


def packets(number: int) -> tuple[box.MonsoonLvpm, list[bytes]]:
    emulator = emulated()
    emulator.began, emulator.setting = 0, 200
    emulator._start(1000)
    return emulator, [emulator._next() for _ in range(number)]


def wrong(emulator: box.MonsoonLvpm, tick: np.ndarray, amps: np.ndarray) -> int:
    true = emulator.load.amps(emulator.started + tick / box.HZ, 4.0)
    return int((np.abs(amps - true) > 1.1 * 2.88 / box.COARSE_SPAN).sum())


@pytest.mark.parametrize("size", [1, 7, 63, 64, 4095])
def test_however_bytes_are_cut_the_rows_are_the_same(size):
    emulator, sent = packets(800)
    data = b"".join(sent)
    decoder = _monsoon.Decoder()
    parts = [decoder.feed(data[i : i + size]) for i in range(0, len(data), size)]
    tick, amps = np.concatenate([p.tick for p in parts]), np.concatenate([p.amps for p in parts])
    whole = _monsoon.Decoder().feed(data)
    assert tick.tolist() == whole.tick.tolist()
    assert (amps == whole.amps).all()
    assert (
        len(tick) == (800 - 1 - 4) * 7
    )  # the last packet waits for what follows it; two calibrations of two
    assert wrong(emulator, tick, amps) == 0


def test_no_damage_makes_a_wrong_reading():
    emulator, sent = packets(60)
    data = b"".join(sent)
    dice = random.Random(7)
    for _ in range(2000):
        hurt = bytearray(data)
        for _ in range(dice.randint(1, 3)):
            at, many = dice.randrange(130, len(hurt) - 800), dice.randint(1, 200)
            match dice.randrange(3):
                case 0:
                    del hurt[at : at + many]
                case 1:
                    hurt[at:at] = dice.randbytes(many)
                case 2:
                    hurt[at] ^= 1 << dice.randrange(8)
        got = _monsoon.Decoder().feed(bytes(hurt))
        assert wrong(emulator, got.tick, got.amps) == 0
        assert len(got.tick) >= (60 - 3 * 5 - 3) * 7


def test_a_status_is_read_as_it_is_written():
    told = _monsoon.status(emulated(serial_number=321)._status())
    assert (told.serial_number, told.volts, told.run_limit, told.passthrough) == (321, 0.0, 8.0, "auto")
    assert _monsoon.set_volts(3.8) == b"\x01\x01\xb4"
    assert _monsoon.frame(_monsoon.STATUS_REQUEST) == b"\x04\x01\x00\x00\x05"
