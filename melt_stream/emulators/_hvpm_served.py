"""The transfers of an emulated black Monsoon, offered to other processes at a socket: ``collectors/_hvpm_socket.py`` has the form."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from melt_stream.clock import monotonic
from melt_stream.collectors._hvpm_link import PACKET, Gone, Refused, Silent
from melt_stream.collectors._hvpm_socket import (
    ANSWER,
    BULK,
    DONE,
    GONE,
    HEAD,
    IN,
    LIMIT,
    OUT,
    REFUSED,
    SCHEME,
    SILENT,
)
from melt_stream.emulators import Place

STEP_S = 0.001
"""How often a transfer looks for packets."""


class Box(Protocol):
    """What is served."""

    def control_out(self, request: int, value: int, index: int, data: bytes) -> None: ...

    def control_in(self, request: int, value: int, index: int, size: int) -> bytes: ...

    def fetch(self, size: int) -> list[bytes]:
        """Take the packets that are ready by now, of ``size`` bytes at the most."""


@dataclass
class Transfer:
    """A bulk read under way."""

    box: Box
    size: int
    seconds: float
    got: bytearray = field(default_factory=bytearray)
    began: int = field(default_factory=monotonic)

    def has_ended(self) -> bool:
        """Take what has come; tell whether the read has ended. Raises ``Silent`` where nothing came in its time."""
        while packets := self.box.fetch(min(PACKET, self.size - len(self.got))):
            self.got += packets[0]
            if len(packets[0]) < PACKET:
                return True  # a short packet ends a transfer
        if len(self.got) + PACKET > self.size:
            return True
        if (monotonic() - self.began) / 1e9 < self.seconds:
            return False
        if not self.got:
            raise Silent
        return True


async def served(box: Box, task_status: trio.TaskStatus[Place]) -> None:
    """Serve a box until cancelled."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_serve, box), 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        host, port = listener.socket.getsockname()[:2]
        task_status.started({"port": f"{SCHEME}{host}:{port}"})


async def _serve(box: Box, stream: trio.SocketStream) -> None:
    stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
    async with stream:
        try:
            while head := await _exactly(stream, HEAD.size):
                kind, request, value, index, size = HEAD.unpack(head)
                size = min(size, LIMIT)
                data = await _exactly(stream, size) if kind == OUT else b""
                status, answer = await _answer(box, kind, request, value, index, size, data)
                await stream.send_all(ANSWER.pack(status, len(answer)) + answer)
        except (trio.BrokenResourceError, struct.error):
            pass  # the client left in the middle


async def _answer(
    box: Box, kind: int, request: int, value: int, index: int, size: int, data: bytes
) -> tuple[int, bytes]:
    """Make one transfer; return its status and what was read, or why it was refused."""
    try:
        if kind == OUT:
            box.control_out(request, value, index, data)
            return DONE, b""
        if kind == IN:
            return DONE, box.control_in(request, value, index, size)
        if kind == BULK:
            transfer = Transfer(box, size, value / 1000)
            while not transfer.has_ended():  # noqa: ASYNC110 - samples come with time
                await trio.sleep(STEP_S)
            return DONE, bytes(transfer.got)
        raise Refused(f"a request of kind {kind}")
    except Silent:
        return SILENT, b""
    except Gone as exc:
        return GONE, str(exc).encode()
    except Refused as exc:
        return REFUSED, str(exc).encode()


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Read so many bytes; fewer where the client has left."""
    got = bytearray()
    while len(got) < size and (some := await stream.receive_some(size - len(got))):
        got += some
    return bytes(got)
