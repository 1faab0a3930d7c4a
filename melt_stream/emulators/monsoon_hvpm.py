"""The Monsoon HVPM (black box) below its USB connector: control transfers and bulk reads, in process or over a socket.

There is no USB gadget to be had, so that the seam is the transfer: :class:`MonsoonHvpm` has the methods of
``collectors._hvpm_link.Link``, and ``play`` offers the same at ``emulator:HOST:PORT``.
"""

from __future__ import annotations

import random
import struct
import threading
from collections import deque
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import numpy as np
import trio

from melt_stream.collectors._hvpm_link import PACKET, Gone, Refused
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._hvpm_samples import Array, records
from melt_stream.emulators._hvpm_served import STEP_S, Transfer, served

HZ = 5000
IN_PACKET = 3
KEPT = 5000
"""Samples that the box keeps for a host that does not read; what does not fit any more is dropped, and counted."""
VOLTS, FIRMWARE, STATUS, PASSTHROUGH, RUN_LIMIT = 0x41, 0xC0, 0xC4, 0x10, 0x44
SCALES, OFFSETS = (0x1B, 0x1A, 0x1D, 0x1C, 0x1F, 0x1E), (0x26, 0x25, 0x28, 0x27)
MEMORY = {
    0x1A: 36500, 0x1B: 6400, 0x1C: 14000, 0x1D: 600, 0x1E: 3100, 0x1F: 250, 0x25: 15, 0x26: 0xFFF1, 0x27: 7, 0x28: 0xFFF9,
    0x88: 0xE100, 0x89: 0xC800, 0x45: 2, FIRMWARE: 32, 0xC1: 17, 0x43: 0xFFFF, RUN_LIMIT: 0xFFFF, 0x0C: 20, 0x29: 0x3C00,
    PASSTHROUGH: 2, 0x23: 0, VOLTS: 0,
}  # fmt: skip
"""What it holds at first; zero offsets are signed (the coarse main one is -15)."""
OVER = "over_current"


