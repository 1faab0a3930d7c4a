"""Hot loops, and nothing else: numpy arrays in, numpy arrays out, each with a slow twin in ``tests/naive.py``.

Power is a list of pieces: piece i runs from ``left[i]`` to ``right[i]`` (int64, never decreasing, never
overlapping) and goes linearly from ``p0[i]`` to ``p1[i]``. A piece longer than ``limit`` or with a power that is not
a number measured nothing, nor did the time between pieces. Positions (edges) are float64 and count from ``base``,
which is taken off the int64 first: 2**53 ns are 104 days. Energies are in watt x position units.

Arrays come as :func:`fixed` returns them, so that every kernel is compiled for one set of types only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

kernel = njit(cache=True, nogil=True, error_model="numpy")
FAR = 2.0**62
"""Positions beyond are as good as infinite."""
LANES = 16
"""Pieces that :func:`between` looks at together: two of the widest registers."""


def fixed(values: Any, kind: type) -> Array:
    """Return a read-only, contiguous view (or copy) of ``kind``: memory maps, Arrow buffers and arrays look alike."""
    view = np.ascontiguousarray(values, kind).view(np.ndarray)
    view = view[:]
    view.flags.writeable = False
    return view


def sweep(
    left: Array, right: Array, p0: Array, p1: Array, limit: float, rate: Array, base: int, edges: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Walk once over the pieces and the sorted ``edges``; for each interval between two edges return its
    energy, covered length, variance (``rate`` per length; empty: none), pieces that end in it, and the power just
    after its start and just before its stop (0 where nothing is measured).

    Each interval is summed from zero on its own: a token of 0.1 J keeps all its digits after 1 MJ. Measured beside
    its peers in benches/alignment.py. The results are allocated here, since numpy asks for huge pages: allocated by
    numba, their page faults took longer than the walk (10 M samples, 2 M intervals: 95 ms instead of 45 ms).
    """
    count = max(len(edges) - 1, 0)
    energy, covered, variance, after, before = (np.zeros(count) for _ in range(5))
    ends = np.zeros(count, np.int64)
    if count:
        _sweep(left, right, p0, p1, limit, rate, base, edges, energy, covered, variance, ends, after, before)
    return energy, covered, variance, ends, after, before


@kernel
def _sweep(  # noqa: PLR0917 - arrays in, arrays out
    left: Array,
    right: Array,
    p0: Array,
    p1: Array,
    limit: float,
    rate: Array,
    base: int,
    edges: Array,
    energy: Array,
    covered: Array,
    variance: Array,
    ends: Array,
    after: Array,
    before: Array,
) -> None:
    """Fill the last six. Only an interval's first and last piece can reach beyond it or touch its edges; the others
    go through a loop that compares integers and branches only to end.
    """
    n, i = len(left), 0
    for k in range(len(energy)):
        a, b = edges[k], edges[k + 1]
        if a == b:
            continue
        e, c, v, p_a, p_b = 0.0, 0.0, 0.0, 0.0, 0.0
        while i < n and right[i] - base <= a:
            i += 1
        first, on = i, True
        if i < n and left[i] - base <= a and left[i] - base < b:
            x, y = float(left[i] - base), float(right[i] - base)
            e, c, p_a, p_b = _part(x, y, p0[i], p1[i], limit, a, b)
            v, on = _rate(rate, i) * c, y <= b
            i += on
        inside, whole = _before(b, base), i
        while on and i < n and right[i] <= inside:
            w, q = float(right[i] - left[i]), p0[i] + p1[i]
            good = 0.0 < w <= limit and q - q == 0.0  # neither NaN nor infinite
            e += 0.5 * q * w if good else 0.0
            c += w if good else 0.0
            i += 1
        if len(rate) > 0:
            for j in range(whole, i):
                if 0 < right[j] - left[j] <= limit and np.isfinite(p0[j] + p1[j]):
                    v += rate[j] * (right[j] - left[j])
        if on and i < n and left[i] - base < b:
            x, y = float(left[i] - base), float(right[i] - base)
            e_b, w, _, p_b = _part(x, y, p0[i], p1[i], limit, a, b)
            e, c, v = e + e_b, c + w, v + _rate(rate, i) * w
            i += y <= b
        energy[k], covered[k], variance[k], ends[k], after[k], before[k] = e, c, v, i - first, p_a, p_b


