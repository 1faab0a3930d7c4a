"""The HVPM collector against the emulated box, by socket and below pyusb; its decoder alone."""

from __future__ import annotations

import errno
import random
from contextlib import asynccontextmanager

import numpy as np
import pytest
import trio

from melt_stream.clock import monotonic
from melt_stream.collectors import _hvpm, _hvpm_usb, monsoon_hvpm
from melt_stream.collectors._decode_hvpm import CALIBRATED, DAMAGED, KEPT, LOST, UNCALIBRATED
from melt_stream.collectors._hvpm_rows import WHY
from melt_stream.collectors.monsoon_hvpm import MonsoonHvpm
from melt_stream.emulators import Faults, Load
from melt_stream.emulators import monsoon_hvpm as box
from melt_stream.errors import ConfigError, DeviceError, MeltError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from tests.collectors.collecting import Watched, collecting
from tests.emulators.emulated_usb import EmulatedUsb

pytestmark = pytest.mark.realtime

RAMP = "ramp:0W,4W,700ms"
STEP = 6.4 / 48_000
"""Amperes of a count of the coarse range."""


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    _hvpm.warm_up()


def count(watched: Watched, stream: str = "main") -> int:
    return sum(batch.data.num_rows for batch in watched.batches if batch.source.key == f"it.{stream}")


def columns(watched: Watched, stream: str = "main") -> dict[str, np.ndarray]:
    table = watched.table(f"it.{stream}")
    return {name: table[name].to_numpy() for name in table.column_names}


def emulated(*faults: str, load: str = RAMP, **fields) -> box.MonsoonHvpm:
    made = box.MonsoonHvpm(**fields)
    made.load, made.faults = Load.parse(load), Faults.parse(faults, box.MonsoonHvpm.own_faults)
    return made


@asynccontextmanager
async def recorded(emulator: box.MonsoonHvpm, **fields):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        async with collecting(MonsoonHvpm(**{"voltage": 4.0, "port": place["port"], **fields})) as watched:
            yield watched
        nursery.cancel_scope.cancel()


def right(emulator: box.MonsoonHvpm, watched: Watched, volts: float = 4.0, off: float = 0.51 * STEP) -> None:
    """No reading is wrong, and each one that is missing lies in one gap that says so."""
    rows = columns(watched)
    tick = rows["tick"]
    assert (np.diff(tick) > 0).all()
    true = emulator.load.amps(emulator.started + tick / (box.HZ * emulator.faults.rate), volts)
    wrong = np.flatnonzero(np.abs(rows["amps"] - true) > off)
    assert not len(wrong), [(int(tick[i]), float(rows["amps"][i]), float(true[i])) for i in wrong[:5]]
    assert np.unique(rows["volts"]) == pytest.approx([volts], abs=2e-4)
    missing = np.setdiff1d(np.arange(tick[-1] + 1), tick)
    gaps = [gap for gap in watched.gaps("main") if gap["stop"] <= tick[-1] + 1]
    said = [n for gap in gaps for n in range(gap["start"], gap["stop"])]
    assert sorted(said) == missing.tolist(), "a hole that no gap tells of, or the other way round"
    assert all(gap["lost_rows"] == gap["stop"] - gap["start"] for gap in gaps)


def lost(watched: Watched) -> list[int]:
    return [
        n
        for gap in watched.gaps("main")
        if gap["reason"] != WHY[CALIBRATED]
        for n in range(gap["start"], gap["stop"])
    ]


def really_lost(emulator: box.MonsoonHvpm, reached: int) -> list[int]:
    """What the box says it never sent."""
    return [n for first, many in emulator.lost if first < reached for n in range(first, first + many)]


