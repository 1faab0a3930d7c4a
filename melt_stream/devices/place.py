"""Where something runs: a device, its clock, its boots, and its lines by its own clock."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import trio

from melt_stream.clock import Clock
from melt_stream.devices.channel import Channel, Device, Gone, Rebooted, quoted, run
from melt_stream.devices.exchange import Exchange
from melt_stream.devices.local import Local
from melt_stream.devices.loop import Parser, Sample
from melt_stream.devices.runner import Runner, found, probe
from melt_stream.devices.talk import Talk
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet

BOOT_ID = "/proc/sys/kernel/random/boot_id"
LONGEST_LINE = 1 << 20
BACK_S = 120.0
"""How long a device may take to be back after a reboot."""
ASK_S = 0.5
STAMPED = re.compile(rb"(\d+)[.,](\d{6}) (.*)", re.DOTALL)


@dataclass
class Boots:
    """What is known of a device in one run: its boots, which are its clocks' epochs, and what runs the loop. One for all that is read there."""

    ids: list[str] = field(default_factory=list)
    runner: Runner | None = None

    def epoch(self, boot_id: str) -> int:
        """Return which boot this is, counted from 0."""
        if boot_id not in self.ids:
            self.ids.append(boot_id)
        return self.ids.index(boot_id)


class Failed(DeviceError):
    """A command on a device ended, and not well."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status
        """Its exit status; 128 + n or -n: by signal n."""


class Line(NamedTuple):
    """A line that a command on a device wrote."""

    tick: int
    """When the device's shell had read it, by ``Place.clock``."""
    arrival: int
    """When it came here, host ns."""
    text: str


@dataclass
class Place:
    """A device, for what runs on it. All that is there in one run shares one ``boots``."""

    device: Device = field(default_factory=Local)
    boots: Boots = field(default_factory=Boots)

    @property
    def clock(self) -> Clock:
        """The device's wall clock, in us: something may set or slew it, which its map shows.

        Of a board that can only tell the time since its boot, that: known once ``epoch`` or ``runner`` was asked.
        """
        if self.boots.runner is not None and self.boots.runner.base == "uptime":
            return Clock(f"{self.device.name}.uptime", tick_ns=1000.0)
        return Clock(f"{self.device.name}.realtime", tick_ns=1000.0, rho_ppm=500.0)

    async def epoch(self) -> int:
        """Return which of its boots it is in. Raises ``Gone``."""
        await self.runner()
        return self.boots.epoch((await run(self.device, ["cat", BOOT_ID])).out.decode().strip())

    async def why(self, gone: Gone, patience_s: float = BACK_S) -> Gone:
        """Wait until it answers again, and return ``Rebooted`` where it does so from another boot than before; else ``gone``."""
        before = self.boots.ids[-1:]
        with trio.move_on_after(patience_s):
            await self._back()
        return Rebooted(f"{gone}; it has begun another boot") if self.boots.ids[-1:] != before != [] else gone

    async def reboot(self, patience_s: float = BACK_S) -> int:
        """Start it anew and wait until it answers; return its new epoch. Raises ``Gone`` where it does not, or is in its old boot."""
        before = await self.epoch()
        await self.device.reboot()
        with trio.move_on_after(patience_s):
            return await self._back(before)
        raise Gone(
            f"{self.device.name}: expected another boot within {patience_s:g} s, got none; try: look at it"
        )

    async def _back(self, before: int | None = None) -> int:
        """Ask until it answers from another epoch than ``before``; return which."""
        while True:
            with suppress(Transient):
                if (epoch := await self.epoch()) != before:
                    return epoch
            await trio.sleep(ASK_S)

    async def runner(self) -> Runner:
        """Return what runs the loop there. Raises ``Gone``, ``DeviceError`` where nothing can."""
        if self.boots.runner is None:
            done = await run(self.device, ["sh", "-c", probe()])
            self.boots.runner = found(done.out.decode(errors="replace"), self.device.name)
        return self.boots.runner

    @asynccontextmanager
    async def clocked(self, out: Outlet) -> AsyncIterator[int]:
        """Tie the device's clock to ours for the time of the body, by readings; yield the clock's epoch.

        The body is cancelled, and ``Gone`` raised (in a group), where the link ends.
        """
        epoch, runner = await self.epoch(), await self.runner()
        async with (
            self.device.channel(runner.loop([], 1.0, jitter=False)) as channel,
            trio.open_nursery() as nursery,
        ):
            exchange = Exchange(channel, self.clock, epoch, out, runner.resolution)
            nursery.start_soon(Talk(self.device.name, channel, Parser(0), exchange, _nothing, 1.0).run)
            yield epoch
            nursery.cancel_scope.cancel()

    async def lines(self, out: Outlet, command: Sequence[str]) -> AsyncGenerator[Line, None]:
        """Run a command there and yield its lines, stamped by the device's clock, until it ends or we leave.

        Use it with ``contextlib.aclosing``. Raises ``Gone`` where the link ends, ``Failed`` where the command does.
        """
        program = (await self.runner()).lines(command)
        async with self.device.channel(program) as channel:
            rest = b""
            while data := await channel.receive():
                arrival = out.now()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield self._line(line, arrival)
                if len(rest) > LONGEST_LINE:
                    raise DeviceError(
                        f"{self.device.name}: {command[0]}: expected lines of up to {LONGEST_LINE} bytes, got more"
                    )
            if status := await channel.status():
                raise self._failed(command, status, channel)

    @asynccontextmanager
    async def output(self, command: Sequence[str], given: str = "") -> AsyncIterator[Channel]:
        """Run a command there for the time of the body, with a text as its stdin: what the channel gives is its stdout.

        The end of the channel's stdin sends it SIGTERM, and the rest of its output still comes. Raises ``Gone``.
        """
        async with self.device.channel((await self.runner()).output(command, given)) as channel:
            yield channel

    def _line(self, line: bytes, arrival: int) -> Line:
        if (said := STAMPED.fullmatch(line)) is None:
            raise DeviceError(f"{self.device.name}: expected a line with its time, got {line[:120]!r}")
        tick = int(said[1]) * 1_000_000 + int(said[2])
        return Line(tick, arrival, said[3].decode(errors="replace").rstrip("\r"))

    def _failed(self, command: Sequence[str], status: int, channel: Channel) -> Failed:
        return Failed(
            f"{self.device.name}: expected {quoted(command)[:120]} to end well, got exit status {status}: "
            f"{channel.complaints()[-200:] or 'it wrote nothing to stderr'}",
            status,
        )


@runtime_checkable
class Placeable(Protocol):
    """A collector or workload that runs something on the device that its entry of the recipe names."""

    def on(self, place: Place) -> Any:
        """Return the collector that does it there."""


def _nothing(sample: Sample) -> None:
    """A loop without files says nothing but the time."""
