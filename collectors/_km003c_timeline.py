"""Where a KM003C's samples lie in time: answers in, samples with ticks, gaps and readings of its clock out. Pure.

Samples carry a counter of 16 bits in ms. An answer holds all that were queued when it was made: that the newest had been
taken before the answer came, and the one after it had not before the question went, ties the clock to the host's from
both sides. The second is said only once that next sample has come: one that was lost may have been there before. (In the
231 answers of the recorded session a line exists through all of them, within 0.8 ms.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.errors import Transient
from melt_stream.unwrap import Hole, Unwrap

Array = np.ndarray[Any, Any]
MODULUS, TICK_NS = 1 << 16, 1_000_000
LATENCY_NS = 20e9
"""An answer that comes so late after the last is not believed: the counter wraps every 65.5 s."""
SLACK, AT_FIRST = 3, 1000
"""Ticks by which the counter may lead what the host's clock allows; the second before that is tied from both sides."""
FULL = 60
"""Samples in an answer from which on it may not have held all: then nothing says that the next was not there yet."""
EACH_NS = 200_000_000
BURST = 5
"""Readings: so many at first, then the narrowest of each 0.2 s."""


class Samples(NamedTuple):
    """Samples that follow one another."""

    tick: Array
    queued: Array


class Gap(NamedTuple):
    """Samples are missing between two ticks."""

    start: int
    stop: int
    lost: int
    reason: str


class Shown(NamedTuple):
    """The clock showed between ``tick`` and ``tick + resolution`` at some time between the two of the host, if both are known."""

    tick: int
    resolution: int
    not_before: int | None
    not_after: int


Piece = Samples | Gap | Shown


@dataclass
class Timeline:
    """The state between two answers."""

    step: int
    """Ticks from sample to sample."""
    _unwrap: Unwrap = field(init=False)
    _last: int | None = None
    _answered: int = 0
    _latest: int = 0
    """What the counter had not passed ..."""
    _by: int | None = None
    """... at this time of the host."""
    _waiting: Shown | None = None
    """What the last answer shows, until it is known whether the next sample follows."""
    _shown: int = 0
    _best: Shown | None = None
    _since: int = 0

    def __post_init__(self) -> None:
        self._unwrap = Unwrap(MODULUS, TICK_NS, self.step, jitter=self.step / 2, latency_ns=LATENCY_NS)

    def take(self, asked: int, answered: int, queued: Array) -> Iterator[Piece]:
        """Take the samples of an answer, and when it was asked for and came (host, ns).

        Raises ``Transient`` where the counter cannot be what it says: it was started anew, or bytes are wrong.
        """
        if not len(queued):
            return
        if self._last is not None and answered - self._answered > LATENCY_NS:
            raise Transient(
                f"expected samples within {LATENCY_NS / 1e9:g} s, got none for {(answered - self._answered) / 1e9:.1f} s"
            )
        ticks, holes = self._unwrap.feed(queued["sequence"], answered)
        self._check(ticks, answered)
        yield from self._confirm(follows=self._last is not None and ticks[0] - self._last == self.step)
        yield from self._pieces(ticks, queued, holes)
        self._last, self._answered = int(ticks[-1]), answered
        self._waiting = Shown(self._last, self.step, asked if len(queued) < FULL else None, answered)
        if self._by is None:
            self._by, self._latest = asked, self._last + AT_FIRST

    def finish(self) -> Iterator[Shown]:
        """Give out what still waits."""
        yield from self._confirm(follows=False)
        if self._best is not None:
            yield self._best
            self._best = None

    def _check(self, ticks: Array, answered: int) -> None:
        if self._by is not None:
            most = self._latest + (answered - self._by) / TICK_NS * 1.001 + SLACK
            if ticks[-1] > most:
                raise Transient(
                    f"expected its counter to have come from {self._last} to {most:.0f} at most, got {ticks[-1]}: "
                    "it was started anew, by another program?"
                )

    def _pieces(self, ticks: Array, queued: Array, holes: list[Hole]) -> Iterator[Piece]:
        begin = 0
        for hole in holes:
            if hole.row > begin:
                yield Samples(ticks[begin : hole.row], queued[begin : hole.row])
            begin, stop = hole.row, int(ticks[hole.row])
            if lost := round((stop - hole.start) / self.step) - 1:
                yield Gap(hole.start, stop, lost, f"{lost} samples lost: the counter skips them")
        yield Samples(ticks[begin:], queued[begin:])

    def _confirm(self, *, follows: bool) -> Iterator[Shown]:
        """Let what waits count, from both sides if the next sample follows."""
        shown, self._waiting = self._waiting, None
        if shown is None:
            return
        if not follows:
            shown = shown._replace(not_before=None)
        if shown.not_before is not None:
            self._by, self._latest = shown.not_before, shown.tick + self.step
        if self._shown < BURST:
            self._shown, self._since = self._shown + 1, shown.not_after
            yield shown
            return
        if self._best is None or _width(shown) < _width(self._best):
            self._best = shown
        if shown.not_after - self._since >= EACH_NS:
            self._since, best, self._best = shown.not_after, self._best, None
            yield best


def _width(shown: Shown) -> float:
    return float("inf") if shown.not_before is None else shown.not_after - shown.not_before
