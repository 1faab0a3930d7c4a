"""Running the sinks: to their end, whatever happens to the run, and each without harm to the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import trio

from melt_stream.ending import Ender
from melt_stream.errors import MeltError
from melt_stream.failures import failures
from melt_stream.outlet import Outlet
from melt_stream.shipper import Inbox
from melt_stream.sink import Sink
from melt_stream.supervise import prepare

log = logging.getLogger(__name__)


class Feeding:
    """The sinks of a run and what became of them."""

    def __init__(self, sinks: Sequence[Sink], ender: Ender, own: Outlet) -> None:
        self.inboxes = [Inbox(sink) for sink in sinks]
        self.error: BaseException | None = None
        """What the first sink that failed failed with."""
        self._ender, self._own = ender, own
        self._scopes: list[trio.CancelScope] = []

    async def start(self, nursery: trio.Nursery) -> None:
        """Start every sink in ``nursery``; return when all have been prepared."""
        for inbox in self.inboxes:
            await nursery.start(self._feed, inbox)

    async def heed(self) -> None:
        """End the run when a sink asks for it by its event ``ending``; it goes on taking what comes."""
        async with trio.open_nursery() as nursery:
            for inbox in self.inboxes:
                if (ending := getattr(inbox.sink, "ending", None)) is not None:
                    nursery.start_soon(self._heed, inbox, ending)

    def abandon(self) -> None:
        """Give up the sinks that have not ended."""
        for scope in self._scopes:
            scope.cancel()

    async def _heed(self, inbox: Inbox, ending: trio.Event) -> None:
        await ending.wait()
        self._ender.end(_asked(inbox))

    async def _feed(self, inbox: Inbox, task_status: trio.TaskStatus[None]) -> None:
        with failures(partial(self._failed, inbox)):
            with trio.CancelScope(shield=True) as scope:
                self._scopes.append(scope)
                try:
                    await prepare(inbox.sink)
                finally:
                    task_status.started()
                await inbox.sink.consume(inbox)
                if inbox.waits and not inbox.closed:
                    raise MeltError("expected it to go on until its input ends, got an early return")
            if scope.cancelled_caught:
                raise MeltError("abandoned at the second signal; its last rows are lost")
        inbox.abandon()

    def _failed(self, inbox: Inbox, why: BaseException) -> None:
        text = f"sink {inbox.name} failed: {why}"
        log.error("%s", text)
        self.error = self.error or why
        if inbox.waits:
            self._ender.explain(_asked(inbox), text, why)
        else:
            self._own.fact("sink_failed", text)


def _asked(inbox: Inbox) -> str:
    return f"sink {inbox.name} asked for the end"
