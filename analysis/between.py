"""Energy, and nothing else, of any intervals and from sample to sample: in one look at the samples, on all CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.integrate import Pieces, RailData, pieces
from melt_stream.analysis.kernels import FAR, between, fixed, prefix

Array = np.ndarray[Any, Any]
Place = Callable[[Array], Array]
BLOCK = 1 << 18
"""Samples whose running energy is found at a time."""
SHARE = 1 << 15
"""Intervals that a thread takes at a time: what it needs of them stays in its cache."""
MANY = 1 << 18
"""Pieces and intervals for each thread; with fewer, another one costs more than it saves."""


def energies(
    made: Pieces, start: Array, stop: Array, place: Place | None = None, *, threads: int | None = None
) -> Array:
    """Return the energy (J, float64) measured from ``start[k]`` to ``stop[k]``; NaN where nothing was.

    ``place`` turns what ``start`` and ``stop`` are in into positions (float64), keeping their order; without it they
    are ticks. Intervals may come in any order and overlap. Where each starts when the one before it stops, or later,
    each is summed from zero on its own, to the same last bit by any number of ``threads`` (without it: as many as the
    work is worth, up to one a CPU). Else it is what lies between neighbouring edges that is, and running sums of that
    keep what rounding loses.
    """
    place = place or made.positions
    joules = np.empty(len(start))
    if _apart(made, start, stop, place, joules, threads):
        return joules

    def near(edges: Array) -> Array:
        return np.clip(place(edges), -FAR, FAR)

    edges, back = np.unique(np.concatenate([start, stop]), return_inverse=True)
    each = np.empty(len(edges) - 1)
    if not _apart(made, edges[:-1], edges[1:], near, each, threads):
        raise ValueError("expected a place that keeps the order of times, got one that does not")
    known = ~np.isnan(each)
    count = np.concatenate([[0], np.cumsum(known)])
    high, low = prefix(fixed(np.where(known, each, 0.0), np.float64))
    a, b = back[: len(start)], back[len(start) :]
    return np.where(count[b] > count[a], (high[b] - high[a]) + (low[b] - low[a]), np.nan)


def running(rail: RailData, gaps: pa.Table | None) -> tuple[Array, Array]:
    """Return the running energy (J, float64) and covered time (ns of the rail's own clock, int64) at each sample."""
    joules, covered = np.zeros(len(rail.tick)), np.zeros(len(rail.tick), np.int64)
    e0, c0 = 0.0, 0
    filled = [rows for _, rows in rail.epochs() if rows.stop > rows.start]
    for made, rows in zip(pieces(rail, gaps), filled, strict=True):
        tick, energy, length = rail.tick[rows], joules[rows], covered[rows]
        for first in range(0, len(tick), BLOCK):  # in one go it takes 100 bytes a sample
            block = slice(first, first + BLOCK + 1)
            e, c = _steps(made, made.positions(np.asarray(tick[block])))
            high, low = prefix(fixed(np.nan_to_num(e, copy=False), np.float64))
            energy[block] = e0 + (high + low)
            length[block] = c0 + np.rint(np.cumsum(np.concatenate([[0.0], c])) * 1e9).astype(np.int64)
            e0, c0 = float(energy[block][-1]), int(length[block][-1])
    return joules, covered


def _steps(made: Pieces, edges: Array) -> tuple[Array, Array]:
    """The energy (J; NaN: nothing measured) between neighbouring ``edges``, in positions, and the s covered."""
    joules, seconds = np.empty((2, len(edges) - 1))
    at = fixed(edges, np.float64)
    if not _fill(made, at[:-1], at[1:], joules, seconds):
        raise ValueError("expected samples in the order of their ticks, got some that are not")
    return joules, seconds


def _apart(made: Pieces, start: Array, stop: Array, place: Place, joules: Array, threads: int | None) -> bool:
    """Fill in the energies of intervals that rise and do not overlap; tell whether they do so."""
    count = len(start)
    threads = threads or min(_cpus(), max((count + _reach(made, start, stop, place)) // MANY, 1))
    size = min(SHARE, max(count // (8 * threads), 1))
    firsts = np.arange(size, count, size)
    if (start[firsts] < stop[firsts - 1]).any():
        return False
    todo = iter([slice(k, k + size) for k in range(0, count, size)])  # taken by whoever is free
    none = np.empty(0)

    def work() -> bool:
        for share in todo:
            a, b = fixed(place(start[share]), np.float64), fixed(place(stop[share]), np.float64)
            if not _fill(made, a, b, joules[share], none):
                return False
        return True

    if threads == 1:
        return work()
    with ThreadPoolExecutor(threads - 1, "energies") as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        mine = work()
        return all([mine, *(other.result() for other in others)])


def _reach(made: Pieces, start: Array, stop: Array, place: Place) -> int:
    """How many pieces lie between the first start and the last stop, should they rise."""
    if not len(start) or not len(made.right):
        return 0
    a, b = (np.clip(place(edge), -FAR, FAR).astype(np.int64) + made.base for edge in (start[:1], stop[-1:]))
    first, last = np.searchsorted(made.right, np.concatenate([a, b]))
    return max(int(last - first), 0)


def _fill(made: Pieces, start: Array, stop: Array, joules: Array, seconds: Array) -> bool:
    """Call the kernel with positions; energies come in J, covered time in s."""
    left, right, p0, p1 = made.left, made.right, made.p0, made.p1
    rise = between(left, right, p0, p1, made.limit, made.base, start, stop, joules, seconds)
    joules *= made.unit_s
    seconds *= made.unit_s
    return bool(rise)


def _cpus() -> int:
    """CPUs that this process may use; not all systems can say, and have all of them then."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
