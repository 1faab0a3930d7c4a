"""The raw rows of a run's streams, whether they still lie in the journal or were packed before.

A journal may grow while it is read: every pass after the first shows the rows of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from melt_stream.analysis.encode import raw_names
from melt_stream.run import Run


class Raw:
    """One stream's raw rows; ``damage`` says what ended the journal early, once ``batches`` was read to its end."""

    def __init__(self, run: Run, key: str) -> None:
        self.key, self.damage = key, ""
        self._run = run
        self._seen: int | None = None
        self._packed = run.manifest.state == "packed"
        if self._packed:
            stored = run.schema(key)
            schema = pa.schema([stored.field(name) for name in raw_names(stored)], stored.metadata)
        else:
            schema = run.reader(key).schema
        self.readable = schema is not None
        """False where a journal does not even hold its schema."""
        self.schema: pa.Schema = schema if self.readable else pa.schema([])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, as often as it is called."""
        if self._packed:
            yield from self._run.batches(self.key, self.schema.names)
            return
        reader = self._run.reader(self.key)
        for batch in reader:
            if self._seen is not None and reader.rows > self._seen:
                return
            yield batch
        if self._seen is None:
            self._seen, self.damage = reader.rows, reader.damage
            said = self._run.manifest.counts.get(self.key)
            if said is not None and said != reader.rows:
                self.damage = f"{self.damage or 'rows are missing'}: {reader.rows} of {said} rows are there"

    def table(self, wanted: pa.Schema) -> pa.Table:
        """Return all rows in the columns of ``wanted``; one that is missing is null."""
        table = pa.Table.from_batches(list(self.batches()), self.schema)
        columns = [
            table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
            for f in wanted
        ]
        return pa.table(columns, schema=pa.schema(wanted))

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows without their ticks."""
        rows: list[dict[str, Any]] = pa.Table.from_batches(list(self.batches()), self.schema).to_pylist()
        return [{name: value for name, value in row.items() if name != "tick"} for row in rows]