async def test_it_measures_what_the_load_draws():
    emulator = emulated()
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 8000)
        right(emulator, watched)
        assert lost(watched) == really_lost(emulator, int(columns(watched)["tick"][-1]))
        calibrations = [gap for gap in watched.gaps("main") if gap["reason"] == WHY[CALIBRATED]]
        assert [(gap["start"], gap["lost_rows"]) for gap in calibrations][:2] == [(0, 10), (6250, 10)]
        (rail,) = watched.rows("run.rails")
        assert (rail["name"], rail["boundary"], rail["kind"]) == ("main", "battery", "gauge")
        facts = {fact["name"]: fact["value"] for fact in watched.rows("run.facts")}
        assert (facts["serial_number"], facts["volts"], facts["firmware"]) == ("20123", "4.0", "32")
        readings = [row for row in watched.rows("run.readings") if row["clock_of"] == "it.sample"]
        began = emulator.began + emulator.started * 1e9
        assert readings[0]["kind"] == "cause"
        assert readings[0]["not_before"] <= began
        arrivals = [row for row in readings if row["kind"] == "arrival"]
        assert len(arrivals) >= 4
        assert min(row["not_after"] - (began + row["count"] * 200_000) for row in arrivals) > 0


@pytest.mark.parametrize(
    ("channels", "streams"),
    [
        (("main", "usb", "aux"), {"main": (4.0, None), "usb": (5.0, 0.25), "aux_amps": (None, 0.04)}),
        (("aux",), {"aux": (3.0, 0.04)}),
    ],
)
async def test_each_channel_is_a_stream_with_the_volts_that_the_box_measures(channels, streams):
    emulator = emulated("skip@0.2:30")
    async with recorded(emulator, channels=channels) as watched:
        last = list(streams)[-1]
        await watched.until(lambda: count(watched, last) > 3000)
        for stream, (volts, amps) in streams.items():
            rows = columns(watched, stream)
            if volts is not None:
                assert rows["volts"] == pytest.approx(np.full(len(rows["tick"]), volts), abs=2e-4)
            if amps is not None:
                assert rows["amps"] == pytest.approx(np.full(len(rows["tick"]), amps), abs=1e-5)
            told = [(gap["start"], gap["stop"]) for gap in watched.gaps(stream)]
            assert told == [(gap["start"], gap["stop"]) for gap in watched.gaps(last)]
        assert {row["name"] for row in watched.rows("run.rails")} == {"main", "usb", "aux"} & set(streams)


async def test_fine_and_coarse_meet():
    emulator = emulated(load="ramp:0mA,120mA,500ms")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 3000)
        right(emulator, watched)
        rows = columns(watched)
        fine = rows["amps"] < 0.06
        true = emulator.load.amps(emulator.started + rows["tick"] / box.HZ, 4.0)
        assert np.abs(rows["amps"] - true)[fine].max() < 0.51 * 36.5e-3 / 32_000 + 1e-8


@pytest.mark.parametrize(
    ("fault", "rate"),
    [
        ("skip@0.7:1", "rate:150"),
        ("skip@0.4:2500", "rate:-400"),
        ("stall@0.6:0.5", "rate:150"),
        ("skip@0.3/0.2:7", "rate:-400"),
    ],
)
async def test_what_was_dropped_is_a_gap_of_its_true_length(fault, rate):
    emulator = emulated(fault, rate)
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 1000 and columns(watched)["tick"][-1] > 5500, seconds=20)
        right(emulator, watched)
        reached = int(columns(watched)["tick"][-1])
        assert lost(watched) == [
            n for n in really_lost(emulator, reached) if n % 6250 >= 10 or n in lost(watched)
        ]
        assert lost(watched)


async def test_a_lost_calibration_is_made_good_by_the_next():
    emulator = emulated("skip@1:2000")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 13_500, seconds=20)
        rows = columns(watched)
        off = np.abs(rows["amps"] - emulator.load.amps(emulator.started + rows["tick"] / box.HZ, 4.0))
        before, after = off[rows["tick"] < 4900], off[rows["tick"] > 12_510]
        assert max(before.max(), after.max()) < 0.51 * STEP
        assert 3 * STEP < off.max() < 4.6 * STEP  # by what the zero has moved: four counts


@pytest.mark.parametrize(("fault", "most"), [("lose@0.5:30", 3), ("junk@0.5:64", 3), ("junk@0.5:300", 15)])
async def test_a_damaged_packet_costs_its_samples_and_no_more(fault, most):
    emulator = emulated(fault)
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 3500)
        right(emulator, watched)
        assert lost(watched) == really_lost(emulator, 1 << 30)
        assert len(lost(watched)) == most


