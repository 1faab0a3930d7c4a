"""Where something runs: a device, its clock, its boots, and its lines by its own clock."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import trio

from melt_stream.clock import Clock
from melt_stream.devices.channel import Channel, Device, quoted, run
from melt_stream.devices.exchange import Exchange
from melt_stream.devices.local import Local
from melt_stream.devices.loop import Parser, Sample, probe, program
from melt_stream.devices.talk import Talk
from melt_stream.errors import DeviceError
from melt_stream.outlet import Outlet

BOOT_ID = "/proc/sys/kernel/random/boot_id"
LONGEST_LINE = 1 << 20
STAMPED = re.compile(rb"(\d+)[.,](\d{6}) (.*)", re.DOTALL)
_HELD = r"""
set -o pipefail
if [ -n "$KSH_VERSION" ]; then put() { print -r -- "$1"; }; else put() { printf '%s\n' "$1"; }; fi
exec 3<&0
held() {
    (exec "$@") 3<&- <&4 4<&- &
    p=$!
    { while read -r x; do :; done; kill $p; } <&3 >/dev/null 2>&1 4<&- &
    w=$!
    wait $p
    s=$?
    kill -9 $w 2>/dev/null  # at once: a mksh that is about to read notices no other signal
    exit $s
}
"""
"""``held`` runs a command whose stdin is our descriptor 4, and kills it when our end of stdin closes."""
_LINES = (
    _HELD
    + r"""held "$@" 4</dev/null | while IFS= read -r l || [ -n "$l" ]; do put "$EPOCHREALTIME $l"; done"""
)
"""Runs a command and stamps its lines, by the shell's built-ins."""
_OUTPUT = _HELD + r"""g=$1; shift; (trap '' PIPE; put "$g" 2>/dev/null; :) | held "$@" 4<&0 | cat"""
"""Runs a command with a text as its stdin; ``cat`` makes its stdout a pipe, which a daemon that it is handed to may write to."""


@dataclass
class Boots:
    """The boots of a device: its clocks' epochs. One for all that is read there."""

    ids: list[str] = field(default_factory=list)

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
        """The device's wall clock, in us: something may set or slew it, which its map shows."""
        return Clock(f"{self.device.name}.realtime", tick_ns=1000.0, rho_ppm=500.0)

    async def epoch(self) -> int:
        """Return which of its boots it is in. Raises ``Gone``."""
        return self.boots.epoch((await run(self.device, ["cat", BOOT_ID])).out.decode().strip())

    async def shell(self) -> str:
        """Return a shell there that knows the time. Raises ``Gone``, ``DeviceError`` where there is none."""
        done = await run(self.device, ["sh", "-c", probe()])
        if not (shell := done.out.decode().strip()):
            raise DeviceError(
                f"{self.device.name}: expected a shell with EPOCHREALTIME (mksh, or bash 5), got none; install bash"
            )
        return shell

    @asynccontextmanager
    async def clocked(self, out: Outlet) -> AsyncIterator[int]:
        """Tie the device's clock to ours for the time of the body, by readings; yield the clock's epoch.

        The body is cancelled, and ``Gone`` raised (in a group), where the link ends.
        """
        epoch, shell = await self.epoch(), await self.shell()
        async with (
            self.device.channel(program(shell, [], 1.0, jitter=False)) as channel,
            trio.open_nursery() as nursery,
        ):
            exchange = Exchange(channel, self.clock, epoch, out)
            nursery.start_soon(Talk(self.device.name, channel, Parser(0), exchange, _nothing, 1.0).run)
            yield epoch
            nursery.cancel_scope.cancel()

    async def lines(self, out: Outlet, command: Sequence[str]) -> AsyncGenerator[Line, None]:
        """Run a command there and yield its lines, stamped by the device's clock, until it ends or we leave.

        Use it with ``contextlib.aclosing``. Raises ``Gone`` where the link ends, ``Failed`` where the command does.
        """
        words = [await self.shell(), "-c", _LINES, "lines", *command]
        async with self.device.channel(f"LC_ALL=C exec {quoted(words)}") as channel:
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
        words = [await self.shell(), "-c", _OUTPUT, "output", given, *command]
        async with self.device.channel(f"LC_ALL=C exec {quoted(words)}") as channel:
            yield channel

    def _line(self, line: bytes, arrival: int) -> Line:
        if (found := STAMPED.fullmatch(line)) is None:
            raise DeviceError(f"{self.device.name}: expected a line with its time, got {line[:120]!r}")
        tick = int(found[1]) * 1_000_000 + int(found[2])
        return Line(tick, arrival, found[3].decode(errors="replace").rstrip("\r"))

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
