"""From what a log says to rows: a stream for each clock that its times are on, and the readings that tie these together.

Everything hangs on the device's wall clock, which ``Place.clocked`` ties to ours from both sides, and which stamps the lines:

* ``wall``: that clock itself, us. ``wall_ms``, ``wall_s``: it again, as somebody saw it who took ms or s; each stamp is good to that.
* ``boot``, ``boot_ms``, ``boot_s``: CLOCK_BOOTTIME, which ``/proc/uptime`` (10 ms) ties to ours.
* ``relative``, ...: the program's own; a line that tells it was written before its stamp, and that is all.
* ``lines``: what is told without a time, and by a line alone, was so before the line's stamp: how long before, nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._log_said import At, Said
from melt_stream.devices import Happened, Line, Place
from melt_stream.errors import DeviceError
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

BASES = {"realtime": "wall", "boottime": "boot", "relative": "relative"}
SUFFIXES = {1_000_000_000: "_s", 1_000_000: "_ms", 1000: ""}
"""By the length of a tick, ns: the coarsest that a stamp's resolution allows is taken, or us."""
UPTIME = "/proc/uptime"
APART_US = 10_000
"""Readings of a program's own clock are at least so far apart."""


def streams_of(place: Place) -> dict[str, Stream]:
    """Return all streams, by name."""
    clocks = {
        "realtime": place.clock,
        "boottime": Clock(f"{place.device.name}.boottime", tick_ns=1000.0),
        "relative": Clock("relative", tick_ns=1000.0),
    }
    found = {"lines": events("lines", Clock("lines", tick_ns=1000.0, rho_ppm=0.0))}
    for base, name in BASES.items():
        for tick_ns, suffix in SUFFIXES.items():
            clock = clocks[base]
            if suffix:  # the same clock, seen coarsely: no rate of its own
                clock = Clock(f"{clock.name}{suffix}", tick_ns=float(tick_ns), rho_ppm=0.0)
            found[name + suffix] = events(name + suffix, clock)
    return {**found, "log": Stream("log", clock=place.clock, text=str)}


@dataclass
class Rows:
    """Where a log's events go, while its device is in one boot."""

    out: Outlet
    place: Place
    streams: dict[str, Stream]
    epoch: int
    keep_lines: bool = True
    _requests: dict[str, int] = field(default_factory=dict)
    _program: int = 0
    """Epoch of the program's own clock: it went back so often."""
    _shown: int = -1
    """What that clock showed last, us."""
    _read_at: int = -1
    _last: int = 0
    """Stamp of the last line."""
    _line_read: int = -1
    """The last stamp that is a reading."""

    def line(self, line: Line) -> None:
        """Keep a line as it came."""
        self._last = line.tick
        if self.keep_lines:
            self.out.row(self.streams["log"], tick=line.tick, epoch=self.epoch, text=line.text)

    def happened(self, what: Happened) -> None:
        """Say that lines may be missing."""
        start = self._last or what.tick
        self.out.gap(self.streams["log"], start, max(start, what.tick), what.what, epoch=self.epoch)

    def unreadable(self, why: str) -> None:
        """Say that a line, or several, told something that cannot be read."""
        self.out.gap(self.streams["log"], self._last, self._last, why[:500], epoch=self.epoch)

    def add(self, said: Sequence[Said]) -> None:
        """Put events that the last line said, or completed, in the outlet: in order of time on each clock."""
        rows = [(*self._placed(one.at), one) for one in said]
        for name, tick, epoch, one in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
            values = dict(one.values)
            if isinstance(detail := values.get("detail"), dict):
                values["detail"] = json.dumps(detail)
            request = None if one.request is None else self._number(one)
            self.out.row(self.streams[name], tick=tick, epoch=epoch, kind=one.kind, request=request, **values)

    def boottime(self, text: bytes, before: int, after: int) -> None:
        """Take what ``/proc/uptime`` said between two host times. Raises ``DeviceError``."""
        try:
            seconds, hundredths = text.split()[0].split(b".")
            tick = int(seconds) * 1_000_000 + int(hundredths) * 10_000
        except (IndexError, ValueError) as exc:
            raise DeviceError(f"{UPTIME}: expected seconds and hundredths, got {text[:60]!r}") from exc
        clock = self.streams["boot"].clock
        self.out.clock_reading(
            Reading(clock, tick, 10_000, not_before=before, not_after=after, epoch=self.epoch)
        )

    def _number(self, said: Said) -> int:
        """A request of the log, as the run counts it; a name that comes again after its end is another request."""
        assert said.request is not None
        if said.request not in self._requests:
            self._requests[said.request] = self.out.next_request()
        number = self._requests[said.request]
        if said.kind in ("request_end", "request_error", "window_end"):
            del self._requests[said.request]
        return number

    def _placed(self, at: At) -> tuple[str, int, int]:
        """Return the stream, tick and epoch of a moment, and record what ties its clock."""
        if at.base == "line":
            if self._line_read < self._last:
                self._line_read = self._last
                self._arrival("lines", self._last, self._last, 0)
            return "lines", self._last + at.ns // 1000, 0
        tick_ns = next(ns for ns in SUFFIXES if ns <= max(at.resolution_ns, 1000))
        name = BASES[at.base] + SUFFIXES[tick_ns]
        tick, epoch = at.ns // tick_ns, self.epoch
        if at.base == "relative":
            epoch = self._of_program(at)
        if SUFFIXES[tick_ns]:
            self._coarse(name, BASES[at.base], tick, tick_ns, max(1, at.resolution_ns // tick_ns), epoch)
        return name, tick, epoch

    def _coarse(self, name: str, fine: str, tick: int, tick_ns: int, width: int, epoch: int) -> None:
        """The stamp was taken between ``tick`` and ``tick + width``: both ends are readings against the fine clock."""
        end = (tick + width) * tick_ns // 1000
        reading = Reading(
            self.streams[name].clock, tick, width, not_before=end, not_after=end, epoch=epoch,
            against=self.streams[fine].clock, against_epoch=epoch,
        )  # fmt: skip
        self.out.clock_reading(reading)

    def _of_program(self, at: At) -> int:
        us = at.ns // 1000
        if us + at.resolution_ns // 1000 < self._shown:
            self._program += 1
            self._read_at = -1
        if self._read_at < 0 or us - self._read_at >= APART_US or us < self._shown:
            self._read_at = us
            self._arrival("relative", us, self._last, self._program)
        self._shown = us
        return self._program

    def _arrival(self, name: str, tick: int, stamp: int, epoch: int) -> None:
        """It was ``tick`` on this clock before ``stamp`` of the device's wall clock."""
        reading = Reading(
            self.streams[name].clock, tick, not_after=stamp, epoch=epoch, kind="arrival",
            against=self.place.clock, against_epoch=self.epoch,
        )  # fmt: skip
        self.out.clock_reading(reading)
