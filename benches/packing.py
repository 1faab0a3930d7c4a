"""Rows packed a second, and the memory it takes, beside pyarrow turning the same journal into Parquet."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benches import made_up
from benches.figures import Figure
from benches.measure import Effort, in_child, peak_bytes, ratios, took
from benches.recording import scratch
from melt_stream.analysis.pack import pack
from melt_stream.run import Run

PERIOD_NS = 10_000
KEY = "meter.power"


def run(effort: Effort) -> Iterator[Figure]:
    """Pack copies of one run, each in a process of its own, after one that compiles the kernels."""
    samples = effort.pick(10_000_000, 500_000)
    ours, theirs = [], []
    with scratch() as archive:
        few = made_up.make(archive, 1_000, PERIOD_NS)
        floor = in_child("benches.packing", "pack", str(few.path))["peak"]
        many = made_up.make(archive, samples, PERIOD_NS)
        for i in range(effort.pick(3, 1)):
            copy = shutil.copytree(many.path, archive / str(i) / many.id)
            theirs.append(in_child("benches.packing", "pyarrow", str(copy)))
            ours.append(in_child("benches.packing", "pack", str(copy)))
            shutil.rmtree(copy.parent)
    yield Figure("pack, a second of one core", [samples / took["cpu"] for took in ours], "rows/s")
    yield Figure("pack, a second on the clock", [samples / took["wall"] for took in ours], "rows/s")
    yield Figure(
        "time of pack / of pyarrow alone, on the clock",
        ratios([took["wall"] for took in ours], [took["wall"] for took in theirs]),
        "x",
    )
    yield Figure("pack, most memory", [took["peak"] for took in ours], "B")
    yield Figure("pack of 1,000 rows, most memory", [floor], "B")
    yield Figure("journal, in memory", [samples * 32.0], "B")


def with_pyarrow(run: Run) -> None:
    """What a good user of pyarrow alone would write: row groups of the same size, zstd, no checks, nothing derived."""
    source = run.path / "journal" / f"{KEY}.arrows"
    with (
        pa.memory_map(str(source)) as file,
        pa.ipc.open_stream(file) as stream,
        pq.ParquetWriter(run.path / "plain.parquet", stream.schema, compression="zstd") as writer,
    ):
        waiting: list[pa.RecordBatch] = []
        for batch in stream:
            waiting.append(batch)
            if sum(b.num_rows for b in waiting) >= 1 << 18:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        writer.write_table(pa.Table.from_batches(waiting, stream.schema))
    (run.path / "plain.parquet").unlink()


def main(how: str, path: str) -> None:
    """Pack one run here and say what it took."""
    run = Run(Path(path))
    time = took(lambda: pack(run.path) if how == "pack" else with_pyarrow(run))
    print(json.dumps({"wall": time.wall, "cpu": time.cpu, "peak": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
