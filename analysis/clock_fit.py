"""Readings of one clock -> the segments of its map.

A reading's limits on h(x), the host time at which the clock showed x (in ns of its nominal rate)::

    h(tick) <= not_after                 h(tick + resolution) >= not_before

The assumption: within a segment the rate stays within rho of a constant one, 1 + d. Limits i and j > i then allow

    d >= (lower_j - upper_i) / (x_j - x_i) - rho         d <= (upper_j - lower_i) / (x_j - x_i) + rho

and where all pairs allow a d, there is a clock that meets all limits (McShane 1934: a function given on some points
with a Lipschitz constant goes on with the same). So the range of d, found from two hulls, is exact; where it is
empty, no such clock exists, and the readings are cut into segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melt_stream.analysis.clock_heard import steps
from melt_stream.analysis.clock_kernels import hull, set_back, tightest
from melt_stream.analysis.clock_map import Limits, Segment
from melt_stream.analysis.clock_one_way import FEW, one_way_drift
from melt_stream.analysis.clock_readings import Lines, Seen, grid_of, with_resolution
from melt_stream.analysis.kernels import fixed

Array = np.ndarray[Any, Any]
PRIOR_PPM = 200.0
"""No clock's rate is taken to be further from its nominal one than this, until readings show it."""
MOST = 0.05
"""What looks like a rate further off than this (relative) is a step, unless one line goes through many readings."""
FEW_SHARED = 8
"""Readings that fit both the segment before and the one after, up to which a step explains them."""


@dataclass(frozen=True)
class Assumed:
    """What is taken for granted of a clock's rate."""

    rho: float
    """Relative."""
    same_rate: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """The drifts that are possible at all."""
        return (0.0, 0.0) if self.same_rate else (-MOST, MOST)


