"""A pseudo-terminal whose other end looks like the serial port of an instrument."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


@dataclass
class Line:
    """The instrument's end."""

    path: str
    """What a client opens."""
    master: int
    slave: int
    """Held open, so that a client that closes does not look like the end of the instrument; -1 when unplugged."""

    async def read(self) -> bytes:
        """Wait for bytes from the client."""
        while True:
            await trio.lowlevel.wait_readable(self.master)
            try:
                return os.read(self.master, 4096)
            except BlockingIOError:
                continue

    async def write(self, data: bytes) -> None:
        """Send bytes; waits where the client does not read, as a USB endpoint does that is not asked."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.master, view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.master)
        await trio.lowlevel.checkpoint()

    def write_now(self, data: bytes) -> int:
        """Send what fits without waiting; return how many bytes that were. For instruments that drop the rest."""
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0

    def unplug(self) -> None:
        """Pull the cable: the client sees the end of its port; nothing else may be called afterwards."""
        for fd in (self.master, self.slave):
            if fd >= 0:
                trio.lowlevel.notify_closing(fd)
                os.close(fd)
        self.master = self.slave = -1


@asynccontextmanager
async def plugged_in() -> AsyncIterator[Line]:
    """Make a port that exists for the time of the body."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    line = Line(os.ttyname(slave), master, slave)
    try:
        yield line
    finally:
        line.unplug()
        await trio.lowlevel.checkpoint()