@kernel
def between(
    left: Array,
    right: Array,
    p0: Array,
    p1: Array,
    limit: float,
    base: int,
    start: Array,
    stop: Array,
    energy: Array,
    covered: Array,
) -> bool:
    """Fill in the energy of each interval, NaN where nothing is measured, and the length covered, where wanted (an
    empty array: not). Stop at the first that does not rise, overlaps the one before, or is beyond ``FAR``; tell
    whether there was none: ``-FAR <= start[k] <= stop[k] <= start[k + 1] <= FAR``.

    What :func:`sweep` finds, and no more: pieces are summed ``LANES`` at a time, and one by one where one of them
    measured nothing. 10 M samples, 1 M tokens: 18 ms instead of 26 ms with AVX-512, no gain with AVX2 or SSE2. It is
    all in one function because LLVM vectorizes ``_lanes`` only there.
    """
    n, i = len(left), _first_after(right, base, start[0]) if len(start) > 0 else 0
    last = -FAR
    for k in range(len(start)):
        a, b = start[k], stop[k]
        if not last <= a <= b <= FAR:
            return False
        last = b
        before, inside = math.floor(a) + base, math.floor(b) + base
        while i < n and right[i] <= before:
            i += 1
        e, c, first = 0.0, 0.0, i
        if i < n:
            x, length, longest = float(left[i] - base), 0, right[i] - left[i]
            lo, hi = max(x, a), min(float(right[i] - base), b)
            if hi > lo:
                c = hi - lo
                e = (p0[i] + (p1[i] - p0[i]) / float(longest) * (0.5 * (lo + hi) - x)) * c
            if right[i] <= inside:
                i += 1
                s = 0.0
                while i + LANES <= n and right[i] <= inside:
                    found = _lanes(left, right, p0, p1, inside, i)
                    s, length, longest = s + found[0], length + found[1], max(longest, found[2])
                    i += found[3]
                while i < n and right[i] <= inside:
                    w = right[i] - left[i]
                    s, length, longest = s + (p0[i] + p1[i]) * float(w), length + w, max(longest, w)
                    i += 1
                e += 0.5 * s
                if i < n and left[i] - base < b:
                    w, x = right[i] - left[i], b - float(left[i] - base)
                    e += (p0[i] + (p1[i] - p0[i]) / float(w) * (0.5 * x)) * x
                    c, longest = c + x, max(longest, w)
            c += float(length)
            if float(longest) > limit or e - e != 0.0:  # NaN or infinite
                e, c = _one_by_one(left, right, p0, p1, limit, base, first, a, b)
        energy[k] = e if c > 0.0 else np.nan
        if len(covered) > 0:
            covered[k] = c
    return True


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def _lanes(
    left: Array, right: Array, p0: Array, p1: Array, inside: int, i: int
) -> tuple[float, int, int, int]:
    """Of the next pieces up to ``inside``: twice their energy, their length, the longest one's, and how many.

    Sums may be taken in any order (``reassoc``) and so side by side; NaN and infinity stay what they are.
    """
    energy, length, longest, count = 0.0, 0, 0, 0
    first = np.uint64(i)  # an index that cannot be negative
    for lane in range(LANES):
        j = first + np.uint64(lane)
        ends = right[j] <= inside
        w = right[j] - left[j] if ends else 0
        e = (p0[j] + p1[j]) * float(w)
        energy += e if ends else 0.0
        longest = max(longest, w)
        length += w
        count += 1 if ends else 0
    return energy, length, longest, count


@kernel
def _one_by_one(
    left: Array, right: Array, p0: Array, p1: Array, limit: float, base: int, first: int, a: float, b: float
) -> tuple[float, float]:
    """Energy and length of what was measured between ``a`` and ``b``; ``first`` is the first piece to end after ``a``."""
    energy, length, i = 0.0, 0.0, first
    while i < len(left) and left[i] - base < b:
        e, c, _, _ = _part(float(left[i] - base), float(right[i] - base), p0[i], p1[i], limit, a, b)
        energy, length, i = energy + e, length + c, i + 1
    return energy, length


@kernel
def _part(
    x: float, y: float, q0: float, q1: float, limit: float, a: float, b: float
) -> tuple[float, float, float, float]:
    """What a piece has between ``a`` and ``b``: its energy and length, and its power at ``a`` and at ``b``."""
    if not 0.0 < y - x <= limit or not np.isfinite(q0 + q1):
        return 0.0, 0.0, 0.0, 0.0
    lo, hi, slope = max(x, a), min(y, b), (q1 - q0) / (y - x)
    q_lo, q_hi = q0 + slope * (lo - x), q1 - slope * (y - hi)
    return 0.5 * (q_lo + q_hi) * (hi - lo), hi - lo, q_lo if lo == a else 0.0, q_hi if hi == b else 0.0


@kernel
def _rate(rate: Array, i: int) -> float:
    return rate[i] if len(rate) > 0 else 0.0


@kernel
def _before(x: float, base: int) -> int:
    """The last position before ``x``, which may be infinite."""
    return math.ceil(min(max(x, -FAR), FAR)) - 1 + base


@kernel
def place(ticks: Array, tick0: int, sub: int, positions: Array) -> None:
    """Fill in ``sub`` positions a tick since ``tick0``: the difference is taken in int64."""
    for k in range(len(ticks)):
        positions[k] = float(ticks[k] - tick0) * sub


