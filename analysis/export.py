"""A packed run's streams and derived tables as files for other tools."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from melt_stream.errors import ConfigError
from melt_stream.run import Run


def export(run: Run, folder: Path, format: Literal["csv", "parquet"] = "csv") -> list[Path]:  # noqa: A002
    """Write one file a stream or table of a packed run into ``folder``, and return their paths, sorted.

    They are named ``<instance>.<stream>`` and ``<table>``. Parquet files are exact copies; in CSV a list becomes its
    items with ``;`` between them, and units and types are lost. Files of these names are replaced. Raises
    ``ConfigError`` where the run is not packed or the folder cannot be written.
    """
    if run.manifest.state != "packed":
        raise ConfigError(
            f"run {run.id}: expected a packed run, got {run.state}; `melt-stream pack {run.id}` packs it"
        )
    names = sorted([*run.manifest.streams, *run.manifest.tables])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(run, name, folder / f"{name}.{format}") for name in names]
    except OSError as exc:
        raise ConfigError(f"{folder}: expected a folder that can be written, got {exc.strerror}") from exc


def _write(run: Run, name: str, path: Path) -> Path:
    if path.suffix == ".parquet":
        shutil.copyfile(run.stored(name), path)
        return path
    flat = pa.schema([(f.name, pa.utf8() if pa.types.is_list(f.type) else f.type) for f in run.schema(name)])
    with pyarrow.csv.CSVWriter(path, flat) as writer:
        for batch in run.batches(name):
            columns = [_flat(column) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))
    return path


def _flat(column: pa.Array) -> pa.Array:
    return pc.binary_join(column, ";") if pa.types.is_list(column.type) else column
