"""One clock's map onto the host's time line: straight segments, what happened between them, and how far off it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Step(NamedTuple):
    """Between two segments: the clock showed ``tick_before`` at the last reading of one, and ``tick_after`` at the
    first of the next; host ns as the map has them.
    """

    clock: str
    epoch: int
    tick_before: int
    tick_after: int
    host_before: int
    host_after: int
    ahead_ns: int
    """By how much the clock then showed more than the old line has it."""
    heard: bool = False
    """True where the clock was only heard: all its readings may have taken so much longer before, or since."""


@dataclass(frozen=True)
class Limits:
    """One-sided limits on a clock's error against its line, in order: ``at`` and ``error`` in ns.

    Its rate is within ``rho`` of one that is constant, and that one within ``drift`` of the line (both relative).
    Limits that others make needless are left out: the tightest at a place are then its neighbours.
    """

    at: Array
    error: Array
    rho: float
    drift: float = 0.0
    hull: tuple[Array, Array] | None = None
    """``at`` and ``error`` of the corners of the lower hull."""

    def lowest(self, at: Array) -> Array:
        """The tightest upper limit at ``at`` (ns on the map's axis).

        With the constant rate d known it is the least of error_i + d (at - at_i) + rho |at - at_i|. Not knowing d,
        one limit gives error_i + (drift + rho) |at - at_i|, and one on each side the largest over d of the lesser
        of theirs: neighbours are looked at, and the ends of the edge of the hull. For rho = 0 nothing is better.
        """
        found = self._between(self.at, self.error, at)
        return found if self.hull is None else np.minimum(found, self._between(*self.hull, at))

    def raised(self, by: float) -> Limits:
        """Return them all higher by so much."""
        hull = self.hull and (self.hull[0], self.hull[1] + by)
        return Limits(self.at, self.error + by, self.rho, self.drift, hull)

    def peaks(self) -> Array:
        """Where it may be furthest from zero between the limits: at them, and where the tightest two are equal.

        Between neighbours of error y and y + c w, w apart, the second form of :meth:`lowest` is a parabola of the
        distance a from the first, highest at a = w (c + 2 rho) / (4 rho), where |c + rho (1 - 2 a / w)| <= drift.
        """
        w, rise = np.diff(self.at), np.diff(self.error)
        c = np.divide(rise, w, out=np.zeros(len(w)), where=w > 0)
        found = [self.at]
        if self.rho:
            parts = [(c + 2 * self.rho) / (4 * self.rho)]
            parts += [(1 - (d - c) / self.rho) / 2 for d in (self.drift, -self.drift)]
            found += [self.at[:-1] + w * np.clip(part, 0.0, 1.0) for part in parts]
        return np.unique(np.concatenate(found))

    def _between(self, x: Array, y: Array, at: Array) -> Array:
        if not len(x):
            return np.full(len(at), np.inf)
        k = np.searchsorted(x, at, "right")
        left, right = np.maximum(k - 1, 0), np.minimum(k, len(x) - 1)
        a, b = np.maximum(at - x[left], 0.0), np.maximum(x[right] - at, 0.0)
        d = np.divide(y[right] - y[left] + self.rho * (b - a), a + b, out=np.zeros(len(at)), where=a + b > 0)
        d = np.clip(d, -self.drift, self.drift)
        d_left, d_right = np.where(k < len(x), d, self.drift), np.where(k > 0, d, -self.drift)
        from_left = np.where(k > 0, y[left] + (self.rho + d_left) * a, np.inf)
        from_right = np.where(k < len(x), y[right] + (self.rho - d_right) * b, np.inf)
        return np.minimum(from_left, from_right)


@dataclass(frozen=True)
class Segment:
    """One straight stretch: host time = ``host0`` + ``fraction`` + (tick - ``tick0``) x ``rate``."""

    tick0: int = 0
    host0: int = 0
    """Host ns."""
    fraction: float = 0.0
    """Of a ns, beyond ``host0``."""
    rate: float = 1.0
    """Host ns a tick."""
    drift_bound: float = 0.0
    """How far the rate may be off, relative: half of the range of the lines through all readings."""
    readings: int = 0
    residual: float = 0.0
    """By how much readings contradict the line; the bound is widened by it, ns."""
    upper: Limits | None = None
    lower: Limits | None = None
    """Mirrored: limits on minus the error."""
    ticks: tuple[int, int] | None = None
    """The first and last tick that was read."""
    steady: bool = True
    """True where the bound does not grow beyond the readings."""
    two_way: bool = True

    def line(self, ticks: Array) -> Array:
        """Host ns (int64, rounded) of these ticks."""
        since = (ticks.astype(np.int64) - self.tick0).astype(np.float64) * self.rate
        return np.rint(since + self.fraction).astype(np.int64) + self.host0

    def ticks_at(self, host_ns: Array) -> Array:
        """Ticks less ``tick0`` (float64) at these host times."""
        return np.asarray(
            ((host_ns.astype(np.int64) - self.host0).astype(np.float64) - self.fraction) / self.rate
        )

    def bound(self, host_ns: Array) -> tuple[Array, Array]:
        """The least and the most by which the truth lies after the line, ns; infinite where unknown."""
        at = (host_ns.astype(np.int64) - self.host0).astype(np.float64)
        high = self.upper.lowest(at) if self.upper else np.zeros(len(at))
        low = -self.lower.lowest(at) if self.lower else np.zeros(len(at))
        return np.minimum(low, 0.0), np.maximum(high, 0.0)

    @cached_property
    def hosts(self) -> tuple[int, int] | None:
        """Host ns of the first and last reading, as the line has them."""
        if self.ticks is None:
            return None
        first, last = self.line(np.array(self.ticks, np.int64))
        return int(first), int(last)


@dataclass(frozen=True)
class _Pieces:
    """The map as one increasing chain of lines: piece k holds from tick ``start[k]`` on (the first: from ever)."""

    start: Array
    host: Array
    """Host ns of ``start``, less its fraction."""
    fraction: Array
    rate: Array

    def to_host(self, ticks: Array) -> Array:
        ticks = ticks.astype(np.int64)
        k = np.maximum(np.searchsorted(self.start, ticks, "right") - 1, 0)
        since = (ticks - self.start[k]).astype(np.float64) * self.rate[k] + self.fraction[k]
        return np.asarray(np.rint(since).astype(np.int64) + self.host[k])

    def to_ticks(self, host_ns: Array, base: int) -> Array:
        host_ns = host_ns.astype(np.int64)
        k = np.maximum(np.searchsorted(self.host, host_ns, "right") - 1, 0)
        since = (host_ns - self.host[k]).astype(np.float64) - self.fraction[k]
        return np.asarray(since / self.rate[k] + (self.start[k] - base).astype(np.float64))


@dataclass(frozen=True)
class Map:
    """One clock in one epoch: segments in order of time; none where nothing ties the clock to the host's.

    Between two segments the clock was set, or strayed from its rate: :meth:`steps` tells where. The map goes on
    strictly increasing, in a straight line through the middle third of the time in between; where a clock was set
    back, ticks that it showed twice are mapped to the first time, and the bound covers both.
    """

    clock: str
    epoch: int
    kind: str = "none"
    segments: tuple[Segment, ...] = ()
    nominal_ns: float = 1.0
    rho: float = 0.0
    against: str = "host"
    """The clock that it was read against."""
    resolution: float = 0.0
    """Width of a tick as used, in ticks."""

    @property
    def placed(self) -> bool:
        """False where no reading ties this clock to the host's."""
        return self.kind != "none"

    @property
    def rate(self) -> float:
        """Host ns a tick, of the segment with most readings."""
        return self._main.rate

    @property
    def drift_bound(self) -> float:
        """How far any segment's rate may be from ``rate``, relative."""
        return max((abs(s.rate / self.rate - 1) + s.drift_bound for s in self.segments), default=0.0)

    @property
    def readings(self) -> int:
        """How many there are, in all segments."""
        return sum(s.readings for s in self.segments)

    @cached_property
    def _main(self) -> Segment:
        return max(self.segments, key=lambda s: s.readings, default=Segment())

    def to_host(self, ticks: Array) -> Array:
        """Return host ns (int64, rounded) of these ticks."""
        return self._main.line(ticks) if len(self.segments) < 2 else self._pieces.to_host(ticks)

    def to_ticks(self, host_ns: Array, base: int = 0) -> Array:
        """Return ticks less ``base`` (float64, with fractions) at these host times."""
        if len(self.segments) < 2:
            return self._main.ticks_at(host_ns) + float(self._main.tick0 - base)
        return self._pieces.to_ticks(host_ns, base)

    def bound(self, host_ns: Array) -> tuple[Array, Array]:
        """Return the least and the most by which the truth lies after the map, in ns; infinite where unknown.

        A tick that several segments may have shown is somewhere on any of them; between two segments, a tick is
        anywhere between their readings.
        """
        if len(self.segments) < 2:
            return self._main.bound(host_ns)
        t = host_ns.astype(np.int64)
        low, high = np.full(len(t), np.inf), np.full(len(t), -np.inf)
        for k, segment in enumerate(self.segments):
            begin = self._steps[k - 1].host_before if k else None
            end = self._steps[k].host_after if k < len(self._steps) else None
            since = self.to_ticks(t, segment.tick0) * segment.rate + segment.fraction
            own = np.rint(np.clip(since, -(2.0**61), 2.0**61)).astype(np.int64) + segment.host0
            shown = np.ones(len(t), bool)
            shown &= True if begin is None else own >= begin
            shown &= True if end is None else own <= end
            lo, hi = segment.bound(own[shown])
            low[shown] = np.minimum(low[shown], (own - t)[shown] + lo)
            high[shown] = np.maximum(high[shown], (own - t)[shown] + hi)
        for k, step in enumerate(self._steps):
            here = (t >= step.host_before) & (t <= step.host_after)
            lo = self.segments[k].bound(np.array([step.host_before]))[0][0]
            hi = self.segments[k + 1].bound(np.array([step.host_after]))[1][0]
            low[here] = np.minimum(low[here], step.host_before - t[here] + lo)
            high[here] = np.maximum(high[here], step.host_after - t[here] + hi)
        return np.minimum(low, 0.0), np.maximum(high, 0.0)

    def outside(self, start: Array, stop: Array) -> Array:
        """Tell where an interval reaches beyond the readings."""
        ends = [s.hosts for s in self.segments]
        if not ends or ends[0] is None or ends[-1] is None:
            return np.zeros(len(start), bool)
        early, late = start < ends[0][0], stop > ends[-1][1]
        return np.asarray((early & (not self.segments[0].steady)) | (late & (not self.segments[-1].steady)))

    def steps(self) -> tuple[Step, ...]:
        """Return what happened between the segments."""
        return self._steps

    @cached_property
    def _steps(self) -> tuple[Step, ...]:
        found = []
        for a, b in zip(self.segments[:-1], self.segments[1:], strict=True):
            assert a.ticks is not None
            assert b.ticks is not None
            ends = np.array([a.ticks[1], b.ticks[0]], np.int64)
            old, new = a.line(ends).tolist(), b.line(ends).tolist()
            after = max(new[1], old[0] + 3)
            ahead = old[1] - new[1]
            found.append(
                Step(
                    self.clock, self.epoch, a.ticks[1], b.ticks[0], old[0], after, ahead, self.kind == "one_way"
                )
            )  # fmt: skip
        return tuple(found)

    @cached_property
    def _pieces(self) -> _Pieces:
        """Lines, and between them the middle third of the time from one's last reading to the next one's first."""
        line = self.segments[0]
        pieces = [(line.tick0, line.host0, line.fraction, line.rate)]
        for step, segment in zip(self._steps, self.segments[1:], strict=True):
            third = (step.host_after - step.host_before) // 3
            end = max(_tick(line, step.host_before + third, math.floor), pieces[-1][0])
            h0, f0 = _host(line, end)
            start = max(_tick(segment, max(step.host_after - third, h0 + 2), math.ceil), end + 1)
            h1, f1 = _host(segment, start)
            pieces.append((end, h0, f0, ((h1 - h0) + (f1 - f0)) / (start - end)))
            pieces.append((start, h1, f1, segment.rate))
            line = segment
        tick, host, fraction, rate = (np.array(column) for column in zip(*pieces, strict=True))
        return _Pieces(tick.astype(np.int64), host.astype(np.int64), fraction, rate)


def _tick(line: Segment, host: int, way: Any) -> int:
    return line.tick0 + int(way(((host - line.host0) - line.fraction) / line.rate))


def _host(line: Segment, tick: int) -> tuple[int, float]:
    whole = (tick - line.tick0) * line.rate + line.fraction
    return line.host0 + math.floor(whole), whole - math.floor(whole)
