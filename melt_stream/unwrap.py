"""Counters that start again from 0 made to go on: by how many wraps is told by the arrivals on the host.

For collectors of instruments that stamp with a short counter (10 bits of us, 16 bits of ms, 32 bits of us).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Wraps = tuple[int, int, int]
"""The fewest, the likeliest and the most that nobody saw."""
FEW = 3
"""Arrivals before which nothing is known of how far they lie apart."""
MANY = 100_000
"""Wraps that are not gone through one by one."""
REFINED = 1000
"""Rows that tell the period better than who made this."""


class Hole(NamedTuple):
    """Rows are missing, or may be, just before this ``row`` of the block.

    Where just so many were lost that the count looks as if none were, nothing shows which row of the block they came
    before: it stands before the first.
    """

    row: int
    start: int
    """Tick of the row before it."""
    shortest: int
    """Ticks from that row to this one, if the counter wrapped as rarely as it can have."""
    longest: int
    """The same, if it wrapped as often as it can have."""

    @property
    def ambiguous(self) -> bool:
        """True where the arrivals do not tell how often the counter wrapped."""
        return self.shortest != self.longest

    def reason(self) -> str:
        """Return what to say of it in a gap row."""
        if not self.ambiguous:
            return "rows are missing"
        return f"the counter may have wrapped unseen: {self.shortest} to {self.longest} ticks passed"


@dataclass
class Unwrap:
    """Unwraps one counter, block by block as they arrive; made anew where the counter restarts.

    What is assumed: a row arrives at most ``latency_ns`` later than the fastest of late, and the counter keeps to its
    nominal rate within ``rate_ppm``. With ``period``, a row that comes one period (within ``jitter``) after another follows
    it: then only arrivals that leave no other choice make a hole. Without it, every row may come after a hole.

    Who gives only the fastest of many arrivals (and all rows up to it at once) knows better: such delays lie within
    ``spread_ns`` of each other, or twice as far as they did of late, if that is more. A hole that shows is told that much
    more sharply; rows that follow one another are still believed.

    ``steady`` says that rows are a whole number of periods apart even where some are missing, as a converter's are that runs
    on: then only lengths count that fit, and ``period`` is refined as rows come.
    """

    modulus: int
    """Counts before it starts again."""
    tick_ns: float
    period: float | None = None
    """Ticks from row to row, where they come regularly."""
    jitter: float = 1.0
    """Ticks by which that differs from row to row."""
    latency_ns: float = 50e6
    spread_ns: float | None = None
    """None: ``latency_ns``."""
    rate_ppm: float = 200.0
    steady: bool = False
    _last: int | None = None
    _first: int = 0
    _first_ns: int = 0
    _fast: tuple[float, int] = field(default=(0.0, 0))
    """Least of the delays (against the nominal rate, from the first row's) of late, and when it was, host ns."""
    _slow: tuple[float, int] = field(default=(0.0, 0))
    _usual: float = 0.0
    _heard: bool = False
    _learnt: int = 0
    _rows: int = 0
    _runs: int = 0
    """How often rows broke off: each run of them tells its length to two jitters."""
    _span: int = 0
    _doubt: int = 0
    """Wraps that holes since the last row on time may be too short by; the next on time makes them good, on the beat or not."""

    def feed(self, counts: Array, arrival_ns: int, *, late_ns: float = 0.0) -> tuple[Array, list[Hole]]:
        """Return the ticks (int64, from the first count on) of rows that arrived together, and the holes before them.

        ``late_ns`` says that just this arrival may be late by so much more than what is assumed of all (inf: by anything).
        Of a hole that is ambiguous, the ticks have the length that makes the rows' delay most like that before, and keep it;
        or the shortest, where the arrival may be late: what is missing shows once one is on time, what is too much never would.
        """
        counts = np.asarray(counts, np.int64)
        if not len(counts):
            return counts, []
        fresh = self._last is None
        if self._last is None:
            self._last, self._first, self._first_ns = int(counts[0]), int(counts[0]), arrival_ns
        steps = np.diff(counts, prepend=self._last % self.modulus) % self.modulus
        holes = self._holes(steps)
        holes = holes[holes > 0] if fresh else holes
        choice = (0, 0, 0) if fresh else self._choose(steps, holes, arrival_ns, late_ns)
        if not len(holes) and choice[-1]:
            holes = np.zeros(1, np.int64)
        self._refine(steps, len(holes))
        found = self._told(steps, holes, choice)
        self._doubt = self._doubt + choice[2] - choice[1] if late_ns else 0
        if len(holes):
            steps[holes[0]] += self.modulus * choice[1]
        ticks = self._last + np.cumsum(steps)
        self._last = int(ticks[-1])
        self._learn(arrival_ns, self._delay(arrival_ns, self._last), late=late_ns > 0)
        return ticks, found

    def _choose(self, steps: Array, holes: Array, arrival_ns: int, late_ns: float) -> Wraps:
        """How many wraps nobody saw, before the hole in these rows, or before the first of them.

        Rows on the beat and on time may make good what holes before were too short by, and no more.
        """
        assert self._last is not None
        least = self._last + int(np.sum(steps))
        follow = self.period is not None and not len(holes)
        close = self._wraps(arrival_ns, least, self._within(arrival_ns), late_ns)
        far = self._wraps(arrival_ns, least, self.latency_ns, late_ns)
        doubt = 0 if late_ns else self._doubt
        if follow and close[0] <= doubt:
            return close[0], min(close[1], doubt), min(close[2], doubt)
        if len(holes) > 1:
            return close
        length = int(steps[holes[0] if len(holes) else 0])
        return self._fit(length, [far] if follow else [close, far], believed=follow)

    def _told(self, steps: Array, holes: Array, choice: Wraps) -> list[Hole]:
        """Describe holes: where there are several, each may have all of the wraps, and ticks give them to the first."""
        assert self._last is not None
        fewest, likely, most = choice
        starts = self._last + np.concatenate([[0], np.cumsum(steps)[:-1]])
        found = []
        for k, hole in enumerate(holes.tolist()):
            length, after = int(steps[hole]), self.modulus * (likely if k else 0)
            shortest = length + self.modulus * (fewest if len(holes) == 1 else 0)
            found.append(Hole(hole, int(starts[hole]) + after, shortest, length + self.modulus * most))
        return found

    def _holes(self, steps: Array) -> Array:
        """Rows that do not come one period after the one before."""
        if self.period is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.abs(steps - self.period) > self.jitter)

    def _delay(self, arrival_ns: int, tick: int) -> float:
        return (arrival_ns - self._first_ns) - (tick - self._first) * self.tick_ns

    def _wraps(self, arrival_ns: int, tick: int, within: float, late: float) -> Wraps:
        """The fewest, the likeliest and the most wraps unseen if the last row was at ``tick`` without any.

        All delays of late lie within ``within``: this one's is more than the slowest less that, and less than the fastest
        and that (and ``late``).
        """
        wrap, delay = self.modulus * self.tick_ns, self._delay(arrival_ns, tick)
        fast, slow = self._range(arrival_ns)
        fewest = math.ceil(max(0.0, (delay - fast - within - late) / wrap))
        most = max(fewest, math.floor((delay - slow + within) / wrap))
        likely = 0 if late else round((delay - self._usual) / wrap)
        return fewest, min(max(likely, fewest), most), most

    def _within(self, arrival_ns: int) -> float:
        """How far apart delays lie where a hole shows."""
        if self.spread_ns is None or self._learnt < FEW:
            return self.latency_ns
        fast, slow = self._range(arrival_ns)
        return max(self.spread_ns, 2 * (slow - fast))

    def _range(self, arrival_ns: int) -> tuple[float, float]:
        """The fastest and the slowest delay of late, as the rate may have changed them since."""
        stray = self.rate_ppm * 1e-6
        fast, slow = self._fast, self._slow
        return fast[0] + stray * (arrival_ns - fast[1]), slow[0] - stray * (arrival_ns - slow[1])

    def _fit(self, length: int, choices: list[Wraps], *, believed: bool) -> Wraps:
        """Leave out numbers of wraps that cannot be, from the first choice of which some are left; rows that follow one
        another are believed where none is.
        """
        if self.period is None or (believed and not choices[0][0]):
            return (0, 0, 0) if believed else choices[0]
        if not believed:  # one round more, where nothing else is long enough
            fewest, likely, most = choices[-1]
            choices = [*choices, (fewest, likely, most + 1)]
        for fewest, likely, most in choices:
            if most - fewest > MANY:
                return fewest, likely, most
            kept = fewest + np.flatnonzero(
                self._possible(length + self.modulus * np.arange(fewest, most + 1))
            )
            if len(kept):
                return int(kept[0]), int(kept[np.argmin(np.abs(kept - likely))]), int(kept[-1])
        return (0, 0, 0) if believed else choices[0]

    def _possible(self, lengths: Array) -> Array:
        """Whether rows can be so far apart: no less than a period, and whole periods if that is steady."""
        assert self.period is not None
        possible: Array = lengths > self.period - self.jitter
        if self.steady and not self._doubt and self._rows >= REFINED:
            periods = np.rint(lengths / self.period)
            unsure = self.jitter * (1 + 2 * periods * self._runs / self._rows)
            possible &= np.abs(lengths - periods * self.period) <= unsure
        return possible

    def _refine(self, steps: Array, breaks: int) -> None:
        """Learn the period from the rows that follow one another."""
        if self.period is None or not self.steady:
            return
        regular = steps[np.abs(steps - self.period) <= self.jitter]
        self._rows, self._span = self._rows + len(regular), self._span + int(regular.sum())
        self._runs += breaks or not self._runs
        if self._rows >= REFINED:
            self.period = self._span / self._rows

    def _learn(self, arrival_ns: int, delay: float, *, late: bool) -> None:
        """Keep what delays have been; one that may be late only tells that the others are no slower."""
        fast, slow = self._range(arrival_ns)
        if not self._learnt:
            if self._heard and delay > fast and late:
                return
            self._fast = self._slow = delay, arrival_ns
            self._usual = delay
        if delay <= fast:
            self._fast = delay, arrival_ns
        if late:
            self._heard = True
            return
        if delay >= slow:
            self._slow = delay, arrival_ns
        self._usual += (delay - self._usual) / 8
        self._learnt += 1
