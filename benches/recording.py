"""Recording for real: the engine with the journal, in a folder that is gone afterwards."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from melt_stream.collector import Collector, Workload
from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.run import Run, create
from melt_stream.sinks.journal import Journal

SETTLING_S = 0.5
"""What is left out after the start: the first reads look for files, and the host's clocks are read in a burst."""


@contextmanager
def scratch() -> Iterator[Path]:
    """An archive on the disk that ``TMPDIR`` is on."""
    with tempfile.TemporaryDirectory(prefix="melt-bench-") as folder:
        yield Path(folder)


def recorded(
    archive: Path, collectors: Mapping[str, Collector], workloads: Mapping[str, Workload] | None = None
) -> Run:
    """Record until the workloads or the collectors end; raise what failed."""
    with create(archive, recipe={}) as folder:
        ending = trio.run(partial(record, collectors, [Journal(folder)], workloads))
        if ending.error is not None:
            raise ending.error
        folder.finish(ending.reason)
    return Run(folder.path)


@dataclass
class Watch:
    """A workload that does nothing for a while, and says what the process needed of the CPU meanwhile."""

    seconds: float
    percent: float = field(default=math.nan, init=False)
    """CPU time of all threads, in percent of one core."""

    async def collect(self, out: Outlet) -> None:  # noqa: ARG002 - it has no rows
        """Wait until all has settled, then watch."""
        await trio.sleep(SETTLING_S)
        cpu, wall = time.process_time(), time.perf_counter()
        await trio.sleep(self.seconds)
        self.percent = 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


def watched(archive: Path, collectors: Mapping[str, Collector], seconds: float) -> tuple[Run, float]:
    """Record for a while; return the run, and the process's share of one core in percent."""
    watch = Watch(seconds)
    return recorded(archive, collectors, {"watch": watch}), watch.percent
