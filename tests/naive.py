"""Slow, obvious twins of ``analysis/kernels.py``, of ``analysis/clock_kernels.py`` and of the clock bounds: what they must agree with."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any


def _usable(x: float, y: float, q0: float, q1: float, limit: float) -> bool:
    return 0 < y - x <= limit and math.isfinite(q0 + q1)


def sweep(
    left: Any, right: Any, p0: Any, p1: Any, limit: float, rate: Any, base: int, edges: Any
) -> list[tuple[float, ...]]:
    """For each interval: energy, covered length, variance, pieces that end in it."""
    found = []
    for a, b in pairwise(edges):
        energy, covered, variance, ends = [], [], [], 0
        for i in range(len(left)):
            x, y = int(left[i]) - base, int(right[i]) - base
            lo, hi = max(x, a), min(y, b)
            ends += a < y <= b and x < b
            if _usable(x, y, p0[i], p1[i], limit) and hi > lo:
                slope = (p1[i] - p0[i]) / (y - x)
                energy.append((p0[i] + slope * ((lo + hi) / 2 - x)) * (hi - lo))
                covered.append(hi - lo)
                variance.append(rate[i] * (hi - lo) if len(rate) else 0.0)
        found.append((math.fsum(energy), math.fsum(covered), math.fsum(variance), ends))
    return found


def between(
    left: Any, right: Any, p0: Any, p1: Any, limit: float, base: int, start: Any, stop: Any
) -> list[tuple[float, float]]:
    """For each interval: energy, or NaN where nothing is covered, and covered length."""
    found = []
    for a, b in zip(start, stop, strict=True):
        energy, covered, *_ = sweep(left, right, p0, p1, limit, [], base, [a, b])[0]
        found.append((energy if covered > 0 else math.nan, covered))
    return found


def energy(left: Any, right: Any, p0: Any, p1: Any, limit: float, base: int, a: float, b: float) -> float:
    """Energy from a to b; negative where b is before a."""
    if b < a:
        return -energy(left, right, p0, p1, limit, base, b, a)
    return sweep(left, right, p0, p1, limit, [], base, [a, b])[0][0]


def place(ticks: Any, tick0: int, sub: int) -> list[float]:
    """Positions, in integers as long as that is possible."""
    return [float((tick - tick0) * sub) for tick in ticks]


def prefix(values: Any) -> list[float]:
    """Running sums, each rounded once."""
    return [math.fsum(values[:k]) for k in range(len(values) + 1)]


def extremes(
    left: Any,
    right: Any,
    p0: Any,
    p1: Any,
    limit: float,
    base: int,
    edges: Any,
    weights: Any,
    low: float,
    high: float,
) -> tuple[float, float]:
    """Least and most of sum w (J(edge + d) - J(edge)): looked at wherever an edge meets the end of a piece, and at the
    vertex of the parabola through three points of each stretch between."""

    def value(d: float) -> float:
        return math.fsum(
            w * energy(left, right, p0, p1, limit, base, e, e + d)
            for e, w in zip(edges, weights, strict=True)
        )

    ends = {int(x) - base for x in (*left, *right)}
    marks = sorted({low, high, 0.0, *(x - e for x in ends for e in edges if low < x - e < high)})
    values = [value(d) for d in marks]
    for a, b in pairwise(marks):
        middle = (a + b) / 2
        y0, y1, y2 = value(a), value(middle), value(b)
        bend = 2 * (y0 - 2 * y1 + y2)
        where = -(4 * y1 - 3 * y0 - y2) / (2 * bend) if bend else -1.0
        if 0 < where < 1:
            values.append(value(a + where * (b - a)))
    return min(values), max(values)


def lowest(at: Any, error: Any, rho: float, where: float) -> float:
    """The tightest of limits that loosen with distance."""
    return min((e + rho * abs(where - a) for a, e in zip(at, error, strict=True)), default=math.inf)


def sloped(at: Any, error: Any, falls: float, rises: float, where: float) -> float:
    """The tightest of limits that hold before their place with one slope, and after it with another."""
    return min(
        (
            e + (rises if where > a else falls) * (where - a)
            for a, e in zip(map(float, at), map(float, error), strict=True)
        ),
        default=math.inf,
    )


def below(x: Any, y: Any, at: float) -> float:
    """The lower convex hull at a place: the lowest chord between a point on its left and one on its right."""
    points = list(zip(map(float, x), map(float, y), strict=True))
    return min(
        b if p == q else b + (d - b) * (at - p) / (q - p)
        for p, b in points
        for q, d in points
        if p <= at <= q and (p < q or p == at)
    )


def slopes(ux: Any, upper: Any, lx: Any, lower: Any) -> tuple[float, float]:
    """The least and most slope that pairs of a lower and an upper limit allow."""
    low, high = -math.inf, math.inf
    for a, u in zip(map(float, ux), map(float, upper), strict=True):
        for b, v in zip(map(float, lx), map(float, lower), strict=True):
            if b > a:
                low = max(low, (v - u) / (b - a))
            elif b < a:
                high = min(high, (u - v) / (a - b))
            elif v > u:
                return math.inf, -math.inf
    return low, high


def set_back(tick: Any, width: Any, before: Any, after: Any) -> list[int]:
    """Readings that came after an earlier one, by the host's clock, and show less; each starts anew."""
    found, since = [], 0
    for i in range(len(tick)):
        earlier = [k for k in range(since, len(tick)) if after[k] < before[i]]
        if any(tick[i] + width[i] <= tick[k] for k in earlier):
            found.append(i)
            since = i
    return found
