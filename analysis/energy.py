"""What a rail measured in each row of a device's timeline: joules, their time, quality and uncertainty.

Every elementary interval is integrated once, from zero; its energy is shared by the timeline's weights; a row is the
difference of two running sums that keep what rounding loses. So phases add up to the run and tokens to their decode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.clocks import Map, Maps
from melt_stream.analysis.integrate import Pieces, RailData, pieces
from melt_stream.analysis.kernels import extremes, fixed, prefix
from melt_stream.analysis.phases import Rows, Timeline
from melt_stream.analysis.quality import ENOUGH, QUALITIES, Intervals, saturated, stale, touched
from melt_stream.analysis.uncertainty import (
    Row,
    add_noise,
    alone,
    clock_u,
    edge_variance,
    factor,
    rail_factors,
)

Array = np.ndarray[Any, Any]
MOST_EDGES = 64
"""A row with more edges is bounded piece by piece: never too narrow, sometimes wider than need be."""


@dataclass
class Elementary:
    """A rail's answer for each elementary interval of a timeline."""

    joules: Array
    seconds: Array
    variance: Array
    ends: Array
    """Samples, windows or changes that end in it."""
    after: Array
    """Power just after its start, W."""
    before: Array
    """Power just before its end, W."""

    @property
    def slope(self) -> Array:
        """What moving both edges changes, W."""
        return np.asarray(self.before - self.after)


@dataclass
class Meter:
    """A rail with its clock's maps: answers for any times of the run."""

    rail: RailData
    maps: Maps
    start_ns: int
    parts: list[tuple[Pieces, Map]] = field(default_factory=list)
    aliasing: float = 0.0
    spread: float = 0.0
    """Largest less smallest power, W."""
    bad: dict[str, list[Intervals]] = field(default_factory=dict)

    @classmethod
    def of(cls, rail: RailData, gaps: pa.Table | None, maps: Maps, start_ns: int) -> Meter:
        """Prepare a rail. Epochs whose clock cannot be placed are left out: nothing is known of them."""
        meter = cls(rail, maps, start_ns)
        filled = [(e, rows) for e, rows in rail.epochs() if rows.stop > rows.start]
        lows, highs = [], []
        for made, (epoch, rows) in zip(pieces(rail, gaps), filled, strict=True):
            placed = maps.of(rail.clock, epoch)
            if not placed.placed:
                continue
            meter.aliasing = max(meter.aliasing, add_noise(rail, made, rows))
            meter.parts.append((made, placed))
            for flag, find in (("saturated", saturated), ("stale", stale)):
                start, stop = (placed.to_host(t) - start_ns for t in find(rail, rows))
                meter.bad.setdefault(flag, []).append((start, stop))
            power = np.concatenate([made.p0, made.p1])
            power = power[np.isfinite(power)]
            if len(power):
                lows.append(float(np.min(power)))
                highs.append(float(np.max(power)))
        meter.spread = max(highs) - min(lows) if lows else 0.0
        return meter

    def positions(self, made: Pieces, placed: Map, t: Array) -> Array:
        """Return the positions in ``made`` of times since the run's start."""
        return placed.to_ticks(t + self.start_ns, made.tick0) * made.sub

    def elementary(self, edges: Array) -> Elementary:
        """Integrate every interval between ``edges``."""
        n = max(len(edges) - 1, 0)
        found = Elementary(*(np.zeros(n) for _ in range(6)))
        for made, placed in self.parts:
            e, c, v, ends, after, before = made.sweep(self.positions(made, placed, edges))
            found.joules += e
            found.seconds += c * (placed.rate / self.rail.tick_ns)
            found.variance += v
            found.ends += ends
            found.after += after
            found.before += before
        return found

    def shifts(self, t: Array) -> tuple[Array, Array]:
        """Return the least and the most by which the rail's clock may be off at these times, ns."""
        low, high = np.zeros(len(t)), np.zeros(len(t))
        for _, placed in self.parts:
            lo, hi = placed.bound(t + self.start_ns)
            low, high = np.minimum(low, lo), np.maximum(high, hi)
        return low, high

    @property
    def exact(self) -> bool:
        """True where it is on the host's clock."""
        return all(placed.kind == "identity" for _, placed in self.parts)


