"""Makes the Parquet files of a run, raw and derived, in a folder of their own; ``pack`` puts them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from melt_stream.analysis.clocks import Maps, fit
from melt_stream.analysis.derive import derive
from melt_stream.analysis.digest import Digest
from melt_stream.analysis.encode import DERIVED, ParquetFile, described, write_table
from melt_stream.analysis.marked import marked
from melt_stream.analysis.rails import Energy, energy, rail_data
from melt_stream.analysis.raw import Raw
from melt_stream.analysis.spill import Part, Spilled, spill
from melt_stream.errors import DataError
from melt_stream.internal import GAPS, READINGS
from melt_stream.manifest import Stored
from melt_stream.run import Run

Progress = Callable[[str, int], None]
"""Told the name of each stream or table that was written, and its rows."""
_HOST = "host"
_T_NS = pa.field("t_ns", pa.int64(), metadata={**DERIVED, b"unit": b"ns"})
_ENERGY = (
    pa.field("joules", pa.float64(), metadata={**DERIVED, b"unit": b"J"}),
    pa.field("covered_ns", pa.int64(), metadata={**DERIVED, b"unit": b"ns"}),
)


@dataclass
class Built:
    """What was made: entries for the manifest, and what was found out on the way."""

    streams: dict[str, Stored]
    tables: dict[str, Stored]
    rails: list[dict[str, Any]]
    facts: list[dict[str, Any]]
    damage: dict[str, str]
    stop_ns: int


@dataclass
class _Making:
    """Where files are made, and of what."""

    run: Run
    folder: Path
    generation: int
    progress: Progress

    def path(self, name: str) -> Path:
        suffix = "" if self.generation == 1 else f".{self.generation}"
        return self.folder / f"{name}{suffix}.parquet"


def build(run: Run, folder: Path, *, generation: int = 1, progress: Progress | None = None) -> Built:
    """Write all Parquet files of ``run`` into ``folder``, which must be empty, and compare them with their source.

    Memory is bounded: what must be kept of a rail is memory-mapped below ``folder``. Raises ``DataError`` where a raw
    column read back is not what was put in.
    """
    making = _Making(run, folder, generation, progress or (lambda _name, _rows: None))
    raws = {key: raw for key in run.keys() if (raw := Raw(run, key)).readable}  # noqa: SIM118 - a run is no mapping
    rails = _last(raws["run.rails"].rows(), "sensor_of", "name") if "run.rails" in raws else []
    facts = raws["run.facts"].rows() if "run.facts" in raws else []
    spilled = [_spill(raw, rails, folder / "spill") for raw in raws.values()]
    readings, gaps = _table(raws, "run.readings", READINGS.schema), _table(raws, "run.gaps", GAPS.schema)
    datas = {
        (s.key, part.rail): rail_data(s, part, rails) for s in spilled for part in s.parts if part.numbers
    }
    found = marked(
        readings, _with_role(raws, "marker"), list(datas.values()), gaps, _with_role(raws, "logic")
    )
    readings = found.readings
    maps = fit(readings, sorted({(s.clock, epoch) for s in spilled for epoch in s.epochs} - {(_HOST, 0)}))
    streams = {}
    for s in spilled:
        energies = {
            part.rail: energy(part, datas[s.key, part.rail], _gaps_of(gaps, s))
            for part in s.parts
            if part.numbers
        }
        streams[s.key] = _write_stream(making, raws[s.key], s, maps, energies)
        _prove(making.folder / streams[s.key].file, s)
    stop_ns = _stop_ns(run, streams)
    tables = derive(
        run.id, run.manifest.start_ns, stop_ns, readings=readings, events=_with_role(raws, "events"), gaps=gaps,
        rails=list(datas.values()), oracles=_with_role(raws, "oracles"),
        account=dict(run.manifest.recipe.get("account") or {}), markers=found.table(run.id, run.manifest.start_ns),
        involved=_involved(run.manifest.recipe),
    )  # fmt: skip
    damage = _damage(run, raws)
    _count_lost(run, streams, gaps, damage)
    return Built(
        streams,
        {name: _write_table(making, name, t) for name, t in tables.items()},
        rails,
        facts,
        damage,
        stop_ns,
    )


def _involved(recipe: Mapping[str, Any]) -> dict[str, list[str]]:
    """By workload, the other devices that have a part in its requests, as the recipe says."""
    workloads = recipe.get("workloads") or {}
    return {name: list(entry.get("involves") or ()) for name, entry in workloads.items()}


def _spill(raw: Raw, rails: list[dict[str, Any]], folder: Path) -> Spilled:
    folder.mkdir(exist_ok=True)
    mine = [rail["name"] for rail in rails if rail["sensor_of"] == raw.key]
    return spill(raw.key, raw.schema, raw.batches(), mine, folder)


def _write_stream(
    making: _Making, raw: Raw, spilled: Spilled, maps: Maps, energies: dict[str | None, Energy]
) -> Stored:
    added = (_T_NS, *_ENERGY) if energies else (_T_NS,)
    schema = pa.schema([*spilled.schema, *added], spilled.schema.metadata)
    path = making.path(spilled.key)
    file, times = ParquetFile(path, schema), _Span()
    for part in spilled.parts:
        at = 0
        for batch in _rows_of(part, raw):
            t_ns = _t_ns(spilled, batch, maps, making.run.manifest.start_ns)
            times.add(t_ns)
            columns = [t_ns]
            if part.rail in energies:
                columns += energies[part.rail].cut(at, at + batch.num_rows)
            elif energies:
                columns += [pa.nulls(batch.num_rows, field.type) for field in _ENERGY]
            at += batch.num_rows
            file.write(pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema))
        file.end_group()
    file.close()
    making.progress(spilled.key, file.rows)
    meta = spilled.meta
    return Stored(
        path.name, file.rows, described(schema), meta.get("instance", ""), meta.get("stream", ""),
        meta.get("device", ""), meta.get("role", ""), spilled.clock, 0, times.first, times.last,
    )  # fmt: skip


def _write_table(making: _Making, name: str, table: pa.Table) -> Stored:
    path = making.path(name)
    write_table(path, table)
    making.progress(name, len(table))
    return Stored(path.name, len(table), described(table.schema))


def _rows_of(part: Part, raw: Raw) -> Iterator[pa.RecordBatch]:
    if part.rows is None:
        yield from raw.batches()
    else:
        with pa.memory_map(str(part.rows)) as file:
            yield from pa.ipc.open_stream(file)


def _t_ns(spilled: Spilled, batch: pa.RecordBatch, maps: Maps, start_ns: int) -> pa.Array:
    ticks = batch.column("tick").to_numpy()
    if spilled.clock == _HOST:
        return pa.array(ticks - start_ns)
    epochs = batch.column("epoch").to_numpy()
    t_ns, placed = np.zeros(len(ticks), np.int64), np.ones(len(ticks), bool)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        if (host_ns := maps.to_host(spilled.clock, int(epoch), ticks[mine])) is None:
            placed[mine] = False  # nothing ties this clock to the host's
        else:
            t_ns[mine] = host_ns - start_ns
    return pa.array(t_ns, mask=~placed)


@dataclass
class _Span:
    first: int | None = None
    last: int | None = None

    def add(self, t_ns: pa.Array) -> None:
        ends = pc.min_max(t_ns).as_py()
        if ends["min"] is not None:
            self.first = ends["min"] if self.first is None else min(self.first, ends["min"])
            self.last = ends["max"] if self.last is None else max(self.last, ends["max"])


def _prove(path: Path, spilled: Spilled) -> None:
    """Read a file again and compare every raw column with what was read from the source, rail by rail."""
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(columns=spilled.schema.names)
        rest: pa.RecordBatch | None = None
        for part in spilled.parts:
            again, wanted = Digest(spilled.schema.names), part.digest.rows
            while again.rows < wanted:
                batch = rest if rest is not None else next(batches, None)
                if batch is None:
                    break
                left = wanted - again.rows
                again.add(batch.slice(0, left))
                rest = batch.slice(left) if batch.num_rows > left else None
            if again.of() != part.digest.of():
                raise DataError(
                    f"{path}: expected the raw columns that were written, read others; is the disk sound?"
                )
        if rest is not None or next(batches, None) is not None:
            raise DataError(f"{path}: expected {sum(p.digest.rows for p in spilled.parts)} rows, read more")


def _stop_ns(run: Run, streams: dict[str, Stored]) -> int:
    """When the run ended, on the host's clock: as the manifest says, or with its last row."""
    if run.manifest.stop_ns is not None:
        return run.manifest.stop_ns
    return run.manifest.start_ns + max(
        (s.stop_ns for s in streams.values() if s.stop_ns is not None), default=0
    )


