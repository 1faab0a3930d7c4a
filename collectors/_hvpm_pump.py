"""A thread that does nothing but read from the box, since it drops what the host does not fetch; Trio takes what it read."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trio

from melt_stream.clock import Now
from melt_stream.collectors._hvpm_link import PACKET, Link

SIZE = 32 * PACKET
"""Bytes of one read: 19 ms. While none is under way the box's packets must wait, so that short reads lose samples."""


class Block(NamedTuple):
    """Bytes, and the host's time when they had been read."""

    data: bytes
    arrival: int


@dataclass
class Pump:
    """Reads until told to end; what the link raises, ``next`` raises."""

    link: Link
    now: Now
    patience_s: float
    _read: deque[Block] = field(default_factory=deque)
    _more: trio.Event = field(default_factory=trio.Event)
    _ended: bool = False
    _outcome: Any = None
    """Of the thread, as Trio tells it: its error, once it has ended."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read for the time of the body; afterwards no transfer is under way."""
        self._token = trio.lowlevel.current_trio_token()
        trio.lowlevel.start_thread_soon(self._run, self._finish, "read Monsoon HVPM")
        try:
            yield
        finally:
            self._ended = True
            with trio.CancelScope(shield=True):
                while self._outcome is None:
                    await self._more.wait()

    async def next(self) -> Block:
        """Wait for the next read; raises ``Silent``, ``Gone`` or ``Refused`` where there is none any more."""
        while not self._read:
            if self._outcome is not None:
                self._outcome.unwrap()
            await self._more.wait()
        return self._read.popleft()

    def _run(self) -> None:
        while not self._ended:
            data = self.link.bulk_read(SIZE, self.patience_s)
            self._read.append(Block(data, self.now()))
            self._token.run_sync_soon(self._tell)

    def _finish(self, outcome: Any) -> None:
        self._token.run_sync_soon(self._set_outcome, outcome)

    def _set_outcome(self, outcome: Any) -> None:
        self._outcome = outcome
        self._tell()

    def _tell(self) -> None:
        self._more.set()
        self._more = trio.Event()
