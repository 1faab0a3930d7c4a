"""What joules may be over the bounds of the clocks: every edge of a row moved as far as its clocks allow.

All edges on one clock move together, so that a peak may lose by moving either way and a flat stretch by none. A row
with ends on different clocks is bounded end by end: never too narrow, sometimes wider than need be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melt_stream.analysis.kernels import extremes, fixed
from melt_stream.analysis.meter import Meter
from melt_stream.analysis.phases import Rows, Timeline

Array = np.ndarray[Any, Any]
MOST_EDGES = 64
"""A row with more edges is bounded piece by piece."""


def extremes_of(meter: Meter, timeline: Timeline, rows: Rows) -> tuple[Array, Array]:
    """By how much each row's joules may change over the bounds of the clocks; NaN where a clock has none."""
    moved = _moved(meter, timeline, rows)
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    if moved is None:
        return low, high
    whose, edges, weights, first, shift_lo, shift_hi = moved
    unbounded = ~(np.isfinite(shift_lo) & np.isfinite(shift_hi))
    lo, hi = (np.where(unbounded, 0.0, s) for s in (shift_lo, shift_hi))
    for made, placed in meter.parts:
        at = meter.positions(made, placed, timeline.edges[edges])
        a, b = extremes(
            made.left, made.right, made.p0, made.p1, made.limit, made.base, fixed(at, np.float64),
            fixed(weights, np.float64), fixed(first, np.int64), fixed(lo / placed.rate * made.sub, np.float64),
            fixed(hi / placed.rate * made.sub, np.float64),
        )  # fmt: skip
        np.add.at(low, whose, a * made.unit_s)
        np.add.at(high, whose, b * made.unit_s)
    none = np.zeros(len(rows), bool)
    none[whose[unbounded]] = True
    return np.where(none, np.nan, low / rows.parts), np.where(none, np.nan, high / rows.parts)


def _moved(meter: Meter, timeline: Timeline, rows: Rows) -> tuple[Array, ...] | None:
    """Cut the rows into sets of edges that move together: row, edges, their weights, where each set starts, and the
    least and the most that it moves (ns). None where nothing moves.

    An edge's true time is later than its map by d in its own clock's bound, and the rail's ticks are later than
    theirs by d' in the rail's: the edge then meets the rail d - d' later.
    """
    r_lo, r_hi = meter.shifts(timeline.edges)
    e_lo, e_hi = edge_shifts(meter, timeline, rows)
    if not (np.any(r_lo) or np.any(r_hi) or any(np.any(x) for x in (*e_lo, *e_hi))):
        return None
    sets = _Sets()
    still = own_clock(meter, rows) | (rows.last <= rows.first)
    plain = _plain(timeline, rows) & ~still
    sets.pairs(
        np.flatnonzero(plain), rows.first[plain], rows.last[plain], _weights(timeline, rows, plain),
        e_lo[0][plain] - np.maximum(r_hi[rows.first], r_hi[rows.last])[plain],
        e_hi[0][plain] - np.minimum(r_lo[rows.first], r_lo[rows.last])[plain],
    )  # fmt: skip
    for k in np.flatnonzero(~still & ~plain):
        marks, change = _coefficients(timeline, rows, int(k))
        together = rows.start_key[k] == rows.stop_key[k]
        cuts = [*range(0, len(marks), MOST_EDGES)] if together else [0, max(len(marks) - 1, 0)]
        for a, b in zip(cuts, [*cuts[1:], len(marks)], strict=True):
            end = 0 if together or a == 0 else 1
            sets.add(
                int(k), marks[a:b], change[a:b], e_lo[end][k] - np.max(r_hi[marks[a:b]], initial=0.0),
                e_hi[end][k] - np.min(r_lo[marks[a:b]], initial=0.0),
            )  # fmt: skip
    return sets.arrays()


