"""SQL functions over the runs of a connection: ``joules_u_of`` and ``energy_between``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from duckdb.func import FunctionNullHandling, PythonUDFType

from melt_stream.analysis.between import energies
from melt_stream.analysis.catalogue import Entry
from melt_stream.analysis.clocks import Maps, fit
from melt_stream.analysis.integrate import Pieces, RailData, pieces
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.analysis.spill import VALUES
from melt_stream.analysis.uncertainty import joules_u_of
from melt_stream.errors import ConfigError

_KEYS = ["run", "device", "sensor", "rail", "request"]
_SUMS = ["joules", "seconds", "joules_per_clock", "joules_var"]
_ROW = (
    "STRUCT(run VARCHAR, device VARCHAR, sensor VARCHAR, rail VARCHAR, request BIGINT, joules DOUBLE, seconds DOUBLE, "
    "joules_per_clock DOUBLE, joules_var DOUBLE)[]"
)
Array = np.ndarray[Any, Any]


def joules_u_function(entries: Iterable[Entry], connection: duckdb.DuckDBPyConnection) -> None:
    """Register ``_joules_u_of``, which the macro ``joules_u_of`` calls with the rows of a group."""
    known = {entry["id"]: entry for entry in entries}

    @cache
    def factors(run: str) -> pa.Table:
        if run not in known or "factors" not in known[run]["tables"]:
            return SCHEMAS["factors"].empty_table()
        return pq.read_table(_file(known[run], known[run]["tables"]["factors"]))

    def of_groups(groups: pa.ChunkedArray) -> pa.Array:
        return pa.array([_joules_u(group, factors) for group in groups], pa.float64())

    connection.create_function(
        "_joules_u_of", of_groups, [duckdb.sqltype(_ROW)], duckdb.sqltype("DOUBLE"), type=PythonUDFType.ARROW, null_handling=FunctionNullHandling.SPECIAL
    )  # fmt: skip


def _joules_u(group: pa.ListScalar, factors: Any) -> float | None:
    if group.values is None:
        return None
    rows = pa.Table.from_struct_array(group.values)
    rows = rows.filter(pc.is_valid(rows["joules"]))
    if not len(rows):
        return None
    # The parts are linear in the rows: what one factor applies to can be summed before factors are looked at.
    sums = rows.group_by(_KEYS).aggregate([(name, "sum") for name in _SUMS])
    sums = sums.rename_columns([name.removesuffix("_sum") for name in sums.column_names])
    runs = pc.unique(sums["run"]).to_pylist()
    u: float | None = joules_u_of(sums.to_pylist(), pa.concat_tables([factors(run) for run in runs]))
    return u


def energy_between_function(entries: Iterable[Entry], connection: duckdb.DuckDBPyConnection) -> None:
    """Register ``energy_between(run, rail, start_ns, stop_ns)``."""
    known = {entry["id"]: entry for entry in entries}
    rail_of = cache(lambda run, rail: _RailEnergy(known[run], rail) if run in known else None)

    def between(runs: Any, rails: Any, starts: Any, stops: Any) -> pa.Array:
        columns = (runs, rails, starts, stops)
        table = pa.table(
            [pa.chunked_array(c) if isinstance(c, pa.Array) else c for c in columns],
            ["run", "rail", "a", "b"],
        )
        joules = np.full(len(table), np.nan)
        whole = pc.and_(pc.is_valid(table["a"]), pc.is_valid(table["b"])).to_numpy()
        for pair in table.select(["run", "rail"]).group_by(["run", "rail"]).aggregate([]).to_pylist():
            if None in pair.values() or (rail := rail_of(pair["run"], pair["rail"])) is None:
                continue
            mine = pc.and_(pc.equal(table["run"], pair["run"]), pc.equal(table["rail"], pair["rail"]))
            rows = np.flatnonzero(pc.fill_null(mine, fill_value=False).to_numpy() & whole)
            if len(rows):
                joules[rows] = rail.between(
                    table["a"].take(rows).to_numpy(), table["b"].take(rows).to_numpy()
                )
        return pa.array(joules, mask=np.isnan(joules))

    connection.create_function(
        "energy_between", between, [duckdb.sqltype(t) for t in ("VARCHAR", "VARCHAR", "BIGINT", "BIGINT")],
        duckdb.sqltype("DOUBLE"), type=PythonUDFType.ARROW, null_handling=FunctionNullHandling.SPECIAL,
    )  # fmt: skip


class _RailEnergy:
    """One rail of one packed run, integrated in its own time base as the analysis does."""

    def __init__(self, entry: Entry, name: str) -> None:
        facts = _rail(entry, name)
        key = facts["sensor_of"]
        path = _file(entry, entry["streams"][key])
        schema = pq.read_schema(path)
        wanted = [n for n in ("tick", "epoch", *VALUES) if n in schema.names]
        chosen = [("rail", "=", facts["name"])] if "rail" in schema.names else None
        table = pq.read_table(path, columns=wanted, filters=chosen)
        table = table.sort_by([(n, "ascending") for n in ("epoch", "tick") if n in wanted])
        meta = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
        units = {n: (schema.field(n).metadata or {}).get(b"unit", b"").decode() for n in wanted}
        values = {n: table[n].to_numpy() for n in wanted if n in VALUES}
        epoch = table["epoch"].to_numpy() if "epoch" in wanted else None
        data = RailData(
            facts, meta.get("clock", "host"), float(meta.get("tick_ns") or 1), facts["sample_period_ns"],
            table["tick"].to_numpy(), epoch, None, values, units,
        )  # fmt: skip
        self._clock, self._start_ns = data.clock, entry["start_ns"]
        self._pieces = pieces(data, _stream(entry, "run.gaps"))
        readings = _stream(entry, "run.readings")
        self._maps = (
            Maps() if readings is None else fit(readings, [(data.clock, made.epoch) for made in self._pieces])
        )

    def between(self, start_ns: Array, stop_ns: Array) -> Array:
        """Return J measured in each interval; NaN where nothing was."""
        joules, known = np.zeros(len(start_ns)), np.zeros(len(start_ns), bool)
        for made in self._pieces:
            if not self._maps.of(self._clock, made.epoch).placed:
                continue
            found = energies(made, start_ns, stop_ns, partial(self._positions, made))
            known |= ~np.isnan(found)
            joules += np.nan_to_num(found)
        return np.where(known, joules, np.nan)

    def _positions(self, made: Pieces, ns: Array) -> Array:
        placed = self._maps.of(self._clock, made.epoch)
        return placed.to_ticks(ns + self._start_ns, made.tick0) * made.sub


def _rail(entry: Entry, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        rail for rail in entry["rails"] if name in (rail["name"], f"{rail['sensor_of']}/{rail['name']}")
    ]
    if len(found) != 1:
        known = [f"{rail['sensor_of']}/{rail['name']}" for rail in entry["rails"]]
        raise ConfigError(
            f"energy_between: expected one rail of run {entry['id']}, one of {known}, got {name!r}"
        )
    return found[0]


def _stream(entry: Entry, key: str) -> pa.Table | None:
    return pq.read_table(_file(entry, entry["streams"][key])) if key in entry["streams"] else None


def _file(entry: Entry, stored: Any) -> Path:
    return Path(entry.get("files_in") or entry["path"], stored["file"])
