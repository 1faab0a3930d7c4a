"""Rows a second from a collector's outlet through the engine into the journal, counted when read back.

Beside it, what cannot be beaten: the same batches written by pyarrow alone, without checks, checksums or queues.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benches.figures import Figure, Target, at_least
from benches.measure import Effort, Took, in_turn, ratios, took
from benches.recording import recorded, scratch
from melt_stream.clock import monotonic
from melt_stream.outlet import Outlet
from melt_stream.run import Run
from melt_stream.stream import Stream
from melt_stream.units import A, V, W

STREAM = Stream("power", volts=V, amps=A, watts=W)
BLOCK = 10_000
"""Rows: 10 ms of a source at 1 MHz."""
TICK = np.arange(BLOCK, dtype=np.int64) * 1_000
VALUES: dict[str, Any] = {
    name: np.random.default_rng(1).normal(5.0, 1.0, BLOCK) for name, _ in STREAM.columns
}


@dataclass
class Rows:
    """Puts one row after the other, as fast as there is room."""

    count: int

    async def collect(self, out: Outlet) -> None:
        """Put all, then return."""
        for i in range(self.count):
            out.row(STREAM, tick=1_000 * i, volts=5.0, amps=1.0, watts=5.0)
            if i % 1_000 == 0:
                await out.room()


@dataclass
class Blocks:
    """Puts blocks, as fast as there is room."""

    count: int

    async def collect(self, out: Outlet) -> None:
        """Put all, then return."""
        first = monotonic()
        for i in range(self.count // BLOCK):
            out.rows(STREAM, tick=TICK + (first + 1_000 * BLOCK * i), **VALUES)
            await out.room()


def run(effort: Effort) -> Iterator[Figure]:
    """Both ways, and pyarrow alone."""
    one_by_one, in_blocks = effort.pick(1_000_000, 20_000), effort.pick(30_000_000, 400_000)
    with scratch() as archive:
        times = in_turn(
            {
                "rows": lambda: _kept(archive, Rows(one_by_one)),
                "blocks": lambda: _kept(archive, Blocks(in_blocks)),
                "pyarrow": lambda: _pyarrow(archive / "plain.arrows", in_blocks),
            },
            effort.pick(3, 1),
            warm_up=not effort.quick,
        )
    yield from _rates("one by one", times["rows"], one_by_one)
    yield from _rates("in blocks of 10,000", times["blocks"], in_blocks, at_least(10e6))
    yield from _rates("pyarrow alone, in blocks", times["pyarrow"], in_blocks)
    yield Figure(
        "blocks / pyarrow alone, CPU time",
        ratios([t.cpu for t in times["blocks"]], [t.cpu for t in times["pyarrow"]]),
        "x",
    )
    yield Figure("rows lost, all runs together", [0.0], "", Target("<=", 0.0))


def _rates(how: str, times: list[Took], rows: int, target: Target | None = None) -> Iterator[Figure]:
    yield Figure(f"{how}, a second of one core", [rows / t.cpu for t in times], "rows/s", target)
    yield Figure(f"{how}, a second on the clock", [rows / t.wall for t in times], "rows/s")


def _kept(archive: Path, collector: Rows | Blocks) -> Took:
    """Record, then read back; raise where a row is missing, and make room on the disk."""
    runs: list[Run] = []
    time = took(lambda: runs.append(recorded(archive, {"meter": collector})))
    run = runs.pop()
    found = sum(batch.num_rows for batch in run.batches("meter.power"))
    gaps = run.table("run.gaps").to_pylist() if "run.gaps" in run.keys() else []  # noqa: SIM118 - not a dict
    if found != collector.count or gaps:
        raise ValueError(
            f"expected {collector.count:,} rows and no gap in {run.path}, got {found:,} and {gaps}"
        )
    run.remove()
    return time


def _pyarrow(path: Path, rows: int) -> None:
    schema = STREAM.schema
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for i in range(rows // BLOCK):
            arrays = [pa.array(TICK + 1_000 * BLOCK * i), *(pa.array(VALUES[name]) for name in VALUES)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        os.fsync(file.fileno())
    path.unlink()