def segments(seen: Seen, assumed: Assumed) -> tuple[Seen, tuple[Segment, ...]]:
    """Return the readings with their resolution, and the map's segments.

    There is one, unless no clock that keeps to what is assumed can have shown all readings, or those of a clock that is
    only heard change their level for good. Where they contradict each other, and the ticks lie on a grid, the grid is
    the resolution if that leaves fewer segments. Where nearly every reading contradicts the last, it is the assumption that is wrong, not the clock that
    was set: then one segment is widened by the contradiction.
    """
    seen = with_resolution(seen.by_tick())
    heard = _heard(seen, assumed)
    parts = [part for piece in heard for part in _parts(piece, assumed)]
    if len(parts) > len(heard) and (grid := grid_of(seen)) > np.max(seen.width):
        coarse = replace(seen, width=np.maximum(seen.width, grid))
        again = [part for piece in _heard(coarse, assumed) for part in _parts(piece, assumed)]
        if len(again) < len(parts):
            seen, parts = coarse, again
    if len(parts) > max(4, len(seen) // 4):
        parts = [(seen, assumed)]
    return seen, tuple(segment(*part) for part in parts)


def fits(seen: Seen, assumed: Assumed) -> bool:
    """Tell whether one segment takes all of these, which are in order of ticks."""
    low, high = seen.drifts
    least, most = assumed.range
    if not assumed.same_rate and len(seen) >= FEW and low - high <= 2 * assumed.rho:
        least, most = -0.999, 1e3  # a nominal rate that is far off
    return max(low - assumed.rho, least) <= min(high + assumed.rho, most) + 1e-13


def _heard(seen: Seen, assumed: Assumed) -> list[Seen]:
    """Cut the readings of a clock that is only heard, and that can be set, where its arrivals' level changes for good."""
    if assumed.same_rate or seen.round_trip.any():
        return [seen]
    arrived = np.argsort(seen.after, kind="stable")[: np.count_nonzero(~np.isnan(seen.after))]
    host = seen.after[arrived]
    late = host - (seen.tick[arrived] - seen.tick[0]) * seen.tick_ns
    cuts = [host[k] for k in steps(host, late, max(assumed.rho, PRIOR_PPM * 1e-6))]
    if not cuts:
        return [seen]
    part = np.searchsorted(cuts, np.where(np.isnan(seen.after), seen.before, seen.after), "right")
    return [seen.take(part == k) for k in range(len(cuts) + 1)]


def _parts(seen: Seen, assumed: Assumed) -> list[tuple[Seen, Assumed]]:
    """Cut readings, which are in order of ticks, where they need a new segment."""
    if fits(seen, assumed):
        return [(seen, assumed)]
    seen = seen.by_host()
    back = set_back(seen.tick, seen.width, seen.before, seen.after)
    found = []
    for start, stop in zip([0, *back], [*back, len(seen)], strict=True):
        found += _cut(seen.take(slice(start, stop)).by_tick(), assumed)
    return found


def _cut(seen: Seen, assumed: Assumed) -> list[tuple[Seen, Assumed]]:
    """Cut readings, which are in order of ticks, into as few segments as there can be.

    Each takes what fits; going backwards from the next one's end tells how early the next one may have begun. Few
    readings that fit both belong to neither: the step was before, among or after them. Many mean that the rate strays
    slowly, and by more than is assumed: both share them, and both are taken to stray as much as would join them.
    """
    limits = seen.lines
    starts = _starts(limits, len(seen), assumed)
    found, start, rho = [], 0, assumed.rho
    for k, cut in enumerate(starts[1:], 1):
        stop = starts[k + 1] if k + 1 < len(starts) else len(seen)
        both = limits.part(start, stop)
        shared = cut - _earliest(both, start, assumed)
        step = shared <= min(FEW_SHARED, cut - start - 1)
        end, begin = (cut - shared, cut) if step else (cut - shared // 2, cut - shared // 2)
        joined = assumed.rho if step else _needed(both, assumed)
        found.append((seen.take(slice(start, max(end, start + 1))), replace(assumed, rho=max(rho, joined))))
        start, rho = begin, joined
    return [*found, (seen.take(slice(start, len(seen))), replace(assumed, rho=rho))]


def _needed(limits: Lines, assumed: Assumed) -> float:
    """The least rho with which one segment takes all limits."""
    low, high = limits.range()
    least, most = assumed.range
    needed = max((low - high) / 2, low - most, least - high)
    return max(needed, assumed.rho) if math.isfinite(needed) else assumed.rho


def _starts(limits: Lines, count: int, assumed: Assumed) -> list[int]:
    found, start = [0], 0
    while True:
        stop = count
        while (bad := limits.part(start, stop).drifts(assumed.rho, *assumed.range)[2]) is not None:
            stop = max(bad, start + 1)
        if stop >= count:
            return found
        found.append(stop)
        start = stop


def _earliest(limits: Lines, start: int, assumed: Assumed) -> int:
    """The first reading from which on all fit into one segment."""
    least, most = assumed.range
    bad = limits.backwards().drifts(assumed.rho, -most, -least)[2]
    return start if bad is None else bad + 1


def segment(seen: Seen, assumed: Assumed) -> Segment:
    """Return the line through readings that are in order of ticks, with its bound.

    It runs through the middle of what the limits leave, half-way between the readings' ends; with one-way readings
    alone, at the fastest arrival: what that one took is not folded away, but stays the lower side of the bound.
    """
    limits = seen.lines
    two_way = bool(seen.round_trip.any()) and len(limits.ux) > 0 and len(limits.lx) > 0
    low, high = _drifts(seen, assumed, two_way)
    drift, half = (low + high) / 2, (high - low) / 2
    upper = _limits(limits.ux, limits.upper, drift, half, assumed.rho, 1 + drift)
    lower = _limits(limits.lx, -limits.lower, -drift, half, assumed.rho, 1 + drift)
    ends = limits.ux if len(limits.ux) else limits.lx[-1:]
    middle = np.array([(ends[0] + ends[-1]) / 2 * (1 + drift)])
    above, below = float(upper.lowest(middle)[0]), -float(lower.lowest(middle)[0])
    place = (above + below) / 2 if two_way else above if math.isfinite(above) else below
    residual = _contradiction(upper, lower)
    whole = math.floor(place)
    return Segment(
        tick0=int(seen.tick[0]),
        host0=seen.origin + whole,
        fraction=place - whole,
        rate=seen.tick_ns * (1 + drift),
        drift_bound=half,
        readings=len(seen),
        residual=residual,
        upper=upper.raised(residual - place),
        lower=lower.raised(residual + place),
        ticks=(int(seen.tick[0]), int(seen.tick[-1])),
        steady=not (assumed.rho or half),
        two_way=two_way,
    )


def _drifts(seen: Seen, assumed: Assumed, two_way: bool) -> tuple[float, float]:
    """The range of the constant rate's drift."""
    if assumed.same_rate:
        return 0.0, 0.0
    low, high = seen.drifts
    low, high = low - assumed.rho, high + assumed.rho
    limits = seen.lines
    if not two_way and len(limits.ux) >= FEW:
        least, most = one_way_drift(limits.ux, limits.upper)
        low, high = max(low, least - assumed.rho), min(high, most + assumed.rho)
    low, high = min(low, high), max(low, high)  # the wrong way round where they contradict each other
    prior = PRIOR_PPM * 1e-6
    if low <= prior and high >= -prior:
        low, high = max(low, -prior), min(high, prior)
    return low, high


def _limits(x: Array, error: Array, drift: float, half: float, rho: float, scale: float) -> Limits:
    """Limits against the line of this drift, without those that others make needless; ``scale``: ns of host a ns."""
    x, error, slope = fixed(x, np.float64), fixed(error, np.float64), rho + half
    kept = tightest(x, error, drift - slope, drift + slope)
    at, off = x[kept] * scale, error[kept] - drift * x[kept]
    corners = hull(fixed(at, np.float64), fixed(off, np.float64))
    return Limits(at, off, rho / scale, half / scale, (at[corners], off[corners]))


def _contradiction(upper: Limits, lower: Limits) -> float:
    """By how much a lower limit lies above an upper one; the bound is widened by all of it, on both sides."""
    if not len(upper.at) or not len(lower.at):
        return 0.0
    worst = float(np.max(-lower.error - upper.lowest(lower.at)))
    return worst if worst > 1e-3 else 0.0