async def test_a_packet_cut_in_its_padding_loses_nothing():
    emulator = emulated("lose@0.3:5")
    async with recorded(emulator) as watched:
        await watched.until(lambda: count(watched) > 3000)
        right(emulator, watched)
        assert [done.kind for done in emulator.faults.done] == ["lose"]
        assert lost(watched) == []


async def test_a_stale_stream_is_stopped_and_thrown_away():
    emulator = emulated("stale")
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        while not emulator.fetch(64):  # noqa: ASYNC110 - samples come with time
            await trio.sleep(0.01)
        async with collecting(MonsoonHvpm(4.0, place["port"])) as watched:
            await watched.until(lambda: count(watched) > 2000)
            right(emulator, watched)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("unplug@0.3", Transient, "was it unplugged"),
        ("stall@0.3:5", Transient, "expected samples within 1 s, got none"),
        ("over_current@1.2", DeviceError, r"expected 4 V at the output, got 0\.00 V.*limit 15\.6[23] A"),
    ],
)
async def test_what_ends_the_stream_is_named(fault, kind, said):
    emulator = emulated(fault)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(kind, match=said):
            await _alone(MonsoonHvpm(4.0, place["port"]))
        nursery.cancel_scope.cancel()


async def _alone(collector: MonsoonHvpm) -> None:
    with trio.fail_after(20):
        await collector.collect(Hub().outlet("it"))


async def test_a_load_above_the_limit_trips_the_box():
    emulator = emulated(load="constant:2A")
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(DeviceError, match=r"limit 1\.50 A"):
            await _alone(MonsoonHvpm(4.0, place["port"], current_limit=1.5))
        nursery.cancel_scope.cancel()


async def test_the_box_is_set_up_and_left_as_ordered():
    emulator = emulated()
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        for at_end, volts in (("leave", 11.5), ("off", 0.0)):
            orders = {"current_limit": 3.0, "power_up_limit": 9.0, "usb": "on", "at_end": at_end}
            async with collecting(MonsoonHvpm(11.5, place["port"], **orders)) as watched:
                await watched.until(lambda watched=watched: count(watched) > 500)
                right(emulator, watched, 11.5)
                facts = {fact["name"]: fact["value"] for fact in watched.rows("run.facts")}
                assert facts["passthrough"] == '"on"'
                assert float(facts["run_limit"]) == pytest.approx(3.0, abs=1e-3)
                assert float(facts["power_up_limit"]) == pytest.approx(9.0, abs=1e-3)
            with trio.fail_after(5):
                while emulator.sampling or emulator.volts != volts:  # noqa: ASYNC110 - a box tells nobody
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({0x88: 0xD000}, "low DAC calibration within 0xd000 to 0xf000, got 0xd000"),
        ({0x89: 0xFFFF}, "high DAC calibration"),
        ({0x45: 1}, r"expected hardware model 2 \(HVPM\), got 1: a white box that was reflashed"),
    ],
)
async def test_a_box_that_may_give_another_voltage_is_refused(memory, said):
    emulator = emulated(memory=box.MEMORY | memory)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(DeviceError, match=said):
            await _alone(MonsoonHvpm(4.0, place["port"]))
        assert emulator.volts == 0
        nursery.cancel_scope.cancel()


async def test_an_order_that_is_not_taken_is_told():
    emulator = emulated()
    emulator.control_out = lambda *_: None
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        with pytest.raises(
            DeviceError, match="expected the box to take a run_limit of 3 A, USB pass-through off"
        ):
            await _alone(MonsoonHvpm(4.0, place["port"], current_limit=3.0, usb="off"))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("volts", [0, 0.7, 13.6, -1, float("nan")])
def test_a_voltage_that_the_box_cannot_give_is_refused(volts):
    with pytest.raises(MeltError, match=r"expected 0\.8 to 13\.5 V|voltage"):
        configure(MonsoonHvpm, {"voltage": volts}, "meter")


def test_a_voltage_is_needed():
    with pytest.raises(MeltError, match="expected 'voltage', got none"):
        configure(MonsoonHvpm, {"port": ""}, "meter")


