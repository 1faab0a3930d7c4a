"""Reads a packed run for its report: every rail's power, the other streams, the derived tables, the manifest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.report.series import SILENCE, Floats, Ints, Series, slopes, thin
from melt_stream.analysis.summary import Summary, summarise
from melt_stream.internal import READINGS
from melt_stream.manifest import Manifest
from melt_stream.run import Run
from melt_stream.units import Unit, W

LINES = 16
"""Series drawn in one panel at most."""
NOT_DRAWN = frozenset({"tick", "epoch", "t", "t_ns", "t_u", "joules", "covered_ns"})

KEY = "run.readings"
IN_POWER = frozenset({"watts", "energy", "charge"})
"""Columns of a power stream that its rails' lines show already."""


@dataclass(frozen=True)
class Group:
    """Series that share a panel."""

    key: str
    title: str
    unit: str
    series: list[Series]
    left_out: int = 0
    """Series beyond ``LINES``, which are in the run but not drawn."""
    zero: Sequence[str] = ()
    """Series that were 0 throughout, which are said and not drawn."""


@dataclass(frozen=True)
class Material:
    """All that the page says."""

    run: str
    manifest: Manifest
    summary: Summary
    end_s: float
    power: dict[str, list[Series]]
    """By device, the account's rail first."""
    streams: list[Group]
    tables: dict[str, pa.Table]
    """The derived tables by name."""
    rails: list[dict[str, Any]]
    readings: pa.Table
    """Clock readings, as they were recorded."""


DERIVED = ("requests", "phases", "tokens", "gaps", "clocks", "oracles", "factors")


def gather(run: Run) -> Material:
    """Read what the report needs, one stream at a time and thinned out at once."""
    tables = {name: run.table(name) for name in DERIVED}
    rails = run.manifest.rails
    account = {(p["device"], p["sensor"], p["rail"]) for p in tables["phases"].to_pylist()}
    power = _power(run, rails, account)
    keys = [key for key in run.keys() if not key.startswith("run.")]  # noqa: SIM118 (a method, not a mapping)
    measured_by = {rail["sensor_of"] for rail in rails}
    streams = [g for key in keys for g in _groups(run, key, key in measured_by)]
    readings = run.table(KEY) if KEY in run.keys() else READINGS.schema.empty_table()  # noqa: SIM118
    end_s = max(_last(readings, run.manifest), _end(tables, [*power.values(), *(g.series for g in streams)]))
    return Material(run.id, run.manifest, summarise(run), end_s, power, streams, tables, rails, readings)


def _end(tables: Mapping[str, pa.Table], groups: Sequence[Sequence[Series]]) -> float:
    phases = tables["phases"]["stop_ns"]
    ends = [pc.max(phases).as_py() / 1e9] if len(phases) else []
    ends += [float(s.t_s[-1]) for series in groups for s in series]
    return max(ends, default=1.0)


def _last(readings: pa.Table, said: Manifest) -> float:
    """The burst of readings at the run's end comes after the last sample; s, 0 where there is none."""
    last = pc.max(readings["not_after"]).as_py()
    return 0.0 if last is None or said.stop_ns is None else (min(last, said.stop_ns) - said.start_ns) / 1e9


def _power(
    run: Run, rails: list[dict[str, Any]], account: set[tuple[str, str, str]]
) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for rail in rails:
        if rail["sensor_of"] in run.keys() and (series := _rail(run, rail, account)):  # noqa: SIM118
            found.setdefault(rail["device_of"], []).append(series)
    for mine in found.values():
        mine.sort(key=lambda s: not s.account)
    return dict(sorted(found.items()))


def _rail(run: Run, rail: dict[str, Any], account: set[tuple[str, str, str]]) -> Series | None:
    key = rail["sensor_of"]
    schema = run.schema(key)
    measured = _power_columns(rail["kind"], schema)
    names = ["t_ns", *measured, *(["rail"] if "rail" in schema.names else [])]
    data = _placed(run.table(key, names))
    if "rail" in names:
        data = data.filter(pc.equal(data["rail"], rail["name"]))
    t_ns, watts = _watts(data, schema)
    if not np.isfinite(watts).any():
        return None
    period_ns = rail["sample_period_ns"] or _period(schema)
    t_s, values, gaps = thin(t_ns, watts, period_ns)
    step = rail["kind"] != "gauge"
    of_account = (rail["device_of"], key, rail["name"]) in account
    if of_account:
        gaps = np.concatenate([gaps, _before_and_after(t_ns, period_ns, run.manifest)])
    name = f"{key}/{rail['name']}" + (", account" if of_account else "")
    return Series(name, "W", t_s, values, len(t_ns), step, bool(rail["estimated"]), of_account, gaps)


