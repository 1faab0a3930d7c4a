"""Hot loops of the clock fits, and nothing else: numpy arrays in, numpy arrays out, each with a slow twin in
``tests/naive.py``. Arrays come as ``kernels.fixed`` returns them.
"""

from __future__ import annotations

import numpy as np

from melt_stream.analysis.kernels import Array, kernel

BLOCK = 16
"""Points of which :func:`hull` looks at the lowest first."""


@kernel
def _push(kept: Array, count: int, x: Array, y: Array, i: int) -> int:
    """Add point ``i``, right of all others, to a lower hull of ``count`` indices; of equal x the lowest stays."""
    if count > 0 and x[kept[count - 1]] == x[i]:
        if y[i] >= y[kept[count - 1]]:
            return count
        count -= 1
    while count > 1:
        a, b = kept[count - 2], kept[count - 1]
        if (y[b] - y[a]) * (x[i] - x[b]) < (y[i] - y[b]) * (x[b] - x[a]):
            break
        count -= 1
    kept[count] = i
    return count + 1


@kernel
def _steepest(kept: Array, count: int, hx: Array, hy: Array, x: float, y: float) -> float:
    """The largest slope from a point of a lower hull, all left of x or there, to (x, y)."""
    if count > 0 and hx[kept[count - 1]] >= x:
        if y > hy[kept[count - 1]]:
            return np.inf
        count -= 1
    if count == 0:
        return -np.inf
    lo, hi = 0, count - 1
    while (
        lo < hi
    ):  # the edges' lines, drawn on to x, rise from edge to edge: the tangent is where they pass y
        mid = (lo + hi) // 2
        a, b = kept[mid], kept[mid + 1]
        if (hy[b] - hy[a]) * (x - hx[a]) < (y - hy[a]) * (hx[b] - hx[a]):
            lo = mid + 1
        else:
            hi = mid
    return float((y - hy[kept[lo]]) / (x - hx[kept[lo]]))


@kernel
def hull(x: Array, y: Array) -> Array:
    """Indices of the lower convex hull of points in order of x.

    What lies above the hull of the lowest point of each block of ``BLOCK`` is no corner, and is passed over: 1 M noisy
    points take 6 ms instead of 34.
    """
    rough = _rough(x, y)
    kept, count, k = np.empty(len(x), np.int64), 0, 0
    for i in range(len(x)):
        while k + 1 < len(rough) and x[rough[k + 1]] <= x[i]:
            k += 1
        if k + 1 < len(rough) and x[rough[k]] < x[i]:
            a, b = rough[k], rough[k + 1]
            if (y[i] - y[a]) * (x[b] - x[a]) > (y[b] - y[a]) * (x[i] - x[a]):
                continue
        count = _push(kept, count, x, y, i)
    return kept[:count].copy()


@kernel
def _rough(x: Array, y: Array) -> Array:
    """Indices of the hull of the lowest points of each block."""
    kept, count = np.empty(len(x) // BLOCK + 1, np.int64), 0
    for start in range(0, len(x) - BLOCK + 1, BLOCK):
        lowest = start
        for i in range(start + 1, start + BLOCK):
            lowest = i if y[i] < y[lowest] else lowest
        count = _push(kept, count, x, y, lowest)
    return kept[:count].copy()


@kernel
def slopes(
    ux: Array, upper: Array, lx: Array, lower: Array, stray: float, least: float, most: float
) -> tuple[float, float, int, int]:
    """The least and the most slope of a line below all ``upper`` (at ``ux``, in order) and above all ``lower``.

    A lower limit after an upper one bounds it from below, one before it from above: each new limit looks for the
    tangent to the hull of the others (O'Rourke, CACM 24(9), 1981), unless it is on the good side of the last one,
    as nearly all are (1 M readings: 60 ms instead of 90). The two slopes may cross by twice ``stray``, by which the
    slope may vary: it ends, with the index of the limit at hand in ``ux`` or ``lx``, where even so none of
    [least, most] is left; with (-1, -1) where all were looked at.
    """
    n, m, i, j = len(ux), len(lx), 0, 0
    kept_u, kept_l, count_u, count_l = np.empty(n, np.int64), np.empty(m, np.int64), 0, 0
    down = -lower
    low, high = -np.inf, np.inf
    under, over = np.inf, -np.inf  # the least of upper - low x ux, and the most of lower - high x lx
    while i < n or j < m:
        if j >= m or (i < n and ux[i] <= lx[j]):
            x, y = ux[i], upper[i]
            if count_l > 0 and (high == np.inf or y - high * x < over):
                high = min(high, -_steepest(kept_l, count_l, lx, down, x, -y))
                if max(low - stray, least) > min(high + stray, most) + 1e-13:
                    return low, high, i, -1
                over = y - high * x
            count_u = _push(kept_u, count_u, ux, upper, i)
            under = min(under, y - low * x)
            i += 1
        else:
            x, y = lx[j], lower[j]
            if count_u > 0 and (low == -np.inf or y - low * x > under):
                low = max(low, _steepest(kept_u, count_u, ux, upper, x, y))
                if max(low - stray, least) > min(high + stray, most) + 1e-13:
                    return low, high, -1, j
                under = y - low * x
            count_l = _push(kept_l, count_l, lx, down, j)
            over = max(over, y - high * x)
            j += 1
    return low, high, -1, -1


@kernel
def tightest(at: Array, error: Array, falls: float, rises: float) -> Array:
    """Indices of the limits, in order of ``at``, that no other makes needless: each holds for earlier places with the
    slope ``falls``, for later ones with ``rises``.
    """
    n, kept = len(at), np.ones(len(at), np.bool_)
    best = np.inf
    for i in range(n):
        kept[i] = error[i] - rises * at[i] <= best
        best = min(best, error[i] - rises * at[i])
    best = np.inf
    for i in range(n - 1, -1, -1):
        kept[i] &= error[i] - falls * at[i] <= best
        best = min(best, error[i] - falls * at[i])
    return np.flatnonzero(kept)


@kernel
def set_back(tick: Array, width: Array, before: Array, after: Array) -> Array:
    """Indices of the readings, in order of host time, that prove that the clock was set back since an earlier one
    (or since the last such index): they were taken after that one's ``after``, and show less. NaN is an open end.
    """
    n, found, count = len(tick), np.empty(len(tick), np.int64), 0
    order = np.argsort(after)  # NaN last
    since, k, any_seen, highest = 0, 0, False, 0
    for i in range(n):
        if np.isnan(before[i]):
            continue
        while k < n and after[order[k]] < before[i]:
            if order[k] >= since:
                highest = max(highest, tick[order[k]]) if any_seen else tick[order[k]]
                any_seen = True
            k += 1
        if any_seen and tick[i] + width[i] <= highest:
            found[count] = i
            count += 1
            since, any_seen = i, False
    return found[:count].copy()
