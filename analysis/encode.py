"""Parquet files of a run: which encoding each column gets, and row groups that end where a rail ends."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1 << 18
"""Rows of a row group: 2 MB a column, enough for encodings to pay, few enough to skip with."""
DERIVED = {b"derived": b"1"}
"""Metadata of the columns that are not raw."""
_DELTA, _SPLIT, _DICTIONARY = "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "dictionary"
_TIMES = frozenset({"tick", "t_u", "epoch", "t_ns", "covered_ns"})


class ParquetFile:
    """Writes one file; ``close`` makes it durable. Batches may have any size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path, self._schema = path, schema
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        while self._waiting_rows >= ROWS:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._group(table.slice(0, ROWS))
            self._waiting = table.slice(ROWS).to_batches()
            self._waiting_rows -= ROWS

    def end_group(self) -> None:
        """Begin a new row group with the next row."""
        if self._waiting_rows:
            self._group(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._waiting_rows = [], 0

    def close(self) -> None:
        """Write what waits and the footer, and sync."""
        self.end_group()
        if self._writer is None:
            self._group(self._schema.empty_table())
        assert self._writer is not None
        self._writer.close()
        sync(self._path)

    def _group(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, **_options(encodings(table)))
        self._writer.write_table(table, row_group_size=ROWS)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table durably."""
    file = ParquetFile(path, table.schema)
    for batch in table.to_batches():
        file.write(batch)
    file.close()


def encodings(first: pa.Table) -> dict[str, str]:
    """Choose an encoding for each column from the first row group; columns left out get the default.

    Times are DELTA, running joules split into byte streams. A measured column is a dictionary, since converters have
    few distinct values, unless the first row group is smaller split (integers: as differences).
    """
    chosen = {}
    for field in first.schema:
        if field.name in _TIMES or field.name.endswith("_ns"):
            if pa.types.is_integer(field.type):
                chosen[field.name] = _DELTA
        elif field.name == "joules" and field.metadata and b"derived" in field.metadata:
            chosen[field.name] = _SPLIT
        elif candidates := _candidates(field.type):
            column = first.select([field.name])
            chosen[field.name] = min(candidates, key=lambda e: _size(column, field.name, e))
    return chosen


def sync(path: Path) -> None:
    """Make a file's content survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _candidates(kind: pa.DataType) -> tuple[str, ...]:
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return _DICTIONARY, _SPLIT
    if kind in (pa.int32(), pa.int64()):
        return _DICTIONARY, _DELTA
    return (_DICTIONARY,) if pa.types.is_string(kind) else ()


def _size(table: pa.Table, name: str, encoding: str) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_options({name: encoding}))
    return int(sink.getvalue().size)


def _options(chosen: dict[str, str]) -> dict[str, object]:
    return {
        "compression": "zstd",
        "use_dictionary": [name for name, encoding in chosen.items() if encoding == _DICTIONARY],
        "column_encoding": {name: e for name, e in chosen.items() if e != _DICTIONARY} or None,
    }


def raw_names(schema: pa.Schema) -> list[str]:
    """The names of a file's raw columns."""
    return [f.name for f in schema if not (f.metadata and b"derived" in f.metadata)]


def described(schema: pa.Schema) -> str:
    """``name TYPE unit`` of each column with commas between, as the manifest keeps it."""
    return ",".join(f"{f.name} {sql_type(f.type)} {_unit(f)}".rstrip() for f in schema)


_SQL = {
    "int64": "BIGINT", "int32": "INTEGER", "int16": "SMALLINT", "int8": "TINYINT", "uint64": "UBIGINT",
    "uint32": "UINTEGER", "uint16": "USMALLINT", "uint8": "UTINYINT", "double": "DOUBLE", "float": "FLOAT",
    "string": "VARCHAR", "large_string": "VARCHAR", "bool": "BOOLEAN", "binary": "BLOB",
}  # fmt: skip


def sql_type(kind: pa.DataType) -> str:
    """What DuckDB calls an Arrow type."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL.get(str(kind), "VARCHAR")


def _unit(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"unit", b"").decode())
