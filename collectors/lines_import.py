"""Importer ``lines``: any table of text (CSV, pairs, JSON lines), described as for the collector ``lines``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melt_stream.collectors._described import TEXT, Described, Value, specs
from melt_stream.collectors._files import open_regular
from melt_stream.collectors._line_description import Description
from melt_stream.collectors._lines import Cutter, Junk, Reader, Values
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Outlet
from melt_stream.plugins import configure

DESCRIPTION = "lines.toml"
DESCRIPTION_LIMIT = 1 << 20
DATA_LIMIT = 1 << 40
BLOCK = 1 << 16
BACK_LIMIT = 100
"""So many records in a row may be stamped before an earlier one; then the file is none of one recording."""
SINCE_1970_S = 1e9
"""Times in seconds above it, which is in 2001, count from 1970."""


@dataclass
class Table(Description):
    """A file of text, as ``lines.toml`` describes it.

    Its times become the run's, from 0 on: ``time`` names a column in ms, us, s or ns, or one of ``text`` that holds
    ISO 8601 dates; without it, ``hz`` says how far apart the records are.
    """

    _: KW_ONLY
    data: str
    """The file, relative to the description."""

    @property
    def is_dated(self) -> bool:
        """Whether the times are dates as text."""
        return bool(self.time) and specs(self.columns)[self.time].unit == TEXT

    def __post_init__(self) -> None:
        self.layout()
        if not self.time and self.hz is None:
            raise ConfigError("expected time, the column that has the time, or hz, got neither")
        if self.time and self.time not in self.columns:
            raise ConfigError(f"time: expected a column, got {self.time!r}")
        if self.time and not self.is_dated:
            self.tick_ns()


@dataclass
class LinesImport:
    """Read a file of text to its end, by a description: the collector's keys but for its source, and ``data``.

    Records that are not what the description says are gaps; a file with none that is raises ``DataError``.
    """

    path: Path
    """The description (TOML), or the folder that has it as ``lines.toml``."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        description = (
            'data = "trace.csv"\nheader = true\ntime = "t"\n[columns]\nt = "s"\nvolts = "V"\namps = "mA"\n'
            '[rails.board]\nboundary = "board"\n'
        )
        return {
            "kind": "files",
            "tree": {DESCRIPTION: description, "trace.csv": "t,volts,amps\n0.0,5,100\n0.1,5,120\n0.2,5,90\n"},
        }

    async def collect(self, out: Outlet) -> None:
        where = self.path / DESCRIPTION if self.path.is_dir() else self.path
        table = _description(where)
        described = Described(table.kept(), table.rails, period_ns=table.period_ns)
        for stream, rail in described.declared():
            out.rail(stream, rail)
        placing = _Placing(table, str(where.parent / table.data))
        rows = 0
        for line, item in _records(where.parent / table.data, table):
            if (tick := placing.place(line, item)) is None or isinstance(item, Junk):
                continue
            if placing.lost and placing.last is not None:
                for stream in described.streams.values():
                    out.gap(stream, placing.last, tick, placing.reason, lost=placing.lost)
            placing.accept(tick)
            for stream, row in described.rows(item):
                out.row(stream, tick=tick, **row)
            rows += 1
            if rows % 4096 == 0:
                await out.room()
        placing.end(rows)
        if placing.lost and placing.last is not None:
            for stream in described.streams.values():
                out.gap(stream, placing.last, placing.last, placing.reason, lost=placing.lost)
        self.start_utc_ns = placing.start_utc_ns
        out.fact("description", where.name)
        out.ready()


@dataclass
class _Placing:
    """Gives each record its place in time, and keeps count of what has none."""

    table: Table
    path: str
    last: int | None = None
    lost: int = 0
    reason: str = ""
    start_utc_ns: int | None = None
    _first: int | None = None
    _passed: int = 0
    _back: int = 0
    _first_junk: str = ""

    def place(self, line: int, item: Values | Junk) -> int | None:
        """Return a record's tick, or None where it has none."""
        number, self._passed = self._passed, self._passed + 1
        if isinstance(item, Junk):
            return self._lose(f"line {line}: {item.reason}")
        if not self.table.time:
            assert self.table.period_ns is not None
            return round(number * self.table.period_ns)
        if (moment := self._ns(item[self.table.time])) is None:
            return self._lose(f"line {line}: a record without a time, got {item[self.table.time]!r}")
        tick = moment - self._begin(moment)
        if self.last is not None and tick < self.last:
            self._back += 1
            if self._back > BACK_LIMIT:
                raise DataError(
                    f"{self.path}, line {line}: expected times that never decrease, got {BACK_LIMIT} records "
                    "before an earlier one; split the file where its clock began again"
                )
            return self._lose(f"line {line}: stamped before an earlier record")
        return tick

    def accept(self, tick: int) -> None:
        """Go on from a record that has its place."""
        self.last, self.lost, self._back = tick, 0, 0

    def end(self, rows: int) -> None:
        """Raise ``DataError`` where there was no record at all."""
        if not rows:
            raise DataError(
                f"{self.path}: expected records as described, got none; {self._first_junk or 'it is empty'}"
            )

    def _lose(self, reason: str) -> int | None:
        self.reason = reason if not self.lost else self.reason
        self._first_junk = self._first_junk or reason
        self.lost += 1
        return None

    def _begin(self, moment: int) -> int:
        if self._first is None:
            self._first = moment
            if self.table.is_dated or moment > SINCE_1970_S * 1e9:
                self.start_utc_ns = moment
        return self._first

    def _ns(self, value: Value) -> int | None:
        """Return the record's own time in ns, wraps undone: a step is the shorter way round."""
        if self.table.is_dated:
            return _iso_ns(str(value))
        if not isinstance(value, float):
            return None
        unit_ns, wrap = round(self.table.tick_ns()), self.table.wrap()
        count = round(value * (1e9 / unit_ns))
        if wrap is not None and count < wrap and self.last is not None:
            before = round((self.last + self._begin(0)) / unit_ns)
            count = before + (count - before + wrap // 2) % wrap - wrap // 2
        return count * unit_ns


def _records(path: Path, table: Table) -> Iterator[tuple[int, Values | Junk]]:
    """Yield (line number from 1, what it held)."""
    cutter, reader, number = Cutter(table.max_line), Reader(table.layout()), 0
    with open_regular(path, DATA_LIMIT) as file:
        while data := file.read(BLOCK):
            for line in cutter.feed(data):
                number += 1
                if (item := reader.take(line)) is not None:
                    yield number, item
    if cutter.unfinished:
        yield number + 1, Junk("the last line has no end: it may have been cut")


def _description(path: Path) -> Table:
    with open_regular(path, DESCRIPTION_LIMIT) as file:
        text = file.read()
    try:
        keys = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(
            f"{path}: expected TOML that describes a file of text, got {exc}; docs/meters.md shows one"
        ) from exc
    table: Table = configure(Table, keys, str(path))
    return table


def _iso_ns(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
