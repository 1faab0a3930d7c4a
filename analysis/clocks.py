"""Clock maps: where a clock's ticks lie on the host's time line, and how far off that may be.

A reading says that the clock showed a time in [tick, tick + resolution) at some moment of [not_before, not_after].
A clock never runs backwards, so with h(x) for the host time at which it showed x::

    h(tick) <= not_after                 h(tick + resolution) >= not_before

Each end that is given is one such limit. A map is a straight line through them; the bound is what the limits leave
around it if the clock's rate stays within ``rho + drift bound`` of the line: at x the truth lies above
max(limit_i - rho |x - x_i|) over the lower limits and below min(limit_i + rho |x - x_i|) over the upper ones.

* ``exact`` readings define the map.
* With round trips the line runs through the middle of what the limits leave.
* One-way readings put it at the fastest arrival: the latency of that arrival is not folded into the map. It shows as
  the room between the map and the lower limit (``latency_ns``), and is unknown where there is no lower limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.schemas import build
from melt_stream.clock import HOST

Array = np.ndarray[Any, Any]
Key = tuple[str, int]
"""A clock's stored name, and its epoch."""
PRIOR_PPM = 200.0
"""No clock's rate is taken to be further from its nominal one than this, until readings show it."""
FEW = 20
"""One-way readings from which on the fastest of their first and last thirds may tell a drift."""


@dataclass(frozen=True)
class Limits:
    """One-sided limits on a clock's error against its map, in order of ticks: ``at`` and ``error`` in ns."""

    at: Array
    error: Array
    rho: float
    """Relative: the limits loosen by this with distance."""

    def lowest(self, at: Array) -> Array:
        """The tightest upper limit at ``at`` (ns on the map's axis): min of error_i + rho |at - at_i|."""
        if not len(self.at):
            return np.full(len(at), np.inf)
        left = np.minimum.accumulate(self.error - self.rho * self.at)
        right = np.minimum.accumulate((self.error + self.rho * self.at)[::-1])[::-1]
        k = np.searchsorted(self.at, at, "right")
        from_left = np.where(k > 0, left[np.maximum(k - 1, 0)] + self.rho * at, np.inf)
        from_right = np.where(k < len(right), right[np.minimum(k, len(right) - 1)] - self.rho * at, np.inf)
        return np.minimum(from_left, from_right)


@dataclass(frozen=True)
class Map:
    """One clock in one epoch: host time = ``host0`` + (tick - ``tick0``) x ``rate``."""

    clock: str
    epoch: int
    kind: str = "none"
    tick0: int = 0
    host0: float = 0.0
    """Host ns; its fraction matters to clocks with long ticks."""
    rate: float = 1.0
    """Host ns a tick."""
    nominal_ns: float = 1.0
    drift_bound: float = 0.0
    rho: float = 0.0
    readings: int = 0
    residual: float = 0.0
    upper: Limits | None = None
    lower: Limits | None = None
    """Mirrored: limits on minus the error."""
    first: int | None = None
    """Host ns of the first reading's map; None where any time is as good as any other."""
    last: int | None = None

    @property
    def placed(self) -> bool:
        """False where no reading ties this clock to the host's."""
        return self.kind != "none"

    def to_host(self, ticks: Array) -> Array:
        """Return host ns (int64, rounded) of these ticks."""
        whole = math.floor(self.host0)
        since = (ticks.astype(np.int64) - self.tick0).astype(np.float64) * self.rate + (self.host0 - whole)
        return np.rint(since).astype(np.int64) + whole

    def to_ticks(self, host_ns: Array, base: int = 0) -> Array:
        """Return ticks less ``base`` (float64, with fractions) at these host times."""
        whole = math.floor(self.host0)
        since = (host_ns.astype(np.int64) - whole).astype(np.float64) - (self.host0 - whole)
        return since / self.rate + float(self.tick0 - base)

    def bound(self, host_ns: Array) -> tuple[Array, Array]:
        """Return the least and the most by which the truth lies after the map, in ns; infinite where unknown."""
        at = (host_ns.astype(np.int64) - math.floor(self.host0)).astype(np.float64)
        high = self.upper.lowest(at) if self.upper else np.zeros(len(at))
        low = -self.lower.lowest(at) if self.lower else np.zeros(len(at))
        return np.minimum(low, 0.0), np.maximum(high, 0.0)

    def outside(self, start: Array, stop: Array) -> Array:
        """Tell where an interval reaches beyond the readings."""
        if self.first is None or self.last is None:
            return np.zeros(len(start), bool)
        return (start < self.first) | (stop > self.last)