@dataclass
class MonsoonHvpm(Emulated):
    """One box. USB has no bytes between packets: ``junk`` spoils whole packets, ``lose`` cuts one short.

    ``skip`` and ``stall`` lose samples that its counter of dropped ones tells of. Calibrations, five records of the zero and
    five of the reference, come first and at the interval that the start command names; the zeros drift.
    """

    own_faults: ClassVar[tuple[str, ...]] = (OVER,)
    _: KW_ONLY
    serial_number: int = 20123
    usb_amps: float = 0.25
    """What flows through the USB pass-through, unless it is off; at 5 V."""
    aux_amps: float = 0.04
    """Into the aux channel; at 3 V."""
    memory: dict[int, int] = field(default_factory=lambda: dict(MEMORY))
    """Values by opcode."""
    name: str = field(default="emulated HVPM", init=False)
    lost: list[tuple[int, int]] = field(default_factory=list, init=False)
    """First sample and number of those that were measured and never sent whole: what a record must say."""
    started: float = field(default=0.0, init=False)
    """When sampling began, in seconds of the load."""
    dropped: int = field(default=0, init=False)
    sampling: bool = field(default=False, init=False)
    unplugged: bool = field(default=False, init=False)
    _made: int = field(default=0, init=False)
    _every: int = field(default=6250, init=False)
    _ready: deque[bytes] = field(default_factory=deque, init=False)
    _until: float = field(default=0.0, init=False)
    """The end of a stall, in seconds since sampling began."""
    _cut: int = field(default=0, init=False)
    _junk: int = field(default=0, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.memory.setdefault(0x42, self.serial_number)

    @property
    def volts(self) -> float:
        """At the main output."""
        return self.memory[VOLTS] / (1 << 20)

    # The transfers

    def control_out(self, request: int, value: int, index: int, data: bytes) -> None:
        """Set a value, start or stop."""
        with self._lock:
            self._see_plug()
            if request == 0x02:
                self._start(value)
            elif request == 0x03:
                self.sampling = False
            elif request == 0x01 and not self.sampling and len(data) == 4:
                self.memory[index & 0xFF] = int.from_bytes(data, "little")
            else:
                raise Refused(f"request {request:#x} with {len(data)} bytes, sampling: {self.sampling}")

    def control_in(self, request: int, value: int, index: int, size: int) -> bytes:  # noqa: ARG002 - none is sent
        """Tell a value; while it samples only the firmware's version and the status."""
        with self._lock:
            self._see_plug()
            opcode = index & 0xFF
            if request != 0x01 or (opcode not in self.memory and opcode != STATUS):
                raise Refused(f"request {request:#x} for opcode {opcode:#x}")
            if opcode == STATUS:
                told = 0x80 * self.sampling
            elif self.sampling and opcode != FIRMWARE:
                told = 0xFFFFFFFE
            else:
                told = self.memory[opcode]
            return told.to_bytes(4, "little")[:size]

    def bulk_read(self, size: int, seconds: float) -> bytes:
        """Wait for packets; for a client in a thread of this process."""
        transfer, pause = Transfer(self, size, seconds), threading.Event()
        while not transfer.has_ended():
            pause.wait(STEP_S)
        return bytes(transfer.got)

    def close(self) -> None:
        """Nothing is open."""

    # The socket

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the box until cancelled, or unplugged by a fault."""
        if self.faults.stale:
            self.memory[VOLTS] = 4 << 20
            self._start(1250)
        await served(self, task_status)

    # The samples

    def fetch(self, size: int) -> list[bytes]:
        """Take the packets that are ready by now, of ``size`` bytes at the most. Raises ``Gone`` when unplugged."""
        with self._lock:
            self._see_plug()
            if self.sampling:
                self._make(self.seconds() - self.started)
            return [self._ready.popleft() for _ in range(min(len(self._ready), size // PACKET))]

    def _see_plug(self) -> None:
        if self.unplugged:
            raise Gone("no such device")

    def _start(self, calibrate_ms: int) -> None:
        self.sampling, self._made, self._until = True, 0, 0.0
        self._every = max(50, calibrate_ms * HZ // 1000)
        self._ready.clear()
        self.started = self.seconds()

    def _make(self, seconds: float) -> None:
        """Make the packets that are due, and keep what the faults and a host that slept leave of them."""
        due = self.faults.due
        if due("unplug", seconds, self._made):
            self.unplugged = True
            raise Gone("no such device")
        if due(OVER, seconds, self._made):
            self.memory[VOLTS] = 0
        if stall := due("stall", seconds, self._made):
            self._until = seconds + stall
        self._lose(round(due("skip", seconds, self._made)))
        self._cut += int(due("lose", seconds, self._made))
        self._junk += -(-int(due("junk", seconds, self._made)) // PACKET)
        hz = HZ * self.faults.rate
        there = int(seconds * hz) // IN_PACKET * IN_PACKET
        if seconds < self._until:
            self._lose(there - self._made)
            return
        room = KEPT // IN_PACKET * IN_PACKET - len(self._ready) * IN_PACKET
        stop = min(there, self._made + max(0, room))
        if stop > self._made:
            self._pack(np.arange(self._made, stop), hz)
        self._lose(there - self._made)

    def _lose(self, many: int, first: int | None = None) -> None:
        """Let samples be lost: counted ones that come next, or those of a packet that is spoiled."""
        if many <= 0:
            return
        at = self._made if first is None else first
        if self.lost and sum(self.lost[-1]) == at:
            self.lost[-1] = (self.lost[-1][0], self.lost[-1][1] + many)
        else:
            self.lost.append((at, many))
        if first is None:
            self._made += many
            self.dropped += many

    def _pack(self, number: Array, hz: float) -> None:
        at = self.started + number / hz
        amps = np.zeros((len(number), 3))
        amps[:, 0] = self.load.amps(at, self.volts) if self.volts else 0.0
        if (amps[:, 0] > 15.625 * (self.memory[RUN_LIMIT] - 0x0F00) / (0xFFFF - 0x0F00)).any():
            self.memory[VOLTS] = 0
            amps[:, 0] = 0.0
        amps[:, 1] = self.usb_amps if self.memory[PASSTHROUGH] else 0.0
        amps[:, 2] = self.aux_amps
        volts = np.array([self.volts, 3.0 if self.memory[0x23] else 5.0])
        scales = np.array([self.memory[opcode] for opcode in SCALES], np.float64)
        offsets = np.array([_signed(self.memory[opcode]) for opcode in OFFSETS] + [0, 0])
        made = records(number, self._every, amps, np.tile(volts, (len(number), 1)), scales, offsets)
        for start in range(0, len(number), IN_PACKET):
            some = made[start : start + IN_PACKET]
            head = struct.pack("<HBB", self.dropped & 0xFFFF, 0, len(some))
            whole = (head + some.tobytes()).ljust(PACKET, b"\0")
            self._ready.append(self._spoil(whole, int(number[start]), len(some)))
        self._made = int(number[-1]) + 1

    def _spoil(self, packet: bytes, first: int, many: int) -> bytes:
        if self._junk:
            self._junk -= 1
            self._lose(many, first)
            dice = random.Random(self.faults.seed + first)  # noqa: S311 - no secret
            return dice.randbytes(PACKET)
        if self._cut:
            cut, self._cut = min(self._cut, PACKET - 1), 0
            if cut > PACKET - 4 - 18 * many:
                self._lose(many, first)
            return packet[:-cut]
        return packet


def _signed(raw: int) -> int:
    return raw - 0x10000 if raw & 0x8000 else raw
