"""What a device is, and a command that runs on it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from melt_stream.errors import Transient

DEADLINE_S = 30.0
LONGEST = 64 << 20
"""Bytes of output that ``run`` takes."""


class Gone(Transient):
    """The link ended, and nothing says how the command did: a cable pulled is never a clean end."""


class Rebooted(Gone):
    """It has begun another boot: what ran there is lost, and its clocks are in another epoch."""


class Channel(Protocol):
    """A command that runs on a device."""

    async def send(self, data: bytes) -> None:
        """Write to its stdin. Raises ``Gone``."""

    async def receive(self) -> bytes:
        """Wait for some of its stdout; nothing at its end. Raises ``Gone``."""

    async def close_stdin(self) -> None:
        """Let it see the end of its stdin. Raises ``Gone``."""

    async def status(self) -> int:
        """Wait for its end, output thrown away, and return its exit status (-n: by signal n). Raises ``Gone``."""

    def complaints(self) -> str:
        """The end of what it has written to stderr so far."""


class Device(Protocol):
    """A machine that can be reached."""

    name: str
    """As the recipe calls it; part of its clocks' names."""

    def channel(self, command: str) -> AbstractAsyncContextManager[Channel]:
        """Run a line of its shell for the time of the body, which ends it. Raises ``Gone``."""

    async def push(self, local: Path, remote: str) -> None:
        """Copy a file to it; afterwards it is there whole, or ``Gone`` or ``DeviceError`` is raised."""

    async def pull(self, remote: str, local: Path) -> None:
        """Copy a file from it."""

    def forward(self, port: int) -> AbstractAsyncContextManager[int]:
        """Make a TCP port that listens on its loopback one of ours, for the time of the body; return which."""

    def by_hand(self, command: str) -> str:
        """What a user types into a shell of ours to run a line of its shell."""

    async def reboot(self) -> None:
        """Start it anew; it is ``Gone`` for a while. Raises ``Gone``, ``DeviceError`` where we may not."""


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    status: int
    out: bytes
    complaints: str


def quoted(command: Sequence[str]) -> str:
    """Return a command's words as a line for a shell: the one place where that is done."""
    return shlex.join(command)


async def run(
    device: Device, command: Sequence[str], *, stdin: bytes = b"", deadline_s: float = DEADLINE_S
) -> Done:
    """Run a command to its end.

    Raises ``Gone`` where the link ends first, ``Transient`` where it takes longer than ``deadline_s`` (it is then ended).
    """
    out = b""
    with trio.move_on_after(deadline_s):
        async with device.channel(quoted(command)) as channel:
            await channel.send(stdin)
            await channel.close_stdin()
            while data := await channel.receive():
                out += data
                if len(out) > LONGEST:
                    raise Transient(
                        f"{device.name}: {quoted(command)[:80]}: expected some output, got more than {LONGEST} bytes"
                    )
            return Done(await channel.status(), out, channel.complaints())
    raise Transient(
        f"{device.name}: {quoted(command)[:80]}: expected its end within {deadline_s:g} s, got {len(out)} bytes and none"
    )
