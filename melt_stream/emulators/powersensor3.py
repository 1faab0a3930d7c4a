"""A PowerSensor3 on a pty: single letters for commands, 8 records of configuration, then a set of 9 words each 50 us.

As its firmware 1.6.1 (nlesc-recruit/PowerSensor3, PowerSensor.ino) does, faults of its own included: it resets itself
where a client is silent in the middle of the configuration, and hangs where it is stopped before a mark was sent.
"""

from __future__ import annotations

import math
import struct
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Load, Place
from melt_stream.emulators._pty import Line, plugged_in
from melt_stream.emulators._sending import Sending

Array = np.ndarray[Any, Any]
RECORD = struct.Struct("<16s16sff?")
"""A sensor: type, name of its pair, reference (V), sensitivity (V/A, or V/V), whether it is in use."""
REFERENCE, LEVELS = 3.3, 1023
BOOTED_US = 4_000_000_123
"""What the counter of microseconds says when the load begins; it has 32 bits, and is sent in 10."""
RESET_S = 2.0
"""A client that is silent so long, in the middle of the configuration, is taken to be gone."""
STOPPED = b"\xff\x3f" * 2


@dataclass
class Pair:
    """A sensor board: a Hall sensor (by default the MLX10, +-13.75 A) and a divider; ``load`` None: the emulator's."""

    name: str
    volts: float
    load: Load | None = None
    _: KW_ONLY
    vref: float = 1.65
    per_amp: float = 0.12
    """V/A; negative where the board is wired the other way round."""
    per_volt: float = 0.0877
    in_use: bool = True

    def records(self) -> bytes:
        """The two sensors as the configuration has them."""
        name = self.name.encode()
        return RECORD.pack(b"MLX10", name, self.vref, self.per_amp, self.in_use) + RECORD.pack(
            b"voltage", name, 0.0, self.per_volt, self.in_use
        )

    def step(self) -> tuple[float, float]:
        """Amperes and volts between two levels."""
        return REFERENCE / LEVELS / abs(self.per_amp), REFERENCE / LEVELS / self.per_volt


def _boards() -> list[Pair]:
    one_watt = Load.parse("constant:1W")
    return [
        Pair("slot 12V", 12.0),
        Pair("slot 3.3V", 3.3, one_watt, per_amp=-0.12),
        Pair("NA", 0.0, one_watt, in_use=False),
        Pair("NA", 0.0, one_watt, in_use=False),
    ]


