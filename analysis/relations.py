"""The rows behind the views, as SQL over the Parquet files of many runs, grouped by their columns.

Files with the same columns are read by one ``read_parquet`` of a list in a variable; groups are cast to common types and units and put
together by ``UNION ALL``. (Globbing with ``union_by_name`` takes 8 s at 5,000 runs and mixes types silently.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from melt_stream.analysis.catalogue import Entry
from melt_stream.analysis.encode import sql_type
from melt_stream.analysis.sandbox import name as quote_name
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.errors import ConfigError
from melt_stream.events import EVENTS
from melt_stream.ops import OPS
from melt_stream.units import Unit

Columns = tuple[tuple[str, str, str], ...]
_FLOATS = ("DOUBLE", "FLOAT")
_INTEGERS = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT")
_ENERGY = (("joules", "DOUBLE"), ("covered_ns", "BIGINT"))


@dataclass(frozen=True)
class File:
    """One Parquet file and whose it is."""

    path: str
    entry: Entry
    key: str
    stored: Mapping[str, Any]

    @property
    def is_power(self) -> bool:
        """Whether its rows have running joules; no raw column can have that name."""
        return ",joules DOUBLE J," in self.stored["columns"]


@dataclass
class Lists:
    """The files that views read, in variables of their connection: as text in a view they are parsed at every use.

    1,000 paths took 18 ms to make a view, 18 ms to let a connection read them, and 10 ms of each query.
    """

    named: dict[str, list[str]] = field(default_factory=dict)

    def add(self, files: Iterable[File]) -> str:
        """Keep a list; return how SQL says it."""
        name = f"files_{len(self.named)}"
        self.named[name] = [file.path for file in files]
        return f"getvariable('{name}')"


def streams_of(entries: Iterable[Entry]) -> list[File]:
    """All stream files of some runs, oldest run first."""
    return [
        File(f"{entry.get('files_in', entry['path'])}/{stored['file']}", entry, key, stored)
        for entry in entries
        for key, stored in entry["streams"].items()
    ]


def tables_of(entries: Iterable[Entry], table: str) -> list[File]:
    """The files of one derived table of some runs."""
    return [
        File(f"{entry.get('files_in', entry['path'])}/{stored['file']}", entry, table, stored)
        for entry in entries
        if (stored := entry["tables"].get(table)) is not None and stored["rows"]
    ]


def derived(table: str, files: list[File], lists: Lists) -> str:
    """Rows of a derived table; a column that an older file lacks is null."""
    schema = SCHEMAS[table]
    parts = [_empty((f.name, sql_type(f.type)) for f in schema)]
    for columns, group in _groups(files):
        have = {name: kind for name, kind, _ in columns}
        picked = (
            _cast(quote_name(f.name), have.get(f.name), sql_type(f.type)) + f" AS {quote_name(f.name)}"
            for f in schema
        )
        parts.append(f"SELECT {', '.join(picked)} FROM read_parquet({lists.add(group)})")
    return _union(parts)


def events(files: list[File], lists: Lists) -> str:
    """Rows of the view ``events``."""
    own = [(f.name, sql_type(f.type)) for f in EVENTS.schema if f.name != "tick"]
    head = ["run", "instance", "stream", "device", "clock"]
    parts = [_empty([*((name, "VARCHAR") for name in head), ("t", "TIMESTAMP_NS"), ("t_ns", "BIGINT"), *own])]
    for columns, group in _groups(files):
        have = {name: kind for name, kind, _ in columns}
        picked = [f"{_event(name, have.get(name), kind)} AS {quote_name(name)}" for name, kind in own]
        parts.append(
            f"SELECT {', '.join(f'f.{n}' for n in head)}, {_T}, p.t_ns, {', '.join(picked)} FROM {_joined(lists.add(group))}"
        )
    return _union(parts)


def ops(files: list[File], lists: Lists) -> str:
    """Rows of the view ``ops``."""
    own = [(f.name, sql_type(f.type)) for f in OPS.schema if f.name != "tick"]
    head = ["run", "instance", "device"]
    parts = [_empty([*((name, "VARCHAR") for name in head), ("t_ns", "BIGINT"), *own])]
    for columns, group in _groups(files):
        have = {name: kind for name, kind, _ in columns}
        picked = [f"{_cast(f'p.{quote_name(n)}', have.get(n), kind)} AS {quote_name(n)}" for n, kind in own]
        parts.append(
            f"SELECT {', '.join(f'f.{n}' for n in head)}, p.t_ns, {', '.join(picked)} FROM {_joined(lists.add(group))}"
        )
    return _union(parts)


def power(files: list[File], lists: Lists) -> str:
    """Rows of the view ``power``."""
    head = ("run", "device", "sensor", "rail", "boundary")
    tail = (("watts", "DOUBLE"), ("amps", "DOUBLE"), ("volts", "DOUBLE"), *_ENERGY)
    parts = [_empty([*((n, "VARCHAR") for n in head), ("t", "TIMESTAMP_NS"), ("t_ns", "BIGINT"), *tail])]
    for columns, group in _groups(files):
        units = {name: unit for name, _, unit in columns}
        rail = "p.rail" if "rail" in units else "r.rail"
        same = " AND r.rail = p.rail" if "rail" in units else ""
        values = ", ".join(f"{_measured(name, units)} AS {name}" for name in ("watts", "amps", "volts"))
        parts.append(
            f"SELECT f.run, f.device, f.key AS sensor, {rail} AS rail, r.boundary, {_T}, p.t_ns, {values}, "
            f"p.joules, p.covered_ns FROM {_joined(lists.add(group))} "
            f"LEFT JOIN _rails r ON r.run = f.run AND r.sensor = f.key{same}"
        )
    return _union(parts)


def stream(name: str, files: list[File], lists: Lists) -> str:
    """Rows of the view of one stream name; raises ``ConfigError`` where runs disagree on a column's meaning."""
    wanted = _common(name, files)
    parts = []
    for columns, group in _groups(files):
        have = {column: (kind, unit) for column, kind, unit in columns}
        picked = [
            f"{_converted(c, have.get(c), kind, unit)} AS {quote_name(c)}"
            for c, (kind, unit) in wanted.items()
        ]
        parts.append(
            f"SELECT f.run, f.instance, f.device, {_T}, p.t_ns, {', '.join(picked)} FROM {_joined(lists.add(group))}"
        )
    return _union(parts)


