"""A made-up KM003C at the seam of bulk write and read: for trying the collector without one, and for its tests.

Its queue keeps true time by the host's clock; each second answer is as long as the meter's own are.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from melt_stream.clock import Now, monotonic
from melt_stream.collectors import _km003c as wire
from melt_stream.errors import Transient

UNLOCKED = 0x0203
HELD = 2000
"""Samples that its queue holds; older ones are dropped."""


def _steady(ms: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.full(len(ms), 0.3)


@dataclass
class Meter:
    """One meter, 5 V."""

    amps: Callable[
        [np.ndarray[tuple[int], np.dtype[np.int64]]], np.ndarray[tuple[int], np.dtype[np.float64]]
    ] = _steady
    """From ms since StartGraph to amperes."""
    first: int = 78
    """The counter of the first sample."""
    rate: float = 1.0
    """How much faster than nominal its clock runs."""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Samples that never were: from which ms on, and how many ms."""
    now: Now = monotonic
    unlocks: bool = True
    plugged: bool = True
    silent: bool = False
    heard: list[int] = field(default_factory=list, init=False)
    """What kind each question was."""
    started: int = field(default=0, init=False)
    """Host time of sample 0, ns."""
    told: int = field(default=0, init=False)
    """Up to which ms samples have been handed out."""
    closed: bool = field(default=False, init=False)
    _step: int = field(default=0, init=False)
    _out: deque[bytes] = field(default_factory=deque, init=False)

    def connect(self, serial_number: str = "") -> Meter:  # noqa: ARG002 - there is one
        """Be the meter that is found."""
        self.closed = False
        return self

    def write(self, data: bytes) -> None:
        self._present()
        kind, number = data[0] & 0x7F, data[1]
        self.heard.append(kind)
        if self.silent:
            return
        match kind:
            case wire.MEMORY_READ:
                self._remember(data)
            case wire.STREAMING_AUTH:
                self._out.append(struct.pack("<BBH32x", kind, 0, UNLOCKED if self.unlocks else 0x0201))
            case wire.GET_DATA:
                self._out.append(self._queue(number))
            case _:
                if kind == wire.START_GRAPH:
                    hz = next(hz for hz, index in wire.RATES.items() if index == data[2] >> 1)
                    self._step, self.started, self.told = wire.TICKS_PER_S // hz, self.now(), 0
                elif kind == wire.STOP_GRAPH:
                    self._step = 0
                self._out.append(wire.request(wire.ACCEPT, number))

    def read(self) -> bytes:
        self._present()
        if not self._out:
            raise Transient("KM003C: expected an answer within 0 ms, got none")
        return self._out.popleft()

    def close(self) -> None:
        self.closed = True

    def _present(self) -> None:
        if not self.plugged:
            raise Transient("KM003C: expected to talk to it, got: no such device; was it unplugged?")

    def _remember(self, data: bytes) -> None:
        """Confirm a read of memory, and send as many bytes as one of its blocks has: what they decrypt to is all one."""
        from km003c import decrypt_memory_payload

        head = bytes(decrypt_memory_payload(data[4:36])[:12])
        size = int.from_bytes(head[4:8], "little")
        confirmed = struct.pack("<BBH12sI", 0xC4, data[1], 0x0101, head, zlib.crc32(head))
        self._out.extend([confirmed, bytes(-(-size // 16) * 16)])

    def _queue(self, number: int) -> bytes:
        due = int((self.now() - self.started) / 1e6 * self.rate) if self._step else self.told
        begin = max(self.told, due - HELD * max(1, self._step))
        ms = (
            np.arange(-(-begin // self._step) * self._step, due, self._step)
            if self._step
            else np.zeros(0, np.int64)
        )
        self.told = due
        for start, length in self.lost:
            ms = ms[(ms < start) | (ms >= start + length)]
        queued = np.zeros(len(ms), wire.SAMPLE)
        queued["sequence"] = (self.first + ms) & 0xFFFF
        queued["marker"], queued["vbus"], queued["d_plus"] = 60, 5_000_000, 600
        queued["ibus"] = np.rint(self.amps(ms) * 1e6)
        return framed(number, queued)


def framed(number: int, queued: np.ndarray[tuple[int], np.dtype[np.void]]) -> bytes:
    """Make the answer that holds these samples."""
    words = 1 + len(queued) * wire.SAMPLE.itemsize // 4 - 2
    head = struct.pack("<I", wire.PUT_DATA | number << 8 | 2 << 16 | (words & 0x3FF) << 22)
    part = struct.pack("<I", wire.QUEUE | (len(queued) & 0x3F) << 16 | wire.SAMPLE.itemsize << 22)
    return head + part + queued.tobytes()


def connect(serial_number: str = "") -> Meter:
    """Find the example."""
    return Meter().connect(serial_number)