@kernel
def prefix(values: Array) -> tuple[Array, Array]:
    """Running sums with what rounding lost beside them (TwoSum): differences of them telescope to 1e-30."""
    high, low = np.zeros(len(values) + 1), np.zeros(len(values) + 1)
    s, t = 0.0, 0.0
    for k in range(len(values)):
        x = values[k]
        new = s + x
        z = new - s
        t += (s - (new - z)) + (x - z)
        s = new
        high[k + 1], low[k + 1] = s, t
    return high, low


@kernel
def _first_after(right: Array, base: int, x: float) -> int:
    """Index of the first piece that ends after ``x``."""
    lo, hi = 0, len(right)
    while lo < hi:
        mid = (lo + hi) // 2
        if right[mid] - base > x:
            hi = mid
        else:
            lo = mid + 1
    return lo


@kernel
def _piece(
    left: Array, right: Array, p0: Array, p1: Array, limit: float, base: int, i: int, x: float
) -> tuple[float, float, float]:
    """Power and slope at ``x``, and where they change: ``x`` is before the end of piece ``i``, not before i - 1's."""
    if i >= len(left):
        return 0.0, 0.0, np.inf
    start, stop = float(left[i] - base), float(right[i] - base)
    if x < start:
        return 0.0, 0.0, start
    if not stop - start <= limit or not np.isfinite(p0[i] + p1[i]):
        return 0.0, 0.0, stop
    slope = (p1[i] - p0[i]) / (stop - start)
    return p0[i] + slope * (x - start), slope, stop


@kernel
def extremes(  # noqa: PLR0917 - arrays in, arrays out
    left: Array,
    right: Array,
    p0: Array,
    p1: Array,
    limit: float,
    base: int,
    edges: Array,
    weights: Array,
    first: Array,
    low: Array,
    high: Array,
) -> tuple[Array, Array]:
    """For each row return the least and the most of sum_m weights[m] x (J(edges[m] + d) - J(edges[m])), d in [low, high].

    J is the running energy; row r has the edges first[r] .. first[r + 1]; low <= 0 <= high. Between the points where
    an edge passes from piece to piece the sum is a parabola of d: its ends and its vertex are looked at, so a peak
    that loses on both sides is seen. An interval from a to b with weights (-1, +1) gives what shifting it changes.
    """
    rows = len(low)
    least, most = np.zeros(rows), np.zeros(rows)
    widest = 0
    for r in range(rows):
        widest = max(widest, first[r + 1] - first[r])
    at = np.zeros(widest, np.int64)
    for r in range(rows):
        begin, count = first[r], first[r + 1] - first[r]
        for way in range(2):  # down to low, then up to high: both start from d = 0, where the sum is 0
            reach = high[r] if way else -low[r]
            sign = 1.0 if way else -1.0
            for m in range(count):
                at[m] = _first_after(right, base, edges[begin + m])
            d, f = 0.0, 0.0
            while d < reach:
                step, slope, bend, floor = reach - d, 0.0, 0.0, 1e-9 + 1e-15 * d
                for m in range(count):
                    x = edges[begin + m] + sign * d
                    if way:
                        while at[m] < len(right) and right[at[m]] - base <= x:
                            at[m] += 1
                        p, s, stop = _piece(left, right, p0, p1, limit, base, at[m], x)
                    else:
                        p, s, stop = _piece_below(left, right, p0, p1, limit, base, at, m, x)
                    slope += weights[begin + m] * p * sign
                    bend += weights[begin + m] * s
                    step = min(step, abs(stop - x))
                    floor = max(floor, 1e-15 * abs(x))
                step = min(max(step, floor), reach - d)  # below that, positions have no digits left
                if bend != 0.0 and 0.0 < -slope / bend < step:
                    vertex = f - 0.5 * slope * slope / bend
                    least[r], most[r] = min(least[r], vertex), max(most[r], vertex)
                f += slope * step + 0.5 * bend * step * step
                d += step
                least[r], most[r] = min(least[r], f), max(most[r], f)
    return least, most


@kernel
def _piece_below(
    left: Array, right: Array, p0: Array, p1: Array, limit: float, base: int, at: Array, m: int, x: float
) -> tuple[float, float, float]:
    """As :func:`_piece`, for walking down: power just before ``x``; ``at[m]`` follows."""
    while at[m] > 0 and right[at[m] - 1] - base >= x:
        at[m] -= 1
    i = at[m]
    if i < len(left) and left[i] - base < x:  # within piece i
        p, s, _ = _piece(left, right, p0, p1, limit, base, i, x)
        return p, s, float(left[i] - base)
    return 0.0, 0.0, float(right[i - 1] - base) if i > 0 else -np.inf
