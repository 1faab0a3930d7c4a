"""Where a PowerSensor3's sets lie in time: rows in, rows with ticks of 1 us and gaps of true length out. Pure.

The counter tells the time modulo 1.024 ms. Of the arrivals of each 0.1 s the fastest is believed, since the others tell
more of the host than of the box. After a break, or a pause of the host's, rows wait until enough has arrived to see by
how much later they come than before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors._decode_powersensor3 import MODULUS
from melt_stream.collectors._powersensor3_framing import Beat, Rows
from melt_stream.unwrap import Hole, Unwrap

Array = np.ndarray[Any, Any]
TICK_NS = 1000.0
GROUP_NS = 100_000_000
PAUSE_NS = 20_000_000
"""After so long a silence, what comes first may be a backlog."""
ENOUGH = 60
"""Arrivals after a break that tell its length ..."""
SETTLED_NS = 150_000.0
"""... once the fastest of the older half and of the younger agree so well ..."""
ENOUGH_NS = 3_000_000_000
"""... or after so much time."""
FEW = 8
"""Fewer arrivals than that tell nothing of how late they are."""
UNSEEN_NS = 20e6
"""Rows that follow one another are believed, unless they come so much later than before."""
SPREAD_NS = 300e3


class Samples(NamedTuple):
    """Rows that follow one another."""

    tick: Array
    values: Array


class Gap(NamedTuple):
    """Rows that are missing between these two ticks."""

    start: int
    stop: int
    lost: int
    shortest: int
    """So many are lost at least ..."""
    longest: int
    """... and at most."""

    @property
    def reason(self) -> str:
        """What to say of it; both lengths where the arrivals do not tell which it is."""
        if self.shortest == self.longest:
            return f"{self.lost} sets lost"
        return (
            f"{self.lost} sets lost, or {self.shortest} to {self.longest}: the counter of 1.024 ms went round unseen, and "
            "the arrivals do not tell how often"
        )


class Marked(NamedTuple):
    """A row bears a mark."""

    tick: int
    sent: int | None
    """When the host asked for it; None where it did not."""
    arrival: int


class Shown(NamedTuple):
    """The row at ``tick`` had arrived at this time."""

    tick: int
    at: int


Piece = Samples | Gap | Marked | Shown


@dataclass
class _Block:
    rows: Rows
    arrival: int
    sent: int | None
    length: int
    """Ticks from the row before it to its last, modulo what wraps may hide before its first."""


@dataclass
class Timeline:
    """The state between two blocks."""

    beat: Beat
    ambiguous: int = 0
    """Gaps whose length the arrivals do not tell for sure."""
    _unwrap: Unwrap = field(init=False)
    _waiting: list[_Block] = field(default_factory=list)
    _troubled: bool = False
    _stamp: int | None = None
    _arrival: int | None = None

    def __post_init__(self) -> None:
        period, jitter = self.beat
        self._unwrap = Unwrap(MODULUS, TICK_NS, period, jitter, UNSEEN_NS, SPREAD_NS, steady=True)

    def take(self, rows: Rows, arrival: int, sent: int | None = None) -> Iterator[Piece]:
        """Take rows that arrived together; ``sent`` is when the mark was asked for that one of them bears."""
        if not len(rows.stamp):
            return
        if self._arrival is not None and arrival - self._arrival > PAUSE_NS and not self._troubled:
            yield from self._trouble()
        self._arrival = arrival
        steps = np.diff(rows.stamp, prepend=rows.stamp[0] if self._stamp is None else self._stamp) % MODULUS
        breaks = np.flatnonzero(np.abs(steps - self.beat.period) > self.beat.jitter).tolist()
        if self._stamp is None:
            breaks = breaks[1:]  # before the first row there is nothing to break off from
        self._stamp = int(rows.stamp[-1])
        for start, stop in zip([0, *breaks], [*breaks, len(steps)], strict=True):
            if start in breaks:
                yield from self._trouble()
            if stop > start:
                part = Rows(rows.stamp[start:stop], rows.marked[start:stop], rows.values[:, start:stop])
                asked, sent = (sent, None) if part.marked.any() else (None, sent)
                self._waiting.append(_Block(part, arrival, asked, int(steps[start:stop].sum())))
        if self._told(arrival):
            unsure = self._unsettled() if self._troubled else 0.0
            yield from self._settle(unsure if unsure > SETTLED_NS else 0.0)

    def finish(self) -> Iterator[Piece]:
        """Give out what still waits, as few arrivals as there are of it."""
        late_ns = self._unsettled() if len(self._waiting) >= FEW else math.inf
        while self._waiting:
            yield from self._settle(late_ns)
            late_ns = math.inf

    def _trouble(self) -> Iterator[Piece]:
        """Break off: what waits is settled by what is known of it; what follows needs arrivals of its own."""
        yield from self.finish()
        self._troubled = True

    def _told(self, arrival: int) -> bool:
        since = arrival - self._waiting[0].arrival
        if not self._troubled:
            return since >= GROUP_NS
        return since >= ENOUGH_NS or (len(self._waiting) >= ENOUGH and self._unsettled() <= SETTLED_NS)

    def _delays(self) -> Array:
        """By how much later than the first of those that wait each comes, beside what the counter says."""
        length = np.cumsum([block.length for block in self._waiting])
        return (
            np.array([block.arrival - self._waiting[0].arrival for block in self._waiting]) - length * TICK_NS
        )

    def _unsettled(self) -> float:
        """By how many ns the fastest of the older half and of the younger differ."""
        delays = self._delays()
        half = len(delays) // 2
        return float(abs(delays[:half].min() - delays[half:].min())) if half else math.inf

    def _settle(self, late_ns: float) -> Iterator[Piece]:
        """Give ticks to the rows up to the fastest arrival of those that wait."""
        fastest = int(np.argmin(self._delays()))
        blocks, self._waiting = self._waiting[: fastest + 1], self._waiting[fastest + 1 :]
        self._troubled = False
        stamps = np.concatenate([block.rows.stamp for block in blocks])
        ticks, holes = self._unwrap.feed(stamps, blocks[-1].arrival, late_ns=late_ns)
        for hole in holes:
            yield self._gap(hole, int(ticks[hole.row]))
        yield Samples(ticks, np.concatenate([block.rows.values for block in blocks], axis=1))
        yield from _marks(blocks, ticks)
        yield Shown(int(ticks[-1]), blocks[-1].arrival)

    def _gap(self, hole: Hole, stop: int) -> Gap:
        self.ambiguous += hole.ambiguous
        lost = (self._lost(length) for length in (stop - hole.start, hole.shortest, hole.longest))
        return Gap(hole.start, stop, *lost)

    def _lost(self, length: int) -> int:
        return max(0, round(length / (self._unwrap.period or self.beat.period)) - 1)


def _marks(blocks: list[_Block], ticks: Array) -> Iterator[Marked]:
    at = 0
    for block in blocks:
        sent = block.sent
        for row in np.flatnonzero(block.rows.marked):
            yield Marked(int(ticks[at + row]), sent, block.arrival)
            sent = None  # it asked for one
        at += len(block.rows.stamp)
