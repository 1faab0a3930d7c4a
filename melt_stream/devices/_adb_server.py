"""The adb server: its requests of four hex digits and text, its refusals as errors, and the packets of a shell.

Source: AOSP's OVERVIEW.TXT, SERVICES.TXT and shell_protocol.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import trio

from melt_stream.devices.channel import Gone
from melt_stream.errors import DeviceError, Transient

T = TypeVar("T")
PORT = 5037
DEADLINE_S = 10.0
BY_TRANSPORT = 41
"""The first server that says which transport it took (``tport``)."""
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PACKET = struct.Struct("<BI")
LARGEST = 1 << 20


class NoServer(Gone):
    """No adb server listens."""


class Absent(Gone):
    """The server knows no such device."""


class Offline(Gone):
    """The server knows the device, which does not answer."""


class Unauthorized(Gone):
    """The phone has not said yes to this computer."""


class Refused(DeviceError):
    """The device has no such service."""


class Packet(NamedTuple):
    """A piece of a shell's stream."""

    kind: int
    data: bytes


@dataclass
class Packets:
    """Takes a shell's stream in pieces of any size. Raises ``DeviceError`` for what no shell says."""

    _rest: bytes = field(default=b"", init=False)

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield what is complete."""
        self._rest += data
        while len(self._rest) >= PACKET.size:
            kind, size = PACKET.unpack_from(self._rest)
            if kind not in {STDOUT, STDERR, EXIT} or size > LARGEST or (kind == EXIT and size != 1):
                raise DeviceError(
                    f"expected a packet of adb's shell protocol, got {self._rest[:24]!r}; try: adb kill-server"
                )
            if len(self._rest) < PACKET.size + size:
                return
            packet = Packet(kind, self._rest[PACKET.size : PACKET.size + size])
            self._rest = self._rest[PACKET.size + size :]
            yield packet


def framed(kind: int, data: bytes = b"") -> bytes:
    """Return a packet's bytes."""
    return PACKET.pack(kind, len(data)) + data


def refusal(name: str, serial: str, said: str) -> DeviceError:
    """Make an error of a server's FAIL, told apart by what to do."""
    got, which = f"{name}: expected the device {serial or '(the only one)'}, got", said.strip()
    words = which.lower()
    if "unauthorized" in words or "authorizing" in words:
        return Unauthorized(
            f"{got} {which.splitlines()[0]!r}; try: unlock the phone and allow debugging by this computer"
        )
    if "more than one" in words:
        return DeviceError(f"{got} {which!r}; try: a serial of `adb devices`")
    if "offline" in words or "connecting" in words:
        return Offline(f"{got} {which!r}; try: plug it in again, or adb reconnect offline")
    if "not found" in words or "no devices" in words:
        return Absent(f"{got} {which!r}; try: adb devices -l, and USB debugging switched on")
    if words == "closed":
        return Refused(f"{got} 'closed': it has no such service, or nothing listens there")
    return DeviceError(f"{got} {which!r}")


@dataclass(frozen=True)
class Server:
    """Where an adb server listens, and what is asked of it in whose name."""

    name: str
    serial: str
    host: str
    port: int | None

    @property
    def at(self) -> int:
        """Its port: given, else as adb itself finds it."""
        return self.port or int(os.environ.get("ANDROID_ADB_SERVER_PORT") or PORT)

    async def request(self, text: str) -> trio.SocketStream:
        """Connect and ask; return the connection after OKAY. Raises ``NoServer``, or what the refusal means."""
        return await self._deadline(self._requested(text), text)

    async def ask(self, text: str, okays: int = 1) -> str:
        """Ask for a text, which comes after so many OKAY."""
        return await self._deadline(self._asked(text, okays), text)

    async def service(self, text: str) -> trio.SocketStream:
        """Open a service on the device. Raises ``Absent``, ``Offline``, ``Unauthorized``, ``Refused``, ``NoServer``."""
        version = int(await self.ask("host:version"), 16)
        stream = await self.request(self._transport(version))
        try:
            await self._deadline(self._opened(stream, text, version), text)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    def _transport(self, version: int) -> str:
        kind = "tport" if version >= BY_TRANSPORT else "transport"
        if self.serial:
            return f"host:{kind}:serial:{self.serial}" if kind == "tport" else f"host:{kind}:{self.serial}"
        return f"host:{kind}:any" if kind == "tport" else f"host:{kind}-any"

    async def _opened(self, stream: trio.SocketStream, text: str, version: int) -> None:
        if version >= BY_TRANSPORT:
            await self._exactly(stream, 8)
        await stream.send_all(_hex4(text))
        await self._okay(stream)

    async def _requested(self, text: str) -> trio.SocketStream:
        try:
            stream = await trio.open_tcp_stream(self.host, self.at)
        except OSError as exc:
            raise NoServer(
                f"{self.name}: expected an adb server at {self.host}:{self.at}, got {exc}; try: adb start-server"
            ) from exc
        try:
            stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            await stream.send_all(_hex4(text))
            await self._okay(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _asked(self, text: str, okays: int) -> str:
        async with await self._requested(text) as stream:
            for _ in range(okays - 1):
                await self._okay(stream)
            return await self.text(stream)

    async def text(self, stream: trio.SocketStream) -> str:
        """Wait for a text with its length before it. Raises ``Gone`` where the server ends."""
        return (await self._exactly(stream, int(await self._exactly(stream, 4), 16))).decode(errors="replace")

    async def _okay(self, stream: trio.SocketStream) -> None:
        match await self._exactly(stream, 4):
            case b"OKAY":
                return
            case b"FAIL":
                raise refusal(self.name, self.serial, await self.text(stream))
            case other:
                raise DeviceError(
                    f"{self.name}: expected OKAY or FAIL from an adb server at {self.host}:{self.at}, got {other!r}"
                )

    async def _exactly(self, stream: trio.SocketStream, size: int) -> bytes:
        got = b""
        try:
            while len(got) < size and (some := await stream.receive_some(size - len(got))):
                got += some
        except trio.BrokenResourceError as exc:
            raise Gone(f"{self.name}: expected an answer of the adb server, got {exc}") from exc
        if len(got) < size:
            raise Gone(f"{self.name}: expected an answer of the adb server, got the end of the connection")
        return got

    async def _deadline(self, asked: Awaitable[T], text: str) -> T:
        with trio.move_on_after(DEADLINE_S):
            return await asked
        raise Transient(
            f"{self.name}: {text[:60]}: expected an answer of the adb server within {DEADLINE_S:g} s, got none"
        )


def _hex4(text: str) -> bytes:
    data = text.encode()
    if len(data) > 0xFFFF:
        raise DeviceError(f"expected a command of up to 65535 bytes, got {len(data)}; try: push a script")
    return b"%04x" % len(data) + data
