"""A sink that keeps everything in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pyarrow as pa

from melt_stream.sink import Batch, Source


class Keep:
    """Keeps every batch; what it got is asked for by key, ``<instance>.<stream>``."""

    policy = "wait"

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.ended = False
        """Whether it saw its input end."""

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for some in batches:
            self.add(some)
        self.ended = True

    def add(self, batches: Sequence[Batch]) -> None:
        """Keep these."""
        self.batches += batches

    @property
    def sources(self) -> dict[str, Source]:
        """The sources that rows came from, by key."""
        return {batch.source.key: batch.source for batch in self.batches}

    def schema(self, key: str) -> pa.Schema:
        """Return a stream's schema."""
        return self.sources[key].schema

    def table(self, key: str) -> pa.Table:
        """Return a stream's rows; raises ``KeyError`` where there are none."""
        return pa.Table.from_batches(
            [batch.data for batch in self.batches if batch.source.key == key], self.schema(key)
        )

    def rows(self, key: str) -> list[dict[str, Any]]:
        """Return a stream's rows as dicts; none where it had none."""
        rows: list[dict[str, Any]] = self.table(key).to_pylist() if key in self.sources else []
        return rows

    def column(self, key: str, name: str) -> list[Any]:
        """Return the values of one column."""
        return [row[name] for row in self.rows(key)]
