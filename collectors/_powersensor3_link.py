"""Talking with a PowerSensor3: stop it, ask who it is and how it is set, and have it mark a set now and then."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from melt_stream.collectors._powersensor3 import RECORD, SENSORS
from melt_stream.collectors._serial import COALESCE_S, Port
from melt_stream.errors import DeviceError

STOP, START, QUIT, VERSION, CONFIG, MARK = b"X", b"S", b"T", b"V", b"R", b"M"
STOPPED = b"\xff\x3f" * 2
"""What it says 0.1 s after ``STOP``: no set ends in it."""
TRIES = 10
"""It may wait for up to 8 bytes, each of which it takes for an acknowledgement: somebody left it while it told its configuration."""
ANSWER_S = 0.5
SILENCE_S = 1.0
LIMIT = 64
"""A version has fewer bytes."""
LOST_NS = 2_000_000_000
"""A mark that did not come by then was lost on the way."""


async def stop(port: Port) -> None:
    """Stop whatever it does. Raises ``DeviceError`` where it does not say so: it is another instrument."""
    said = b""
    for tried in range(TRIES):
        await port.write(STOP)
        with trio.move_on_after(ANSWER_S):
            while not said.endswith(STOPPED):
                said = (said + (await port.read()).data)[-RECORD.size :]
            if tried:
                await port.drain(quiet_s=0.15)  # it may say so once more
            return
    raise DeviceError(
        f"{port.path}: expected a stop marker after {TRIES} stop commands, got {said[-8:].hex(' ') or 'nothing'}; "
        "is it a PowerSensor3? Where it is, it hangs: pull its plug and put it in again"
    )


@dataclass
class Link:
    """A conversation with one that is stopped."""

    port: Port
    _rest: bytes = b""

    async def version(self) -> str:
        """Its microcontroller and firmware, as ``F411-1.6.1``."""
        await self.port.write(VERSION)
        while b"\n" not in self._rest:
            if len(self._rest) > LIMIT:
                raise DeviceError(
                    f"{self.port.path}: expected a version and a line's end, got {self._rest!r}; is it a PowerSensor3?"
                )
            self._rest += (await self.port.read(SILENCE_S)).data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace").strip()

    async def config(self) -> bytes:
        """The records of its sensors: it waits for a byte after each, and says ``D`` in the end."""
        await self.port.write(CONFIG)
        records = b""
        for _ in range(SENSORS):
            records += await self._take(RECORD.size)
            await self.port.write(b"s")
        if (done := await self._take(1)) != b"D":
            raise DeviceError(
                f"{self.port.path}: expected D after {SENSORS} sensors, got {done!r}; try again, or put its plug in again"
            )
        return records

    async def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._rest += (await self.port.read(SILENCE_S)).data
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


@dataclass
class Marks:
    """Asks for marks, one after the other, so that each is known to be the answer to one question."""

    hz: float
    _asked: int | None = None
    _next: float = 0.0

    async def ask(self, port: Port) -> None:
        """Ask if it is time; while an answer is due, the port is read as soon as bytes come."""
        now = port.now()
        if self._asked is not None and now - self._asked > LOST_NS:
            self._answered(port)
        if self._asked is None and self.hz and now >= self._next:
            self._next = now + 1e9 / self.hz
            self._asked, port.coalesce_s = now, 0.0
            await port.write(MARK)

    def seen(self, port: Port) -> int | None:
        """Return when the mark was asked for that has come; None where none was."""
        asked = self._asked
        self._answered(port)
        return asked

    @property
    def due(self) -> bool:
        """Whether one is still to come. Stopped before that, the box hangs (firmware 1.6.1)."""
        return self._asked is not None

    def _answered(self, port: Port) -> None:
        self._asked, port.coalesce_s = None, COALESCE_S
