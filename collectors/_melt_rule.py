"""MELT's own metric: energy and charge of a prompt, by rectangles over the samples strictly within it. Pure.

A sample stands for the time since the one before it within the same window, the first one for none; nothing idle is taken off. Divided by the
output tokens that the runtime counted, this is what the paper calls energy per token. Source: powerlib.py of blade-public and
report_performance.py of jetsonlab-public, in docs/importers.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
S_PER_H = 3600.0


class Window(NamedTuple):
    """From when to when, s since 1970, as MELT takes it: whoever stamped it, on the samples' own time line."""

    start: float
    stop: float


class Rule:
    """Sums for some windows while samples are fed in order."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        self.mwh = np.zeros(len(windows))
        self.mah = np.zeros(len(windows))
        self.samples = np.zeros(len(windows), np.int64)
        self._last = np.full(len(windows), np.nan)

    def feed(self, seconds: Array, milliamps: Array, volts: Array, until: Array | None = None) -> None:
        """Take samples, in order of time; one counts that lies after a window's start and whose ``until`` (its own time) lies before its stop.

        A sample that is not a number counts for nothing, as pandas has it.
        """
        if not len(seconds):
            return
        until = seconds if until is None else until
        milliwatts = milliamps * volts
        for k, (start, stop) in enumerate(self.windows):
            if stop <= seconds[0] or start >= seconds[-1]:
                continue
            first, last = (
                int(np.searchsorted(seconds, start, "right")),
                int(np.searchsorted(until, stop, "left")),
            )
            if last <= first:
                continue
            part = slice(first, last)
            before = seconds[first] if np.isnan(self._last[k]) else self._last[k]
            hours = np.diff(seconds[part], prepend=before) / S_PER_H
            self.mwh[k] += np.nansum(milliwatts[part] * hours)
            self.mah[k] += np.nansum(milliamps[part] * hours)
            self.samples[k] += last - first
            self._last[k] = seconds[last - 1]

    def joules(self, k: int) -> float | None:
        """Energy of window ``k``, J; None where no sample counted."""
        return float(self.mwh[k]) * 3.6 if self.samples[k] else None

    def charge(self, k: int) -> float | None:
        """Charge of window ``k``, mAh; None where no sample counted."""
        return float(self.mah[k]) if self.samples[k] else None