def _damage(run: Run, raws: dict[str, Raw]) -> dict[str, str]:
    damage = {**run.manifest.damage, **{key: raw.damage for key, raw in raws.items() if raw.damage}}
    if run.manifest.state != "packed":
        for key in {*run.keys(), *run.manifest.counts} - raws.keys():
            damage[key] = "its journal is missing or holds nothing readable"
    return damage


def _count_lost(run: Run, streams: dict[str, Stored], gaps: pa.Table, damage: dict[str, str]) -> None:
    for row in gaps.select(["instance_of", "stream", "lost_rows"]).to_pylist():
        stored = streams.get(f"{row['instance_of']}.{row['stream']}")
        if stored is not None and stored.lost_rows is not None:
            stored.lost_rows = None if row["lost_rows"] is None else stored.lost_rows + row["lost_rows"]
    for key in damage.keys() & streams.keys():
        stored, said = streams[key], run.manifest.counts.get(key)
        if stored.lost_rows is not None and said is not None:
            stored.lost_rows += said - stored.rows


def _gaps_of(gaps: pa.Table, spilled: Spilled) -> pa.Table:
    meta = spilled.meta
    mine = pc.and_(
        pc.equal(gaps["instance_of"], meta.get("instance", "")),
        pc.equal(gaps["stream"], meta.get("stream", "")),
    )
    return gaps.filter(mine)


def _table(raws: dict[str, Raw], key: str, schema: pa.Schema) -> pa.Table:
    return raws[key].table(schema) if key in raws else schema.empty_table()


def _with_role(raws: dict[str, Raw], role: str) -> list[pa.Table]:
    found = [raw for raw in raws.values() if (raw.schema.metadata or {}).get(b"role") == role.encode()]
    return [pa.Table.from_batches(list(raw.batches()), raw.schema) for raw in found]


def _last(rows: Iterable[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """One row for each value of ``keys``: a collector that was started again declares its rails again."""
    return list({tuple(row[key] for key in keys): row for row in rows}.values())
