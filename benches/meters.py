"""High-rate meters: bytes to samples beside other clients of the same boxes, and what reading a serial port costs."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import trio

from benches.figures import Figure, at_least, at_most
from benches.measure import Effort, Work, in_turn, ratios, walls
from melt_stream.collectors._monsoon import Decoder
from melt_stream.collectors._serial import open_port
from melt_stream.emulators import Load
from melt_stream.emulators.monsoon_lvpm import COARSE_SPAN, FINE_SPAN, IN_PACKET, MonsoonLvpm

OURS, NUMPY = "ours", "numpy, framing known and unchecked"
MOBLY, PYMONSOON = "mobly (the same bytes)", "PyMonsoon (the black box's packets)"
PACKET = 8 * IN_PACKET + 7
RATE, BURST_S = 400_000, 0.001
FEED = f"""
import os, pty, sys, time, tty
master, slave = pty.openpty()
tty.setraw(slave)
print(os.ttyname(slave), flush=True)
sys.stdin.readline()
began, sent = time.monotonic(), 0
while time.monotonic() < began + float(sys.argv[1]):
    due = int((time.monotonic() - began) * {RATE})
    sent += os.write(master, bytes(due - sent))
    time.sleep({BURST_S})
"""


def run(effort: Effort) -> Iterator[Figure]:
    """Samples a second, of one core; then the share of a core that 400 kB/s takes."""
    yield from _decoding(effort)
    yield from _reading(effort)


def _decoding(effort: Effort) -> Iterator[Figure]:
    packets = effort.pick(100_000, 2000)
    data = _recorded(packets)
    few = data[: PACKET * effort.pick(2000, 500)]
    cases: dict[str, tuple[Work, int]] = {
        OURS: (lambda: _checked(Decoder().feed(data).amps, packets), packets * IN_PACKET),
        NUMPY: (lambda: _by_numpy(data), packets * IN_PACKET),
        MOBLY: (lambda: _by_mobly(few), len(few) // PACKET * IN_PACKET),
        PYMONSOON: (lambda: _by_pymonsoon(3000), 3000),
    }
    times = {
        name: walls(took)
        for name, took in in_turn({n: w for n, (w, _) in cases.items()}, effort.rounds).items()
    }
    rates = {name: [cases[name][1] / wall / 1e6 for wall in some] for name, some in times.items()}
    for name, values in rates.items():
        target = at_least(30) if name == OURS else None
        yield Figure(f"Monsoon samples decoded: {name}", values, "MS/s", target)
    for name in (NUMPY, MOBLY, PYMONSOON):
        yield Figure(f"ours / {name}", ratios(rates[OURS], rates[name]), "x")


def _recorded(packets: int) -> bytes:
    emulator = MonsoonLvpm()
    emulator.load, emulator.setting = Load.parse("square:0.05W,3W,100ms"), 200
    emulator._start(1000)
    return b"".join(emulator._next() for _ in range(packets))


def _checked(amps: Any, packets: int) -> None:
    least = (packets - 3 - 2 * packets // 700) * IN_PACKET
    if len(amps) < least or not 0.012 < float(amps[:200].max()) < 0.8:
        raise RuntimeError(f"expected {least} samples or more, got {len(amps)}")


def _by_numpy(data: bytes) -> Any:
    """As if no byte were ever lost: every packet of one length, one calibration for all."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, PACKET)
    measured = raw[raw[:, 2] == 0, 5 : 5 + 8 * IN_PACKET].copy().view(">i2").reshape(-1, 4)
    main = measured[:, 0].astype(np.int32)
    coarse = ((main & ~1) - 40) * np.float32(2.88 / COARSE_SPAN)
    amps = np.where(main & 1, coarse, (main - 60) * np.float32(0.0332 / FINE_SPAN))
    return amps, (measured[:, 3].astype(np.int32) & ~3) * np.float32(125e-6)


class _Bytes:
    """What mobly reads from instead of a port."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def _by_mobly(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mobly.controllers.monsoon import MonsoonProxy
    client = MonsoonProxy.__new__(MonsoonProxy)
    client._coarse_ref = client._fine_ref = client._coarse_zero = client._fine_zero = 0
    client._coarse_scale = client._fine_scale = client._last_seq = 0
    client.ser = _Bytes(data)
    while client.ser.at < len(data):
        client.CollectData()


class _BlackBox:
    """What PyMonsoon talks to instead of USB: calibrations, then 1 A at 4 V for ever."""

    def __init__(self) -> None:
        record = [_record(kind) for kind in (0x10, 0x30, 0x00)]
        self.first = b"".join([_packet(record[0])] * 3 + [_packet(record[1])] * 3)
        self.rest = _packet(record[2])
        self.reads = 0

    def Connect(self, *_: object) -> bool:  # noqa: N802 - PyMonsoon's names
        return True

    def getValue(self, *_: object) -> int:  # noqa: N802
        return 0xC800

    def sendCommand(self, *_: object) -> None:  # noqa: N802
        pass

    def startSampling(self, *_: object) -> None:  # noqa: N802
        self.reads = 0

    def stopSampling(self) -> None:  # noqa: N802
        pass

    def BulkRead(self) -> list[int]:  # noqa: N802
        self.reads += 1
        return list(self.first[58 * ((self.reads - 1) % 6) :][:58] if self.reads <= 12 else self.rest)


def _record(kind: int) -> bytes:
    coarse, fine = {0x10: (1000, 1000), 0x30: (7400, 37_500), 0x00: (2000, 65_000)}[kind]
    words = np.array([coarse, fine] * 3 + [16_000, 16_000], ">u2").tobytes()
    return words + bytes([0, kind])


def _packet(record: bytes) -> bytes:
    return bytes([0, 0, 0, 3]) + record * 3


def _by_pymonsoon(samples: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from Monsoon import HVPM, sampleEngine
    box = HVPM.Monsoon()
    box.Protocol = _BlackBox()
    engine = sampleEngine.SampleEngine(box)
    engine.ConsoleOutput(False)
    engine.startSampling(samples)
    if len(engine.getSamples()[0]) < samples // 2:
        raise RuntimeError("expected PyMonsoon's samples")


def _reading(effort: Effort) -> Iterator[Figure]:
    shares, lost = [], []
    for _ in range(effort.pick(5, 1)):
        share, missing = trio.run(_read_for, effort.pick(4, 1))
        shares.append(100 * share)
        lost.append(float(missing))
    yield Figure(f"a core, reading {RATE // 1000} kB/s from a serial port (pty)", shares, "%", at_most(5))
    yield Figure("bytes of it that did not come", lost, "", at_most(0))


async def _read_for(seconds: float) -> tuple[float, int]:
    feed = subprocess.Popen(  # noqa: ASYNC220 - started before anything is measured
        [sys.executable, "-c", FEED, str(seconds + 0.5)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert feed.stdin is not None
    assert feed.stdout is not None
    with feed:
        async with open_port(feed.stdout.readline().strip()) as port:
            feed.stdin.write("go\n")
            feed.stdin.flush()
            await port.read()
            cpu, began, got = time.process_time(), time.monotonic(), 0
            while time.monotonic() < began + seconds:
                got += len((await port.read()).data)
            share = (time.process_time() - cpu) / (time.monotonic() - began)
        feed.terminate()
    return share, max(0, round(seconds * RATE * 0.99) - got)
