"""Our PowerSensor3 is read right by its maker's own tools, where they are, and by a reader that knows the protocol's text alone.

The maker's tools (github.com/nlesc-recruit/PowerSensor3, host/src) are not packaged: compile psinfo, pstest and psrun and
name their folder in MELT_POWERSENSOR3_TOOLS; see docs/meters.md.
"""

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import serial
import trio

from melt_stream.emulators import Faults, Load
from melt_stream.emulators.powersensor3 import PowerSensor3

pytestmark = pytest.mark.realtime

TOOLS = os.environ.get("MELT_POWERSENSOR3_TOOLS", "")
needs_tools = pytest.mark.skipif(
    not TOOLS,
    reason="MELT_POWERSENSOR3_TOOLS does not name a folder with the maker's psinfo, pstest and psrun",
)
LOAD = "constant:24W"
VOLTS, AMPS = 11.991, 2.0027  # what 12 V and 2 A are in whole levels


class Reader:
    """A client by the text of the protocol, one word after the other; it shares nothing with the collector."""

    def __init__(self, path):
        self.port = serial.Serial(path, timeout=3)

    def ask(self, command, count):
        self.port.write(command)
        return self.port.read(count)

    def config(self):
        records = [self.ask(b"R" if not k else b"k", 41) for k in range(8)]
        assert self.ask(b"k", 1) == b"D"
        return [struct.unpack("<16s16sffB", record) for record in records]


def words(data):
    """Channel, mark and level of each word; a byte that cannot begin one is dropped."""
    at = 0
    while at + 1 < len(data):
        if data[at] < 128 or data[at + 1] >= 128:
            at += 1
            continue
        yield (data[at] >> 4) & 7, (data[at + 1] >> 6) & 1, ((data[at] & 15) << 6) | (data[at + 1] & 63)
        at += 2


def sets_of(data):
    """(stamp, {channel: level}, marked) of each set: one ends where the next stamp comes."""
    stamp, levels, marked = None, {}, False
    for channel, mark, level in words(data):
        if channel == 7 and mark:
            if stamp is not None:
                yield stamp, levels, marked
            stamp, levels, marked = level, {}, False
        else:
            levels[channel], marked = level, marked or bool(mark)


async def played(emulator, what, *arguments):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        result = await trio.to_thread.run_sync(what, place["port"], *arguments)
        nursery.cancel_scope.cancel()
    return result


def measure(path):
    """Everything a client can do but stream for long."""
    reader = Reader(path)
    version, config = reader.ask(b"V", 12), reader.config()
    streamed = reader.ask(b"S", 18 * 3000)
    counted = reader.ask(b"M", 18 * 3000)
    reader.port.write(b"X")
    rest = b""
    while not rest.endswith(b"\xff\x3f\xff\x3f"):
        rest += reader.port.read(1)
    single = reader.ask(b"I", 18)
    done = struct.unpack("<I", reader.ask(b"Q", 4))[0]
    reader.port.timeout = 0.2
    assert reader.ask(b"T", 1) == b""
    return version, config, streamed + counted + rest[:-4], single, done


async def test_a_reader_by_the_protocols_text_sees_the_configuration_the_load_the_mark_and_the_stop():
    emulator = PowerSensor3(load=Load.parse(LOAD))
    version, config, data, single, done = await played(emulator, measure)
    assert version == b"F411-1.6.1\r\n"
    assert [record[1].rstrip(b"\0") for record in config] == [b"slot 12V"] * 2 + [b"slot 3.3V"] * 2 + [
        b"NA"
    ] * 4
    assert [record[4] for record in config] == [1] * 4 + [0] * 4
    sets = list(sets_of(data + b"\xf0\x40"))  # a stamp ends the last one
    assert len(data) == 18 * len(sets)
    assert {tuple(levels) for _, levels, _ in sets} == {tuple(range(8))}
    assert set(np.diff([stamp for stamp, _, _ in sets]) % 1024) == {50}
    (marked,) = [k for k, (_, _, mark) in enumerate(sets) if mark]
    assert marked >= 3000
    assert emulator.marked == [marked]
    for channel, value, gain in ((0, AMPS, 0.12), (1, VOLTS, 0.0877), (2, 0.3091, -0.12), (3, 3.31, 0.0877)):
        vref = config[channel][2]
        assert config[channel][3] == pytest.approx(gain)
        levels = np.array([levels[channel] for _, levels, _ in sets])
        assert (3.3 * levels / 1023 - vref) / gain == pytest.approx(value, abs=1e-3)
    assert len(list(sets_of(single + b"\xf0\x40"))) == 1
    assert done == 1


