"""A rail's samples as pieces of power, by kind.

* ``gauge``: power is linear between samples.
* ``mean``: a sample holds over its window. Windows that overlap (a moving average) or nearly touch meet half-way, so
  that no instant counts twice; wider holes, up to three periods between samples, are bridged linearly as a gauge's.
* ``delta``: a sample's energy is spread evenly over its window, or over the time to its neighbour.
* ``counter``: the count is linear between changes, each stamped by the first sample that shows it. What came before
  the first change and after the last one belongs to intervals whose other end was not seen, and is not covered.

A step of more than three periods, a declared gap, and a value that is missing are not covered: never bridged. What
goes on unseen is different: a counter, and a mean since the last sample, tell the energy of a late step in full
(decision 0008); only where in it the energy was used is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.counting import increments
from melt_stream.analysis.kernels import fixed, place, sweep
from melt_stream.errors import DataError
from melt_stream.rail import goes_on as late_loses_nothing
from melt_stream.units import A, C, J, Unit, V, W

Array = np.ndarray[Any, Any]
SLACK = 3.0
"""Steps of up to so many periods are no gap."""
CLOSE = 0.5
"""Windows that miss or overlap each other by up to this part of one are taken to touch."""


@dataclass
class RailData:
    """The raw samples of one rail. Rows in tick order within an epoch; arrays may be memory maps."""

    facts: dict[str, Any]
    """Its row of ``run.rails``."""
    clock: str
    tick_ns: float
    period_ns: float | None
    tick: Array
    epoch: Array | None
    t_u: Array | None
    values: dict[str, Array]
    """Raw columns by name: ``watts`` | ``volts`` and ``amps`` | ``energy`` | ``charge`` (and ``volts``); NaN: unknown."""
    units: dict[str, str]

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.facts.get('sensor_of')}/{self.facts.get('name')}"

    def epochs(self) -> Iterator[tuple[int, slice]]:
        """Yield each run of rows of one epoch."""
        if self.epoch is None or not len(self.tick):
            yield 0, slice(0, len(self.tick))
            return
        cuts = np.flatnonzero(np.diff(self.epoch)) + 1
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(self.tick)], strict=True):
            yield int(self.epoch[start]), slice(start, stop)


@dataclass
class Pieces:
    """Power over one epoch of a rail, as the kernels take it; positions are ticks x ``sub`` since ``tick0``."""

    epoch: int
    tick0: int
    sub: int
    unit_s: float
    """Seconds of the stream's own time a position."""
    left: Array
    right: Array
    p0: Array
    p1: Array
    limit: float
    base: int
    """What ``left`` and ``right`` count from: positions are ``left - base``."""
    rate: Array = field(default_factory=lambda: fixed([], np.float64))
    """Variance per position, in (W x position)^2; empty: none."""
    late: Array = field(default_factory=lambda: np.zeros(0, bool))
    """Pieces of a rail that goes on unseen, read more than three periods late: their energy is known, not where in
    them it was used. Empty: none."""

    def positions(self, ticks: Array) -> Array:
        """Return the positions (float64) of ticks (int64)."""
        found = np.empty(len(ticks))
        place(fixed(ticks, np.int64), self.tick0, self.sub, found)
        return found

    def between(self, start: float, stop: float) -> Pieces:
        """Return the pieces that have something between two positions."""
        first = int(np.searchsorted(self.right, math.floor(start) + self.base, "right"))
        last = int(np.searchsorted(self.left, math.ceil(stop) + self.base, "left"))
        cut = slice(first, max(first, last))
        return replace(
            self, left=self.left[cut], right=self.right[cut], p0=self.p0[cut], p1=self.p1[cut], rate=self.rate[cut],
            late=self.late[cut],
        )  # fmt: skip

    def misplaced(self, edges: Array) -> Array:
        """Return the variance (J^2) of where in a late piece its energy was used, at edges in positions."""
        at = edges + self.base
        k = np.minimum(np.searchsorted(self.right, at, "left"), len(self.right) - 1)
        length = np.maximum(self.right[k] - self.left[k], 1)
        part = np.clip((at - self.left[k]) / length, 0.0, 1.0)
        step = np.nan_to_num(np.abs(np.diff(self.p0)))
        largest = np.maximum(np.concatenate([[0.0], step]), np.concatenate([step, [0.0]]))[k]
        off = part * (1 - part) * length * largest * self.unit_s
        return np.where(self.late[k], off**2 / 3, 0.0)

    def sweep(self, edges: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return what :func:`kernels.sweep` does, for edges in positions: J, s, J^2, count, W and W."""
        e, c, v, ends, after, before = sweep(
            self.left,
            self.right,
            self.p0,
            self.p1,
            self.limit,
            self.rate,
            self.base,
            fixed(edges, np.float64),
        )
        for found, unit in ((e, self.unit_s), (c, self.unit_s), (v, self.unit_s**2)):
            np.multiply(
                found, unit, out=found
            )  # in place: a new array's page faults take as long as the product
        return e, c, v, ends, after, before


def pieces(rail: RailData, gaps: pa.Table | None = None) -> list[Pieces]:
    """Return the rail's power, epoch by epoch. Raises ``DataError`` where its columns do not say energy or power."""
    make = _KINDS.get(str(rail.facts.get("kind")))
    if make is None:
        raise DataError(
            f"rail {rail.label}: expected a kind of {', '.join(_KINDS)}, got {rail.facts.get('kind')!r}; "
            "was the recording made by a newer version?"
        )
    found = []
    for epoch, rows in rail.epochs():
        ticks = np.asarray(rail.tick[rows])
        if len(ticks):
            made = make(rail, rows, epoch, ticks)
            found.append(_without(made, _gaps(rail, epoch, gaps)))
    return found


def watts(rail: RailData, rows: slice) -> Array:
    """Return power in W (float64). Raises ``DataError`` where there is neither watts nor volts and amps."""
    if "watts" in rail.values:
        return _scaled(rail, "watts", W, rows)
    if {"volts", "amps"} <= rail.values.keys():
        return np.asarray(_scaled(rail, "volts", V, rows) * _scaled(rail, "amps", A, rows))
    raise DataError(
        f"rail {rail.label} of kind {rail.facts['kind']}: expected a column watts, or volts and amps, "
        f"got {sorted(rail.values)}"
    )


def period_ticks(rail: RailData, ticks: Array) -> float:
    """The declared period in ticks, else the median step; infinite where there are too few samples to tell."""
    declared = rail.period_ns or rail.facts.get("sample_period_ns")
    if declared:
        return float(declared) / rail.tick_ns
    steps = np.diff(ticks[: 1 << 20])
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else math.inf


def goes_on(facts: Mapping[str, Any]) -> bool:
    """Tell whether a late reading of the rail with these facts loses nothing."""
    return late_loses_nothing(facts.get("kind"), facts.get("window_ns"), facts.get("anchor", "end"))


def silent(rail: RailData) -> list[tuple[int, int, int, float]]:
    """Return the steps of more than three periods: epoch, tick before, tick after, and their length in periods."""
    found = []
    for epoch, rows in () if goes_on(rail.facts) else rail.epochs():
        ticks = np.asarray(rail.tick[rows])
        if len(ticks) < 2:
            continue
        period = period_ticks(rail, ticks)
        found += [
            (epoch, int(ticks[k]), int(ticks[k + 1]), float(ticks[k + 1] - ticks[k]) / period)
            for k in np.flatnonzero(np.diff(ticks) > SLACK * period)
        ]
    return found


def _scaled(rail: RailData, column: str, base: Unit, rows: slice) -> Array:
    factor = Unit(rail.units.get(column, base.code)).to(base)
    values = np.asarray(rail.values[column][rows])
    return values.astype(np.float64) * factor if factor != 1.0 else np.asarray(values, np.float64)


def _gauge(rail: RailData, rows: slice, epoch: int, ticks: Array) -> Pieces:
    power = fixed(watts(rail, rows), np.float64)
    at = fixed(ticks, np.int64)
    limit = SLACK * period_ticks(rail, ticks)
    return Pieces(
        epoch, int(ticks[0]), 1, rail.tick_ns * 1e-9, at[:-1], at[1:], power[:-1], power[1:], limit, int(ticks[0])
    )  # fmt: skip


def _mean(rail: RailData, rows: slice, epoch: int, ticks: Array) -> Pieces:
    sub, at = _grid(rail, ticks)
    left, right = _windows(rail, at, sub, ticks)
    power = watts(rail, rows)
    left, right = _meet(left, right)
    hole = left[1:] > right[:-1]
    bridged = hole & (np.diff(at) <= SLACK * period_ticks(rail, ticks) * sub)
    where = np.flatnonzero(bridged) + 1
    pieces_of = (
        np.insert(left, where, right[where - 1]), np.insert(right, where, left[where]),
        np.insert(power, where, power[where - 1]), np.insert(power, where, power[where]),
    )  # fmt: skip
    made = _laid(rail, epoch, ticks, sub, *pieces_of)
    if goes_on(rail.facts):
        made.late = (made.right - made.left) > SLACK * period_ticks(rail, ticks) * sub
    return made


def _delta(rail: RailData, rows: slice, epoch: int, ticks: Array) -> Pieces:
    sub, at = _grid(rail, ticks)
    left, right = _meet(*_windows(rail, at, sub, ticks))
    power = _power(_joules(rail, rows), left, right, rail.tick_ns * 1e-9 / sub)
    return _laid(rail, epoch, ticks, sub, left, right, power, power)


def _counter(rail: RailData, rows: slice, epoch: int, ticks: Array) -> Pieces:
    column = "energy" if "energy" in rail.values else "charge"
    raw = np.asarray(rail.values[column][rows])
    known = np.isfinite(raw) if raw.dtype.kind == "f" else np.ones(len(raw), bool)
    raw, at = raw[known], ticks[known]
    sub, _ = _grid(rail, ticks)
    steps = np.diff(raw)  # in the column's own integers, before any float
    changed = np.flatnonzero(steps) + 1
    if len(changed) and changed[0] == 1 and np.median(np.diff(changed, prepend=0)) == 1:
        changed = np.concatenate([[0], changed])  # changes between any two samples: the first was fresh
    if len(changed) < 2:
        return _laid(rail, epoch, ticks, sub, *(np.zeros(0),) * 4)
    amounts = np.diff(raw[changed])
    left, right = at[changed[:-1]], at[changed[1:]]
    counts = increments(amounts, right - left, rail.facts.get("modulus"), drains=column == "charge")
    joules = counts * _joules_per_count(rail, column, rows, known, changed)
    power = _power(joules, left, right, rail.tick_ns * 1e-9)
    made = _laid(rail, epoch, ticks, sub, (left - ticks[0]) * sub, (right - ticks[0]) * sub, power, power)
    unseen = at[:-1][np.diff(at) > SLACK * period_ticks(rail, ticks)]  # it counted on while nobody looked
    unseen = unseen[(unseen >= left[0]) & (unseen < right[-1])]
    made.late = np.zeros(len(power), bool)
    made.late[np.searchsorted(right, unseen, "right")] = True
    return made


def _power(joules: Array, left: Array, right: Array, unit_s: float) -> Array:
    """Energies over their windows, in W; where a window has no length its energy goes to the one before."""
    long = right > left
    if not long.all():
        group = np.maximum(np.cumsum(long) - 1, 0)
        joules = np.bincount(group, joules, max(int(np.sum(long)), 1))[group]
    power = np.full(len(left), np.nan)
    power[long] = joules[long] / ((right - left)[long] * unit_s)
    return power


_KINDS = {"gauge": _gauge, "mean": _mean, "delta": _delta, "counter": _counter}


def _grid(rail: RailData, ticks: Array) -> tuple[int, Array]:
    """Positions finer than ticks, so that half a window is a whole number: about 1 ns, in less than 2^53."""
    span = max(int(ticks[-1]) - int(ticks[0]), 1)
    sub = max(1, min(math.ceil(rail.tick_ns), 2**52 // span))
    return sub, (ticks.astype(np.int64) - int(ticks[0])) * sub


def _windows(rail: RailData, at: Array, sub: int, ticks: Array) -> tuple[Array, Array]:
    """Where each sample's window starts and stops, in positions, by its length and anchor."""
    anchor = str(rail.facts.get("anchor") or "end")
    if window := rail.facts.get("window_ns"):
        length = window / rail.tick_ns * sub
        before = {"start": 0.0, "centre": length / 2, "end": length}[anchor]
        left = at - round(before)
        return left, left + round(length)
    return _neighbours(anchor, at, period_ticks(rail, ticks) * sub, all_of_it=goes_on(rail.facts))


def _neighbours(anchor: str, at: Array, period: float, *, all_of_it: bool) -> tuple[Array, Array]:
    """Windows that reach to the next sample; at the ends, and where that is too far, they are a period long."""
    step = np.diff(at).astype(np.float64)
    usual = step if all_of_it else np.where(step <= SLACK * period, step, period)
    edge = period if math.isfinite(period) else 0.0
    before = np.rint(np.concatenate([[edge], usual])).astype(np.int64)
    after = np.rint(np.concatenate([usual, [edge]])).astype(np.int64)
    if anchor == "start":
        return at, at + after
    if anchor == "centre":
        return at - before // 2, at + (after - after // 2)
    return at - before, at


def _meet(left: Array, right: Array) -> tuple[Array, Array]:
    """Let windows that overlap, or nearly touch, meet half-way."""
    left, right = left.astype(np.int64), right.astype(np.int64)
    hole = left[1:] - right[:-1]
    near = hole <= CLOSE * np.minimum(right - left, np.roll(right - left, 1))[1:]
    middle = right[:-1] + hole // 2
    left[1:] = np.where(near, middle, left[1:])
    right[:-1] = np.where(near, middle, right[:-1])
    return left, np.maximum(left, right)


def _joules(rail: RailData, rows: slice) -> Array:
    if "energy" in rail.values:
        return _scaled(rail, "energy", J, rows)
    if "charge" in rail.values:
        return np.asarray(_scaled(rail, "charge", C, rows) * _volts(rail, rows))
    raise DataError(
        f"rail {rail.label} of kind {rail.facts['kind']}: expected a column energy or charge, got {sorted(rail.values)}"
    )


def _volts(rail: RailData, rows: slice) -> Array:
    if "volts" in rail.values:
        return _scaled(rail, "volts", V, rows)
    nominal = rail.facts.get("nominal_volts")
    if not nominal:
        raise DataError(
            f"rail {rail.label}: expected volts, or nominal_volts, to turn its charge into joules, got neither"
        )
    return np.full(rows.stop - rows.start, float(nominal))


def _joules_per_count(
    rail: RailData, column: str, rows: slice, known: Array, changed: Array
) -> Array | float:
    """J a count of each change; for charge, with the mean voltage of its two ends."""
    if column == "energy":
        return Unit(rail.units.get(column, "J")).to(J)
    volts = _volts(rail, rows)[known][changed]
    return np.asarray((volts[1:] + volts[:-1]) / 2 * Unit(rail.units.get(column, "C")).to(C))


def _laid(
    rail: RailData, epoch: int, ticks: Array, sub: int, left: Array, right: Array, p0: Array, p1: Array
) -> Pieces:
    return Pieces(
        epoch, int(ticks[0]), sub, rail.tick_ns * 1e-9 / sub, fixed(left, np.int64), fixed(right, np.int64),
        fixed(p0, np.float64), fixed(p1, np.float64), math.inf, 0,
    )  # fmt: skip


def _gaps(rail: RailData, epoch: int, gaps: pa.Table | None) -> list[tuple[int, int]]:
    """Start and stop, in ticks, of what was declared missing in this rail's stream."""
    if gaps is None or not len(gaps):
        return []
    names = zip(gaps["instance_of"].to_pylist(), gaps["stream"].to_pylist(), strict=True)
    mine = [k for k, (i, s) in enumerate(names) if f"{i}.{s}" == rail.facts.get("sensor_of")]
    rows = gaps.take(pa.array(mine, pa.int64())).select(["epoch_of", "start", "stop"]).to_pylist()
    placed = [r for r in rows if (r["epoch_of"] or 0) == epoch and r["start"] is not None]
    return [(r["start"], r["start"] if r["stop"] is None else r["stop"]) for r in placed]


def _without(made: Pieces, gaps: list[tuple[int, int]]) -> Pieces:
    """Take out every piece that a gap lies in or reaches into."""
    if not gaps:
        return made
    power = made.p0.copy()
    for start, stop in gaps:
        a, b = ((t - made.tick0) * made.sub + made.base for t in (start, stop))
        power[np.searchsorted(made.right, a, "right") : np.searchsorted(made.left, b, "left")] = np.nan
    made.p0 = fixed(power, np.float64)
    return made