def _before_and_after(t_ns: Ints, period_ns: float | None, said: Manifest) -> Ints:
    """The parts of the run before a rail's first sample and after its last, where they are longer than a gap is."""
    period = period_ns or (float(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 0.0)
    end = int(t_ns[-1]) if said.stop_ns is None else said.stop_ns - said.start_ns
    sides = [(0, int(t_ns[0])), (int(t_ns[-1]), end)]
    return np.array([s for s in sides if s[1] - s[0] > SILENCE * period], np.int64).reshape(-1, 2)


def _power_columns(kind: str, schema: pa.Schema) -> tuple[str, ...]:
    """The columns that say a rail's power; every power stream has the running energy."""
    of_gauges = [] if kind in ("delta", "counter") else [("watts",), ("volts", "amps")]
    return next((c for c in of_gauges if set(c) <= set(schema.names)), ("joules", "covered_ns"))


def _placed(data: pa.Table) -> pa.Table:
    """The rows whose time is known (no reading ties some clocks to the host's), in its order."""
    placed = data.filter(pc.is_valid(data["t_ns"]))
    t_ns = _integers(placed["t_ns"])
    return placed if np.all(t_ns[1:] >= t_ns[:-1]) else placed.take(np.argsort(t_ns, kind="stable"))


def _watts(data: pa.Table, schema: pa.Schema) -> tuple[Ints, Floats]:
    t_ns = _integers(data["t_ns"])
    if "watts" in data.column_names:
        return t_ns, _floats(data["watts"]) * _factor(schema.field("watts"), W)
    if "volts" in data.column_names and "amps" in data.column_names:
        volts = _floats(data["volts"]) * _factor(schema.field("volts"), Unit("V"))
        return t_ns, volts * _floats(data["amps"]) * _factor(schema.field("amps"), Unit("A"))
    data = data.filter(pc.is_valid(data["joules"]))
    return slopes(_integers(data["t_ns"]), _floats(data["joules"]), _integers(data["covered_ns"]))


def _groups(run: Run, key: str, power: bool) -> Iterator[Group]:
    """The columns of a stream that have a unit, by unit; its columns of text tell series apart."""
    schema = run.schema(key)
    if (schema.metadata or {}).get(b"role") in (b"events", b"oracles") or "t_ns" not in schema.names:
        return
    by_unit: dict[str, list[str]] = {}
    for field in schema:
        unit = _unit(field)
        if (
            unit
            and field.name not in (NOT_DRAWN | IN_POWER if power else NOT_DRAWN)
            and _is_number(field.type)
        ):
            by_unit.setdefault(unit, []).append(field.name)
    parts = list(_parts(_placed(run.table(key)), schema)) if by_unit else []
    for unit, columns in by_unit.items():
        together = [columns] if len(parts) == 1 else [[column] for column in columns]
        for mine in together:
            if group := _group(key, unit, mine, parts, _period(schema)):
                yield group


def _group(
    key: str, unit: str, columns: list[str], parts: list[tuple[str, pa.Table]], period_ns: float | None
) -> Group | None:
    found: list[Series] = []
    zero: list[str] = []
    for column in columns:
        for part, rows in parts:
            values = _floats(rows[column])
            if _is_a_count(unit, rows[column], values) or not np.isfinite(values).any():
                continue
            name = part if part and len(columns) == 1 else f"{part} {column}".strip()
            if not np.nan_to_num(values).any():
                zero.append(name)
            elif len(found) < LINES or len(parts) == 1:
                t_s, thinned, gaps = thin(_integers(rows["t_ns"]), values, period_ns)
                found.append(Series(name, unit, t_s, thinned, len(rows), gaps=gaps))
    if not found and not zero:
        return None
    instance, _, stream = key.partition(".")
    whose = instance if instance == stream else key
    title = f"{whose}: {', '.join(columns)}" if len(columns) < 4 else whose
    left_out = len(columns) * len(parts) - len(found) - len(zero) if len(found) == LINES else 0
    return Group(f"{key}-{columns[0]}", title, unit, found, left_out, zero) if found else None


def _is_a_count(unit: str, column: pa.ChunkedArray, values: Floats) -> bool:
    """Whether it is a running count of time, whose shares are columns of their own."""
    whole = pa.types.is_integer(column.type) and unit.endswith("s")
    return bool(whole and (np.diff(values) >= 0).all())


def _parts(data: pa.Table, schema: pa.Schema) -> Iterator[tuple[str, pa.Table]]:
    """The stream's rows by what stands before its first measured column: a zone, a core, a process."""
    before = list(itertools.takewhile(lambda f: not _unit(f) or f.name in NOT_DRAWN, schema))
    names = [
        f.name
        for f in before
        if f.name not in NOT_DRAWN and (_is_text(f.type) or pa.types.is_integer(f.type))
    ]
    if not names or not len(data):
        yield "", data
        return
    distinct = data.select(names).group_by(names).aggregate([]).to_pylist()
    for values in sorted(
        distinct, key=lambda v: [(x is None, isinstance(x, str), x or 0) for x in v.values()]
    ):
        mask: pa.ChunkedArray | None = None
        for name, value in values.items():
            same = pc.is_null(data[name]) if value is None else pc.equal(data[name], value)
            mask = same if mask is None else pc.and_kleene(mask, same)
        words = [str(v) if isinstance(v, str) else f"{k} {v}" for k, v in values.items() if v is not None]
        yield " ".join(words), data.filter(mask)


def _unit(field: pa.Field) -> str:
    metadata: dict[bytes, bytes] = field.metadata or {}
    return metadata.get(b"unit", b"").decode()


def _period(schema: pa.Schema) -> float | None:
    text = (schema.metadata or {}).get(b"period_ns", b"").decode()
    return float(text) if text else None


def _factor(field: pa.Field, base: Unit) -> float:
    return Unit(_unit(field) or base.code).to(base)


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values


def _integers(column: pa.ChunkedArray) -> Ints:
    values: Ints = column.cast(pa.int64()).to_numpy()
    return values


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
