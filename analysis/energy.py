"""What a rail measured in each row of a device's timeline: joules, their time, quality and uncertainty.

Every elementary interval is integrated once, from zero; its energy is shared by the timeline's weights; a row is the
difference of two running sums that keep what rounding loses. So phases add up to the run and tokens to their decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from melt_stream.analysis.kernels import fixed, prefix
from melt_stream.analysis.meter import Elementary, Meter
from melt_stream.analysis.phases import Rows, Timeline
from melt_stream.analysis.quality import ENOUGH, QUALITIES, touched
from melt_stream.analysis.shifts import edge_shifts, extremes_of, own_clock
from melt_stream.analysis.uncertainty import Row, alone, clock_u, edge_variance, factor, rail_factors

Array = np.ndarray[Any, Any]


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
    misplaced = meter.misplaced(timeline.edges)
    variance += np.where(rows.last > rows.first, misplaced[rows.first] + misplaced[rows.last], 0.0)
    per_clock = shared.weighted(found.slope)
    mixed = (rows.start_key != rows.stop_key) & (rows.last > rows.first)
    if meter.exact and mixed.any():
        per_clock[mixed] = _one_sided(timeline, rows, found, mixed)
    per_clock[own_clock(meter, rows)] = 0.0
    lo, hi = extremes_of(meter, timeline, rows)
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
    (low, low_stop), (high, high_stop) = edge_shifts(meter, timeline, rows)
    low, high = np.minimum(low, low_stop), np.maximum(high, high_stop)
    elsewhere = ((rows.start_key > 0) | (rows.stop_key > 0)) & (rows.request >= 0) & ~own_clock(meter, rows)
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
