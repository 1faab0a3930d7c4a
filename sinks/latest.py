"""The newest value of each column, for live views and for whoever waits until a thing has cooled down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from melt_stream.sink import Batch
from melt_stream.units import CELSIUS

ENOUGH = 1000
"""Rows of a batch that are looked at, from its end: a label that comes less often is seen at another flush."""


class Newest(NamedTuple):
    """A value and its time, in ticks of its stream's clock."""

    tick: int
    value: Any


@dataclass
class Latest:
    """Keeps the newest value of each column, and counts the rows of each stream.

    A stream's text columns are labels (a rail, a thermal zone): each label has values of its own.
    """

    rows: dict[str, int] = field(default_factory=dict, init=False)
    """By key, ``<instance>.<stream>``."""
    values: dict[tuple[str, str, str], Newest] = field(default_factory=dict, init=False)
    """By key, label (several joined by ``/``, empty where there is none) and column."""

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain"}

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for some in batches:
            for batch in some:
                self.add(batch)

    def add(self, batch: Batch) -> None:
        """Take one batch."""
        key, data = batch.source.key, batch.data
        self.rows[key] = self.rows.get(key, 0) + data.num_rows
        for row, label in _labelled(data.slice(max(0, data.num_rows - ENOUGH))):
            for name, value in row.items():
                if value is not None:
                    self.values[key, label, name] = Newest(row["tick"], value)

    def get(self, key: str, column: str, label: str = "") -> Newest | None:
        """Return the newest value that is not null; None where there was none."""
        return self.values.get((key, label, column))

    def labels(self, key: str) -> list[str]:
        """Return the labels that a stream's rows have had, sorted."""
        return sorted({label for source, label, _ in self.values if source == key})


@dataclass
class Thermometer(Latest):
    """Keeps temperatures alone: the columns in degrees Celsius."""

    columns: set[tuple[str, str]] = field(default_factory=set, init=False)
    """Key and column of each."""

    def add(self, batch: Batch) -> None:
        """Take one batch; nothing of it where it has no temperatures."""
        units = {f.name: (f.metadata or {}).get(b"unit", b"").decode() for f in batch.data.schema}
        if found := {(batch.source.key, name) for name, unit in units.items() if unit == CELSIUS.code}:
            self.columns |= found
            super().add(batch)

    def hottest(self, label: str = "") -> float | None:
        """Return the highest of the newest temperatures, of those called ``label`` if given; None where there is none."""
        return max(
            (
                newest.value
                for (key, called, column), newest in self.values.items()
                if (key, column) in self.columns and label in {"", called}
            ),
            default=None,
        )


def _labelled(data: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str]]:
    texts = [field.name for field in data.schema if pa.types.is_string(field.type)]
    for row in data.to_pylist():
        yield row, "/".join(str(row.pop(name) or "") for name in texts)
