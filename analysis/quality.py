"""What is wrong with a rail's samples, and where: stuck at full scale, or repeating."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from melt_stream.analysis.integrate import RailData, period_ticks, watts

Array = np.ndarray[Any, Any]
QUALITIES = ("measured", "interpolated", "partial", "estimated", "missing")
"""Best first; a row has the worst that applies:

* ``missing``: nothing was measured in it (or its times cannot be placed)
* ``estimated``: a model stands in for a sensor
* ``partial``: less than 0.99 of it is covered, or its events are incomplete
* ``interpolated``: no sample, window or change ends within it, so that its share is read off between two
"""
FLAGS = ("saturated", "stale", "shared", "extrapolated", "unstated")
ENOUGH = 0.99
"""Coverage from which on J/token and mean W are given."""
STALE_PERIODS = 20.0
STALE_NS = 1e9
"""A value that repeats for at least so many periods, and so long, is stale."""

Intervals = tuple[Array, Array]
"""Starts and stops of disjoint intervals, in ticks, in order."""


def saturated(rail: RailData, rows: slice) -> Intervals:
    """Return where the power is at or above full scale: from the sample before to the sample after."""
    scale = rail.facts.get("full_scale")
    if scale is None or rail.facts.get("kind") not in ("gauge", "mean"):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return _runs(rail.tick[rows], np.abs(watts(rail, rows)) >= scale, 1)


def stale(rail: RailData, rows: slice) -> Intervals:
    """Return where a gauge or counter repeats unchanged far longer than its period."""
    ticks = np.asarray(rail.tick[rows])
    if rail.facts.get("kind") not in ("gauge", "counter") or len(ticks) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    same = np.ones(len(ticks) - 1, bool)
    for name in ("energy", "charge") if rail.facts["kind"] == "counter" else ("watts", "volts", "amps"):
        if name in rail.values:
            values = np.asarray(rail.values[name][rows])
            same &= values[1:] == values[:-1]
    start, stop = _runs(ticks, np.concatenate([[False], same]), 0)
    least = max(STALE_PERIODS * period_ticks(rail, ticks), STALE_NS / rail.tick_ns)
    if not math.isfinite(least):
        return start[:0], stop[:0]
    # a run begins with the value that then repeats
    first = np.maximum(np.searchsorted(ticks, start) - 1, 0)
    long = stop - ticks[first] >= least
    return ticks[first][long], stop[long]


def _runs(ticks: Array, inside: Array, margin: int) -> Intervals:
    edges = np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    ticks = np.asarray(ticks)
    if not len(first):
        return ticks[:0], ticks[:0]
    return ticks[np.maximum(first - margin, 0)], ticks[np.minimum(last + margin, len(ticks) - 1)]


def touched(start: Array, stop: Array, bad: Intervals) -> Array:
    """Tell which intervals overlap any of ``bad`` (sorted)."""
    if not len(bad[0]):
        return np.zeros(len(start), bool)
    return np.asarray(np.searchsorted(bad[0], stop, "left") > np.searchsorted(bad[1], start, "right"))
