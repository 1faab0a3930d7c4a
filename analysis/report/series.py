"""Long series made short enough to draw: each bin keeps its lowest and its highest sample, and gaps stay gaps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tsdownsample import MinMaxDownsampler

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS = 4000
"""Points a series is drawn with at most: two for each of 2,000 columns of pixels."""
BREAKS = 400
"""Gaps that break the line, the longest first; shorter ones are narrower than a pixel by far."""
SILENCE = 3.0
"""A step of more periods than this is a gap, declared or not (DESIGN section 5)."""


@dataclass(frozen=True)
class Series:
    """Samples of one quantity, ready to draw: a NaN in ``values`` breaks the line."""

    name: str
    unit: str
    t_s: Floats
    values: Floats
    samples: int
    """How many there were before thinning out."""
    step: bool = False
    """True where a value holds over the time before its stamp (a counter's or a window's mean power)."""
    estimated: bool = False
    account: bool = False
    """True for the rail whose energy the tables give."""
    gaps: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """Where the line breaks, as rows of (from, to) in ns since the run's start."""

    @property
    def samples_per_point(self) -> float:
        """How many samples a drawn point stands for; 1 where all are drawn."""
        drawn = int(np.isfinite(self.values).sum())
        return max(self.samples / drawn, 1.0) if drawn else 1.0


def thin(
    t_ns: Ints, values: Floats, period_ns: float | None, points: int = POINTS
) -> tuple[Floats, Floats, Ints]:
    """Return times in s and values with NaN where the line breaks, and the gaps as rows of (from, to) in ns.

    ``t_ns`` never decreases. Samples that are NaN are left out and break the line, as does a step of more than
    three periods; of a series without a period, the median step stands for it.
    """
    good = np.isfinite(values)
    dropped = np.cumsum(~good)[good]
    t_ns, values = t_ns[good], values[good]
    if not len(t_ns):
        return np.empty(0), np.empty(0), np.empty((0, 2), np.int64)
    after = _breaks(t_ns, dropped, period_ns)
    keep = np.unique(np.concatenate([_extremes(t_ns, values, points), after, after + 1, [0, len(t_ns) - 1]]))
    at = np.searchsorted(keep, after) + 1
    t_s = np.insert(t_ns[keep] / 1e9, at, t_ns[after] / 1e9)
    return t_s, np.insert(values[keep], at, np.nan), np.stack([t_ns[after], t_ns[after + 1]], axis=1)


def _breaks(t_ns: Ints, dropped: Ints, period_ns: float | None) -> Ints:
    """Indices of the samples before a gap: the longest ``BREAKS``, in order."""
    steps = np.diff(t_ns)
    if not len(steps):
        return np.empty(0, np.int64)
    period = period_ns or float(np.median(steps))
    found = np.flatnonzero((steps > SILENCE * period) | (np.diff(dropped) > 0))
    if len(found) > BREAKS:
        found = np.sort(found[np.argpartition(steps[found], -BREAKS)[-BREAKS:]])
    return found


def _extremes(t_ns: Ints, values: Floats, points: int) -> Ints:
    if len(values) <= points:
        return np.arange(len(values))
    downsampler = MinMaxDownsampler()  # type: ignore[no-untyped-call]
    n_out = points - points % 2
    chosen: Ints = downsampler.downsample(
        np.ascontiguousarray(t_ns), np.ascontiguousarray(values), n_out=n_out
    ).astype(np.int64)
    return chosen


def slopes(t_ns: Ints, running: Floats, covered_ns: Ints) -> tuple[Ints, Floats]:
    """Mean power between the changes of a running energy in J: stamps at the end of each step, and W.

    Rows where nothing was added belong to the next change (a counter that is polled faster than it counts). What
    was not covered by samples is in neither difference.
    """
    change = np.flatnonzero(np.diff(running, prepend=np.nan) != 0)
    t_ns, running, covered_ns = t_ns[change], running[change], covered_ns[change]
    covered = np.diff(covered_ns)
    later = np.flatnonzero(covered > 0)
    return t_ns[later + 1], np.diff(running)[later] / covered[later] * 1e9


def union(start: Ints, stop: Ints, nearer_than: float = 0) -> tuple[Ints, Ints]:
    """Intervals joined where they overlap, touch, or lie nearer to each other than can be drawn."""
    if not len(start):
        return start, stop
    order = np.argsort(start, kind="stable")
    start, stop = start[order], np.maximum.accumulate(stop[order])
    first = np.flatnonzero(np.concatenate([[True], start[1:] > stop[:-1] + nearer_than]))
    return start[first], stop[np.concatenate([first[1:], [len(stop)]]) - 1]


def lanes(start: Ints, stop: Ints) -> Ints:
    """The lowest free lane for each interval, so that none covers another; ``start`` in any order."""
    lane = np.zeros(len(start), np.int64)
    free_at: list[int] = []
    for i in np.argsort(start, kind="stable"):
        number = next((n for n, until in enumerate(free_at) if until <= start[i]), len(free_at))
        free_at[number:] = [int(stop[i]), *free_at[number + 1 :]]
        lane[i] = number
    return lane