@dataclass
class Attribution:
    """The energy columns of all rows of a device, from one rail; NaN is null."""

    columns: dict[str, Array]
    quality: Array
    """Index into ``QUALITIES``."""
    flags: dict[str, Array]
    factors: list[Row]

    def net(self, idle: tuple[float, float] | None) -> None:
        """Take off an idle power (W, and its u): ``net_joules`` and its factor."""
        if idle is not None:
            self.columns["net_joules"] = self.columns["joules"] - self.columns["seconds"] * idle[0]


def attribute(meter: Meter, timeline: Timeline, rows: Rows) -> Attribution:
    """Spread what ``meter`` measured over ``rows``."""
    found = meter.elementary(timeline.edges)
    shared = _Sums(timeline, rows, found)
    whole = shared.plain(found.joules)
    covered = shared.plain(found.seconds)
    length = (timeline.edges[rows.last] - timeline.edges[rows.first]) * 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        coverage = np.where(length > 0, np.minimum(covered / length, 1.0), 1.0)
    joules, seconds = shared.weighted(found.joules), shared.weighted(found.seconds)
    variance = shared.weighted(found.variance) + edge_variance(meter.rail)
    variance += _uncovered(coverage, length, seconds, covered, meter.spread) ** 2
    per_clock = shared.weighted(found.slope)
    mixed = (rows.start_key != rows.stop_key) & (rows.last > rows.first)
    if meter.exact and mixed.any():
        per_clock[mixed] = _one_sided(timeline, rows, found, mixed)
    per_clock[_own_clock(meter, rows)] = 0.0
    lo, hi = _extremes(meter, timeline, rows)
    unknown = (coverage <= 0) | (len(meter.parts) == 0)
    factors = _factors(meter, timeline, rows)
    columns = {
        "joules": joules, "window_joules": whole, "net_joules": np.full(len(rows), np.nan), "seconds": seconds,
        "coverage": np.where(len(meter.parts) == 0, 0.0, coverage), "joules_var": variance, "joules_per_clock": per_clock,
        "joules_lo": joules + lo, "joules_hi": joules + hi,
        "joules_u": alone(factors, joules, seconds, per_clock, variance, rows.request),
    }  # fmt: skip
    for name in columns.keys() - {"seconds", "coverage"}:
        columns[name] = np.where(unknown, np.nan, columns[name])
    quality = _quality(meter, rows, coverage, shared.plain(found.ends), unknown)
    return Attribution(columns, quality, _flags(meter, timeline, rows, shared), factors)


@dataclass
class _Sums:
    """Sums over rows: differences of running sums that keep what rounding loses."""

    timeline: Timeline
    rows: Rows
    found: Elementary

    def plain(self, values: Array) -> Array:
        """Undivided."""
        return self._between(values, np.ones(len(self.rows), bool))

    def weighted(self, values: Array) -> Array:
        """By the share of the row's class, and of its part of a step."""
        total = np.zeros(len(self.rows))
        for rank, weights in enumerate(self.timeline.weights):
            mine = self.rows.rank == rank
            if mine.any():
                total[mine] = self._between(values * weights, mine)
        return total / self.rows.parts

    def _between(self, values: Array, mine: Array) -> Array:
        high, low = prefix(fixed(values, np.float64))
        a, b = self.rows.first[mine], self.rows.last[mine]
        return np.asarray((high[b] - high[a]) + (low[b] - low[a]))


def _uncovered(coverage: Array, length: Array, seconds: Array, covered: Array, spread: float) -> Array:
    """What the uncovered hundredth may hold: its power is anywhere between the least and the most, uniformly."""
    some = (coverage >= ENOUGH) & (coverage < 1.0) & (covered > 0)
    share = np.divide(seconds, covered, out=np.zeros(len(covered)), where=covered > 0)
    return np.where(some, (1 - coverage) * length * share * spread / np.sqrt(12), 0.0)


def _one_sided(timeline: Timeline, rows: Rows, found: Elementary, mixed: Array) -> Array:
    """Change of joules a second when only the ends on other clocks than the host's move."""
    weights = np.array(timeline.weights)
    first, stop, rank = rows.first[mixed], rows.last[mixed] - 1, rows.rank[mixed] % len(weights)
    at_start = np.where(rows.start_key[mixed] != 0, -found.after[first] * weights[rank, first], 0.0)
    at_stop = np.where(rows.stop_key[mixed] != 0, found.before[stop] * weights[rank, stop], 0.0)
    return np.asarray((at_start + at_stop) / rows.parts[mixed])


