"""SQL over one run or an archive of thousands: the views of ``views/*.sql``, made on demand."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from importlib.resources import files as resources
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from melt_stream.analysis import relations
from melt_stream.analysis.build import build
from melt_stream.analysis.catalogue import Entry, catalogue, entry_of, gist, outcome_of, seconds_of, state_of
from melt_stream.analysis.composed import COMPOSED, expanded, looked_at
from melt_stream.analysis.functions import energy_between_function, joules_u_function
from melt_stream.analysis.pack import pack
from melt_stream.analysis.relations import File, Lists
from melt_stream.analysis.sandbox import Named, inspect, opened, sealed
from melt_stream.analysis.sandbox import name as quote_name
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.analysis.surroundings import conditions, devices
from melt_stream.lock import Locked
from melt_stream.manifest import NAME
from melt_stream.run import Run, find

__all__ = ["VIEWS", "connect", "find", "views"]

log = logging.getLogger(__name__)
VIEWS = (
    "runs", "cells", "models", "devices", "conditions", "streams", "rails", "power", "events", "ops", "op_shares", *SCHEMAS, *COMPOSED,
)  # fmt: skip
"""Views that always exist; every other stream name has one too."""
_NO_FILES = ("runs", "cells", "models", "devices", "conditions")
_FROM_MANIFESTS = frozenset({*SCHEMAS, *_NO_FILES, "rails"})
_OF_RUNS = ("name", "stop_ns", "exit", "host", "imported", "cell", "study", "tags", "note")
_TEXTS = (
    "run",
    "device",
    "sensor",
    "rail",
    "boundary",
    "parent",
    "kind",
    "anchor",
    "clock",
    "instrument",
    "source",
)
_NUMBERS = (
    "period_ns", "window_ns", "gain", "offset", "resolution", "noise", "modulus", "nominal_volts", "full_scale",
)  # fmt: skip
_RENAMED = {
    "device": "device_of",
    "sensor": "sensor_of",
    "rail": "name",
    "clock": "clock_of",
    "period_ns": "sample_period_ns",
}


def connect(place: Path | str | Sequence[Run], query: str | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection that has the views over a run, an archive or some runs; all of them without a ``query``.

    With a ``query`` only the views that it names are made, and it must be one SELECT: else ``ConfigError``. The
    connection reads the files of these views and nothing else, writes nowhere, and is bounded in memory. A run that
    was interrupted or never packed is packed first where that is possible; of one that is being recorded the rows so
    far are shown. Keep the connection for as long as its results are read.
    """
    connection = opened()
    named = None if query is None else expanded(inspect(query, connection))
    entries = _entries(place, _parts(named))
    wanted = None if named is None or "tables" in named.tables else named.tables
    snapshots: list[str] = []
    try:
        if wanted is None or wanted - set(_NO_FILES):
            entries = [_readable(entry, snapshots) for entry in entries]
        used = _make_views(connection, entries, wanted)
        _add_functions(connection, entries, None if named is None else named.functions)
        sealed(connection, used)
    except BaseException:
        _remove(snapshots)
        raise
    if snapshots:
        weakref.finalize(connection, _remove, snapshots)
    return connection


def views(place: Path | str | Sequence[Run]) -> list[str]:
    """The names of the views there are, those of streams last."""
    return [*VIEWS, *sorted(_by_stream(relations.streams_of(_entries(place))))]


def _parts(named: Named | None) -> frozenset[str] | None:
    """What of the manifests a query needs, for ``catalogue``; None for all."""
    if named is None or "tables" in named.tables:
        return None
    tables, functions = named.tables, named.functions
    parts = {f"tables.{table}" for table in tables & SCHEMAS.keys()}
    for part, needed in (
        ("models", "models" in tables),
        ("streams", tables - _FROM_MANIFESTS or "energy_between" in functions),
        ("rails", tables & {"rails", "power"} or "energy_between" in functions),
        ("tables.factors", "joules_u_of" in functions),
    ):
        if needed:
            parts.add(part)
    for views, of_manifest in (
        ({"runs", "cells"}, _OF_RUNS),
        ({"devices"}, ("host", "devices")),
        ({"conditions"}, ("conditions",)),
    ):
        parts.update(of_manifest if tables & views else ())
    return frozenset(parts)


