"""The meters `tc66` and `um25c`: what their answers mean, and the collectors on emulators that others' programs read."""

from __future__ import annotations

import itertools
import struct
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tc66_serial import codec

from melt_stream.collectors import _tc66, _um25c
from melt_stream.collectors.tc66 import Tc66
from melt_stream.collectors.um25c import Um25c
from melt_stream.emulators import Faults, Load
from melt_stream.emulators import tc66 as emulated_tc66
from melt_stream.emulators import um25c as emulated_um25c
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting

METERS = {
    "tc66": (Tc66, emulated_tc66.Tc66, {"hz": 20.0, "timeout_s": 0.3}),
    "um25c": (Um25c, emulated_um25c.Um25c, {"hz": 10.0, "timeout_s": 0.3}),
}
METERS_ASK = {emulated_tc66.Tc66: b"getva", emulated_um25c.Um25c: b"\xf0"}
both = pytest.mark.parametrize("name", sorted(METERS))


def held(kind, after):
    """A meter whose faults come due only when it has heard so many questions: a busy machine may be slow to ask."""

    class Held(kind):
        def split(self, waiting):
            if self.heard.count(METERS_ASK[kind]) >= after:
                self.faults.orders += self.later
                self.later = []
            return super().split(waiting)

    return Held


@asynccontextmanager
async def playing(name, *faults, load="constant:1.5W", after=6, **fields):
    kind = METERS[name][1]
    meter = held(kind, after)(load=Load.parse(load), **fields)
    meter.later = Faults.parse(faults, kind.own_faults).orders
    async with trio.open_nursery() as nursery:
        place = await nursery.start(meter.play)
        yield meter, place["port"]
        nursery.cancel_scope.cancel()


def made(name, port, **fields):
    return configure(METERS[name][0], METERS[name][2] | {"port": port} | fields, name)


def tc66_answer(amps=0.25, **fields):
    meter = emulated_tc66.Tc66(**fields)
    return meter.answer(b"getva", amps)


def um_answer(amps=0.25, **fields):
    return emulated_um25c.Um25c(**fields).answer(b"\xf0", amps)


@given(st.floats(0, 20), st.floats(0, 5), st.integers(-40, 120))
def test_an_answer_of_a_tc66_means_what_tc66_serial_says(volts, amps, temperature):
    answer = tc66_answer(amps, volts=volts, temperature=temperature)
    ours, theirs = _tc66.told(answer), codec.parse(codec.decrypt(answer))
    assert ours.meter == f"TC66 {theirs.serial_number}"
    assert ours.facts["runs"] == theirs.run_count
    assert ours.row["volts"] == pytest.approx(theirs.voltage)
    assert ours.row["amps"] == pytest.approx(theirs.current)
    assert ours.row["watts"] == pytest.approx(theirs.power)
    assert ours.row["temperature"] == theirs.signed_temperature == temperature


@given(st.integers(0, 191), st.integers(1, 255))
def test_a_changed_byte_of_a_tc66_is_always_found(place, change):
    answer = bytearray(tc66_answer())
    answer[place] ^= change
    with pytest.raises(Transient, match="damaged"):
        _tc66.told(bytes(answer))


@given(st.binary(min_size=192, max_size=192))
def test_junk_is_no_tc66(junk):
    with pytest.raises(DeviceError, match="is its key the known one"):
        _tc66.told(junk)


@given(st.integers(1, 191))
def test_an_answer_of_a_tc66_that_is_shifted_or_short_is_none(place):
    answer = tc66_answer()
    with pytest.raises(DeviceError):
        _tc66.told(answer[place:] + answer[:place])
    with pytest.raises(Transient, match=f"expected 192 bytes, got {place}"):
        _tc66.told(answer[:place])


@pytest.mark.parametrize(
    ("model", "volts", "amps"), [("UM24C", 0.01, 0.001), ("UM25C", 0.001, 0.0001), ("UM34C", 0.01, 0.001)]
)
def test_an_answer_of_each_um_has_its_own_steps(model, volts, amps):
    answer = bytearray(um_answer(model=model))
    struct.pack_into(">HH", answer, 2, 5071, 1203)
    struct.pack_into(">II", answer, 16 + 8 * 2, 1234, 5678)
    answer[129] = _um25c.checksum(bytes(answer)) if model == "UM34C" else answer[129]
    told = _um25c.told(bytes(answer))
    assert told.meter == model
    assert told.row["volts"] == pytest.approx(5071 * volts)
    assert told.row["amps"] == pytest.approx(1203 * amps)
    assert (told.row["charge"], told.row["energy"], told.row["group"]) == (1234, 5678, 2)
    assert (told.row["d_plus"], told.row["d_minus"], told.row["celsius"]) == (2.75, 2.68, 31)


