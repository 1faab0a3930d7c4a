"""Any sensor that prints text, described in the recipe instead of in code."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import trio
from pydantic import PositiveFloat, PositiveInt

from melt_stream.clock import HOST, Clock, Now, Reading
from melt_stream.collector import Health
from melt_stream.collectors import _serial
from melt_stream.collectors._described import Described
from melt_stream.collectors._device_time import Stamped, Timeline
from melt_stream.collectors._line_description import Description
from melt_stream.collectors._line_sources import (
    Receive,
    command_lines,
    file_lines,
    host_and_port,
    serial_lines,
    tcp_lines,
)
from melt_stream.collectors._lines import ENDS, Cutter, Junk, Reader, Values
from melt_stream.errors import ConfigError, Transient
from melt_stream.hand import SLACK
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

READING_NS = 50_000_000
"""Readings of the device's clock are at least so far apart."""

UNFIT = "a time that fits neither the one before nor the one after"


@dataclass
class Lines(Description):
    """Read lines from a serial port, a TCP server, a command or a file, as ``columns`` and ``rails`` describe them.

    Say one of ``port``, ``tcp``, ``command`` and ``file``. Every rail is a stream of its name; the columns of no rail
    are the stream ``values``. A line that the description does not fit is junk: a gap, never a guess. Without ``time`` a
    record is stamped when it arrives.
    """

    _: KW_ONLY
    port: str = ""
    """Serial port, such as ``/dev/ttyACM0``."""
    baud: PositiveInt = 115200
    tcp: str = ""
    """``host:port`` to connect to."""
    command: list[str] = field(default_factory=list)
    """Program and arguments whose stdout is read; its end is the collector's."""
    file: str = ""
    """A FIFO, or a file of which is read what is written from now on."""
    patience_s: PositiveFloat = 10.0
    """How long no record may come before the collector gives up and is started again."""
    optional: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("port", "tcp", "command", "file") if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(f"expected one of port, tcp, command and file, got {given or 'none'}")
        if self.tcp:
            host_and_port(self.tcp)
        self.layout()
        clock = Clock("device", tick_ns=self.tick_ns()) if self.time else HOST
        self.described = Described(self.kept(), self.rails, clock, self.period_ns)
        self.streams: dict[str, Stream] = self.described.streams

    @staticmethod
    def example() -> dict[str, Any]:
        prints = (
            "import time\n"
            "for k in range(10000): print(f'{10 * k},5.02,{400 + k % 7}', flush=True); time.sleep(0.01)"
        )
        config = {
            "command": [sys.executable, "-c", prints],
            "columns": {"millis": "ms", "volts": "V", "amps": "mA"},
            "time": "millis",
            "rails": {"board": {"boundary": "dc_in"}},
        }
        return {"kind": "plain", "config": config}

    def check(self) -> Health:
        """Tell whether its source is there; connects to nothing."""
        if self.port:
            return _serial.health("serial sensor", (), self.port)
        if self.command:
            found = shutil.which(self.command[0]) is not None
            return Health(found, f"command {self.command[0]}" + ("" if found else ", which is not on PATH"))
        if self.file:
            there = Path(self.file).exists()
            return Health(there, f"{self.file}{'' if there else ', which is not there'}")
        return Health(True, f"expected at {self.tcp}; not asked")

    async def collect(self, out: Outlet) -> None:
        """Read until cancelled, or the command ends."""
        for stream, rail in self.described.declared():
            out.rail(stream, rail)
        taking = Taking(self, out)
        async with self._opened(out.now) as receive:
            while True:
                block = None
                with trio.move_on_at(taking.heard + self.patience_s):
                    block = await receive()
                if block is not None and not block.data:
                    return taking.end()
                if block is not None:
                    taking.take(block.data, block.arrival)
                if trio.current_time() > taking.heard + self.patience_s:
                    raise taking.silent()

    def _opened(self, now: Now) -> AbstractAsyncContextManager[Receive]:
        if self.port:
            return serial_lines(self.port, self.baud, now)
        if self.tcp:
            return tcp_lines(self.tcp, now)
        return command_lines(self.command, now) if self.command else file_lines(Path(self.file), now)