@dataclass(frozen=True)
class Maps:
    """The maps of a run's clocks. A clock without readings has one of kind ``none``: nothing on it can be placed."""

    maps: Mapping[Key, Map] = field(default_factory=dict)

    def of(self, clock: str, epoch: int = 0) -> Map:
        """Return the map; the host's own is the identity."""
        if clock == HOST.name:
            return Map(clock, 0, "identity")
        return self.maps.get((clock, epoch), Map(clock, epoch))

    def to_host(self, clock: str, epoch: int, ticks: Array) -> Array | None:
        """Return host ns (int64) of ticks of this clock; None where it cannot be placed."""
        found = self.of(clock, epoch)
        return found.to_host(ticks) if found.placed else None

    def to_ticks(self, clock: str, epoch: int, host_ns: Array, base: int = 0) -> Array | None:
        """Return ticks less ``base`` (float64) at these host times; None where it cannot be placed."""
        found = self.of(clock, epoch)
        return found.to_ticks(host_ns, base) if found.placed else None

    def bound(self, clock: str, epoch: int, host_ns: Array) -> tuple[Array, Array]:
        """Return the least and the most by which the truth lies after the map, in ns, at these host times."""
        return self.of(clock, epoch).bound(host_ns)

    def table(self, run: str = "", start_ns: int = 0, stop_ns: int = 0) -> pa.Table:
        """Return the derived table ``clocks``, its times counted from ``start_ns``."""
        rows = [_row(run, self.maps[key], start_ns, stop_ns) for key in sorted(self.maps)]
        return build("clocks", {name: [r.get(name) for r in rows] for name in _COLUMNS}, len(rows))


_COLUMNS = (
    "run", "clock", "epoch", "segment", "start_ns", "stop_ns", "tick0", "offset_ns", "offset_lo_ns", "offset_hi_ns",
    "bound_ns", "latency_ns", "drift_ppm", "drift_bound_ppm", "rho_ppm", "readings", "kind", "residual_ns",
)  # fmt: skip


def _row(run: str, found: Map, start_ns: int, stop_ns: int) -> dict[str, Any]:
    told = {
        "run": run, "clock": found.clock, "epoch": found.epoch, "segment": 0, "start_ns": 0, "stop_ns": stop_ns - start_ns,
        "rho_ppm": found.rho * 1e6, "readings": found.readings, "kind": found.kind,
    }  # fmt: skip
    if not found.placed:
        return told
    offset = round(found.host0) - start_ns
    low, high = (float(b[0]) for b in found.bound(np.array([round(found.host0)])))
    span = np.unique(np.array([start_ns, stop_ns, round(found.host0), *_corners(found)], np.int64))
    ends = found.bound(np.clip(span, start_ns, max(stop_ns, start_ns)))
    worst = max(float(np.max(-ends[0])), float(np.max(ends[1])))
    return told | {
        "tick0": found.tick0, "offset_ns": offset, "offset_lo_ns": _whole(offset + low, math.floor),
        "offset_hi_ns": _whole(offset + high, math.ceil), "bound_ns": _whole(worst, math.ceil),
        "latency_ns": _whole(high - low, math.ceil) if found.kind in ("one_way", "one_sided") else None,
        "drift_ppm": (found.rate / found.nominal_ns - 1) * 1e6, "drift_bound_ppm": found.drift_bound * 1e6,
        "residual_ns": round(found.residual),
    }  # fmt: skip


def _corners(found: Map) -> list[int]:
    """Where the bound may be widest: at the readings and half-way between them."""
    at = [limits.at for limits in (found.upper, found.lower) if limits is not None]
    spots = np.unique(np.concatenate(at)) if at else np.zeros(0)
    spots = np.concatenate([spots, (spots[:-1] + spots[1:]) / 2])
    return [int(s) for s in spots + math.floor(found.host0)]


def _whole(value: float, way: Any) -> int | None:
    return int(way(value)) if math.isfinite(value) else None