_T = "make_timestamp_ns(f.start_utc_ns + p.t_ns) AS t"


def file_rows(files: list[File]) -> pa.Table:
    """The table ``_files`` that gives a file's rows their run."""
    names = ("instance", "stream", "device", "clock")
    texts = {
        "file": [file.path for file in files],
        "run": [file.entry["id"] for file in files],
        "key": [file.key for file in files],
        **{name: [file.stored[name] for file in files] for name in names},
    }
    whole = {name: [file.entry[name] for file in files] for name in ("start_utc_ns", "start_ns")}
    columns = [
        *(pa.array(c, pa.utf8()) for c in texts.values()),
        *(pa.array(c, pa.int64()) for c in whole.values()),
    ]
    return pa.table(columns, [*texts, *whole])


def _groups(files: Iterable[File]) -> Iterator[tuple[Columns, list[File]]]:
    groups: dict[str, list[File]] = {}
    for file in files:
        groups.setdefault(file.stored["columns"], []).append(file)
    for columns, group in groups.items():
        yield tuple(_column(text) for text in columns.split(",")), group


def _column(text: str) -> tuple[str, str, str]:
    name, kind, unit = (*text.split(" "), "")[:3]
    return name, kind, unit


def _joined(paths: str) -> str:
    return f"read_parquet({paths}, filename = true) p JOIN _files f ON f.file = p.filename"


def _union(parts: list[str]) -> str:
    return "(" + "\nUNION ALL ".join(parts) + ")"


def _empty(columns: Iterable[tuple[str, str]]) -> str:
    return f"SELECT {', '.join(f'NULL::{kind} AS {quote_name(name)}' for name, kind in columns)} WHERE false"


def _cast(expression: str, kind: str | None, wanted: str) -> str:
    if kind is None:
        return f"NULL::{wanted}"
    return expression if kind == wanted else f"{expression}::{wanted}"


def _event(name: str, kind: str | None, wanted: str) -> str:
    expression = _cast(f"p.{quote_name(name)}", kind, wanted)
    return f"({expression} - f.start_ns)" if name == "arrival_ns" else expression


def _measured(name: str, units: Mapping[str, str]) -> str:
    """Watts, amps or volts of a power stream, from what it has."""
    base = {"watts": "W", "amps": "A", "volts": "V"}[name]
    if name in units:
        return f"p.{name}::DOUBLE{_times(units[name], base)}"
    if name == "watts" and {"volts", "amps"} <= units.keys():
        return f"p.volts::DOUBLE{_times(units['volts'], 'V')} * p.amps::DOUBLE{_times(units['amps'], 'A')}"
    if name == "watts" and "energy" in units:
        return f"CASE r.kind WHEN 'delta' THEN p.energy::DOUBLE{_times(units['energy'], 'J')} / (r.period_ns / 1e9) END"
    return "NULL::DOUBLE"


def _times(unit: str, base: str) -> str:
    factor = Unit(unit).to(Unit(base)) if unit else 1.0
    return "" if factor == 1 else f" * {factor!r}::DOUBLE"


def _common(name: str, files: list[File]) -> dict[str, tuple[str, str]]:
    """Type and unit of each column: the newest run's unit, and a type that holds all."""
    found: dict[str, tuple[str, str]] = {}
    by: dict[str, File] = {}
    for columns, group in reversed(list(_groups(files))):
        for column, kind, unit in columns:
            if column == "t_ns":
                continue
            kind_before, unit_before = found.setdefault(column, (kind, unit))
            first = by.setdefault(column, group[-1])
            wide = _wider(kind_before, kind)
            if wide is None or not _convertible(unit, unit_before):
                raise ConfigError(
                    f"view {name}: expected one meaning of column {column!r}, got {kind_before} [{unit_before}] in run "
                    f"{first.entry['id']} and {kind} [{unit}] in run {group[-1].entry['id']}; ask one run with --run"
                )
            found[column] = (wide if unit == unit_before else "DOUBLE", unit_before)
    return found


def _wider(one: str, other: str) -> str | None:
    if one == other:
        return one
    if one in _INTEGERS and other in _INTEGERS:
        return "BIGINT"
    numbers = (*_INTEGERS, *_FLOATS)
    return "DOUBLE" if one in numbers and other in numbers else None


def _convertible(unit: str, wanted: str) -> bool:
    try:
        Unit(unit).to(Unit(wanted))
    except ValueError:
        return False
    return True


def _converted(column: str, have: tuple[str, str] | None, kind: str, unit: str) -> str:
    if have is None:
        return f"NULL::{kind}"
    times = "" if have[1] == unit else f"::DOUBLE{_times(have[1], unit)}"
    return _cast(f"p.{quote_name(column)}{times}", have[0] if not times else "DOUBLE", kind)
