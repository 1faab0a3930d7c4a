"""Where lines of text come from while a run lasts: a serial port, a TCP server, a command, a file that grows."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from melt_stream.clock import Now
from melt_stream.collectors._process import guarded
from melt_stream.collectors._serial import Block, open_port
from melt_stream.errors import ConfigError, DeviceError, Transient

Receive = Callable[[], Awaitable[Block]]
"""Waits for bytes; an empty block is an end in order."""
BLOCK = 1 << 16
LOOK_S = 0.01
"""A file that grows is looked at so often."""


def host_and_port(address: str, port: int | None = None) -> tuple[str, int]:
    """Split ``host:port``, ``[::1]:port``, or ``host`` where there is a usual ``port``. Raises ``ConfigError``."""
    host, colon, number = address.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, number = address, str(port or "")
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ConfigError(f"expected HOST:PORT, got {address!r}")
    return host.strip("[]"), int(number)


@asynccontextmanager
async def serial_lines(path: str, baud: int, now: Now) -> AsyncIterator[Receive]:
    """Open a serial port."""
    async with open_port(path, baud=baud, now=now) as port:
        yield port.read


@dataclass
class Tcp:
    """A connection to a TCP server. Its end is ``Transient``, in either direction."""

    address: str
    stream: trio.SocketStream
    now: Now

    async def receive(self) -> Block:
        """Wait for bytes."""
        try:
            data = await self.stream.receive_some(BLOCK)
        except trio.BrokenResourceError as exc:
            raise Transient(f"{self.address}: expected bytes, got {exc.__cause__ or exc}") from exc
        if not data:
            raise Transient(f"{self.address}: expected bytes, got the end of the connection")
        return Block(bytes(data), self.now())

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as exc:
            raise Transient(f"{self.address}: expected to send, got {exc.__cause__ or exc}") from exc


@asynccontextmanager
async def tcp(address: str, now: Now, port: int | None = None) -> AsyncIterator[Tcp]:
    """Connect to a TCP server, for the time of the body. Its absence is ``Transient``."""
    host, number = host_and_port(address, port)
    try:
        stream = await trio.open_tcp_stream(host, number)
    except OSError as exc:
        raise Transient(
            f"{address}: expected a TCP server, got {exc}; is it on, and the address right?"
        ) from exc
    async with stream:
        yield Tcp(address, stream, now)


@asynccontextmanager
async def tcp_lines(address: str, now: Now) -> AsyncIterator[Receive]:
    """Connect to a TCP server that only talks."""
    async with tcp(address, now) as connection:
        yield connection.receive


@asynccontextmanager
async def command_lines(command: Sequence[str], now: Now) -> AsyncIterator[Receive]:
    """Run a program and read its stdout; its end with status 0 is an end in order, any other ``DeviceError``."""
    async with guarded() as start:
        try:
            process = await start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as exc:
            raise DeviceError(
                f"command: expected a program that can be run, got {command[0]!r}: {exc}"
            ) from exc
        stdout = process.stdout
        assert stdout is not None

        async def receive() -> Block:
            data, arrival = bytes(await stdout.receive_some(BLOCK)), now()
            if not data and (status := await process.wait()):
                raise DeviceError(f"command: expected {command[0]!r} to end with status 0, got {status}")
            return Block(data, arrival)

        yield receive


@asynccontextmanager
async def file_lines(path: Path, now: Now) -> AsyncIterator[Receive]:
    """Read what is written to a file from now on, or to a FIFO."""
    try:
        is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116 - beside os.open
        # A FIFO opened for reading alone is at its end whenever nobody writes.
        fd = os.open(path, (os.O_RDWR if is_fifo else os.O_RDONLY) | os.O_NONBLOCK)
    except OSError as exc:
        raise Transient(f"{path}: expected a file that may be read, got {exc.strerror}") from exc
    try:
        if not is_fifo and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DeviceError(
                f"{path}: expected a file or a FIFO; for a serial port write port = {str(path)!r}"
            )
        yield _from_fifo(fd, now) if is_fifo else _from_file(path, fd, now)
    finally:
        os.close(fd)


def _from_fifo(fd: int, now: Now) -> Receive:
    async def receive() -> Block:
        while True:
            await trio.lowlevel.wait_readable(fd)
            try:
                return Block(os.read(fd, BLOCK), now())
            except BlockingIOError:
                continue

    return receive


def _from_file(path: Path, fd: int, now: Now) -> Receive:
    at = os.lseek(fd, 0, os.SEEK_END)

    async def receive() -> Block:
        nonlocal at
        while not (data := os.read(fd, BLOCK)):
            if os.fstat(fd).st_size < at or not _is_still(path, fd):
                raise Transient(f"{path}: expected it to grow, got a shorter or another file")
            await trio.sleep(LOOK_S)
        at += len(data)
        await trio.lowlevel.checkpoint()
        return Block(data, now())

    return receive


def _is_still(path: Path, fd: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except OSError:
        return False