def _extremes(meter: Meter, timeline: Timeline, rows: Rows) -> tuple[Array, Array]:
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
    e_lo, e_hi = _edge_shifts(meter, timeline, rows)
    if not (np.any(r_lo) or np.any(r_hi) or any(np.any(x) for x in (*e_lo, *e_hi))):
        return None
    sets = _Sets()
    still = _own_clock(meter, rows) | (rows.last <= rows.first)
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


def _own_clock(meter: Meter, rows: Rows) -> Array:
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


def _edge_shifts(
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


def _quality(meter: Meter, rows: Rows, coverage: Array, ends: Array, unknown: Array) -> Array:
    rank = {name: k for k, name in enumerate(QUALITIES)}
    found = np.where(ends < 1, rank["interpolated"], rank["measured"])
    found = np.where((coverage < ENOUGH) | rows.partial, rank["partial"], found)
    if meter.rail.facts.get("estimated"):
        found = np.maximum(found, rank["estimated"])
    return np.where(unknown, rank["missing"], found)


def _flags(meter: Meter, timeline: Timeline, rows: Rows, sums: _Sums) -> dict[str, Array]:
    start, stop = timeline.edges[rows.first], timeline.edges[rows.last]
    found = {
        flag: np.any([touched(start, stop, part) for part in parts], axis=0)
        for flag, parts in meter.bad.items()
    }
    several = np.zeros(len(rows), bool)
    for rank, held in enumerate(timeline.held):
        mine = rows.rank == rank
        if mine.any():
            several[mine] = sums.plain((held > 1).astype(np.float64))[mine] > 0
    outside = np.zeros(len(rows), bool)
    for _, placed in meter.parts:
        outside |= placed.outside(start + meter.start_ns, stop + meter.start_ns)
    for number, key in enumerate(rows.keys):
        mine = (rows.start_key == number) | (rows.stop_key == number)
        outside[mine] |= meter.maps.of(*key).outside(
            start[mine] + meter.start_ns, stop[mine] + meter.start_ns
        )
    facts = meter.rail.facts
    stated = facts.get("gain") is not None or bool(facts.get("estimated"))
    return found | {"shared": several, "extrapolated": outside, "unstated": np.full(len(rows), not stated)}


def _factors(meter: Meter, timeline: Timeline, rows: Rows) -> list[Row]:
    """All that the rows have in common, with the rail's name on each."""
    drift = max(
        (abs(p.rate / p.nominal_ns - 1) + p.drift_bound for _, p in meter.parts if p.kind != "identity"),
        default=0.0,
    )
    found = rail_factors(meter.rail, meter.aliasing, drift / np.sqrt(3))
    shifted = clock_u(*meter.shifts(timeline.edges))
    if shifted != 0.0:
        why = "bound of the clock's map" if shifted is not None else "unknown"
        found.append(
            factor(
                f"clock {meter.rail.clock}",
                "clock",
                shifted,
                "s",
                shape="uniform",
                source=why,
                shared_with="all on this clock",
            )
        )
    (low, low_stop), (high, high_stop) = _edge_shifts(meter, timeline, rows)
    low, high = np.minimum(low, low_stop), np.maximum(high, high_stop)
    elsewhere = ((rows.start_key > 0) | (rows.stop_key > 0)) & (rows.request >= 0) & ~_own_clock(meter, rows)
    for request in np.unique(rows.request[elsewhere]):
        mine = elsewhere & (rows.request == request)
        u = clock_u(low[mine], high[mine])
        if u == 0.0:
            continue
        number = int(np.max(np.maximum(rows.start_key[mine], rows.stop_key[mine])))
        clock, epoch = rows.keys[number]
        found.append(
            factor(
                f"clock {clock}#{epoch}",
                "clock",
                u,
                "s",
                shape="uniform",
                request=int(request),
                source="bound of the clock's map" if u is not None else "unknown",
                shared_with="all times of the request",
            )
        )
    facts = meter.rail.facts
    place = {"device": facts.get("device_of"), "sensor": facts.get("sensor_of"), "rail": facts.get("name")}
    return [told | place for told in found]