@dataclass
class _Sets:
    """Sets of edges that move together, as they are found."""

    whose: list[Array] = field(default_factory=list)
    edges: list[Array] = field(default_factory=list)
    weights: list[Array] = field(default_factory=list)
    sizes: list[Array] = field(default_factory=list)
    low: list[Array] = field(default_factory=list)
    high: list[Array] = field(default_factory=list)

    def add(self, row: int, edges: Array, weights: Array, low: float, high: float) -> None:
        """Add one set of a row."""
        self._extend(
            np.array([row]), edges, weights, np.array([len(edges)]), np.array([low]), np.array([high])
        )

    def pairs(self, rows: Array, first: Array, last: Array, weights: Array, low: Array, high: Array) -> None:
        """Add rows of one share from end to end: nearly all tokens."""
        edges, changes = np.column_stack([first, last]).ravel(), np.column_stack([-weights, weights]).ravel()
        self._extend(rows, edges, changes, np.full(len(rows), 2), low, high)

    def _extend(self, *parts: Array) -> None:
        for mine, part in zip(
            (self.whose, self.edges, self.weights, self.sizes, self.low, self.high), parts, strict=True
        ):
            mine.append(part)

    def arrays(self) -> tuple[Array, ...]:
        """Rows, edges, weights, where each set starts, and its least and most move."""
        whose, edges, weights, sizes, low, high = (
            np.concatenate(x) for x in (self.whose, self.edges, self.weights, self.sizes, self.low, self.high)
        )
        return whose, edges, weights, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), low, high


def _plain(timeline: Timeline, rows: Rows) -> Array:
    """Tell which rows have one share from end to end, and both ends on one clock."""
    changes = np.zeros(len(rows), np.int64)
    inside = np.maximum(rows.last - 1, rows.first)
    for rank, weights in enumerate(timeline.weights):
        mine = rows.rank == rank
        count = np.concatenate([[0], np.cumsum(np.diff(weights) != 0), [0]])
        changes[mine] = count[inside[mine]] - count[rows.first[mine]]
    return np.asarray((changes == 0) & (rows.start_key == rows.stop_key))


def _weights(timeline: Timeline, rows: Rows, mine: Array) -> Array:
    """Each row's share where it starts; of a whole request, 1."""
    weights = np.array([*timeline.weights, np.ones(len(timeline.edges) - 1)])
    return np.asarray(weights[np.minimum(rows.rank[mine], len(weights) - 1), rows.first[mine]])


def own_clock(meter: Meter, rows: Rows) -> Array:
    """Tell which rows have both ends on the rail's own clock: they are exact whatever its map says."""
    own = np.array([clock == meter.rail.clock for clock, _ in rows.keys], bool)
    return np.asarray(own[rows.start_key] & own[rows.stop_key] & (rows.start_key == rows.stop_key))


def _coefficients(timeline: Timeline, rows: Rows, k: int) -> tuple[Array, Array]:
    """The edges where a row's share changes, and by how much: joules are the sum of change x running energy."""
    first, last, rank = int(rows.first[k]), int(rows.last[k]), int(rows.rank[k])
    inside = timeline.weights[rank][first:last] if rank < len(timeline.weights) else np.ones(last - first)
    change = np.diff(np.concatenate([[0.0], inside, [0.0]]))
    marks = np.flatnonzero(change)
    return marks + first, -change[marks]


def edge_shifts(
    meter: Meter, timeline: Timeline, rows: Rows
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The bounds of the clocks that the rows' starts and stops are known on."""
    ends = []
    for keys, edge in ((rows.start_key, rows.first), (rows.stop_key, rows.last)):
        low, high = np.zeros(len(rows)), np.zeros(len(rows))
        for number, key in enumerate(rows.keys):
            mine = keys == number
            if number and mine.any():
                low[mine], high[mine] = meter.maps.bound(*key, timeline.edges[edge[mine]] + meter.start_ns)
        ends.append((low, high))
    (a, b), (c, d) = ends
    return (np.where(rows.start_key == rows.stop_key, np.minimum(a, c), a), c), (
        np.where(rows.start_key == rows.stop_key, np.maximum(b, d), b), d,
    )  # fmt: skip
