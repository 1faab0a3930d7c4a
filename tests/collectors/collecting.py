"""Running a collector on the real clock until something is in what it wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from melt_stream.engine import record
from melt_stream.outlet import warm_up
from melt_stream.sink import Batch
from melt_stream.testing import Keep


class Watched(Keep):
    """Keeps everything, and says when more came."""

    def __init__(self) -> None:
        super().__init__()
        self._more = trio.Event()

    def add(self, batches: Sequence[Batch]) -> None:
        super().add(batches)
        self._more.set()
        self._more = trio.Event()

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for some in batches:
            self.add(some)

    def of(self, stream: str) -> list[dict[str, Any]]:
        return self.rows(f"it.{stream}")

    def gaps(self, stream: str | None = None) -> list[dict[str, Any]]:
        return [gap for gap in self.rows("run.gaps") if stream in (None, gap["stream"])]

    async def until(self, enough: Callable[[], object], seconds: float = 15) -> None:
        with trio.fail_after(seconds):
            while not enough():
                await self._more.wait()


@asynccontextmanager
async def collecting(collector: Any) -> AsyncIterator[Watched]:
    """Record with the engine for the time of the body; a failure of the collector is raised."""
    warm_up()  # takes seconds on a busy machine, which are none of `until`'s
    watched = Watched()

    async def run() -> None:
        ending = await record({"it": collector}, [watched])
        watched.add([])
        if ending.error is not None:
            raise ending.error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield watched
        nursery.cancel_scope.cancel()
