"""The collector `scpi` on the emulated meter, which pyvisa has proved (tests/emulators/test_scpi.py)."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._scpi_link import Link
from melt_stream.collectors._scpi_presets import PRESETS
from melt_stream.collectors.scpi import Scpi
from melt_stream.emulators import Faults, Load, Place
from melt_stream.emulators import scpi as emulated
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting


@asynccontextmanager
async def playing(*faults: str, load: str = "constant:1.5W", **fields):
    meter = emulated.Scpi(
        load=Load.parse(load), faults=Faults.parse(faults, emulated.Scpi.own_faults), **fields
    )
    async with trio.open_nursery() as nursery:
        place = await nursery.start(meter.play)
        yield meter, place
        nursery.cancel_scope.cancel()


def made(place: Place, **fields) -> Scpi:
    where = str(place["port"]) if "port" in place else f"{place['host']}:{place['tcp_port']}"
    return configure(Scpi, {"preset": "rs_ngu", "hz": 100.0, "address": where, **fields}, "it")


@pytest.mark.parametrize("serial", [False, True], ids=["tcp", "pty"])
async def test_volts_and_amps_on_a_grid(serial):
    async with playing(serial=serial, volts=5.0) as (meter, place), collecting(made(place)) as watched:
        await watched.until(lambda: len(watched.of("output")) > 20)
        rows = watched.of("output")
        assert all((row["volts"], row["amps"]) == (5.0, pytest.approx(0.3)) for row in rows)
        assert all(row["t_u"] > 0 for row in rows)
        (rail,) = watched.rows("run.rails")
        assert (rail["name"], rail["boundary"], rail["kind"]) == ("output", "dc_in", "gauge")
        facts = {row["name"]: row["value"] for row in watched.rows("run.facts")}
        assert "emulated SCPI meter" in facts["idn"]
        assert meter.heard[:3] == ["*IDN?", "*CLS", "SYST:ERR?"]


@pytest.mark.parametrize("preset", sorted(PRESETS))
async def test_every_preset_is_understood_and_makes_power(preset):
    own = {} if PRESETS[preset].rails else {"rails": {"board": {"boundary": "dc_in", "volts": 5.0}}}
    async with playing(volts=5.0) as (meter, place):
        keep = Keep()
        collector = made(place, preset=preset, **own)
        ending = await record({"it": collector}, [keep], seconds=0.3)
        assert ending.error is None
        (stream,) = {rail["name"] for rail in keep.rows("run.rails")}
        rows = keep.rows(f"it.{stream}")
        watts = [row["watts"] if "watts" in row else row["volts"] * row["amps"] for row in rows]
        assert watts == pytest.approx([1.5] * len(rows))
        for command in PRESETS[preset].setup:
            assert command in meter.heard


def test_a_preset_alone_measures_no_power_where_the_instrument_does_not():
    assert made({"port": "/dev/x"}, preset="keysight_34465a").described.declared() == []


@pytest.mark.parametrize("serial", [False, True], ids=["tcp", "pty"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stall@0.4:0.3", "expected an answer to 'MEAS:"),
        ("garble@0.4", "expected"),
        ("error@0.4:-222", 'the instrument reports -222,"Injected"'),
        ("disconnect@0.4", "closed the connection"),
    ],
)
async def test_every_fault_is_a_gap_that_says_why_and_no_reading_is_wrong(serial, fault, said):
    if serial and fault.startswith("disconnect"):
        return
    ramp = "ramp:0W,100W,100s"  # every reading tells when it was taken
    async with playing(fault, serial=serial, load=ramp, volts=5.0) as (meter, place):
        async with collecting(made(place, timeout_s=0.1)) as watched:
            await watched.until(lambda: watched.gaps("output") and len(watched.of("output")) > 30)
            end = watched.gaps("output")[-1]["stop"]
            await watched.until(lambda: sum(row["tick"] > end for row in watched.of("output")) > 10)
        (fault_done,) = meter.faults.done
        gaps = [gap for gap in watched.gaps("output") if "slots" not in gap["reason"]]
        assert any(said in gap["reason"] for gap in gaps)
        rows = watched.of("output")
        at = meter.began + fault_done.seconds * 1e9
        assert any(gap["start"] <= at <= gap["stop"] for gap in gaps)
        for row in rows:
            assert row["volts"] == 5.0
            expected = (row["tick"] - meter.began) / 1e9
            assert row["amps"] * 5.0 == pytest.approx(expected, abs=row["t_u"] / 1e9 + 0.001)
        # a hole no longer than the fault, the wait for the answer, and the questions why
        for gap in gaps:
            assert not [row for row in rows if gap["start"] < row["tick"] < gap["stop"]]


async def test_an_instrument_that_is_switched_off_ends_what_it_began():
    async with playing("unplug@0.2") as (_, place):
        ending = await record({"it": made(place, timeout_s=0.1)}, [keep := Keep()], seconds=1.0)
    assert ending.reason == "time limit"
    (gap,) = keep.rows("run.gaps")
    assert gap["stop"] - gap["start"] > 5e8


async def test_a_set_up_that_it_refuses_is_told_in_its_words():
    async with playing() as (_, place):
        ending = await record({"it": made(place, setup=["CONF:POWER"])}, [Keep()])
    assert isinstance(ending.error, DeviceError)
    assert "expected no error after the set-up ['CONF:POWER'], got -113,\"Undefined header\"" in str(
        ending.error
    )


async def test_another_instrument_is_not_taken_for_it():
    async with playing() as (_, place):
        ending = await record({"it": made(place, idn="34465A")}, [Keep()])
    assert "expected *IDN? with '34465A', got 'melt_stream,emulated" in str(ending.error)


async def test_what_it_cannot_measure_is_null():
    async with playing(load="constant:1e39A") as (_, place), collecting(made(place)) as watched:
        await watched.until(lambda: watched.of("output"))
        assert watched.of("output")[0]["amps"] is None


async def test_errors_are_looked_for_while_all_goes_well():
    async with playing() as (meter, place), collecting(made(place, errors_every_s=0.05)) as watched:
        await watched.until(lambda: watched.of("output"))
        meter.push('-240,"Hardware error"')
        told = 'expected no error, got -240,"Hardware error"'  # a busy machine may leave gaps of its own
        await watched.until(lambda: any(told in gap["reason"] for gap in watched.gaps("output")))


async def test_nobody_there():
    with pytest.RaisesGroup(pytest.RaisesExc(Transient, match="expected an instrument that answers")):
        await made({"port": "/dev/none"}).collect(Hub().outlet("it"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "expected 'address', got none"),
        ({"address": "a", "preset": "fluke"}, "preset: expected one of keysight_34465a"),
        ({"address": "a:b", "preset": "rs_ngu"}, "expected HOST:PORT, got 'a:b'"),
        ({"address": "a"}, "expected a preset, or query and columns"),
        ({"address": "a", "query": ["READ"], "columns": {"x": "V"}}, "expected queries, which have a"),
        ({"address": "a", "query": ["READ?\n*RST"], "columns": {"x": "V"}}, "on one line"),
        ({"address": "a", "query": ["READ?"], "columns": {"x": "Volt"}}, "expected a unit"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_starts(fields, said):
    with pytest.raises(ConfigError, match=said):
        configure(Scpi, fields, "it")


class Played:
    """A wire that answers with these bytes, some at a time."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def send(self, data: bytes) -> None:
        pass

    def receive(self) -> bytes:
        return self.answers.pop(0) if self.answers else b""

    def close(self) -> None:
        pass


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_junk_on_the_line_is_transient_and_nothing_else(answers):
    link = Link(Played(*answers), "it", 1.0)
    for _ in range(5):
        try:
            assert link.query("*IDN?").isascii()
            link.errors()
        except (Transient, DeviceError):
            pass


def test_an_answer_byte_by_byte():
    link = Link(
        Played(*(bytes([byte]) for byte in b'+5.0E+00\r\n-113,"Undefined"\n+0,"No error"\n')), "it", 1.0
    )
    assert link.query("READ?") == "+5.0E+00"
    assert link.errors() == [(-113, "Undefined")]
