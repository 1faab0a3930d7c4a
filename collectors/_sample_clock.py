"""The clock of an instrument that has none: its samples are counted, and the fastest arrivals tell its rate.

A sample cannot arrive before it was taken, so the lower envelope of (arrival - count) is the clock, and what lies
above it is delay. When samples are lost, the count falls behind by as many, for good: that tells how many they were.
Pure; times are the host's, in ns.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
BIN_NS = 100_000_000
"""Of the arrivals of each such time, the fastest one counts."""
KEPT = 1200
"""Bins that are remembered: two minutes."""
FLOOR_NS = 60_000.0
"""No delay is known better than this."""
PRIOR = 200e-6
"""How far a rate may be off its nominal one before arrivals have shown it."""


class Arrival(NamedTuple):
    """When the host had a sample, and how many had come up to it."""

    tick: int
    at: int


class Line(NamedTuple):
    """The clock: arrival of ``tick`` = at + (tick - tick0) x rate, at best."""

    tick0: int
    at: float
    rate: float
    rate_u: float
    """Relative."""
    delay: float
    """How much later than at best the fastest of a bin usually is."""
    delay_u: float


@dataclass
class SampleClock:
    """Arrivals so far."""

    tick_ns: float
    last: Arrival | None = None
    _bins: deque[Arrival] = field(default_factory=lambda: deque(maxlen=KEPT))
    _best: Arrival | None = None
    _since: int = 0

    def add(self, tick: int, at: int) -> Arrival | None:
        """Take an arrival; return the fastest of a bin that has ended: worth telling others, and for ``keep``."""
        this, told = Arrival(tick, at), None
        self.last = this
        if self._best is not None and at - self._since >= BIN_NS:
            told, self._best = self._best, None
        if self._best is None:
            self._best, self._since = this, at
        elif self._delay(this) < self._delay(self._best):
            self._best = this
        return told

    def _delay(self, arrival: Arrival) -> float:
        assert self.last is not None
        return (arrival.at - self.last.at) - (arrival.tick - self.last.tick) * self.tick_ns

    def keep(self, fastest: Arrival) -> None:
        """Let the fastest arrival of a bin count."""
        self._bins.append(fastest)

    @property
    def kept(self) -> int:
        """How many bins count."""
        return len(self._bins)

    def unsettled(self, arrivals: list[Arrival]) -> float:
        """By how many ns the fastest of the older half of these and of the younger differ."""
        half = len(arrivals) // 2
        older, younger = (min(self._delay(a) for a in some) for some in (arrivals[:half], arrivals[half:]))
        return abs(older - younger)

    def line(self) -> Line:
        """Fit the lower envelope: the edge of the lower hull that lies below the mean of all."""
        points = list(self._bins) or ([self._best] if self._best else [])
        first = points[0]
        ticks = np.array([p.tick - first.tick for p in points], np.float64)
        late = np.array([p.at - first.at for p in points], np.float64) - ticks * self.tick_ns
        slope, at = _edge(ticks, late)
        above = late - at - slope * ticks
        delay = float(np.median(above))
        spread = max(FLOOR_NS, 2 * float(np.median(np.abs(above - delay))))
        span = float(ticks[-1]) * self.tick_ns
        rate_u = 2 * spread / span if span else PRIOR
        if rate_u >= PRIOR:  # too short to tell: nominal
            slope, at, rate_u = 0.0, float(late.min()), PRIOR
            delay = float(np.median(late - at))
        return Line(first.tick, first.at + at, self.tick_ns + slope, rate_u, delay, spread)


def _edge(x: Array, y: Array) -> tuple[float, float]:
    """Slope and value at 0 of the lower hull's edge below the mean of ``x``."""
    hull = _hull(x, y)
    k = next((k for k in range(len(hull) - 1) if x[hull[k + 1]] >= x.mean()), None)
    if k is None:
        return 0.0, float(y.min())
    a, b = hull[k], hull[k + 1]
    slope = float((y[b] - y[a]) / (x[b] - x[a]))
    return slope, float(y[a] - slope * x[a])


def missing(
    line: Line, after: list[Arrival], last: Arrival, modulus: int, residue: int
) -> tuple[int, int | None]:
    """Return how many samples were lost: what is nearest to the clock of all that leave ``residue``; and another
    number that the clock does not rule out, or None.

    ``after`` are arrivals since, counted as if nothing had been lost; ``last`` is the last one before.
    """
    behind = np.array([a.at - line.at - (a.tick - line.tick0) * line.rate for a in after], np.float64)
    half = len(behind) // 2
    least = float(behind.min())
    settled = abs(float(behind[:half].min()) - float(behind[half:].min())) if half else 2e6
    lost = (least - line.delay) / line.rate
    away = (after[-1].at - last.at) + abs(last.tick - line.tick0) * line.rate / 2
    u = (2 * line.delay_u + min(settled, 2e6) + line.rate_u * away) / line.rate
    nearest = max(0, round((lost - residue) / modulus))
    other = nearest + (1 if lost > residue + nearest * modulus else -1)
    best = residue + nearest * modulus
    second = residue + other * modulus
    unsure = second >= 0 and (abs(lost - second) <= u or abs(lost - best) > u)
    return best, second if unsure else None


def _hull(x: Array, y: Array) -> list[int]:
    """Indices of the lower convex hull; ``x`` never decreases."""
    hull: list[int] = []
    for k in range(len(x)):
        while len(hull) > 1 and (x[hull[-1]] - x[hull[-2]]) * (y[k] - y[hull[-2]]) <= (
            y[hull[-1]] - y[hull[-2]]
        ) * (x[k] - x[hull[-2]]):
            hull.pop()
        if hull and x[k] == x[hull[-1]]:
            if y[k] >= y[hull[-1]]:
                continue
            hull.pop()
        hull.append(k)
    return hull
