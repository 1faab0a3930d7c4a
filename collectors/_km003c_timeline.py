"""Where a KM003C's samples lie in time: answers in, samples with ticks, gaps and readings of its clock out. Pure.

Samples carry a counter of 16 bits in ms. An answer holds all that were queued when it was made: that the newest had been
taken before the answer came, and the one after it had not before the question went, ties the clock to the host's from
both sides. (In the 231 answers of the recorded session a line exists through all of them, within 0.8 ms.)
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
SLACK = 3
"""Ticks by which the counter may lead what the host's clock allows."""
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
    _asked: int = 0
    _answered: int = 0
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
        yield from self._pieces(ticks, queued, holes)
        self._last, self._asked, self._answered = int(ticks[-1]), asked, answered
        yield from self._show(asked, answered, whole=len(queued) < FULL)

    def finish(self) -> Iterator[Shown]:
        """Give out what still waits."""
        if self._best is not None:
            yield self._best
            self._best = None

    def _check(self, ticks: Array, answered: int) -> None:
        steps = np.diff(ticks, prepend=ticks[0] - self.step if self._last is None else self._last)
        if (steps <= 0).any():
            raise Transient(f"expected a counter that goes up by {self.step}, got the same twice")
        if self._last is not None:
            most = (answered - self._asked) / TICK_NS * 1.001 + self.step + SLACK
            if ticks[-1] - self._last > most:
                raise Transient(
                    f"expected its counter to go on from {self._last} by {most:.0f} at most, got {ticks[-1] - self._last}: "
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

    def _show(self, asked: int, answered: int, *, whole: bool) -> Iterator[Shown]:
        assert self._last is not None
        shown = Shown(self._last, self.step, asked if whole else None, answered)
        if self._shown < BURST:
            self._shown, self._since = self._shown + 1, answered
            yield shown
            return
        if self._best is None or _width(shown) < _width(self._best):
            self._best = shown
        if answered - self._since >= EACH_NS:
            self._since = answered
            yield from self.finish()


def _width(shown: Shown) -> float:
    return float("inf") if shown.not_before is None else shown.not_after - shown.not_before