@pytest.mark.parametrize("model", ["UM24C", "UM25C", "UM34C"])
def test_an_answer_of_a_um_that_is_shifted_short_or_ends_otherwise_is_none(model):
    answer = um_answer(model=model)
    for place in range(1, 130):
        with pytest.raises(DeviceError):
            _um25c.told(answer[place:] + answer[:place])
        with pytest.raises(Transient, match="expected 130 bytes"):
            _um25c.told(answer[:place])
    with pytest.raises(Transient, match="at the end"):
        _um25c.told(answer[:-1] + bytes([answer[-1] ^ 1]))
    with pytest.raises(DeviceError, match="got ffff"):
        _um25c.told(b"\xff\xff" + answer[2:])


@given(st.sampled_from(_um25c.CHECKED), st.integers(1, 255))
def test_the_um34c_alone_checks_what_it_says(place, change):
    answer = bytearray(um_answer(model="UM34C"))
    answer[place] ^= change
    with pytest.raises(DeviceError):
        _um25c.told(bytes(answer))


@both
async def test_values_on_a_grid_with_rail_and_facts(name):
    small = "constant:15mW"  # its totals do not move meanwhile
    async with playing(name, load=small) as (_, port), collecting(made(name, port, timeout_s=2.0)) as watched:
        await watched.until(lambda: len(watched.of("usb")) > 5)
        rows = watched.of("usb")
        assert all((row["volts"], row["amps"], row["watts"]) == (5.0, 0.003, 0.015) for row in rows)
        assert [row["repeat"] for row in rows] == [False, *[True] * (len(rows) - 1)]
        assert all(0 < row["t_u"] < 1e9 for row in rows)
        (rail,) = watched.rows("run.rails")
        assert (rail["name"], rail["boundary"], rail["kind"]) == ("usb", "dc_in", "gauge")
        assert rail["gain"] == pytest.approx((0.0005**2 + 0.001**2) ** 0.5 / 3**0.5)
        assert "data sheet was not at hand" in rail["source"]
        facts = {row["name"]: row["value"] for row in watched.rows("run.facts")}
        assert facts["meter"] == {"tc66": '"TC66 4711"', "um25c": '"UM25C"'}[name]
        assert watched.gaps() == []


async def test_a_tc66_says_who_it_is_and_how_often_it_ran():
    async with playing("tc66", runs=8) as (meter, port), collecting(made("tc66", port)) as watched:
        await watched.until(lambda: watched.of("usb"))
        facts = {row["name"]: row["value"] for row in watched.rows("run.facts")}
        assert (facts["serial_number"], facts["runs"], facts["firmware"]) == ("4711", "8", '"1.18"')
        assert meter.heard[:2] == [b"query", b"getva"]


@both
async def test_a_sample_that_comes_again_is_told_from_a_new_one(name):
    async with (
        playing(name, load="ramp:0W,100W,100s", update_hz=4.0) as (_, port),
        collecting(made(name, port)) as watched,
    ):
        await watched.until(lambda: len(watched.of("usb")) > 12)
        rows = watched.of("usb")
    assert any(row["repeat"] for row in rows)
    for before, row in itertools.pairwise(rows):
        assert row["repeat"] == (row["watts"] == before["watts"])


