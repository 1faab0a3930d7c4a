"""Times that are told in whole seconds, spread over them. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
HOLE = 2.5
"""Periods without a line, after which some are missing."""


def within_seconds(dates: Array, interval: float) -> tuple[Array, int, float]:
    """Spread lines over the whole seconds that they are dated by: evenly, and none outside of its second.

    ``dates`` are seconds from 0 that never decrease, ``interval`` the nominal period in ns. Returns ticks and half of what each may be
    off, both in ns, and the period that was found.
    """
    steps = np.diff(dates)
    breaks = [0, *(np.flatnonzero(steps > max(2.0, HOLE * interval / 1e9)) + 1).tolist(), len(dates)]
    tick = np.empty(len(dates), np.int64)
    period = interval
    for start, stop in pairwise(breaks):
        part, count = dates[start:stop], np.arange(stop - start)
        if stop - start > 2:
            slope, at = np.polyfit(count, part + 0.5, 1)
            if stop - start > 0.5 * len(dates):
                period = float(slope) * 1e9
        else:
            slope, at = interval / 1e9, part[0] + 0.5
        fitted = np.rint((at + slope * count) * 1e9).astype(np.int64)
        tick[start:stop] = np.clip(fitted, part * 10**9, part * 10**9 + 10**9 - 1)
    return tick, 500_000_000, max(period, 1e6)
