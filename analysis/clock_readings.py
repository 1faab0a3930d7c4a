"""Readings of one clock as arrays: their limits in order, the slopes that those allow, and the width of their ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from melt_stream.analysis.clock_kernels import slopes, tightest
from melt_stream.analysis.kernels import fixed

Array = np.ndarray[Any, Any]
USUAL_NS = (15_625_000, 10_000_000, 4_000_000, 1_000_000, 1_000_000_000)
"""Steps of operating systems' clocks: Windows, jiffies of 100 and of 250 Hz, ms, s."""
STEERED = 500e-6
"""How far such a clock's rate may be set off (relative): as NTP's ``adjtime`` and the declared rho of a slewed clock."""
MANY = 10_000
"""Readings from which on most are left out after a look at some."""
ENOUGH = 5
"""Different ticks from which on a grid is none by chance."""


@dataclass(frozen=True)
class Seen:
    """Readings of one clock in one epoch, as arrays; host times in ns since ``origin``, NaN where open."""

    tick: Array
    width: Array
    """Resolution, in ticks."""
    before: Array
    after: Array
    round_trip: Array
    origin: int
    tick_ns: float

    def __len__(self) -> int:
        return len(self.tick)

    def take(self, rows: Any) -> Seen:
        """Return some of them."""
        tick, width, before, after, round_trip = (
            c[rows] for c in (self.tick, self.width, self.before, self.after, self.round_trip)
        )
        return Seen(tick, width, before, after, round_trip, self.origin, self.tick_ns)

    def by_tick(self) -> Seen:
        """Return them in order of ticks."""
        if (self.tick[1:] >= self.tick[:-1]).all():
            return self
        return self.take(np.argsort(self.tick, kind="stable"))

    def by_host(self) -> Seen:
        """Return them in order of host time."""
        stamp = np.where(np.isnan(self.before), self.after, self.before)
        return self.take(np.argsort(stamp, kind="stable"))

    @cached_property
    def lines(self) -> Lines:
        """Their limits; they are in order of ticks."""
        tick0 = int(self.tick[0])
        ux, upper, upper_row = _given((self.tick - tick0) * self.tick_ns, self.after)
        lx, lower, lower_row = _given((self.tick - tick0 + self.width) * self.tick_ns, self.before)
        if (lx[1:] < lx[:-1]).any():  # resolutions differ
            order = np.argsort(lx, kind="stable")
            lx, lower, lower_row = lx[order], lower[order], lower_row[order]
        return Lines(ux, upper, upper_row, lx, lower, lower_row)

    @cached_property
    def drifts(self) -> tuple[float, float]:
        """The range of slopes of lines through all limits: the first is above the second where none fits."""
        limits = self.lines
        if not len(limits.ux) or not len(limits.lx):
            return -math.inf, math.inf
        if len(self) >= MANY:  # 1 M readings: 15 ms instead of 60
            low, high = limits.some(len(self) // MANY + 1).range()
            if -math.inf < low < high < math.inf:
                low, high = limits.needed(low, high).range()
                if low < high:
                    return low, high
        return limits.range()


class Lines(NamedTuple):
    """The limits of some readings on h(x) - x, in order of x, both in ns; ``*_row`` is the reading's index."""

    ux: Array
    upper: Array
    upper_row: Array
    lx: Array
    lower: Array
    lower_row: Array

    def part(self, start: int, stop: int) -> Lines:
        """Those of the readings from ``start`` to ``stop``."""
        u = (self.upper_row >= start) & (self.upper_row < stop)
        low = (self.lower_row >= start) & (self.lower_row < stop)
        return Lines(
            self.ux[u], self.upper[u], self.upper_row[u], self.lx[low], self.lower[low], self.lower_row[low]
        )

    def some(self, step: int) -> Lines:
        """Every ``step``-th limit."""
        return Lines(*(column[::step] for column in self))

    def needed(self, low: float, high: float) -> Lines:
        """Without limits that, for slopes from ``low`` to ``high``, follow from others."""
        u = tightest(fixed(self.ux, np.float64), fixed(self.upper, np.float64), low, high)
        v = tightest(fixed(self.lx, np.float64), fixed(-self.lower, np.float64), -high, -low)
        return Lines(
            self.ux[u], self.upper[u], self.upper_row[u], self.lx[v], self.lower[v], self.lower_row[v]
        )

    def range(self) -> tuple[float, float]:
        """The range of slopes of lines through all limits: the first is above the second where none fits."""
        return self.drifts(math.inf, -math.inf, math.inf)[:2]

    def backwards(self) -> Lines:
        """With time running the other way."""
        return Lines(
            -self.ux[::-1], self.upper[::-1], self.upper_row[::-1], -self.lx[::-1], self.lower[::-1], self.lower_row[::-1]
        )  # fmt: skip

    def drifts(self, rho: float, least: float, most: float) -> tuple[float, float, int | None]:
        """The range of slopes of lines through all limits, and where none is left in [least, most]: the reading."""
        ux, upper, lx, lower = (fixed(c, np.float64) for c in (self.ux, self.upper, self.lx, self.lower))
        low, high, i, j = slopes(ux, upper, lx, lower, rho, least, most)
        bad = self.upper_row[i] if i >= 0 else self.lower_row[j] if j >= 0 else None
        return low, high, None if bad is None else int(bad)


def _given(x: Array, host: Array) -> tuple[Array, Array, Array]:
    """Where a limit is not NaN: ``x``, the limit less x, and the row."""
    rows = np.flatnonzero(~np.isnan(host))
    if len(rows) < len(x):
        x, host = x[rows], host[rows]
    return x, host - x, rows


def with_resolution(seen: Seen) -> Seen:
    """Return them with the width that all lack (0: unknown): the step of the grid that they lie on, at least 1."""
    if (seen.width > 0).any():
        return seen
    return replace(seen, width=np.full(len(seen), max(grid_of(seen), 1)))


def grid_of(seen: Seen) -> int:
    """The step, in ticks, of the grid that the ticks lie on; 0 where they lie on none, or only since they were read so.

    Their greatest common divisor; or a usual clock's step, to which each clock of the sort only comes close: Windows'
    is steered by changing it by some ppm, so that neighbours' distances are looked at. Readings that were taken
    regularly, so that their host times lie on that grid as well, tell nothing.
    """
    distances = np.diff(np.unique(seen.tick)).astype(np.float64)
    if len(distances) < ENOUGH - 1:
        return 0
    exact = int(np.gcd.reduce(distances.astype(np.int64)))
    for step in (*(ns / seen.tick_ns for ns in USUAL_NS), float(exact)):  # Windows' stamps are whole 100 ns
        if step > 1 and _on_grid(distances, step) and not _regular(seen, step * seen.tick_ns):
            return round(step)
    return 0


def _off(distances: Array, step: float) -> Array:
    return np.asarray(np.abs(distances - np.rint(distances / step) * step))


def _on_grid(distances: Array, step: float) -> bool:
    off = _off(distances, step)
    near = (off <= np.maximum(0.01 * step, STEERED * distances)) & (distances > step / 2)
    return bool(near.all() and np.median(off) < 0.1 * step)


def _regular(seen: Seen, step_ns: float) -> bool:
    """Tell whether host times lie near that grid: were they anywhere, half would be a quarter of a step off."""
    ends = [np.where(np.isnan(a), b, a) for a, b in ((seen.before, seen.after), (seen.after, seen.before))]
    return bool(np.median(_off(np.diff((ends[0] + ends[1]) / 2), step_ns)) < 0.15 * step_ns)
