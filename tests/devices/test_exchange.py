"""Requests for the time that reach the loop in pieces, or not whole: what the shell forgets is asked again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from melt_stream.clock import Clock
from melt_stream.devices import Local
from melt_stream.devices.channel import Channel
from melt_stream.devices.exchange import BURST, Exchange
from melt_stream.devices.loop import Parser, Shown
from melt_stream.devices.runner import Runner
from melt_stream.devices.talk import Talk
from melt_stream.errors import DeviceError
from melt_stream.outlet import Hub

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell) is None, reason=f"expected {shell}"))
    for shell in ("bash", "mksh")
]


@dataclass
class Slow:
    """A channel that hands each byte over in another slot of the loop, and may lose the first request's beginning."""

    channel: Channel
    forgets: int = 0
    sent: list[bytes] = field(default_factory=list)
    _sampled: trio.Event = field(default_factory=trio.Event)

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        for at in range(self.forgets if len(self.sent) == 1 else 0, len(data)):
            await self.channel.send(data[at : at + 1])
            await self._sampled.wait()

    async def receive(self) -> bytes:
        return await self.channel.receive()

    async def status(self) -> int:
        return await self.channel.status()

    def complaints(self) -> str:
        return self.channel.complaints()

    def take(self, _sample: object) -> None:
        """A slot has passed."""
        self._sampled.set()
        self._sampled = trio.Event()


async def told(shell: str, forgets: int) -> tuple[Slow, list[int]]:
    """Talk with a loop of 100 Hz until its clock was read as often as a burst asks; return which requests it answered."""
    hub, answers = Hub(), []
    clock = Clock("board.realtime", tick_ns=1000.0)
    async with Local("board").channel(Runner("shell", (shell,)).loop([], 100, jitter=True)) as channel:
        slow = Slow(channel, forgets)

        class Heard(Exchange):
            def heard(self, shown: Shown, arrival: int) -> None:
                answers.append(shown.number)
                super().heard(shown, arrival)

        exchange = Heard(slow, clock, 0, hub.outlet("it", "board"))
        talk = Talk("board", slow, Parser(0), exchange, slow.take, 100.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.run)
            while len(answers) < BURST:
                await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    readings = next(batch.data for batch in hub.take() if batch.source.key == "run.readings").to_pylist()
    assert len(readings) == len(set(answers))
    assert all(row["not_before"] < row["not_after"] for row in readings)
    return slow, answers


@pytest.mark.parametrize("shell", SHELLS)
async def test_requests_that_come_a_byte_a_slot_are_answered_or_made_again(shell):
    with trio.fail_after(60):
        slow, answers = await told(shell, 0)
    assert set(answers) <= set(range(1, len(slow.sent) + 1))


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_request_whose_beginning_the_shell_forgot_is_made_again(shell):
    with trio.fail_after(60):
        slow, answers = await told(shell, 3)
    assert slow.sent[:2] == [b"clock 1\n", b"clock 2\n"]
    assert 1 not in answers


async def test_an_answer_that_came_before_is_passed_over_and_one_to_no_request_is_an_error():
    hub = Hub()
    async with Local("board").channel("cat >/dev/null") as channel:
        exchange = Exchange(channel, Clock("board.realtime", tick_ns=1000.0), 0, hub.outlet("it", "board"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.burst)
            await trio.testing.wait_all_tasks_blocked()
            exchange.heard(Shown(1, 5), exchange.out.now())
            exchange.heard(Shown(1, 6), exchange.out.now())
            nursery.cancel_scope.cancel()
        with pytest.raises(DeviceError, match="a clock request of ours, got one to 9"):
            exchange.heard(Shown(9, 5), exchange.out.now())
    (readings,) = (batch.data for batch in hub.take() if batch.source.key == "run.readings")
    assert [row["count"] for row in readings.to_pylist()] == [5]
