"""Where a PPK2's samples lie in time: words and breaks in, samples with ticks and gaps of true length out. Pure.

After a break the counter tells how many samples were lost modulo 64. What follows waits until enough has arrived to see
by how much later than before it comes: that tells which of 9, 73, 137 ... it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.collectors._ppk2_framing import HELD, Break, Words
from melt_stream.collectors._sample_clock import Arrival, Line, SampleClock, missing

MODULUS = 64
TICK_NS = 10_000.0
SETTLE = 1000
"""Samples left out at the start: some may be left from before."""
PAUSE_NS = 50_000_000
"""After so long a silence, samples may be missing though the counter goes on."""
ENOUGH = 60
"""Arrivals after a break that tell its length ..."""
SETTLED_NS = 150_000.0
"""... once the fastest of the older half and of the younger agree so well: after a pause of the host, a backlog comes."""
ENOUGH_NS = 3_000_000_000
"""... or after so much time."""
FEW = 3
"""Fastest arrivals after which the clock is known well enough to call others late."""
LATE = 10
"""So many fastest arrivals in a row come late by a multiple of 64 samples at least, where a loss was not seen ..."""
LATE_WITHIN = 16
"""... and most of them by just as much, within so many samples."""


class Samples(NamedTuple):
    """Words that follow one another."""

    tick: int
    words: Words


class Gap(NamedTuple):
    """Samples that are missing before ``tick`` + ``lost``, from ``tick`` on."""

    tick: int
    lost: int
    reason: str


class Shown(NamedTuple):
    """The sample ``tick`` had arrived at this time."""

    tick: int
    at: int


Piece = Samples | Gap | Shown


@dataclass
class _Pending:
    found: Break
    line: Line | None
    last: Arrival | None
    words: list[Words] = field(default_factory=list)
    count: int = 0
    after: list[Arrival] = field(default_factory=list)


@dataclass
class Timeline:
    """The state between two blocks."""

    tick: int = -SETTLE
    """Of the next sample."""
    ambiguous: int = 0
    clock: SampleClock = field(default_factory=lambda: SampleClock(TICK_NS))
    _pending: _Pending | None = None
    _seen: int | None = None
    _late: list[float] = field(default_factory=list)

    def take(self, found: Iterable[Words | Break], waiting: int, at: int) -> Iterator[Piece]:
        """Take what framing made of a block that was read at ``at``; ``waiting`` words more were in it."""
        pieces = list(found)
        if self._seen is not None and at - self._seen > PAUSE_NS and not _broken(pieces):
            pieces.insert(0, Break(0, 0))
        self._seen = at
        for piece in pieces:
            yield from self._break(piece) if isinstance(piece, Break) else self._run(piece)
        if waiting <= HELD:  # else a break is in the rest, and nobody knows the ticks after it
            yield from self._arrived(waiting, at)

    def finish(self) -> Iterator[Piece]:
        """Give out what still waits."""
        if self._pending is not None:
            yield from self._resolve(self._pending)

    def _break(self, found: Break) -> Iterator[Piece]:
        yield from self.finish()
        line = self.clock.line() if self.clock.last is not None else None
        self._pending = _Pending(found, line, self.clock.last)

    def _run(self, words: Words) -> Iterator[Piece]:
        if (pending := self._pending) is not None:
            pending.words.append(words)
            pending.count += len(words)
        elif len(words):
            yield from self._samples(words)

    def _samples(self, words: Words) -> Iterator[Piece]:
        tick, self.tick = self.tick, self.tick + len(words)
        if self.tick > 0:
            early = max(0, -tick)
            yield Samples(tick + early, words[early:])

    def _arrived(self, waiting: int, at: int) -> Iterator[Piece]:
        if (pending := self._pending) is None:
            yield from self._show(Arrival(self.tick + waiting - 1, at))
            return
        pending.after.append(Arrival(self.tick + pending.count + waiting - 1, at))
        told = len(pending.after) >= ENOUGH and self.clock.unsettled(pending.after) <= SETTLED_NS
        if told or at - pending.after[0].at >= ENOUGH_NS:
            yield from self._resolve(pending)

    def _show(self, arrival: Arrival) -> Iterator[Piece]:
        told = self.clock.add(*arrival)
        if told is not None and told.tick >= 0:
            yield Shown(*told)
            yield from self._unseen(told)

    def _resolve(self, pending: _Pending) -> Iterator[Piece]:
        self._pending = None
        lost, other = pending.found.residue, None
        unsure = pending.line is None or pending.last is None or not pending.after
        if pending.line is not None and pending.last is not None and pending.after:
            lost, other = missing(pending.line, pending.after, pending.last, MODULUS, pending.found.residue)
        if pending.found == Break(0, 0) and (unsure or other is not None):
            lost = 0  # a pause of the host's; if samples are missing all the same, they will show
        if lost or pending.found.thrown:
            self.ambiguous += unsure or other is not None
            yield from self._gap(lost, _reason(pending.found, lost, other, unsure=unsure))
        for words in pending.words:
            yield from self._samples(words)
        for arrival in pending.after:
            yield from self._show(Arrival(arrival.tick + lost, arrival.at))

    def _gap(self, lost: int, reason: str) -> Iterator[Piece]:
        tick, self.tick = self.tick, self.tick + lost
        if tick > 0:
            yield Gap(tick, lost, reason)

    def _unseen(self, told: Arrival) -> Iterator[Piece]:
        """Look for a loss of a multiple of 64 samples, which no counter shows: all that follows comes later."""
        if self.clock.kept < FEW:
            return self.clock.keep(told)
        line = self.clock.line()
        late = (told.at - line.at - (told.tick - line.tick0) * line.rate - line.delay) / line.rate
        if late < MODULUS / 2:
            self._late = []
            return self.clock.keep(told)
        self._late.append(late)  # and not kept: what is late tells nothing of the clock
        least, count = min(self._late), len(self._late)
        lost = MODULUS * round(least / MODULUS)
        close = sum(late - lost <= LATE_WITHIN for late in self._late)
        if abs(least - lost) > LATE_WITHIN or count < LATE or close < count * 0.6:
            return
        self._late = []
        reason = (
            f"{lost} samples lost about {LATE / 10:g} s before: the counter does not show it, the clock does"
        )
        yield from self._gap(lost, reason)


def _broken(pieces: list[Words | Break]) -> bool:
    return any(isinstance(piece, Break) for piece in pieces)


def _reason(found: Break, lost: int, other: int | None, *, unsure: bool) -> str:
    text = f"{lost} samples lost: the counter says {found.residue} modulo {MODULUS}"
    if other is not None:
        text += f", the clock cannot tell {lost} from {other}"
    elif unsure:
        text += ", and there is no clock yet to tell how often 64 more"
    if found.thrown:
        text += f"; {found.thrown} bytes dropped that may be no samples"
    return text
