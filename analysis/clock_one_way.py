"""The drift of a clock that is only ever heard: device stamps and their arrivals on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from melt_stream.analysis.clock_kernels import hull
from melt_stream.analysis.kernels import fixed

Array = np.ndarray[Any, Any]
FEW = 30
"""Arrivals from which on they tell a drift."""
FASTEST = 14
"""A drift is ruled out where this many of the fastest arrivals would all be early ones, or all late ones."""
BLOCKS = 2048


def one_way_drift(at: Array, late: Array) -> tuple[float, float]:
    """Return the least and the most drift of the clock, from at least ``FEW`` arrivals in order.

    ``at`` is the clock's nominal time, ``late`` the arrival on the host less that, in ns. The middle is the edge of
    the lower convex hull below the mean arrival, which leaves the least sum of delays (Moon, Skelly and Towsley,
    INFOCOM 1999; Zhang, Liu and Xia, INFOCOM 2002). The interval assumes only that early and late arrivals take
    equally long on the whole, whatever that is: with the true drift, each of the ``FASTEST`` is then in the earlier
    half as likely as in the later one, and all are in one with a chance of 2 x 2**-14, once in 8192 times.
    """
    corners = hull(fixed(at, np.float64), fixed(late, np.float64))
    k = (
        int(np.clip(np.searchsorted(at[corners], np.mean(at)), 1, len(corners) - 1))
        if len(corners) > 1
        else 0
    )
    if not k:
        return -np.inf, np.inf
    a, b = corners[k - 1], corners[k]
    drift = float((late[b] - late[a]) / (at[b] - at[a]))
    at, late = _fastest_of_blocks(at, late - drift * at)
    half = len(at) // 2
    if not at[half] > at[half - 1]:
        return -np.inf, np.inf
    at = at - (at[half] + at[half - 1]) / 2
    m = FASTEST - 1

    def delays(d: float) -> Array:
        return late - d * at

    def early(d: float) -> float:  # rises with d, and is positive where all of the fastest are late ones
        r = delays(d)
        return float(np.min(r[:half]) - np.partition(r[half:], m)[m])

    def late_ones(d: float) -> float:  # rises with d, and is negative where all of the fastest are early ones
        r = delays(d)
        return float(np.partition(r[:half], m)[m] - np.min(r[half:]))

    low, high = _root(late_ones), _root(early)
    bound = max(-low, high, 0.0)
    return drift - bound, drift + bound


def _fastest_of_blocks(at: Array, late: Array) -> tuple[Array, Array]:
    """Of many arrivals, the fastest of each of some blocks of equal size."""
    size = len(at) // BLOCKS
    if size < 2:
        return at, late
    rows = late[: size * BLOCKS].reshape(BLOCKS, size)
    chosen = np.argmin(rows, axis=1) + np.arange(BLOCKS) * size
    return at[chosen], late[chosen]


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that rises passes zero; infinite where it does not below a rate of 1."""
    reach = 1e-9
    while rising(-reach) > 0 or rising(reach) < 0:
        reach *= 4
        if reach > 1:
            return -np.inf if rising(-1.0) > 0 else np.inf
    low, high = -reach, reach
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
