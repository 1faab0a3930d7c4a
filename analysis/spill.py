"""The first pass of ``pack``: each stream's rows, told apart by rail, on disk beside the run instead of in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.digest import Digest

VALUES = ("watts", "volts", "amps", "energy", "charge")
"""Columns of a power stream that hold what a rail measures."""


@dataclass
class Part:
    """The rows of one rail of a stream, or all rows of a stream without rails."""

    rail: str | None
    digest: Digest
    rows: Path | None = None
    """An Arrow IPC file of its rows; None where the stream has no other part and can be read again as it is."""
    numbers: Numbers | None = None
    """Its columns as memory-mapped arrays, where it is a declared rail."""
    order: np.ndarray[Any, Any] | None = None
    """Sorts its numbers by epoch and tick; None where they came so."""


@dataclass
class Spilled:
    """What the first pass found out about one stream."""

    key: str
    schema: pa.Schema
    parts: list[Part]
    epochs: set[int] = field(default_factory=set)
    """Epochs of its clock; 0 for the host's, which has none."""

    @property
    def clock(self) -> str:
        """The stored name of its clock."""
        return self.meta.get("clock", "host")

    @property
    def meta(self) -> dict[str, str]:
        """The schema's metadata as text."""
        return {k.decode(): v.decode() for k, v in (self.schema.metadata or {}).items()}


class Numbers:
    """Numeric columns of one rail.

    A missing float is NaN; a row whose integer is missing is left out, and ``kept`` says which stayed.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._values = [name for name in VALUES if name in schema.names]
        wanted = [name for name in ("tick", "epoch", "t_u") if name in schema.names]
        self._types: dict[str, np.dtype[Any]] = {
            name: np.dtype(schema.field(name).type.to_pandas_dtype()) for name in wanted + self._values
        }
        self._types["kept"] = np.dtype(bool)
        folder.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {name: (folder / name).open("wb") for name in self._types}

    @property
    def values(self) -> list[str]:
        """The columns that hold what the rail measures."""
        return self._values

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        kept = np.ones(batch.num_rows, bool)
        for name in self._values:
            if pa.types.is_integer(batch.schema.field(name).type):
                kept &= batch.column(name).is_valid().to_numpy(zero_copy_only=False)
        self._files["kept"].write(kept.tobytes())
        mask = None if kept.all() else pa.array(kept)
        for name, kind in self._types.items():
            if name != "kept":
                column = batch.column(name) if mask is None else batch.column(name).filter(mask)
                column = pc.fill_null(
                    column, math.nan if kind.kind == "f" else 0
                )  # of integers t_u alone may be null
                self._files[name].write(
                    column.to_numpy(zero_copy_only=False).astype(kind, copy=False).tobytes()
                )

    def close(self) -> None:
        """Stop appending."""
        for file in self._files.values():
            file.close()

    def array(self, name: str) -> np.ndarray[Any, Any] | None:
        """A column as a memory map, None where the stream has no such column."""
        if name not in self._types:
            return None
        path, kind = self._folder / name, self._types[name]
        if not path.stat().st_size:
            return np.empty(0, kind)
        return np.memmap(path, kind, "r")


def spill(
    key: str,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
    rails: list[str],
    folder: Path,
) -> Spilled:
    """Read a stream once: hash it, collect its epochs, and keep the numbers of its ``rails`` in ``folder``.

    ``schema`` and ``batches`` hold raw columns only. Rows of several rails go to a file a rail, in their order.
    """
    split = "rail" in schema.names and bool(rails)
    spilled = Spilled(key, schema, [])
    sorter = _Sorter(spilled, rails, folder, split=split)
    for batch in batches:
        if batch.num_rows:
            if "epoch" in schema.names:
                spilled.epochs.update(pc.unique(batch.column("epoch")).to_pylist())
            sorter.add(batch)
    sorter.close()
    if "epoch" not in schema.names:
        spilled.epochs = {0}
    spilled.parts.sort(key=lambda part: (part.rail is None, part.rail or ""))
    return spilled


class _Sorter:
    def __init__(self, spilled: Spilled, rails: list[str], folder: Path, *, split: bool) -> None:
        self._spilled, self._rails, self._folder, self._split = spilled, rails, folder, split
        self._parts: dict[str | None, tuple[Part, pa.ipc.RecordBatchStreamWriter | None]] = {}
        if not split:
            self._part(rails[0] if rails else None)

    def add(self, batch: pa.RecordBatch) -> None:
        if not self._split:
            return self._append(self._rails[0] if self._rails else None, batch)
        column = batch.column("rail")
        found = pc.unique(column).to_pylist()
        for rail in found:
            if len(found) == 1:
                self._append(rail, batch)
            else:
                mine = (
                    column.is_null()
                    if rail is None
                    else pc.fill_null(pc.equal(column, rail), fill_value=False)
                )
                self._append(rail, batch.filter(mine))

    def close(self) -> None:
        for part, writer in self._parts.values():
            if writer is not None:
                writer.close()
            if part.numbers is not None:
                part.numbers.close()

    def _append(self, rail: str | None, batch: pa.RecordBatch) -> None:
        part, writer = self._part(rail)
        part.digest.add(batch)
        if writer is not None:
            writer.write_batch(batch)
        if part.numbers is not None:
            part.numbers.add(batch)

    def _part(self, rail: str | None) -> tuple[Part, pa.ipc.RecordBatchStreamWriter | None]:
        if (known := self._parts.get(rail)) is not None:
            return known
        schema, place = self._spilled.schema, self._folder / f"{self._spilled.key}.{len(self._parts)}"
        part, writer = Part(rail, Digest(schema.names)), None
        if rail is not None and rail in self._rails:
            part.numbers = Numbers(place, schema)
        if self._split:
            part.rows = place.with_name(f"{place.name}.rows")
            writer = pa.ipc.new_stream(str(part.rows), schema)
        self._spilled.parts.append(part)
        self._parts[rail] = (part, writer)
        return part, writer