def _entries(place: Path | str | Sequence[Run], parts: Collection[str] | None = None) -> list[Entry]:
    if not isinstance(place, Path | str):
        return [entry_of(run.path) for run in place]
    folder = Path(place).resolve()
    return [entry_of(folder)] if (folder / NAME).is_file() else catalogue(folder, parts)


def _readable(entry: Entry, snapshots: list[str]) -> Entry:
    """Return the entry with Parquet files to read: the run's own, or made now beside the archive."""
    if entry["state"] == "packed":
        return entry
    path = Path(entry["path"])
    try:
        return entry_of(pack(path).path)
    except (Locked, OSError) as exc:
        log.debug("%s cannot be packed now: %s", path, exc)
    run = Run(path)
    if run.manifest.state == "packed":  # by whoever held the lock
        return entry_of(path)
    folder = tempfile.mkdtemp(prefix="melt-snapshot-")
    snapshots.append(folder)
    built = build(run, Path(folder))
    streams, tables = ({k: asdict(v) for k, v in d.items()} for d in (built.streams, built.tables))
    state = state_of(entry)
    return {**gist(run.manifest), "path": str(path), "state": state, "files_in": folder, "rails": built.rails,
            "streams": streams, "tables": tables}  # fmt: skip


def _remove(folders: Iterable[str]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _make_views(
    connection: duckdb.DuckDBPyConnection, entries: list[Entry], wanted: frozenset[str] | None
) -> list[str]:
    """Make views and the small tables below them; return the files they read."""
    streams = relations.streams_of(entries) if wanted is None or wanted - _FROM_MANIFESTS else []
    by_stream = _by_stream(streams)
    if wanted is None:
        wanted = frozenset([*VIEWS, *by_stream])
    _make_tables(connection, entries, streams, wanted)
    lists, made = Lists(), dict[str, str]()
    for view in sorted(
        wanted & {*VIEWS, *by_stream} - COMPOSED.keys()
    ):  # other names are of the query's own, or mistakes
        if view in SCHEMAS:
            made[view] = relations.derived(view, relations.tables_of(entries, view), lists)
        elif view == "events":
            made[view] = relations.events([f for f in streams if f.stored["role"] == "events"], lists)
        elif view in ("ops", "op_shares"):
            made[view] = relations.ops([f for f in streams if f.stored["role"] == "ops"], lists)
        elif view == "power":
            made[view] = relations.power([f for f in streams if f.is_power], lists)
        else:
            made[view] = relations.stream(view, by_stream[view], lists) if view in by_stream else ""
    for name, paths in lists.named.items():  # before the views: those are bound when they are made
        connection.execute(f"SET VARIABLE {name} = ?::VARCHAR[]", [paths])
    for view, rows in made.items():
        template = view if view in VIEWS else "stream"
        connection.execute(_text(template).replace("{name}", quote_name(view)).replace("{rows}", rows))
    for view in looked_at(wanted, by_stream):
        connection.execute(view)
    for view in sorted(wanted & COMPOSED.keys()):
        connection.execute(_text(view))
    return list(chain.from_iterable(lists.named.values()))


def _by_stream(streams: list[File]) -> dict[str, list[File]]:
    found: dict[str, list[File]] = {}
    for file in streams:
        if file.stored["stream"] not in VIEWS:
            found.setdefault(file.stored["stream"], []).append(file)
    return found


def _text(name: str) -> str:
    return (resources("melt_stream.analysis") / "views" / f"{name}.sql").read_text()


def _add_functions(
    connection: duckdb.DuckDBPyConnection, entries: list[Entry], called: frozenset[str] | None
) -> None:
    if called is None or "joules_u_of" in called:
        joules_u_function(entries, connection)
        connection.execute(_text("joules_u_of"))
    if called is None or "energy_between" in called:
        energy_between_function(entries, connection)


def _make_tables(
    connection: duckdb.DuckDBPyConnection, entries: list[Entry], streams: list[File], wanted: frozenset[str]
) -> None:
    if wanted & {"runs", "cells"}:
        _keep(connection, "_runs", _runs(entries))
    if "models" in wanted:
        _keep(connection, "_models", _models(entries))
    if "devices" in wanted:
        _keep(connection, "_devices", devices(entries))
    if "conditions" in wanted:
        _keep(connection, "_conditions", conditions(entries))
    if "streams" in wanted:
        _keep(connection, "_streams", _streams(streams))
    if wanted & {"rails", "power"}:
        _keep(connection, "_rails", _rails(entries))
    if wanted - {*_FROM_MANIFESTS, "streams"}:
        _keep(connection, "_files", relations.file_rows(streams))


def _keep(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("_given", table)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM _given")
    connection.unregister("_given")


def _runs(entries: list[Entry]) -> pa.Table:
    text, whole, real = pa.utf8(), pa.int64(), pa.float64()
    schema = pa.schema(
        [("run", text), ("name", text), ("state", text), ("started", pa.timestamp("ns")), ("seconds", real),
         ("exit", text), ("error", text), ("exit_status", whole), ("host", text), ("cpu", text), ("kernel", text),
         ("imported", text), ("study", text), ("cell", text), ("points", text), ("repetition", whole),
         ("attempt", whole), ("warmup", pa.bool_()), ("wanted", whole), ("outcome", text), ("failure", text),
         ("tags", pa.list_(text)), ("note", text), ("path", text)]
    )  # fmt: skip
    rows = [
        {
            **{name: entry[name] for name in ("name", "imported", "cell", "tags", "note", "path")},
            "run": entry["id"],
            "state": state_of(entry),
            "started": entry["start_utc_ns"],
            "seconds": seconds_of(entry),
            "exit": entry["exit"].get("reason"),
            "error": entry["exit"].get("error"),
            "exit_status": entry["exit"].get("status"),
            "host": entry["host"].get("name"),
            "cpu": entry["host"].get("cpu"),
            "kernel": entry["host"].get("kernel"),
            "outcome": outcome_of(entry),
            **_of_study(entry["study"]),
        }
        for entry in entries
    ]
    return pa.Table.from_pylist(rows, schema)


def _models(entries: list[Entry]) -> pa.Table:
    text, whole, real = pa.utf8(), pa.int64(), pa.float64()
    schema = pa.schema(
        [("run", text), ("instance", text), ("model", text), ("variant", text), ("quantisation", text), ("bits_per_weight", real),
         ("parameters", whole), ("weight_bytes", whole), ("bytes", whole), ("architecture", text), ("format", text),
         ("sha256", text), ("tool", text), ("tool_version", text), ("loss", text), ("recipe", text)]
    )  # fmt: skip
    rows = []
    for entry in entries:
        for instance, said in entry["models"].items():
            made = said.get("recipe", {})
            about = {"tool": made.get("tool"), "tool_version": made.get("version"), "loss": made.get("loss")}
            rows.append(
                {**said, **about, "run": entry["id"], "instance": instance, "recipe": json.dumps(made)}
            )
    return pa.Table.from_pylist(rows, schema)


def _of_study(study: dict[str, Any]) -> dict[str, Any]:
    plain = ("repetition", "attempt", "warmup", "wanted", "failure")
    return {
        "study": study.get("name", ""),
        "points": json.dumps(study["points"]) if study else None,
        **{name: study.get(name) for name in plain},
    }


def _streams(streams: list[File]) -> pa.Table:
    texts = ("instance", "stream", "device", "role", "clock")
    numbers = ("rows", "lost_rows", "start_ns", "stop_ns")
    schema = pa.schema(
        [("run", pa.utf8()), *((n, pa.utf8()) for n in texts), *((n, pa.int64()) for n in numbers)]
    )
    rows = [{"run": f.entry["id"], **{n: f.stored[n] for n in (*texts, *numbers)}} for f in streams]
    return pa.Table.from_pylist(rows, schema)


def _rails(entries: list[Entry]) -> pa.Table:
    schema = pa.schema(
        [*((n, pa.utf8()) for n in _TEXTS), *((n, pa.float64()) for n in _NUMBERS), ("estimated", pa.bool_())]
    )
    rows: list[dict[str, Any]] = [
        {n: rail.get(_RENAMED.get(n, n)) for n in schema.names} | {"run": entry["id"]}
        for entry in entries
        for rail in entry["rails"]
    ]
    return pa.Table.from_pylist(rows, schema)
