"""A conversation with the loop on a device: what it samples is handed over, and its clock is tied to ours meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from melt_stream.devices.channel import Channel, Gone
from melt_stream.devices.exchange import ANSWER_S, Exchange
from melt_stream.devices.loop import Ended, Parser, Sample, Shown

SILENCE_S = 5.0
"""The link is taken for dead after so long, or three periods, without a word."""
FAREWELL_S = 2.0


@dataclass
class Talk:
    """The loop at the other end of ``channel``."""

    name: str
    """The device's."""
    channel: Channel
    parser: Parser
    exchange: Exchange
    take: Callable[[Sample], None]
    hz: float
    cpu_s: float | None = None
    """What the loop has taken of a core, where it ended in order and says so."""

    async def run(self) -> None:
        """Listen until cancelled; then read the clock some times more, and end the loop in order.

        Raises ``Gone`` where the loop falls silent or ends though nobody asked it to.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                await self.exchange.often()
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True):
                await self._part()

    async def _listen(self) -> None:
        patience = max(SILENCE_S, 3 / self.hz)
        while True:
            with trio.move_on_after(patience) as waiting:
                heard = await self._hear()
            if waiting.cancelled_caught:
                raise Gone(f"{self.name}: expected samples, got none for {patience:g} s")
            if not heard:
                raise ended(self.name, await self.channel.status(), self.channel)

    async def _hear(self) -> bool:
        """Take what comes next; return False at the end of the loop's output."""
        data = await self.channel.receive()
        arrival = self.exchange.out.now()
        for said in self.parser.feed(data):
            if isinstance(said, Shown):
                self.exchange.heard(said, arrival)
            elif isinstance(said, Sample):
                self.take(said)
        return bool(data)

    async def _part(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_farewell)
            with suppress(Gone):
                while await self._hear():
                    pass
            nursery.cancel_scope.cancel()
        if isinstance(cost := self.parser.finish(), Ended):
            self.cpu_s = cost.cpu_s

    async def _say_farewell(self) -> None:
        with suppress(Gone):
            await self.exchange.burst()
            while True:
                await self.channel.send(b"stop\n")
                await trio.sleep(ANSWER_S)


def ended(name: str, status: int, channel: Channel) -> Gone:
    """Return what to raise where the loop ended though nobody asked it to."""
    return Gone(
        f"{name}: expected samples, got the end of the loop (exit status {status}): {channel.complaints()[-200:]}"
    )