def fit(readings: pa.Table, needed: Iterable[Key] = ()) -> Maps:
    """Fit every clock that ``readings`` (the stream ``run.readings``) tell of; ``needed`` are listed in any case."""
    maps: dict[Key, Map] = {key: Map(*key) for key in needed if key[0] != HOST.name}
    names = readings["clock_of"].to_pylist()
    epochs = (
        np.nan_to_num(readings["epoch_of"].to_numpy()).astype(np.int64) if len(readings) else np.zeros(0, int)
    )
    groups: dict[Key, list[int]] = {}
    for k, key in enumerate(zip(names, epochs.tolist(), strict=True)):
        groups.setdefault(key, []).append(k)
    for key, rows in groups.items():
        if key[0] != HOST.name:
            maps[key] = _fit(key, readings.take(pa.array(rows)))
    return Maps(maps)


def _fit(key: Key, readings: pa.Table) -> Map:
    tick_ns = float(readings["tick_ns"][0].as_py() or 1.0)
    same_rate = bool(readings["same_rate"][0].as_py())
    rho = float(readings["rho_ppm"][0].as_py() or 0.0) * 1e-6
    before, after = (_points(readings, end, tick_ns) for end in ("not_before", "not_after"))
    kinds = set(readings["kind"].to_pylist())
    if "exact" in kinds:
        return _exact(key, readings, tick_ns)
    if not len(before.ns) and not len(after.ns):
        return Map(*key)
    base = _Base(*key, tick_ns, int(np.min(readings["count"].to_numpy())), rho, len(readings))
    if same_rate:
        return _through(base, before, after, kinds, 0.0, 0.0, rho)
    drift, drift_bound = _drift(before, after, "round_trip" in kinds)
    drift_bound += rho  # readings tell the mean rate, which itself strays by rho from the clock's own
    return _through(base, before, after, kinds, drift, drift_bound, rho + drift_bound)


@dataclass(frozen=True)
class _Base:
    clock: str
    epoch: int
    tick_ns: float
    tick0: int
    rho: float
    readings: int


@dataclass(frozen=True)
class _Points:
    """Limits as they were read: the clock's nominal ns since its first reading, and host ns."""

    at: Array
    ns: Array


def _points(readings: pa.Table, end: str, tick_ns: float) -> _Points:
    tick0 = int(np.min(readings["count"].to_numpy()))
    kept = readings.filter(readings[end].is_valid())
    tick = kept["count"].to_numpy().astype(np.int64) - tick0
    if end == "not_before":  # the clock was still before the end of its tick
        tick = tick + np.nan_to_num(kept["resolution"].to_numpy(zero_copy_only=False)).astype(np.int64)
    order = np.argsort(tick, kind="stable")
    return _Points((tick * tick_ns)[order], kept[end].to_numpy().astype(np.int64)[order])


def _exact(key: Key, readings: pa.Table, tick_ns: float) -> Map:
    """The line through the first and the last exact reading; how far others lie off is its bound."""
    exact = readings.filter(pc.equal(readings["kind"], "exact"))
    tick = exact["count"].to_numpy().astype(np.int64)
    ends = [exact[end].to_numpy(zero_copy_only=False) for end in ("not_before", "not_after")]
    host = np.where(np.isnan(ends[0].astype(float)), ends[1], ends[0]).astype(np.int64)
    order = np.argsort(tick, kind="stable")
    tick, host = tick[order], host[order]
    span = int(tick[-1] - tick[0])
    rate = float(host[-1] - host[0]) / span if span else tick_ns
    found = Map(*key, "exact", int(tick[0]), float(host[0]), rate, tick_ns, readings=len(exact))
    off = (host - found.to_host(tick)).astype(np.float64)
    if not (worst := float(np.max(np.abs(off)))):
        return found
    flat = Limits(np.zeros(1), np.full(1, worst), 0.0)
    return Map(
        *key, "exact", int(tick[0]), float(host[0]), rate, tick_ns, 0.0, 0.0, len(exact), worst, flat, flat
    )


