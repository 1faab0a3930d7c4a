"""Clock maps: where the clocks' ticks lie on the host's time line, and how far off that may be.

A reading says that the clock showed a time in [tick, tick + resolution) at some moment of [not_before, not_after].
What follows from many of them, and what must be assumed, is in ``clock_fit``; a map's shape in ``clock_map``.

* ``exact`` readings define the map.
* With round trips it runs through the middle of what the limits leave.
* One-way readings put it at the fastest arrival: the latency of that arrival is not folded into the map. It shows as
  the room between the map and the lower limit (``latency_ns``), and is unknown where there is no lower limit.
* A clock that was read against another one takes over that one's bound: bounds add up along the chain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.clock_fit import Assumed, segments
from melt_stream.analysis.clock_map import Limits, Map, Segment, Step
from melt_stream.analysis.clock_readings import Seen
from melt_stream.analysis.schemas import SCHEMAS, build
from melt_stream.clock import HOST

__all__ = ["Key", "Map", "Maps", "Step", "fit", "said"]

Array = np.ndarray[Any, Any]
Key = tuple[str, int]
"""A clock's stored name, and its epoch."""


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

    def steps(self) -> list[Step]:
        """Return what happened between the segments of each clock, in order of clocks and time."""
        return [step for key in sorted(self.maps) for step in self.maps[key].steps()]

    def table(self, run: str = "", start_ns: int = 0, stop_ns: int = 0) -> pa.Table:
        """Return the derived table ``clocks``, its times counted from ``start_ns``."""
        rows = [row for key in sorted(self.maps) for row in _rows(run, self.maps[key], start_ns, stop_ns)]
        return build("clocks", {n: [r.get(n) for r in rows] for n in SCHEMAS["clocks"].names}, len(rows))


def said(step: Step) -> str:
    """Return a step in words, for a gap's reason."""
    way = "ahead" if step.ahead_ns > 0 else "back"
    amount = f"{abs(step.ahead_ns) / 1e6:.6g} ms"
    if step.heard:
        since = "came late by it before" if step.ahead_ns > 0 else "come late by it since"
        return f"clock {step.clock} was set {way} by {amount}, or its readings {since}: heard one way, nobody can tell"
    return f"clock {step.clock} was set {way} by {amount}, or strayed: no one line fits its readings before and after"


