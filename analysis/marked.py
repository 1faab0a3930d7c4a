"""Markers of a run: each looked for in the rails and on the wires of its device, held against the clock's readings, and
made a reading.

A marker is a one-sided reading: the power answers not before the command, and how much later (a governor, the
meter's own averaging) cannot be seen. So it is never a proof of its own. Where a rail shows it *before* it was
played, by more than the bound of its clock and the fit allow, one of the two is wrong: the reading is left out, and the verdict is
``early``. Where it shows it so late that no usual delay explains it, the verdict is ``late``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.clocks import Key, Maps, fit
from melt_stream.analysis.integrate import Pieces, RailData, pieces
from melt_stream.analysis.markers import Code, Found, Trace, find
from melt_stream.analysis.schemas import SCHEMAS, build
from melt_stream.analysis.wires import refined, sampled, wires
from melt_stream.clock import HOST, Clock

Array = np.ndarray[Any, Any]
Row = dict[str, Any]
WIRE = "wire"
SURE = 4.0
"""Standard uncertainties of the fit that an onset is taken to be off by, at most."""
USUAL_NS = 50_000_000
"""How late power may answer without being called late: governors take up to 20 ms, slow gauges average."""
AROUND_NS = 30_000_000_000
"""A marker is looked for so far from where the clock's map expects it, on either side."""
LOUD = ("early", "late")
"""Verdicts that are said wherever a run's energy is."""


@dataclass(frozen=True)
class Marked:
    """What came of a run's markers."""

    readings: pa.Table
    """The run's, and those that markers made."""
    rows: list[Row]
    """Of the table ``markers``, times in host ns."""

    def table(self, run: str, start_ns: int) -> pa.Table:
        """Return the derived table ``markers``, its times counted from ``start_ns``."""
        since = dict.fromkeys(("played_ns", "seen_ns"), start_ns)
        columns: dict[str, object] = {
            name: [_since(row.get(name), since.get(name, 0)) for row in self.rows]
            for name in SCHEMAS["markers"].names
        }
        return build("markers", columns | {"run": [run] * len(self.rows)}, len(self.rows))


def marked(
    readings: pa.Table,
    streams: Sequence[pa.Table],
    rails: Sequence[RailData],
    gaps: pa.Table,
    logic: Sequence[pa.Table] = (),
) -> Marked:
    """Find every play of ``streams`` (role ``marker``) in every rail of its device, and on its wires (role ``logic``)."""
    played = list(_plays(streams))
    if not played:
        return Marked(readings, [])
    shown = [*_in_rails(rails, gaps, {play.device for play in played}), *_on_wires(logic)]
    maps = fit(readings, [*(one.key for one in shown), *(play.key for play in played)])
    rows, more = [], []
    for one in shown:
        for play in (play for play in played if play.device == one.device):
            row, reading = _look(play, one, maps)
            rows += [row] if row else []
            more += [reading] if reading else []
    more = [_reading_of(readings, reading) for reading in more]
    extended = pa.concat_tables([readings, pa.Table.from_pylist(more, readings.schema)]) if more else readings
    return Marked(extended, rows)


@dataclass(frozen=True)
class _Shown:
    """Where a marker may show: a rail, or a wire, in one epoch."""

    sensor: str | None
    rail: str | None
    device: str
    clock: str
    tick_ns: float
    kind: str
    made: Pieces

    @property
    def key(self) -> Key:
        return self.clock, self.made.epoch

    @property
    def on_wire(self) -> bool:
        """Here it need not show: one wire of many, if any, carries it."""
        return self.kind == WIRE


def _in_rails(rails: Sequence[RailData], gaps: pa.Table, devices: set[str]) -> Iterator[_Shown]:
    for rail in rails:
        device = rail.facts.get("device_of") or "host"
        for made in pieces(rail, gaps) if device in devices else []:
            yield _Shown(
                rail.facts.get("sensor_of"), rail.facts.get("name"), device, rail.clock, rail.tick_ns,
                str(rail.facts.get("kind")), made,
            )  # fmt: skip


def _on_wires(logic: Sequence[pa.Table]) -> Iterator[_Shown]:
    for wire in wires(logic):
        yield _Shown(wire.sensor, wire.name, wire.device, wire.clock, wire.tick_ns, WIRE, wire.made)


@dataclass(frozen=True)
class _Play:
    instance: str
    device: str
    number: int
    key: Key
    edges: Array
    rise_s: float | None

    def on_host(self, maps: Maps) -> tuple[Code, int] | None:
        """The code on the host's clock, and by how much it may have been played earlier (ns, not above 0)."""
        edges = maps.to_host(*self.key, self.edges)
        if edges is None:
            return None
        code = Code(edges)
        low = float(maps.bound(*self.key, np.array([code.centre]))[0][0])
        return (code, math.floor(low)) if math.isfinite(low) else None


def _plays(streams: Sequence[pa.Table]) -> Iterator[_Play]:
    """Yield each play that has all of its edges: on, off, ..., off."""
    for table in streams:
        meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        grouped: dict[tuple[int, int], list[Row]] = {}
        for row in table.to_pylist():
            grouped.setdefault((row["play"], row.get("epoch") or 0), []).append(row)
        for (number, epoch), rows in grouped.items():
            edges = np.array([row["tick"] for row in rows], np.int64)
            if (
                len(rows) % 2
                or any(row["on"] != (k % 2 == 0) for k, row in enumerate(rows))
                or (np.diff(edges) <= 0).any()
            ):
                continue
            rise = rows[0]["rise"]
            yield _Play(
                meta.get("instance", ""), meta.get("device") or "host", number, (meta.get("clock") or HOST.name, epoch),
                edges, None if rise is None else rise * 1e-9,
            )  # fmt: skip