@dataclass
class Taking:
    """From bytes to rows, gaps and readings, between two failures."""

    lines: Lines
    out: Outlet
    heard: float = field(default_factory=trio.current_time)
    """Trio's time of the last record."""
    _junk: list[str] = field(default_factory=list)
    """Why lines since the last record were junk: the first reason, and how often."""
    _last: Stamped[Values] | None = None
    _read_at: int | None = None

    def __post_init__(self) -> None:
        lines = self.lines
        self._cutter, self._reader = Cutter(lines.max_line), Reader(lines.layout())
        # Whoever connects may do so in the middle of a line, of which the rest may look like a whole one.
        self._in_line = not lines.command
        self._timeline: Timeline[Values] | None = (
            Timeline(lines.tick_ns(), lines.wrap()) if lines.time else None
        )

    def take(self, data: bytes, arrival: int) -> None:
        """Put what these bytes complete in the outlet."""
        found = [self._reader.take(line) for line in self._cutter.feed(self._whole(data))]
        items = [item for item in found if item is not None]
        if any(not isinstance(item, Junk) for item in items):
            self.heard = trio.current_time()
        if self._timeline is None:
            self._arrived(items, arrival)
        else:
            self._stamped(self._timeline, items, arrival)

    def _whole(self, data: bytes) -> bytes:
        """Return what comes after the first line's end; the reader sees that line too, since it may be the header."""
        if not self._in_line:
            return data
        if (end := ENDS.search(data)) is not None:
            self._in_line = False
            for line in self._cutter.feed(data[: end.end()]):
                self._reader.take(line)
            return data[end.end() :]
        for _ in self._cutter.feed(data):
            pass
        return b""

    def end(self) -> None:
        """Say that a line without its end is lost: nobody knows whether it was whole."""
        if self._cutter.unfinished and self._last is not None:
            last = self._last.tick
            self._gap(last, last, "the last line has no end", 1, self._last.epoch)

    def silent(self) -> Transient:
        """Return the complaint that no record came."""
        got = f"{len(self._junk)} lines that are none, the first: {self._junk[0]}" if self._junk else "none"
        return Transient(
            f"expected a record within {self.lines.patience_s:g} s, got {got}; are the baud rate and the description right?"
        )

    def _arrived(self, items: Sequence[Values | Junk], arrival: int) -> None:
        """Stamp by arrival; what came at once was printed a period apart, where that is known."""
        period = self.lines.period_ns or 0.0
        for behind, item in zip(range(len(items) - 1, -1, -1), items, strict=True):
            if isinstance(item, Junk):
                self._junk.append(item.reason)
                continue
            tick = arrival - round(behind * period)
            tick = max(tick, self._last.tick) if self._last else tick
            self._put(Stamped(0, tick, arrival, item), SLACK)

    def _stamped(self, timeline: Timeline[Values], items: Sequence[Values | Junk], arrival: int) -> None:
        for item in items:
            if isinstance(item, Junk):
                self._junk.append(item.reason)
                continue
            seconds = item.pop(self.lines.time)
            if not isinstance(seconds, float) or seconds < 0:
                self._junk.append("a record without a time")
                continue
            count = round(seconds * (1e9 / timeline.tick_ns))
            for stamped in timeline.take(count, arrival, item):
                self._junk.extend([UNFIT] * timeline.garbled)
                timeline.garbled = 0
                self._put(stamped, 1.5)
        if self._last is not None and (self._read_at is None or arrival - self._read_at >= READING_NS):
            self._read_at = arrival
            self._read(self._last)

    def _read(self, stamped: Stamped[Values]) -> None:
        clock = next(iter(self.lines.streams.values())).clock
        self.out.clock_reading(
            Reading(
                clock, stamped.tick, self.lines.resolution(), not_after=stamped.arrival, epoch=stamped.epoch,
                kind="arrival",
            )
        )  # fmt: skip

    def _put(self, stamped: Stamped[Values], most_periods: float) -> None:
        last, self._last = self._last, stamped
        if last is not None:
            self._mind_gap(last, stamped, most_periods)
        self._junk.clear()
        epoch = {"epoch": stamped.epoch} if self._timeline else {}
        for stream, row in self.lines.described.rows(stamped.record):
            self.out.row(stream, tick=stamped.tick, **epoch, **row)

    def _mind_gap(self, last: Stamped[Values], stamped: Stamped[Values], most_periods: float) -> None:
        junk = f"{len(self._junk)} lines were no records, the first: {self._junk[0]}" if self._junk else ""
        if stamped.epoch != last.epoch:
            return self._gap(
                last.tick, last.tick, "the device began to count again", len(self._junk) or None, last.epoch
            )
        lost = len(self._junk)
        if (period := self.lines.period_ns) is not None:
            tick_ns = self._timeline.tick_ns if self._timeline else 1.0
            steps = (stamped.tick - last.tick) * tick_ns / period
            if steps > most_periods:
                lost = round(steps) - 1
            elif self._timeline is not None:
                lost = 0  # the lines that were no records came between two that follow each other
        if lost:
            self._gap(last.tick, stamped.tick, junk or "no line came", lost, stamped.epoch)

    def _gap(self, start: int, stop: int, reason: str, lost: int | None, epoch: int) -> None:
        for stream in self.lines.streams.values():
            self.out.gap(
                stream, start, stop, reason, lost=lost, **({"epoch": epoch} if self._timeline else {})
            )