def _rows(run: str, found: Map, start_ns: int, stop_ns: int) -> list[dict[str, Any]]:
    """One row a segment, from where the last one ended: half-way between their readings."""
    told = {
        "run": run, "clock": found.clock, "epoch": found.epoch, "segment": 0, "start_ns": 0, "stop_ns": stop_ns - start_ns,
        "rho_ppm": found.rho * 1e6, "readings": found.readings, "kind": found.kind, "against": found.against,
    }  # fmt: skip
    if not found.placed:
        return [told]
    cuts = [(step.host_before + step.host_after) // 2 for step in found.steps()]
    spans = zip([start_ns, *cuts], [*cuts, max(stop_ns, start_ns)], strict=True)
    return [
        told | {"segment": k} | _row(found, segment, start_ns, span)
        for k, (segment, span) in enumerate(zip(found.segments, spans, strict=True))
    ]


def _row(found: Map, segment: Segment, start_ns: int, span: tuple[int, int]) -> dict[str, Any]:
    offset = segment.host0 - start_ns
    low, high = (float(b[0]) for b in segment.bound(np.array([segment.host0])))
    peaks = [limits.peaks() for limits in (segment.upper, segment.lower) if limits is not None]
    inside = np.concatenate([*peaks, np.zeros(1)]).astype(np.int64) + segment.host0
    ends = segment.bound(np.concatenate([np.clip(inside, *span), np.array(span)]))
    worst = max(float(np.max(-ends[0])), float(np.max(ends[1])))
    one_way = found.kind in ("one_way", "one_sided")
    return {
        "start_ns": span[0] - start_ns, "stop_ns": span[1] - start_ns, "tick0": segment.tick0, "offset_ns": offset,
        "offset_lo_ns": _whole(offset + low, math.floor), "offset_hi_ns": _whole(offset + high, math.ceil),
        "bound_ns": _whole(worst, math.ceil), "latency_ns": _whole(high - low, math.ceil) if one_way else None,
        "drift_ppm": (segment.rate / found.nominal_ns - 1) * 1e6, "drift_bound_ppm": segment.drift_bound * 1e6,
        "readings": segment.readings, "residual_ns": round(segment.residual),
        "resolution_ns": found.resolution * found.nominal_ns or None,
    }  # fmt: skip


def _whole(value: float, way: Any) -> int | None:
    return int(way(value)) if math.isfinite(value) else None


def fit(readings: pa.Table, needed: Iterable[Key] = ()) -> Maps:
    """Fit every clock that ``readings`` (the stream ``run.readings``) tell of; ``needed`` are listed in any case."""
    maps: dict[Key, Map] = {key: Map(*key) for key in needed if key[0] != HOST.name}
    groups = {key: rows for key, rows in _groups(readings).items() if key[0] != HOST.name}
    while groups:  # those whose limits are on clocks that are placed already; in a circle, none is
        waiting = {key[0] for key in groups}
        ready = [
            key for key, rows in groups.items() if waiting.isdisjoint(np.unique(_against(rows)))
        ] or list(groups)
        for key in ready:
            maps[key] = _fit(key, groups.pop(key), Maps(maps))
    return Maps(maps)


def _groups(readings: pa.Table) -> dict[Key, pa.Table]:
    """The readings of each clock and epoch, in order."""
    if not len(readings):
        return {}
    clocks = readings["clock_of"].combine_chunks().dictionary_encode()
    codes, names = clocks.indices.to_numpy(), clocks.dictionary.to_pylist()
    epochs = np.nan_to_num(readings["epoch_of"].to_numpy()).astype(np.int64)
    if len(names) == 1 and (epochs == epochs[0]).all():
        return {(names[0], int(epochs[0])): readings}
    order = np.lexsort((epochs, codes))
    cuts = np.flatnonzero(np.diff(codes[order]) | np.diff(epochs[order])) + 1
    parts = np.split(order, cuts)
    return {(names[codes[p[0]]], int(epochs[p[0]])): readings.take(pa.array(p)) for p in parts}


def _against(readings: pa.Table) -> Array:
    """The clock that each reading's limits are on; streams of older runs do not say."""
    if "against" not in readings.column_names or readings["against"].null_count == len(readings):
        return np.full(len(readings), HOST.name)
    return np.array(pc.fill_null(readings["against"], HOST.name).to_pylist())


def _fit(key: Key, readings: pa.Table, maps: Maps) -> Map:
    tick_ns = float(readings["tick_ns"][0].as_py() or 1.0)
    rho = float(readings["rho_ppm"][0].as_py() or 0.0) * 1e-6
    if "exact" in pc.unique(readings["kind"]).to_pylist():
        return _exact(key, readings, tick_ns)
    others = [str(name) for name in np.unique(_against(readings)) if name != HOST.name]
    before, after = (_limits(readings, end, maps) for end in (0, 1))
    known = [end for end in (before, after) if end.known.any()]
    if not known:
        return Map(*key)
    origin = int(known[0].ns[known[0].known][0])
    count = readings["count"].to_numpy().astype(np.int64)
    seen = Seen(
        count, np.nan_to_num(readings["resolution"].to_numpy()).astype(np.int64), before.since(origin),
        after.since(origin), pc.equal(readings["kind"], "round_trip").to_numpy(), origin, tick_ns,
    )  # fmt: skip
    stray = max((m.rho for k, m in maps.maps.items() if k[0] in others), default=0.0)
    same_rate = not others and bool(readings["same_rate"][0].as_py())
    seen, parts = segments(seen, Assumed(rho + stray, same_rate))
    kind = "two_way" if any(p.two_way for p in parts) else "one_way" if after.known.any() else "one_sided"
    against = ", ".join(others) or HOST.name
    return Map(*key, kind, parts, tick_ns, rho + stray, against, float(np.max(seen.width)))


@dataclass(frozen=True)
class _Ends:
    """One end of each reading's interval: host ns, where it is known."""

    ns: Array
    known: Array

    def since(self, origin: int) -> Array:
        """Host ns since ``origin``, NaN where open."""
        return np.where(self.known, (self.ns - origin).astype(np.float64), np.nan)


def _limits(readings: pa.Table, end: int, maps: Maps) -> _Ends:
    """The readings' lower (0) or upper (1) limits on the host's clock; one on another's is as wide as its bound."""
    column = readings[("not_before", "not_after")[end]]
    ns = pc.fill_null(column, 0).to_numpy().astype(np.int64)
    known = pc.is_valid(column).to_numpy()
    clocks = _against(readings)
    if (clocks == HOST.name).all():
        return _Ends(ns, known)
    epochs = np.nan_to_num(readings["against_epoch"].to_numpy().astype(np.float64)).astype(np.int64)
    ns, known = ns.copy(), known.copy()
    for clock, epoch in sorted(set(zip(clocks.tolist(), epochs.tolist(), strict=True)) - {(HOST.name, 0)}):
        mine = (clocks == clock) & (epochs == epoch)
        base = maps.of(clock, int(epoch))
        if not base.placed:
            known[mine] = False
            continue
        host = base.to_host(ns[mine])
        off = base.bound(host)[end]
        known[mine] &= np.isfinite(off)
        way = np.ceil if end else np.floor
        ns[mine] = host + way(np.where(np.isfinite(off), off, 0.0)).astype(np.int64)
    return _Ends(ns, known)


def _exact(key: Key, readings: pa.Table, tick_ns: float) -> Map:
    """The line through the first and the last exact reading; how far others lie off is its bound."""
    exact = readings.filter(pc.equal(readings["kind"], "exact"))
    ends = pc.coalesce(exact["not_before"], exact["not_after"])
    tick, host = (c.to_numpy().astype(np.int64) for c in (exact["count"], ends))
    order = np.argsort(tick, kind="stable")
    tick, host = tick[order], host[order]
    span = int(tick[-1] - tick[0])
    rate = float(host[-1] - host[0]) / span if span else tick_ns
    line = Segment(
        int(tick[0]), int(host[0]), 0.0, rate, readings=len(exact), ticks=(int(tick[0]), int(tick[-1]))
    )
    off = (host - line.line(tick)).astype(np.float64)
    if worst := float(np.max(np.abs(off))):
        flat = Limits(np.zeros(1), np.full(1, worst), 0.0)
        line = replace(line, residual=worst, upper=flat, lower=flat)
    return Map(*key, "exact", (line,), tick_ns)