def _drift(before: _Points, after: _Points, two_way: bool) -> tuple[float, float]:
    """Return how much slower than nominal the clock ticks (relative), and how far that may be off."""
    prior = PRIOR_PPM * 1e-6
    if two_way and len(before.at) and len(after.at):
        low, high = _slopes(before, after)
    elif len(after.at) >= FEW:
        low, high = _one_way_slopes(after)
    else:
        return 0.0, prior
    if low > prior or high < -prior:  # the readings show that the clock is far from nominal
        return (low + high) / 2, (high - low) / 2
    low, high = max(low, -prior), min(high, prior)
    return (low + high) / 2, (high - low) / 2


def _slopes(before: _Points, after: _Points) -> tuple[float, float]:
    """Least and most mean drift between early and late readings: each end is used where its limit is tightest.

    For every pair of a late limit and an early one, (late lower - early upper) / distance is a lower bound, and
    the other way round an upper one. The first and the last eighth of the readings are paired.
    """
    low = _steepest(after, before, 1.0)
    high = -_steepest(before, after, -1.0)
    return (low, high) if low <= high else (high, low)


def _steepest(early: _Points, late: _Points, sign: float) -> float:
    e = slice(0, min(64, max(1, len(early.at) // 8)))
    n = min(64, max(1, len(late.at) // 8))
    run = late.at[-n:][None, :] - early.at[e][:, None]
    rise = (late.ns[-n:][None, :] - early.ns[e][:, None]).astype(np.float64) - run
    good = run > 0
    return float(np.max(sign * rise[good] / run[good])) if good.any() else -math.inf


def _one_way_slopes(after: _Points) -> tuple[float, float]:
    """The drift between the fastest arrivals of the first and the last third, and a generous bound of it.

    A fastest arrival is late by an unknown delay; the distance from it to the median of its third stands for that.
    """
    third = len(after.at) // 3
    delay = (after.ns - after.ns[0]).astype(np.float64) - (after.at - after.at[0])
    first, last = delay[:third], delay[-third:]
    run = float(after.at[-third:][np.argmin(last)] - after.at[:third][np.argmin(first)])
    if run <= 0:
        return -math.inf, math.inf
    drift = float(np.min(last) - np.min(first)) / run
    slack = float(np.median(first) - np.min(first) + np.median(last) - np.min(last)) / run
    return drift - slack, drift + slack


def _through(
    base: _Base,
    before: _Points,
    after: _Points,
    kinds: set[str],
    drift: float,
    drift_bound: float,
    rho: float,
) -> Map:
    """Place a line of this drift between the limits."""
    origin = int(after.ns[0] if len(after.ns) else before.ns[0])
    upper = _limits(after, origin, drift, rho)
    lower = _limits(before, origin, drift, rho)
    mid = np.array([(np.min(after.at) + np.max(after.at)) / 2 if len(after.at) else np.max(before.at)]) * (
        1 + drift
    )
    high, low = float(upper.lowest(mid)[0]), float(-Limits(lower.at, -lower.error, rho).lowest(mid)[0])
    two_way = "round_trip" in kinds and math.isfinite(high) and math.isfinite(low)
    place = (low + high) / 2 if two_way else high if math.isfinite(high) else low
    residual = _contradiction(upper, lower, rho)
    above = Limits(upper.at, upper.error - place + residual, rho)
    below = Limits(lower.at, place - lower.error + residual, rho)
    ends = np.concatenate([after.at, before.at]) * (1 + drift) + origin + place
    first, last = (math.floor(np.min(ends)), math.ceil(np.max(ends))) if rho else (None, None)
    return Map(
        base.clock, base.epoch, "two_way" if two_way else "one_way" if len(after.at) else "one_sided", base.tick0,
        origin + place, base.tick_ns * (1 + drift), base.tick_ns, drift_bound, base.rho, base.readings, residual,
        above, below, first, last,
    )  # fmt: skip


def _limits(points: _Points, origin: int, drift: float, rho: float) -> Limits:
    at = points.at * (1 + drift)
    return Limits(at, (points.ns - origin).astype(np.float64) - at, rho)


def _contradiction(upper: Limits, lower: Limits, rho: float) -> float:
    """By how much a lower limit lies above an upper one; the bound is widened by all of it, on both sides."""
    if not len(upper.at) or not len(lower.at):
        return 0.0
    return max(0.0, float(np.max(lower.error - Limits(upper.at, upper.error, rho).lowest(lower.at))))
