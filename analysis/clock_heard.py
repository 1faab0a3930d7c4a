"""Steps of a clock that is only ever heard: where its fastest arrivals come sooner or later from some moment on.

A delay can be as long as it likes, so no arrival contradicts another, and one line lies below them all: a clock that was set
ahead would be read as one that drifts, and one that was set back as a slow connection. What tells is that the *fastest* of many
arrivals, again and again, change their level, by much more than they usually do, and never come back to it:

* sooner by x: the clock was set ahead by x, or all that came before took x longer;
* later by x: it was set back by x, or all that came since takes x longer.

Arrivals alone cannot tell a step from such a delay, so that the readings are cut in either case: each part's limits hold both ways.
A level that returns is a delay (of a busy host, say), and nothing is cut. Steps of less than ``LEAST_NS`` are not seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WINDOW = 16
"""Arrivals of which the fastest is looked at."""
LASTING = 2
"""Windows that a new level must last at least, and the old one must have lasted."""
LEAST_NS = 5e6
TIMES = 10.0
"""How many times as much as from window to window the level must change."""
RECENT = 4
"""Windows that a level is told from, so that it may wander."""


def steps(host: Array, late: Array, steered: float) -> list[int]:
    """Return the index of the first arrival after each step.

    ``host`` is when each arrived, in order, ``late`` that less the clock's time, both in ns; ``steered`` is how far
    the clock's rate may be from its nominal one (relative).
    """
    count = len(host) // WINDOW
    if count < 2 * LASTING:
        return []
    rows = late[: count * WINDOW].reshape(count, WINDOW)
    chosen = np.argmin(rows, axis=1) + np.arange(count) * WINDOW
    when, lowest = host[chosen], late[chosen]
    slopes = np.diff(lowest) / np.maximum(np.diff(when), 1.0)
    slope = float(np.clip(np.median(slopes), -steered, steered))
    level = lowest - slope * when
    limit = max(LEAST_NS, TIMES * 1.4826 * float(np.median(np.abs(np.diff(level)))))
    starts = _returning(level, _changes(level, limit), limit)
    return sorted({_place(late - slope * host, level, cut, starts) for cut in starts[1:]} - {len(host)})


def _changes(level: Array, limit: float) -> list[int]:
    """The windows at which a level begins that lasts; the first is 0."""
    differs = np.zeros(len(level), bool)
    for back in range(1, RECENT + 1):  # only there the median of the recent ones can be so far off
        differs[back:] |= np.abs(level[back:] - level[:-back]) > limit
    starts = [0]
    for k in np.flatnonzero(differs[: len(level) - LASTING + 1]).tolist():
        if k - starts[-1] < LASTING:
            continue
        off = level[k : k + LASTING] - np.median(level[max(starts[-1], k - RECENT) : k])
        if (off > limit).all() or (off < -limit).all():
            starts.append(k)
    return starts


def _returning(level: Array, starts: list[int], limit: float) -> list[int]:
    """Leave out what lies between two levels that are the same."""
    stops = [*starts[1:], len(level)]
    levels = [float(np.median(level[a:b])) for a, b in zip(starts, stops, strict=True)]
    kept, k = [], 0
    while k < len(starts):
        kept.append(starts[k])
        k = max(other for other in range(k, len(starts)) if abs(levels[other] - levels[k]) <= limit) + 1
    return kept


def _place(late: Array, level: Array, cut: int, starts: list[int]) -> int:
    """The first arrival after the step at window ``cut``: the first that is sooner, or the one after the last that is."""
    old = starts[starts.index(cut) - 1]
    before = float(np.median(level[max(old, cut - RECENT) : cut]))
    after = float(np.median(level[cut : cut + RECENT]))
    begin, end = (cut - 1 if after < before else old) * WINDOW, (cut + LASTING) * WINDOW
    soon = begin + np.flatnonzero(late[begin:end] < (before + after) / 2)
    return int(soon[0] if after < before else soon[-1] + 1)
