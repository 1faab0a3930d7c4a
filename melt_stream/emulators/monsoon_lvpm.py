"""The Monsoon power monitor (LVPM, white box, stock firmware) on a pty."""

from __future__ import annotations

import struct
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np
import trio

from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._pty import Line, plugged_in

HZ, IN_PACKET = 5000, 7
STATUS = struct.Struct(">BBBhhhHhhhHBBBxBbHBHHHHBbbHHBBBbbbbbbbbbBH")
FINE_SPAN, COARSE_SPAN = 26_000, 20_000
"""Counts between the zero and the reference (0.0332 A and 2.88 A) of each range."""
FINE_LIMIT = 0.036
"""Currents above it, in A, come in the coarse range."""
STEP_S = 0.002
OVER_CURRENT = 1
PENDING = 1 << 16
"""Bytes the box keeps for a host that does not read; whole packets that do not fit are lost."""


@dataclass
class MonsoonLvpm(Emulated):
    """Answers the commands of the box, and streams what the load draws at its output voltage.

    Calibration packets come first and at the interval that the start command names; the zeros move a little each
    time, so that a client that keeps old ones is found out.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("over_current",)
    _: KW_ONLY
    serial_number: int = 12345
    hardware_revision: int = 2
    """1: volts come in 62.5 uV; else in 125 uV."""
    lost: list[tuple[int, int]] = field(default_factory=list, init=False)
    """First sample and number of those that were measured and never sent: what a record must say."""
    setting: int = field(default=0, init=False)
    """Output voltage: (V - 2.0) * 100; 0 is off."""
    limits: dict[str, int] = field(default_factory=lambda: {"up": 0, "run": 0}, init=False)
    """1023 - A / 8 * 1023."""
    passthrough: int = field(default=2, init=False)
    event: int = field(default=0, init=False)
    started: float = field(default=0.0, init=False)
    """When streaming began, in seconds of the load."""
    _streaming: bool = field(default=False, init=False)
    _packet: int = field(default=0, init=False)
    _every: int = field(default=714, init=False)
    _zeros: tuple[int, int] = field(default=(60, 40), init=False)
    """Of the fine and the coarse range, in counts."""
    _stalled: float = field(default=0.0, init=False)
    _skip: int = field(default=0, init=False)
    _pending: bytearray = field(default_factory=bytearray, init=False)

    @property
    def volts(self) -> float:
        """At the output."""
        return 2.0 + self.setting / 100 if self.setting else 0.0

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the box until cancelled."""
        async with plugged_in() as line, trio.open_nursery() as nursery:
            if self.faults.stale:
                self.setting = 180
                self._start(1000)
            nursery.start_soon(self._listen, line)
            nursery.start_soon(self._stream, line)
            task_status.started({"port": line.path})

    async def _listen(self, line: Line) -> None:
        got = bytearray()
        while True:
            try:
                got += await line.read()
            except trio.ClosedResourceError:
                return
            while got and len(got) > got[0]:
                length = got[0]
                body, check = bytes(got[1:length]), got[length]
                del got[: length + 1]
                if length and (length + sum(body)) % 256 == check:
                    self._obey(body)

    def _obey(self, body: bytes) -> None:
        match list(body):
            case [1, 0, 0]:
                self._pending += frame(self._status())
            case [1, 1, setting]:
                self.setting, self.event = setting, 0
            case [1, (0x08 | 0x09 | 0x0A | 0x0B) as which, part]:
                self._limit("up" if which < 0x0A else "run", part, high=bool(which & 1))
            case [1, 0x10, mode]:
                self.passthrough = mode
            case [2, _, _, _, _, high, low]:
                self._start(high << 8 | low)
            case [3, *_]:
                self._streaming = False
            case _:  # the "mystery" command, and whatever else the box takes in silence
                pass

    def _limit(self, name: str, part: int, *, high: bool) -> None:
        old = self.limits[name]
        self.limits[name] = (old & 0xFF | part << 8) if high else (old & 0xFF00 | part)

    def _start(self, calibrate_ms: int) -> None:
        self._streaming, self._packet, self._stalled = True, 0, 0.0
        self._every = max(3, round(calibrate_ms * HZ / 1000 / IN_PACKET))
        self.started = self.seconds()

    async def _stream(self, line: Line) -> None:
        while True:
            await trio.sleep(STEP_S)
            if self._streaming:
                seconds = self.seconds() - self.started
                if self.faults.due("unplug", seconds, self._packet * IN_PACKET):
                    line.unplug()
                    return
                self._play(seconds)
            if self._pending:
                del self._pending[: line.write_now(bytes(self._pending))]

    def _play(self, seconds: float) -> None:
        """Make the packets that are due, and send what the faults leave of them."""
        due = int(seconds * HZ * self.faults.rate) // IN_PACKET
        sample, first, out = self._packet * IN_PACKET, self._packet, bytearray()
        if self.faults.due("over_current", seconds, sample):
            self._trip()
        if stall := self.faults.due("stall", seconds, sample):
            self._stalled = seconds + stall
        self._skip += round(self.faults.due("skip", seconds, sample) / IN_PACKET)
        while self._packet < due:
            packet = self._next()
            if self._skip or seconds < self._stalled or len(self._pending) > PENDING:
                self._lose()
                self._skip -= bool(self._skip)
            else:
                out += packet
            if self._packet - first > HZ:  # asleep for seconds: a box does not catch up for ever
                break
        self._pending += self.faults.harm(bytes(out), seconds, sample) if out else b""

    def _lose(self) -> None:
        first = (self._packet - 1) * IN_PACKET
        if self.lost and sum(self.lost[-1]) == first:
            self.lost[-1] = (self.lost[-1][0], self.lost[-1][1] + IN_PACKET)
        else:
            self.lost.append((first, IN_PACKET))

    def _next(self) -> bytes:
        number, self._packet = self._packet, self._packet + 1
        kind = {0: 1, 1: 2}.get(number % self._every, 0)
        if kind == 1 and number:
            self._zeros = (self._zeros[0] + 4, self._zeros[1] + 2)
        samples = self._calibration(kind) if kind else self._measured(number)
        return frame(bytes([0x20 | number & 15, kind, 0, 0]) + samples.tobytes() + b"\x00")

    def _calibration(self, kind: int) -> np.ndarray[Any, Any]:
        samples = np.zeros((IN_PACKET, 4), ">i2")
        fine, coarse = self._zeros
        samples[:2, 0] = (fine, coarse) if kind == 1 else (fine + FINE_SPAN, coarse + COARSE_SPAN)
        return samples

    def _measured(self, number: int) -> np.ndarray[Any, Any]:
        at = self.started + (number * IN_PACKET + np.arange(IN_PACKET)) / (HZ * self.faults.rate)
        amps = self.load.amps(at, self.volts) if self.setting else np.zeros(IN_PACKET)
        if (amps > 8 * (1023 - self.limits["run"]) / 1023).any():
            self._trip()
            amps = np.zeros(IN_PACKET)
        fine = 2 * np.rint(amps / 0.0332 * FINE_SPAN / 2) + self._zeros[0]
        coarse = 2 * np.rint(amps / 2.88 * COARSE_SPAN / 2) + self._zeros[1]
        samples = np.zeros((IN_PACKET, 4), np.int32)
        samples[:, 0] = np.where(amps < FINE_LIMIT, fine, np.clip(coarse, -32768, 32766) + 1)
        samples[:, 3] = int(self.volts / (62.5e-6 if self.hardware_revision == 1 else 125e-6)) & ~3
        return samples.astype(np.uint16).astype(">u2")

    def _trip(self) -> None:
        self.setting, self.event = 0, OVER_CURRENT

    def _status(self) -> bytes:
        volts = int(self.volts / 125e-6)
        return STATUS.pack(
            0x10, 17, 2, 0, 0, 0, volts, 0, 0, 0, volts, self.setting, 25, 0, 0, 0, self.serial_number, 5,
            0, 0, self.limits["up"], self.limits["run"], 10, 0, 0, 0, 0, self.hardware_revision, 70, self.passthrough,
            0, 0, 0, 0, 0, 0, 0, 0, 0, self.event, 0,
        )  # fmt: skip


def frame(body: bytes) -> bytes:
    """Add length and checksum."""
    return bytes([len(body) + 1, *body, (len(body) + 1 + sum(body)) % 256])