def _look(play: _Play, shown: _Shown, maps: Maps) -> tuple[Row | None, Row | None]:
    """Look for one play in one epoch of a rail or wire: its row, where it may lie there, and the reading it makes."""
    on_host, made, key = play.on_host(maps), shown.made, shown.key
    if on_host is None or not len(made.left):
        return None, None
    code, earliest = on_host
    cut = _window(code, made, maps, key)
    if cut is None:
        return None, None
    row: Row = {
        "instance": play.instance, "play": play.number, "device": play.device, "sensor": shown.sensor,
        "rail": shown.rail, "clock": key[0], "epoch": key[1], "played_ns": code.centre, "used": False,
        "verdict": "not found",
    }  # fmt: skip
    found = find(code, _trace(cut, shown.kind), 0.0 if shown.on_wire else play.rise_s)
    if found is None:
        return None if shown.on_wire else row, None
    found = refined(code, made, found) if shown.on_wire else found
    tick = made.tick0 + found.onset_s / (made.unit_s * made.sub)
    u = found.u_s / (made.unit_s * made.sub)
    row |= _told(found) | _held(maps, key, code, tick, u, earliest)
    row |= {"step_w": None} if shown.on_wire else {}
    if key[0] == HOST.name or row["verdict"] == "early":
        return row, None
    row["used"] = True
    width = math.ceil(2 * SURE * u) + 1
    return row, {
        "tick": code.centre, "clock_of": key[0], "epoch_of": key[1], "count": math.floor(tick - SURE * u),
        "resolution": width, "not_before": code.centre + earliest, "not_after": None, "kind": "cause",
        "tick_ns": shown.tick_ns,
    }  # fmt: skip


def _window(code: Code, made: Pieces, maps: Maps, key: Key) -> Pieces | None:
    """The pieces in which the code may lie: around where the map expects it, or all where there is no map."""
    ends = np.array([code.edges[0] - AROUND_NS, code.edges[-1] + AROUND_NS])
    low, high = (b[0] if math.isfinite(b[0]) else 0.0 for b in maps.bound(*key, np.array([code.centre])))
    at = maps.to_ticks(*key, ends + np.array([math.floor(-high), math.ceil(-low)]), made.tick0)
    if at is None:
        return made
    expected = maps.to_ticks(*key, code.edges[[0, -1]], made.tick0)
    first, last = made.left[0] - made.base, made.right[-1] - made.base
    assert expected is not None
    if expected[1] * made.sub < first or expected[0] * made.sub > last:
        return None  # it was played while this epoch was not recorded
    return made.between(at[0] * made.sub, at[1] * made.sub)


def _trace(made: Pieces, kind: str) -> Trace:
    """Power of these pieces, s since their ``tick0``: a gauge's samples, a wire's levels, and means over windows of all
    others.
    """
    if kind == WIRE:
        ends, level = sampled(made)
        return Trace(ends[:-1], ends[1:], level)
    left, right = ((t - made.base).astype(np.float64) * made.unit_s for t in (made.left, made.right))
    if kind == "gauge":
        return Trace(left, left, np.where(right > left, made.p0, np.nan))
    whole = (made.p0 == made.p1) & (right > left)
    return Trace(left[whole], right[whole], np.asarray(made.p0[whole]))


def _told(found: Found) -> Row:
    snr = found.snr
    return {
        "u_ns": math.ceil(found.u_s * 1e9), "rise_ns": round(found.rise_s * 1e9), "step_w": found.step_w,
        "snr_db": 10 * math.log10(snr) if 0 < snr < math.inf else None, "confidence": found.confidence,
    }  # fmt: skip


def _held(maps: Maps, key: Key, code: Code, tick: float, u: float, earliest: int) -> Row:
    """What the clock's readings say of the moment at which the marker was seen, and the verdict."""
    whole = math.floor(tick)
    seen = maps.to_host(*key, np.array([whole, whole + 1]))
    if seen is None:
        return {"verdict": "alone"}
    rate = float(seen[1] - seen[0])
    at = round(float(seen[0]) + (tick - whole) * rate)
    low, high = (float(b[0]) for b in maps.bound(*key, np.array([at])))
    unsure = SURE * u * rate
    lag = at - code.centre
    verdict = "agrees"
    if lag + high + unsure < earliest:
        verdict = "early"
    elif lag + low - unsure > USUAL_NS:
        verdict = "late"
    return {
        "seen_ns": at, "lag_ns": lag, "lag_lo_ns": _whole(lag + low - unsure), "lag_hi_ns": _whole(lag + high + unsure - earliest),
        "verdict": verdict,
    }  # fmt: skip


def _reading_of(readings: pa.Table, reading: Row) -> Row:
    """A reading with what the run declares of its clock."""
    clock = Clock()
    declared = {"tick_ns": reading["tick_ns"], "rho_ppm": clock.rho_ppm, "same_rate": clock.same_rate}
    for row in readings.select(["clock_of", *declared]).to_pylist():
        if row["clock_of"] == reading["clock_of"]:
            declared = {name: row[name] for name in declared}
            break
    return reading | declared


def _whole(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None


def _since(value: Any, start: int) -> Any:
    return value - start if start and value is not None else value
