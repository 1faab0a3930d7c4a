"""A Nordic PPK2 on a pty: bare opcodes, metadata as text, then 100,000 words a second, each made from the load.

The words are the inverse of what a client computes: the range whose span the current fits in, and the ADC count that
its modifiers turn back into that current.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Place
from melt_stream.emulators._pty import Line, plugged_in
from melt_stream.emulators._sending import Sending

Array = np.ndarray[Any, Any]
HZ = 100_000
LENGTHS = {0x0C: 2, 0x0D: 3, 0x11: 2, 0x25: 6}
"""Bytes of a command with its operands; all others have none."""
SPANS = (50e-6, 500e-6, 5e-3, 50e-3)
"""A range is used up to this current; the fifth beyond."""
MODIFIERS: dict[str, tuple[float, ...]] = {
    "R": (1003.3506, 101.5865, 10.3027, 0.9636, 0.0564),
    "GS": (0.0, 112.789, 18.0115, 2.4217, 0.0729),
    "GI": (1.0, 0.9695, 0.9609, 0.9519, 0.9582),
    "O": (112.942, 75.4627, 64.602, 50.4983, 88.0833),
    "S": (0.0, 0.0, 0.0, 0.0, 0.0),
    "I": (0.0, 0.0, 0.0, 0.0, 0.0),
    "UG": (1.0, 1.0, 1.0, 1.0, 1.0),
}
VOLTS_PER_COUNT = 1.8 / 163840


@dataclass
class Ppk2(Sending):
    """One box."""

    external_volts: float = 3.7
    """What supplies the device in ampere mode, V."""
    logic: list[tuple[float, int]] = field(default_factory=list)
    """D0-D7 as a byte, from so many seconds of the load on."""
    unsteady: int = 0
    """Every so many samples the counter of one is wrong, though nothing is lost; 0: never."""
    without: list[str] = field(default_factory=list)
    """Metadata keys that it does not tell."""
    nan: list[str] = field(default_factory=list)
    """Metadata keys that it calls nan."""
    mode: int = field(default=2, init=False)
    millivolts: int = field(default=3000, init=False)
    powered: bool = field(default=False, init=False)
    sent: bytearray = field(default_factory=bytearray, init=False)
    """Every byte that a client has sent."""

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the box until cancelled, or unplugged by a fault."""
        self.began = monotonic()
        async with plugged_in() as line, trio.open_nursery() as nursery:
            if self.faults.stale:
                self._start()
                self.powered = True
            nursery.start_soon(self._listen, line)
            nursery.start_soon(self._send, line, nursery.cancel_scope)
            task_status.started({"port": line.path})

    @property
    def nominal_hz(self) -> float:
        return HZ

    @property
    def volts(self) -> float:
        """At the device under test; 0 where it is switched off."""
        return (self.millivolts / 1000 if self.mode == 2 else self.external_volts) if self.powered else 0.0

    def metadata(self) -> bytes:
        """The answer to opcode 0x19."""
        lines = ["Calibrated: 0"]
        for name, values in MODIFIERS.items():
            for chosen, value in enumerate(values):
                key = f"{name}{chosen}"
                if key not in self.without:
                    lines.append(f"{key}: {'-nan' if key in self.nan else f'{value:.9g}'}")
        lines += [f"VDD: {self.millivolts}", "HW: 9173", f"mode: {self.mode}", "IA: 56", "END"]
        return "\n".join(lines).encode() + b"\n"

    async def _listen(self, line: Line) -> None:
        waiting = b""
        while True:
            try:
                got = await line.read()
            except trio.ClosedResourceError:
                return  # unplugged
            self.sent += got
            waiting += got
            while waiting and len(waiting) >= (length := LENGTHS.get(waiting[0], 1)):
                command, waiting = waiting[:length], waiting[length:]
                await self._do(line, command)

    async def _do(self, line: Line, command: bytes) -> None:
        match command[0]:
            case 0x06:
                self._start()
            case 0x07:
                self._stop()
            case 0x0C:
                self.powered = command[1] == 1
            case 0x0D:
                self.millivolts = int.from_bytes(command[1:], "big")
            case 0x11:
                self.mode = command[1]
            case 0x19:
                text = self.metadata()
                for start in range(0, len(text), 200):
                    await line.write(text[start : start + 200])
                    await trio.sleep(0.001)
            case _:
                pass  # a reset, user gains and legacy opcodes change nothing here

    def wire(self, start: int, stop: int, hz: float) -> bytes:
        return self.words(start, stop, hz).tobytes()

    def words(self, start: int, stop: int, hz: float) -> Array:
        """Make the samples from ``start`` to ``stop``, counted from when streaming began."""
        number = np.arange(start, stop)
        seconds = (self.started - self.began) / 1e9 + number / hz
        amps = self.load.amps(seconds, self.volts) if self.powered else np.zeros(len(seconds))
        chosen = np.searchsorted(SPANS, amps, "right")
        counter = number & 63
        if self.unsteady:
            counter = np.where(number % self.unsteady == self.unsteady - 1, (counter + 17) & 63, counter)
        fields: Array = adc(amps, chosen) | (chosen << 14) | (counter << 18) | (self._inputs(seconds) << 24)
        samples: Array = fields.astype("<u4")
        return samples

    def _inputs(self, seconds: Array) -> Array:
        if not self.logic:
            return np.zeros(len(seconds), np.int64)
        times = [at for at, _ in self.logic]
        levels = np.array([0, *(level for _, level in self.logic)])
        now: Array = levels[np.searchsorted(times, seconds, "right")]
        return now


def adc(amps: Array, chosen: Array) -> Array:
    """Return the ADC field that a client turns into these amperes, in these ranges (S and I are 0 here)."""
    m = {name: np.array(values)[chosen] for name, values in MODIFIERS.items()}
    current = amps / m["UG"]
    root = np.sqrt(m["GI"] ** 2 + 4 * m["GS"] * current)
    x = 2 * current / (m["GI"] + root)  # the quadratic's root that is also right where GS is 0
    counts = (x * m["R"] / VOLTS_PER_COUNT + m["O"]) / 4
    fields: Array = np.clip(np.rint(counts), 0, (1 << 14) - 1).astype(np.int64)
    return fields


def step(amps: float) -> float:
    """Amperes between two ADC counts at this current: what one sample can resolve."""
    chosen = int(np.searchsorted(SPANS, amps, "right"))
    m = {name: values[chosen] for name, values in MODIFIERS.items()}
    slope = math.sqrt(m["GI"] ** 2 + 4 * m["GS"] * amps / m["UG"])
    return 4 * VOLTS_PER_COUNT / m["R"] * slope