@dataclass
class PowerSensor3(Sending):
    """One box with four places for pairs; the first one draws ``load``."""

    pairs: list[Pair] = field(default_factory=_boards)
    period_us: float = 50.0
    """From set to set: 50 on the F411 at 96 MHz, 57.14 on the F401."""
    version: str = "F411-1.6.1"
    older: bool = False
    """Send only the sensors that are in use, as early firmware did."""
    sent: bytearray = field(default_factory=bytearray, init=False)
    """Every byte that a client has sent."""
    marked: list[int] = field(default_factory=list, init=False)
    """Sets that were marked, counted from when streaming began."""
    _marks: list[int] = field(default_factory=list, init=False)
    """Host times of marks that were not sent yet."""
    _left: int = field(default=0, init=False)
    """Bytes that it waits for: acknowledgements (of ``R``), or records (``W``)."""
    _writing: bool = field(default=False, init=False)
    _hung: bool = field(default=False, init=False)
    _made: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.config = b"".join(pair.records() for pair in self.pairs)

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the box until cancelled, unplugged by a fault, or reset."""
        self.began = monotonic()
        async with plugged_in() as line, trio.open_nursery() as nursery:
            if self.faults.stale:
                self._start()
            nursery.start_soon(self._listen, line, nursery.cancel_scope)
            nursery.start_soon(self._send, line, nursery.cancel_scope)
            task_status.started({"port": line.path})

    @property
    def nominal_hz(self) -> float:
        return 1e6 / self.period_us

    async def _listen(self, line: Line, power: trio.CancelScope) -> None:
        while True:
            with trio.move_on_after(RESET_S if self._left else math.inf) as patience:
                try:
                    got = await line.read()
                except trio.ClosedResourceError:
                    return  # unplugged
            if patience.cancelled_caught:
                power.cancel()
                line.unplug()
                return
            self.sent += got
            for byte in got:
                await self._take(line, bytes([byte]))

    async def _take(self, line: Line, byte: bytes) -> None:
        if self._hung:
            return
        if self._left:
            await self._configure(line, byte)
            return
        match byte:
            case b"R":
                self._left, self._writing = 8, False
                await line.write(self.config[: RECORD.size])
            case b"W":
                self._left, self._writing, self.config = 8 * RECORD.size, True, b""
            case b"S":
                self._made = 0
                self._start()
            case b"T" | b"X":
                await self._stopped(line, byte)
            case b"M":
                self._marks.append(monotonic())
            case b"I" if not self._streaming.is_set():
                self.started = monotonic() - round(self.period_us * 1e3)
                await line.write(self.wire(0, 1, self.nominal_hz))
            case b"Q":
                await line.write(self._made.to_bytes(4, "little"))
            case b"V":
                await line.write(self.version.encode() + b"\r\n")
            case _:
                pass  # B blinks; what it does not know it takes no notice of

    async def _configure(self, line: Line, byte: bytes) -> None:
        self._left -= 1
        if self._writing:
            self.config += byte
            if self._left % RECORD.size == 0:
                await line.write(b"S" if self._left else b"SD")
        else:
            start = RECORD.size * (8 - self._left)
            await line.write(self.config[start : start + RECORD.size] or b"D")

    async def _stopped(self, line: Line, byte: bytes) -> None:
        if self._streaming.is_set() and self._marks:
            self._hung = True  # it waits for the mark to be sent, in the loop that would send it
        self._stop()
        if byte == b"X" and not self._hung:
            await trio.sleep(0.1)
            await line.write(STOPPED)

    def wire(self, start: int, stop: int, hz: float) -> bytes:
        """Make sets: the stamp is that of the end of the time that a set is the mean of."""
        number = np.arange(start, stop)
        seconds = (self.started - self.began) / 1e9 + (number + 0.5) / hz
        booted = BOOTED_US + (self.started - self.began) // 1000
        stamp = (booted + np.floor((number + 1) * self.period_us).astype(np.int64)) & 1023
        words = [_words(7, stamp, 1)]
        for k, pair in enumerate(self.pairs):
            if pair.in_use or not self.older:
                amps, volts = self._levels(pair, seconds)
                words += [_words(2 * k, amps), _words(2 * k + 1, volts)]
        sets = np.stack(words, axis=1)
        if not self.older or self.pairs[0].in_use:  # only sensor 0 can bear a mark
            for at in self._due_marks(start, stop, hz):
                sets[at - start, 1] |= 0x4000
        self._made = stop
        data: bytes = sets.astype("<u2").tobytes()
        return data

    def _levels(self, pair: Pair, seconds: Array) -> tuple[Array, Array]:
        amps = (pair.load or self.load).amps(seconds, pair.volts)
        pins = amps * pair.per_amp + pair.vref, np.full(len(seconds), pair.volts * pair.per_volt)
        amp_levels, volt_levels = (
            np.clip(np.rint(pin * LEVELS / REFERENCE), 0, LEVELS).astype(np.int64) for pin in pins
        )
        return amp_levels, volt_levels

    def _due_marks(self, start: int, stop: int, hz: float) -> list[int]:
        """The sets to mark: the first that ended after the command, one for each."""
        due: list[int] = []
        for at in list(self._marks):
            number = max(math.ceil((at - self.started) * hz / 1e9) - 1, start, *(n + 1 for n in due[-1:]))
            if number < stop:
                self._marks.remove(at)
                due.append(number)
        self.marked += due
        return due


def _words(sensor: int, level: Array, mark: int = 0) -> Array:
    """Two bytes a value: 1iii hhhh, then 0m llllll."""
    words: Array = (0x80 | sensor << 4 | level >> 6) | (mark << 6 | level & 63) << 8
    return words
