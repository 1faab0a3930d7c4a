"""Asking what runs on a device (our loop, an app) for its time: readings of its clock from both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from melt_stream.clock import Clock, Reading
from melt_stream.devices.loop import Shown
from melt_stream.errors import DeviceError
from melt_stream.outlet import Outlet

BURST = 8
"""Readings of the device's clock at the start and at the end; one a second between."""
ANSWER_S = 0.5
"""After which a request is made again: a shell loses one whose bytes its ``read`` gave up on in the middle (mksh: 1 %)."""


class Sending(Protocol):
    """Where requests are written to."""

    async def send(self, data: bytes) -> None:
        """Write all of it."""


def of_the_loop(number: int) -> bytes:
    """Return how the loop on a device is asked."""
    return f"clock {number}\n".encode()


@dataclass
class Exchange:
    """Requests for the time to who is at the other end of ``channel``; who reads the channel hands over what it answers."""

    channel: Sending
    clock: Clock
    epoch: int
    out: Outlet
    resolution: int = 1
    """Of what it shows, in ticks."""
    request: Callable[[int], bytes] = of_the_loop
    _asked: dict[int, int] = field(default_factory=dict)
    _answered: tuple[int, trio.Event] | None = None
    _number: int = 0

    def awaits(self, number: int) -> bool:
        """Tell whether the answer to this request is still to come."""
        return number in self._asked

    def heard(self, shown: Shown, arrival: int) -> None:
        """Take an answer. Raises ``DeviceError`` for one to a request that was not made.

        One to a request that was answered before is passed over: the shell had lost the last digit of another.
        """
        if shown.number > self._number:
            raise DeviceError(f"expected the answer to a clock request of ours, got one to {shown.number}")
        if (asked := self._asked.pop(shown.number, None)) is None:
            return
        self.out.clock_reading(
            Reading(
                self.clock, shown.at, self.resolution, not_before=asked, not_after=arrival, epoch=self.epoch
            )
        )
        if self._answered is not None and self._answered[0] == shown.number:
            self._answered[1].set()

    async def burst(self) -> None:
        """Ask some times, one after the other."""
        for _ in range(BURST):
            await self._once()

    async def often(self) -> None:
        """Ask some times, then once a second, until cancelled."""
        await self.burst()
        while True:
            await trio.sleep(1.0)
            await self._once()

    async def _once(self) -> None:
        """Ask, and wait for the answer for some time."""
        self._number += 1
        number = self._number
        self._asked[number] = self.out.now()
        await self.channel.send(self.request(number))
        if number in self._asked:  # else it came while the request was sent
            self._answered = number, trio.Event()
            with trio.move_on_after(ANSWER_S):
                await self._answered[1].wait()
