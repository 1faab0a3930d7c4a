"""The device's end of adb's wire: packets, and streams with one unacknowledged write each. Knows no service.

Source: AOSP's protocol.txt; a device that answers CNXN with CNXN asks for no authentication.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

HEADER = struct.Struct("<4s5I")
VERSION, LARGEST = 0x01000001, 1 << 20
WITHOUT_SUMS = 0x01000001
"""The first version whose packets carry no sum."""
Before = Callable[[int], Awaitable[None]]


class Hangup(Exception):
    """The host closed the stream, or the link is gone."""


def packet(command: bytes, first: int, second: int, data: bytes = b"", *, summed: bool = False) -> bytes:
    """Return a packet's bytes."""
    magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    return HEADER.pack(command, first, second, len(data), sum(data) if summed else 0, magic) + data


@dataclass
class Wire:
    """One end of a stream."""

    link: Link
    here: int
    there: int
    _arrived: bytearray = field(default_factory=bytearray)
    _news: trio.Event = field(default_factory=trio.Event)
    _acknowledged: trio.Event = field(default_factory=trio.Event)
    _closed: bool = False
    _accepted: bool = False
    _sending: trio.Lock = field(default_factory=trio.Lock)
    _rest: bytes = b""

    async def accept(self) -> None:
        """Tell the host that the service is there; else it is refused when it ends."""
        self._accepted = True
        await self.link.send(b"OKAY", self.here, self.there)

    async def end(self) -> None:
        """Tell the host that there is no more; its own CLSE is answered with one, too."""
        await self.link.send(b"CLSE", self.here if self._accepted else 0, self.there)

    async def receive(self) -> bytes:
        """Wait for what the host wrote, and acknowledge it; nothing where the host has closed the stream."""
        while not self._arrived and not self._closed:
            self._news = trio.Event()
            await self._news.wait()
        data, self._arrived = bytes(self._arrived), bytearray()
        if data and not self._closed:
            await self.link.send(b"OKAY", self.here, self.there)
        return data

    async def exactly(self, size: int) -> bytes:
        """Wait for so many bytes. Raises ``Hangup`` where fewer come."""
        while len(self._rest) < size:
            if not (data := await self.receive()):
                raise Hangup
            self._rest += data
        got, self._rest = self._rest[:size], self._rest[size:]
        return got

    async def send(self, data: bytes) -> None:
        """Write, and wait until the host has taken it. Raises ``Hangup``."""
        async with self._sending:  # stdout and stderr take turns
            for at in range(0, len(data), self.link.largest):
                if self._closed:
                    raise Hangup
                self._acknowledged = trio.Event()
                await self.link.send(b"WRTE", self.here, self.there, data[at : at + self.link.largest])
                await self._acknowledged.wait()
            if self._closed:
                raise Hangup

    def take(self, command: bytes, data: bytes) -> None:
        """Let those who wait see what the host has sent."""
        self._arrived += data
        self._closed |= command == b"CLSE"
        if command != b"OKAY":
            self._news.set()
        if command != b"WRTE":
            self._acknowledged.set()


@dataclass
class Link:
    """A host's connection, from its CNXN to its end."""

    stream: trio.SocketStream
    banner: str
    serve: Callable[[str, Wire], Awaitable[None]]
    """Serves a service on a stream, until it returns."""
    knows: Callable[[str], bool]
    """Whether there is such a service; others are refused."""
    before: Before
    """Awaited before so many bytes are sent: what a slow link takes."""
    largest: int = 4096
    _summed: bool = True
    _wires: dict[int, Wire] = field(default_factory=dict)
    _opened: int = 0
    _sending: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        """Serve the host until it leaves, or says what no host says."""
        async with trio.open_nursery() as nursery:
            try:
                while head := await self._exactly(HEADER.size):
                    command, first, second, size, _, magic = HEADER.unpack(head)
                    if magic != int.from_bytes(command, "little") ^ 0xFFFFFFFF or size > LARGEST:
                        break
                    await self._take(command, first, second, await self._exactly(size), nursery)
            except (trio.BrokenResourceError, trio.ClosedResourceError, struct.error):
                pass  # the host left in the middle
            nursery.cancel_scope.cancel()

    async def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Send a packet whole. Raises ``Hangup`` where the link is gone."""
        async with self._sending:
            await self.before(HEADER.size + len(data))
            with trio.CancelScope(shield=True):  # half a packet would be the end of the link
                try:
                    await self.stream.send_all(packet(command, first, second, data, summed=self._summed))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    raise Hangup from None

    async def _take(
        self, command: bytes, first: int, second: int, data: bytes, nursery: trio.Nursery
    ) -> None:
        match command:
            case b"CNXN":
                self.largest, self._summed = min(second, LARGEST), first < WITHOUT_SUMS
                await self.send(b"CNXN", VERSION, LARGEST, self.banner.encode())
            case b"OPEN":
                await self._open(first, data.rstrip(b"\0").decode(errors="replace"), nursery)
            case _ if second in self._wires:  # else of a stream that is closed already
                self._wires[second].take(command, data)

    async def _open(self, there: int, service: str, nursery: trio.Nursery) -> None:
        if not self.knows(service):
            await self.send(b"CLSE", 0, there)
            return
        self._opened += 1
        wire = self._wires[self._opened] = Wire(self, self._opened, there)
        nursery.start_soon(self._served, service, wire)

    async def _served(self, service: str, wire: Wire) -> None:
        with suppress(Hangup):
            await self.serve(service, wire)
        del self._wires[wire.here]
        with suppress(Hangup):
            await wire.end()

    async def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size and (some := await self.stream.receive_some(size - len(got))):
            got += some
        return bytes(got)