def configure(path):
    reader = Reader(path)
    record = struct.pack("<16s16sffB", b"MLX20", b"new", 1.6, 0.0625, 1)
    reader.port.write(b"W")
    answers = [reader.ask(record, 1) for _ in range(8)] + [reader.port.read(1)]
    return answers, reader.config()


async def test_a_configuration_that_is_written_is_read_back():
    answers, config = await played(PowerSensor3(), configure)
    assert answers == [b"S"] * 8 + [b"D"]
    assert {record[1].rstrip(b"\0") for record in config} == {b"new"}


def stream(path):
    return Reader(path).ask(b"S", 18 * 6000)


async def test_what_is_skipped_is_missing_from_the_stamps_alone():
    emulator = PowerSensor3(faults=Faults.parse(["skip@0.1:30"]))
    data = await played(emulator, stream)
    steps = np.diff([stamp for stamp, _, _ in sets_of(data)]) % 1024
    assert sorted(set(steps)) == [50, 31 * 50 % 1024]
    assert np.flatnonzero(steps != 50).tolist() == [emulator.faults.done[0].sample - 1]


async def run_tool(*command):
    async with trio.open_nursery() as nursery:
        emulator = PowerSensor3(load=Load.parse(LOAD))
        place = await nursery.start(emulator.play)
        path = str(Path(TOOLS) / command[0])
        with trio.fail_after(40):
            done = await trio.run_process([path, "-d", place["port"], *command[1:]], capture_stdout=True)
        nursery.cancel_scope.cancel()
    return emulator, done.stdout.decode()


@needs_tools
async def test_psinfo_reads_version_pairs_and_power():
    emulator, said = await run_tool("psinfo")
    assert "Device firmware version: F411-1.6.1" in said
    assert re.findall(r"Name: (.*)", said) == ["slot 12V", "slot 3.3V"]
    assert re.findall(r"Latest measured power: (.*) W", said) == ["24.0143", "1.02338"]
    assert re.findall(r"Polarity: (.*)", said) == ["1", "1", "-1", "1"]
    assert said.count("inactive") == 2
    assert emulator.sent.startswith(b"RssssssssSXVS")
    assert not emulator._hung


@needs_tools
async def test_pstest_dumps_every_set(tmp_path):
    dump = tmp_path / "dump.txt"
    _, said = await run_tool("pstest", "-f", str(dump), "-s", "0")
    seconds, watts = np.array(re.findall(r"measured: (\S+) s, \S+ J, (\S+) W", said)[-5:], float).T
    assert watts == pytest.approx(24.0143, abs=1e-3)
    assert seconds.sum() == pytest.approx(3.2768 * 31 / 16, rel=0.05)
    rows = [line.split() for line in dump.read_text().splitlines()[1:]]
    assert len(rows) > 120_000
    assert set(np.diff([int(row[3]) for row in rows]) % 1024) == {50}
    assert {(row[0], *row[4:7]) for row in rows} == {("S", "2.00269", "11.991", "24.0143")}


@needs_tools
async def test_psrun_integrates_the_load():
    _, said = await run_tool("psrun", "-s", "0", "--", "sleep", "1")
    seconds, joules, watts = map(float, re.findall(r"(\S+) s, (\S+) J, (\S+) W", said)[0])
    assert watts == pytest.approx(24.0143, abs=1e-3)
    assert joules == pytest.approx(24.0143 * seconds, rel=1e-4)