@both
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stall@0:0.5", "bytes in answer to"),
        ("lose@0:40", "bytes in answer to"),
        ("junk@0:16", "expected"),
        ("junk_instead@0", "expected"),
        ("checksum@0", "damaged"),
    ],
)
async def test_every_fault_is_a_gap_that_says_why_and_no_reading_is_wrong(name, fault, said):
    ramp = "ramp:0W,100W,100s"  # every reading tells when it was taken
    async with playing(name, fault, load=ramp) as (meter, port):
        async with collecting(made(name, port)) as watched:
            await watched.until(lambda: meter.faults.done and watched.gaps("usb"))
            end = max(gap["stop"] for gap in watched.gaps("usb"))
            await watched.until(lambda: sum(row["tick"] > end for row in watched.of("usb")) > 3)
        rows = watched.of("usb")
        at = meter.began + meter.faults.done[0].seconds * 1e9
        gaps = [gap for gap in watched.gaps("usb") if "slots" not in gap["reason"]]
        (gap,) = [gap for gap in gaps if gap["start"] <= at <= gap["stop"]]
        assert said in gap["reason"]
        ticks = [row["tick"] for row in rows]
        assert gap["start"] in ticks
        assert ticks.index(gap["stop"]) == ticks.index(gap["start"]) + 1
        for row in rows:
            expected = (row["tick"] - meter.began) / 1e9
            assert row["volts"] == 5.0
            assert row["watts"] == pytest.approx(expected, abs=row["t_u"] / 1e9 + 0.002)
            assert row["amps"] * 5.0 == pytest.approx(expected, abs=row["t_u"] / 1e9 + 0.002)


@pytest.mark.realtime  # alone: somebody else's terminal would get the number of the one that went away
@both
async def test_an_unplugged_meter_is_a_gap_until_the_end(name):
    async with playing(name, "unplug@0") as (_, port):
        ending = await record({"it": made(name, port)}, [keep := Keep()], seconds=1.5)
    assert ending.reason == "time limit"
    gap = keep.rows("run.gaps")[-1]
    assert "unplugged" in gap["reason"] or "is it plugged in" in gap["reason"]
    assert gap["start"] == keep.column("it.usb", "tick")[-1]


@both
async def test_silence_from_the_start_has_a_name(name):
    silent = "answer to b'query'" if name == "tc66" else "expected 130 bytes"
    async with playing(name, "stall@0:60", after=0) as (_, port):
        with pytest.RaisesGroup(pytest.RaisesExc(Transient, match=silent), allow_unwrapped=True):
            await made(name, port).collect(Hub().outlet("it"))


@both
async def test_a_port_that_is_not_there_and_one_that_is_taken_have_names(name):
    with pytest.RaisesGroup(pytest.RaisesExc(Transient, match="is it plugged in"), allow_unwrapped=True):
        await made(name, "/dev/none").collect(Hub().outlet("it"))
    async with playing(name) as (_, port), collecting(made(name, port)) as watched:
        await watched.until(lambda: watched.of("usb"))
        with pytest.RaisesGroup(
            pytest.RaisesExc(DeviceError, match="another program has it open"), allow_unwrapped=True
        ):
            await made(name, port).collect(Hub().outlet("it"))


async def test_what_is_no_tc66_ends_the_run():
    async with playing("tc66", "key@0", after=0) as (_, port):
        ending = await record({"it": made("tc66", port)}, [Keep()])
    assert "is its key the known one" in str(ending.error)
    async with playing("tc66", boots=True) as (_, port):
        ending = await record({"it": made("tc66", port)}, [Keep()])
    assert "in its boot loader" in str(ending.error)


async def test_another_um_than_the_recipe_says_ends_the_run():
    async with playing("um25c", model="UM34C") as (_, port):
        ending = await record({"it": made("um25c", port, model="UM25C")}, [Keep()])
    assert isinstance(ending.error, DeviceError)
    assert "expected a UM25C, got a UM34C" in str(ending.error)


class Exchanged(emulated_tc66.Tc66):
    """Unplugged, and another one plugged in, after three answers."""

    def answer(self, request, amps):
        self.serial_number = 12 if self.heard.count(b"getva") > 3 else 4711
        return super().answer(request, amps)


async def test_another_meter_in_the_middle_ends_the_run():
    async with trio.open_nursery() as nursery:
        place = await nursery.start(Exchanged().play)
        ending = await record({"it": made("tc66", place["port"])}, [keep := Keep()])
        nursery.cancel_scope.cancel()
    assert "expected TC66 4711, got TC66 12: another meter" in str(ending.error)
    assert len(keep.rows("it.usb")) == 3


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("tc66", {"hz": 100.0}, "less than or equal to 20"),
        ("um25c", {"model": "UM99"}, "input should be"),
        ("tc66", {"boundary": "socket"}, "input should be"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_starts(name, fields, said):
    with pytest.raises(ConfigError, match=said):
        made(name, "/dev/x", **fields)
