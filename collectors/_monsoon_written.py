"""What both Monsoons have in common: decoded blocks become rows, gaps of their true length and readings of the sample clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.clock import Clock, Reading
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

PERIOD_NS = 200_000.0
READING_NS = 250_000_000
OFF_NS = 20_000_000
"""The output has been below half of its voltage for so long: it was switched off."""

Array = np.ndarray[Any, Any]


class Hole(NamedTuple):
    """Samples that are none, before ``row`` of a block."""

    row: int
    tick: int
    lost: int
    why: str


@dataclass
class Written:
    """Puts one stretch of sampling in the outlet."""

    out: Outlet
    clock: Clock
    _gap: tuple[int, int, str] | None = None
    """A gap that may go on in the next block: start, stop, reason."""
    _streams: list[Stream] = field(default_factory=list)
    _best: tuple[float, int, int] | None = None
    """Of the arrivals since the last reading: the least lateness, its tick and its time."""
    _read: int = 0

    def block(self, tick: Array, values: Mapping[Stream, Mapping[str, Array]], holes: Iterable[Hole]) -> None:
        """Write a block's rows, for each stream its columns, all of the length of ``tick``, and its holes in their places."""
        self._streams, at = list(values), 0
        for hole in holes:
            at = self._rows(tick, values, at, hole.row)
            self._add_gap(hole.tick, hole.tick + hole.lost, hole.why)
        self._rows(tick, values, at, len(tick))

    def arrived(self, late: float, tick: int, at: int) -> None:
        """Take in that ``tick`` had come at ``at``; some times a second, tell of what came soonest: it had been taken then."""
        if self._best is None or late < self._best[0]:
            self._best = (late, tick, at)
        if at - self._read >= READING_NS:
            _, tick, seen = self._best
            self.out.clock_reading(Reading(self.clock, tick, not_after=seen, kind="arrival"))
            self._read, self._best = at, None

    def close(self) -> None:
        """End the gap that is still open."""
        if self._gap:
            start, stop, why = self._gap
            for stream in self._streams:
                self.out.gap(stream, start, stop, why, lost=stop - start)
            self._gap = None

    def _rows(self, tick: Array, values: Mapping[Stream, Mapping[str, Array]], start: int, stop: int) -> int:
        if stop > start:
            self.close()
            part = slice(start, stop)
            for stream, columns in values.items():
                cut: dict[str, Any] = {name: column[part] for name, column in columns.items()}
                self.out.rows(stream, tick=tick[part], **cut)
        return stop

    def _add_gap(self, start: int, stop: int, why: str) -> None:
        if self._gap and (self._gap[1], self._gap[2]) == (start, why):
            self._gap = (self._gap[0], stop, why)
        else:
            self.close()
            self._gap = (start, stop, why)


@dataclass
class Watch:
    """Sees when the box switches its output off."""

    voltage: float
    _low_since: int | None = None

    def fell(self, volts: float, at: int) -> bool:
        """Take the newest voltage; tell whether it has been below half of what was set for some time."""
        if volts >= self.voltage / 2:
            self._low_since = None
        elif self._low_since is None:
            self._low_since = at
        return self._low_since is not None and at - self._low_since > OFF_NS