async def test_an_address_where_nobody_plays_is_told():
    with pytest.raises(Transient, match="expected an emulated box"):
        await _alone(MonsoonHvpm(4.0, "emulator:127.0.0.1:1"))
    with pytest.raises(ConfigError, match="expected emulator:HOST:PORT, got 'emulator:5025'"):
        await _alone(MonsoonHvpm(4.0, "emulator:5025"))


# Below the real pyusb


async def test_it_measures_through_pyusb(monkeypatch):
    emulator = emulated("skip@0.3:50")
    emulator.began = monotonic()
    usb = EmulatedUsb(emulator)
    monkeypatch.setattr("usb.core.find", usb.find)
    assert MonsoonHvpm.here().what == "Monsoon HVPM 20123"
    async with collecting(MonsoonHvpm(4.0, "20123")) as watched:
        await watched.until(lambda: count(watched) > 3000)
        right(emulator, watched)
        assert lost(watched) == really_lost(emulator, 1 << 30)
    assert not usb.driver
    assert usb.open == 0
    assert max(usb.reads) == 2048


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [("unplug@0.2", Transient, "was it unplugged"), ("stall@0.2:5", Transient, "got none; is it on")],
)
async def test_what_pyusb_raises_is_told(monkeypatch, fault, kind, said):
    emulator = emulated(fault)
    emulator.began = monotonic()
    monkeypatch.setattr("usb.core.find", EmulatedUsb(emulator).find)
    with pytest.raises(kind, match=said):
        await _alone(MonsoonHvpm(4.0))


def test_what_may_be_opened_and_why_not():
    one, two = emulated(), emulated(serial_number=7)
    usb = EmulatedUsb(one, two)
    assert _hvpm_usb.serial_numbers(usb.find) == ["20123", "7"]
    assert _hvpm_usb.open_usb("7", usb.find).name == "Monsoon HVPM 7"
    with pytest.raises(Transient, match="got 20123, 7; is it on"):
        _hvpm_usb.open_usb("8", usb.find)
    with pytest.raises(DeviceError, match="expected one Monsoon HVPM on USB"):
        _hvpm_usb.open_usb("", usb.find)
    with pytest.raises(Transient, match="got none"):
        _hvpm_usb.open_usb("", EmulatedUsb().find)
    with pytest.raises(DeviceError, match="another program has it open"):
        _hvpm_usb.open_usb("", EmulatedUsb(one, in_use=True).find)
    with pytest.raises(DeviceError, match=r"this user may not; put .SUBSYSTEM"):
        _hvpm_usb.open_usb("", EmulatedUsb(one, claimed=errno.EACCES).find)
    with pytest.raises(Transient, match="plug it in again"):
        _hvpm_usb.open_usb("", EmulatedUsb(one, claimed=errno.EIO).find)


def test_a_box_that_samples_answers_no_question():
    emulator = emulated()
    _hvpm.start(emulator)
    with pytest.raises(monsoon_hvpm.Refused, match="it still samples"):
        _hvpm.about(emulator)


def test_doctor_says_what_pyusb_lacks(monkeypatch):
    import usb.core

    def no_library(**_):
        raise usb.core.NoBackendError("No backend available")

    monkeypatch.setattr("usb.core.find", no_library)
    health = MonsoonHvpm(4.0).check()
    assert not health.ok
    assert "libusb-1.0-0" in health.cure
    monkeypatch.setattr("usb.core.find", EmulatedUsb().find)
    assert "no Monsoon HVPM on USB" in MonsoonHvpm.here().what
    assert "no Monsoon HVPM 5 on USB" in MonsoonHvpm(4.0, "5").check().what


# The decoder alone


def packets(number: int, **fields) -> tuple[box.MonsoonHvpm, list[bytes]]:
    emulator = emulated(**fields)
    emulator.began, emulator.memory[box.VOLTS] = 0, 4 << 20
    emulator._start(100)
    emulator._pack(np.arange(3 * number), box.HZ)
    return emulator, list(emulator._ready)


def decoder(channels=("main", "usb", "aux")) -> _hvpm.Decoder:
    return _hvpm.Decoder((6400, 36500, 600, 14000, 250, 3100), (-15, 15, -7, 7), channels)


