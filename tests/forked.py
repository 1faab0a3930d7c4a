"""A process that forks children which record and pack, so that a test can kill them without paying for imports.

Reads lines ``record ARCHIVE TOLD`` and ``pack RUN again|once`` from stdin; for each it forks a child and prints its
pid. The line after that makes it wait for the child and print how it ended.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from melt_stream.analysis.pack import pack
from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.run import create
from melt_stream.sink import Batch
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Stream
from melt_stream.units import W

COUNTED = Stream("power", watts=W, square=int, name=str)
PER_TURN = 40


class Counter:
    """Row n is (n, n / 2, n * n, "n"): whoever reads it back sees whether one is missing or invented."""

    async def collect(self, out: Outlet) -> None:
        out.rail(COUNTED, Rail("r", "board", "gauge"))
        for start in itertools.count(0, PER_TURN):
            for n in range(start, start + PER_TURN):
                out.row(COUNTED, tick=n, watts=n / 2, square=n * n, name=str(n))
            await trio.sleep(0.001)


class Telling(Journal):
    """Notes in a file how many rows of the counter the journal said it has."""

    def __init__(self, folder: object, told: Path) -> None:
        super().__init__(folder)  # type: ignore[arg-type]
        self._told = os.open(told, os.O_WRONLY | os.O_CREAT)

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async def passing() -> AsyncIterator[list[Batch]]:
            rows = 0
            async for flush in batches:
                yield flush
                rows += sum(b.data.num_rows for b in flush if b.source.key == "counter.power")
                os.pwrite(self._told, rows.to_bytes(8, "little"), 0)

        await super().consume(passing())


def _record(archive: str, told: str) -> None:
    journal = Telling(create(Path(archive), recipe={}), Path(told))
    trio.run(lambda: record({"counter": Counter()}, [journal], flush_every=0.01))


def _pack(run: str, again: str) -> None:
    pack(Path(run), again=again == "again")


def main() -> None:
    pack(Path(sys.argv[1]))  # kernels compiled, modules imported
    print("ready", flush=True)
    while line := sys.stdin.readline():
        what, *args = line.split()
        if (pid := os.fork()) == 0:
            try:
                {"record": _record, "pack": _pack}[what](*args)
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
