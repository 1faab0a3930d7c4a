"""A rail that answers for any times of the run: its samples as pieces of power, and its clock's maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.clocks import Map, Maps
from melt_stream.analysis.integrate import Pieces, RailData, pieces
from melt_stream.analysis.quality import Intervals, saturated, stale
from melt_stream.analysis.uncertainty import add_noise

Array = np.ndarray[Any, Any]


@dataclass
class Elementary:
    """A rail's answer for each elementary interval of a timeline."""

    joules: Array
    seconds: Array
    variance: Array
    ends: Array
    """Samples, windows or changes that end in it."""
    after: Array
    """Power just after its start, W."""
    before: Array
    """Power just before its end, W."""

    @property
    def slope(self) -> Array:
        """What moving both edges changes, W."""
        return np.asarray(self.before - self.after)


@dataclass
class Meter:
    """A rail with its clock's maps: answers for any times of the run."""

    rail: RailData
    maps: Maps
    start_ns: int
    parts: list[tuple[Pieces, Map]] = field(default_factory=list)
    aliasing: float = 0.0
    spread: float = 0.0
    """Largest less smallest power, W."""
    bad: dict[str, list[Intervals]] = field(default_factory=dict)

    @classmethod
    def of(cls, rail: RailData, gaps: pa.Table | None, maps: Maps, start_ns: int) -> Meter:
        """Prepare a rail. Epochs whose clock cannot be placed are left out: nothing is known of them."""
        meter = cls(rail, maps, start_ns)
        filled = [(e, rows) for e, rows in rail.epochs() if rows.stop > rows.start]
        lows, highs = [], []
        for made, (epoch, rows) in zip(pieces(rail, gaps), filled, strict=True):
            placed = maps.of(rail.clock, epoch)
            if not placed.placed:
                continue
            meter.aliasing = max(meter.aliasing, add_noise(rail, made, rows))
            meter.parts.append((made, placed))
            for flag, find in (("saturated", saturated), ("stale", stale)):
                start, stop = (placed.to_host(t) - start_ns for t in find(rail, rows))
                meter.bad.setdefault(flag, []).append((start, stop))
            power = np.concatenate([made.p0, made.p1])
            power = power[np.isfinite(power)]
            if len(power):
                lows.append(float(np.min(power)))
                highs.append(float(np.max(power)))
        meter.spread = max(highs) - min(lows) if lows else 0.0
        return meter

    def positions(self, made: Pieces, placed: Map, t: Array) -> Array:
        """Return the positions in ``made`` of times since the run's start."""
        return placed.to_ticks(t + self.start_ns, made.tick0) * made.sub

    def elementary(self, edges: Array) -> Elementary:
        """Integrate every interval between ``edges``."""
        n = max(len(edges) - 1, 0)
        found = Elementary(*(np.zeros(n) for _ in range(6)))
        for made, placed in self.parts:
            e, c, v, ends, after, before = made.sweep(self.positions(made, placed, edges))
            found.joules += e
            found.seconds += c * (placed.rate / self.rail.tick_ns)
            found.variance += v
            found.ends += ends
            found.after += after
            found.before += before
        return found

    def misplaced(self, edges: Array) -> Array:
        """Return the variance (J^2) of what lies on either side of each edge, for edges in a piece that was read late.

        The power within it is its mean, give or take the step d to its neighbours, uniformly: at the part f of a piece
        of length L the energy so far is off by up to f (1 - f) L d, so the variance is a third of its square.
        """
        variance = np.zeros(len(edges))
        for made, placed in self.parts:
            if made.late.any():
                variance += made.misplaced(self.positions(made, placed, edges))
        return variance

    def shifts(self, t: Array) -> tuple[Array, Array]:
        """Return the least and the most by which the rail's clock may be off at these times, ns.

        An epoch answers for the times of its samples; between epochs, and beyond them, whichever is widest.
        """
        low, high = np.zeros((2, len(t))), np.zeros((2, len(t)))  # within an epoch's samples, and elsewhere
        within = np.zeros(len(t), bool)
        for made, placed in self.parts:
            first, last = self.span(made, placed)
            inside = (t >= first) & (t <= last)
            lo, hi = placed.bound(np.clip(t, first, last) + self.start_ns)
            for k, mine in enumerate((inside, ~inside)):
                low[k] = np.where(mine, np.minimum(low[k], lo), low[k])
                high[k] = np.where(mine, np.maximum(high[k], hi), high[k])
            within |= inside
        return np.where(within, low[0], low[1]), np.where(within, high[0], high[1])

    def span(self, made: Pieces, placed: Map) -> tuple[int, int]:
        """Return the times of an epoch's first and last piece."""
        if not len(made.left):
            return 0, 0
        ends = np.array([made.left[0] - made.base, made.right[-1] - made.base]) // made.sub + made.tick0
        first, last = placed.to_host(ends) - self.start_ns
        return int(first), int(last)

    @property
    def exact(self) -> bool:
        """True where it is on the host's clock."""
        return all(placed.kind == "identity" for _, placed in self.parts)