@pytest.mark.parametrize("per_read", [1, 2, 7, 400])
def test_however_packets_are_read_the_rows_are_the_same(per_read):
    emulator, sent = packets(400)
    one = decoder()
    parts = [one.feed(b"".join(sent[i : i + per_read]), 0) for i in range(0, 400, per_read)]
    tick = np.concatenate([part.tick for part in parts])
    values = np.concatenate([part.values for part in parts])
    whole = decoder().feed(b"".join(sent), 0)
    assert tick.tolist() == whole.tick.tolist() == [n for n in range(1200) if n % 500 >= 10]
    assert (values == whole.values).all()
    true = emulator.load.amps(emulator.started + tick / box.HZ, 4.0)
    assert np.abs(values[:, 0] - true).max() < 0.51 * STEP
    assert whole.events[:, [0, 2, 3]].tolist() == [[CALIBRATED, 500 * turn, 10] for turn in range(3)]


def test_the_last_five_calibrations_are_averaged_and_none_counts_before():
    """A record's currents, computed here by hand from the calibrations that went before."""
    dice = random.Random(3)
    one, zeros, references = decoder(("main",)), [], []
    for turn in range(40):
        kind = dice.choice([0x00, 0x10, 0x30, 0x20])
        coarse, fine = (dice.randrange(1, 65_000) for _ in range(2))
        record = b"".join(n.to_bytes(2, "big") for n in (coarse, fine, 0, 0, 0, 0, 16_000, 40_000))
        got = one.feed(bytes([0, 0, 0, 1]) + record + bytes([0xFF, kind | 0x0F]), 0)
        if kind == 0x10:
            zeros.append((coarse, fine))
        elif kind == 0x30:
            references.append((coarse, fine))
        ready = len(zeros) >= KEPT and len(references) >= KEPT
        if kind != 0x00 or not ready:
            assert not len(got.tick)
            if kind == 0x00:
                assert got.events.tolist() == [[UNCALIBRATED, 0, turn, 1]]
            continue
        place, count, unit, offset, scale = (
            (1, fine, 1e-6, 15, 36500) if fine < 64_000 else (0, coarse, 1e-3, -15, 6400)
        )
        zero = np.mean([z[place] for z in zeros[-5:]]) + offset
        span = np.mean([r[place] for r in references[-5:]]) - zero
        assert got.values[0, 0] == pytest.approx((count - zero) * scale * unit / span, rel=1e-5)
        assert got.values[0, 3:].tolist() == pytest.approx([4.0, 5.0])
    assert len(zeros) > 6


def test_the_counter_goes_round_and_the_host_s_clock_says_how_often():
    _, sent = packets(30)
    one = decoder()
    one.feed(b"".join(sent[:10]), 0)
    after = (65_000).to_bytes(2, "little") + sent[10][2:]
    assert one.feed(after, 66_000).events[0].tolist() == [LOST, 0, 30, 65_000]
    after = (64).to_bytes(2, "little") + sent[11][2:]  # 600 on, modulo 65,536
    got = one.feed(after, 67_000)
    assert got.events[0].tolist() == [LOST, 0, 30 + 65_000 + 3, 600 + 65_536]


def test_no_damage_makes_a_wrong_reading():
    emulator, sent = packets(60)
    dice = random.Random(7)
    for _ in range(2000):
        hurt, lost_at, now = decoder(), [], 0
        read = b""
        for number, packet in enumerate(sent[:40]):
            if number > 5 and dice.random() < 0.1:
                lost_at.append(number)
                packet = dice.choice(  # noqa: PLW2901 - what came in its place
                    [
                        packet[: dice.randrange(1, 58)],
                        bytes([255] * 64),
                        dice.randbytes(3),
                        packet[:3] + b"\x04" + packet[4:],
                    ]
                )
            read += packet
            if len(packet) < 64 or dice.random() < 0.2:
                got = hurt.feed(read, 30)
                true = emulator.load.amps(emulator.started + got.tick / box.HZ, 4.0)
                assert np.abs(got.values[:, 0] - true).max(initial=0) < 0.51 * STEP
                now += len(got.tick) + sum(event[3] for event in got.events.tolist())
                assert {kind for kind, *_ in got.events.tolist()} <= {CALIBRATED, DAMAGED}
                assert now == hurt.next_tick
                read = b""
