"""From the hub to the sinks: flushes, and one queue a sink, so that no sink delays another."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import trio

from melt_stream.outlet import Hub
from melt_stream.sink import Batch, Sink

log = logging.getLogger(__name__)
LIMIT_BYTES = 64 << 20
"""What may wait for one sink. One that must have all holds up the flush beyond it; any other loses the oldest."""


class Inbox:
    """Batches on their way to one sink; iterating ends when it was closed and is empty."""

    def __init__(self, sink: Sink, limit_bytes: int = LIMIT_BYTES) -> None:
        self.sink = sink
        self.waits = getattr(sink, "policy", "") == "wait"
        self.dropped_rows = 0
        self.closed = self.abandoned = False
        self._limit, self._bytes = limit_bytes, 0
        self._queue: deque[tuple[int, list[Batch]]] = deque()
        self._changed = trio.Event()

    @property
    def name(self) -> str:
        """What to call its sink in messages."""
        return type(self.sink).__name__

    def put(self, batches: list[Batch]) -> None:
        """Add one flush; where there is no room and the sink need not have all, the oldest go."""
        if self.abandoned:
            return
        size = sum(batch.data.nbytes for batch in batches)
        self._queue.append((size, batches))
        self._bytes += size
        while not self.waits and self._bytes > self._limit and len(self._queue) > 1:
            self._drop()
        self._change()

    def close(self) -> None:
        """End the iteration after what is still waiting."""
        self.closed = True
        self._change()

    def abandon(self) -> None:
        """Say that nobody reads any more: what waits is let go, nothing is kept."""
        self.abandoned, self._bytes = True, 0
        self._queue.clear()
        self._change()

    async def room(self) -> None:
        """Wait until there is room, where the sink must have all."""
        while self.waits and self._bytes > self._limit and not self.abandoned:
            await self._changed.wait()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> list[Batch]:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            await self._changed.wait()
        size, batches = self._queue.popleft()
        self._bytes -= size
        self._change()
        return batches

    def _drop(self) -> None:
        size, batches = self._queue.popleft()
        self._bytes -= size
        if not self.dropped_rows:
            log.warning("sink %s is too slow: the oldest batches are dropped", self.name)
        self.dropped_rows += sum(batch.data.num_rows for batch in batches)

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def ship(hub: Hub, inboxes: Sequence[Inbox], every: float, closed: trio.Event) -> None:
    """Flush the hub into the inboxes at intervals, or when it is hurried, and once more when it has closed.

    Then close them. Whoever sets ``closed`` hurries the hub.
    """
    try:
        while not closed.is_set():
            with trio.move_on_after(every):
                await hub.hurried()
            await hub.announce()
            for inbox in inboxes:
                await inbox.room()
            _flush(hub, inboxes)
        for inbox in inboxes:
            if inbox.dropped_rows:
                hub.outlet("run").fact("sink_dropped_rows", {"sink": inbox.name, "rows": inbox.dropped_rows})
        _flush(hub, inboxes)
    finally:
        for inbox in inboxes:
            inbox.close()


def _flush(hub: Hub, inboxes: Sequence[Inbox]) -> None:
    if batches := hub.take():
        for inbox in inboxes:
            inbox.put(batches)
