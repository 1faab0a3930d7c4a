"""What an emulated adbd serves: commands of a shell, files, TCP ports, a reboot."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from melt_stream.emulators import _adbd_sync
from melt_stream.emulators._adbd import Hangup, Wire

V2 = re.compile(r"shell,v2[^:]*:(.*)", re.DOTALL)
RAW = re.compile(r"(?:shell|exec)(?:,raw)?:(.*)", re.DOTALL)
TCP = re.compile(r"tcp:(\d+)(?::.*)?")
PACKET = struct.Struct("<BI")
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
GONE = -1
BLOCK = 1 << 16


class Phone(Protocol):
    """What is behind the services."""

    environment: dict[str, str]

    def command(self, line: str) -> Sequence[str]:
        """The words that run a line in the phone's shell."""

    def find(self, path: str) -> Path:
        """From the phone's name of a file to ours."""


@dataclass
class Services:
    """All of one phone."""

    phone: Phone
    reboot: Callable[[], None]

    def knows(self, service: str) -> bool:
        """Whether there is such a service."""
        if tcp := TCP.fullmatch(service):
            return int(tcp[1]) < 65536
        return service == "sync:" or service.startswith(("shell", "exec", "reboot:"))

    async def serve(self, service: str, wire: Wire) -> None:
        """Serve until the service, or the host, is done. Raises ``Hangup``."""
        if tcp := TCP.fullmatch(service):
            with suppress(OSError):  # nobody listens there
                stream = await trio.open_tcp_stream("127.0.0.1", int(tcp[1]))
                await wire.accept()
                await _tcp(stream, wire)
            return
        await wire.accept()
        if service == "sync:":
            await _adbd_sync.serve(wire, self.phone.find)
        elif found := V2.fullmatch(service):
            await self._shell(found[1], wire, v2=True)
        elif found := RAW.fullmatch(service):
            await self._shell(found[1], wire, v2=False)
        elif service.startswith("reboot:"):
            self.reboot()

    async def _shell(self, line: str, wire: Wire, *, v2: bool) -> None:
        process = await trio.lowlevel.open_process(
            self.phone.command(line), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if v2 else subprocess.STDOUT, start_new_session=True,
            env=self.phone.environment,
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, process, wire, v2, nursery.cancel_scope)
                async with trio.open_nursery() as outputs:
                    for kind, output in ((STDOUT, process.stdout), (STDERR, process.stderr)):
                        if output is not None:
                            outputs.start_soon(_tell, kind if v2 else None, output, wire)
                status = await process.wait()
                if v2:
                    await wire.send(PACKET.pack(EXIT, 1) + bytes([status if status >= 0 else 128 - status]))
                nursery.cancel_scope.cancel()
        except* Hangup:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()
                pipes: list[trio.abc.AsyncResource | None] = [process.stdin, process.stdout, process.stderr]
                for pipe in filter(None, pipes):
                    await pipe.aclose()


async def _feed(process: trio.Process, wire: Wire, v2: bool, scope: trio.CancelScope) -> None:
    """Give the command its stdin until the host closes that, or the stream, which ends the command."""
    assert process.stdin is not None
    while True:
        kind, data = await _next(wire) if v2 else (STDIN, await wire.receive())
        if kind == GONE or not (v2 or data):
            scope.cancel()
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it does not read
            if kind == CLOSE_STDIN:
                await process.stdin.aclose()
            elif kind == STDIN:
                await process.stdin.send_all(data)


async def _next(wire: Wire) -> tuple[int, bytes]:
    try:
        kind, size = PACKET.unpack(await wire.exactly(PACKET.size))
        return kind, await wire.exactly(size)
    except Hangup:
        return GONE, b""


async def _tell(kind: int | None, pipe: trio.abc.ReceiveStream, wire: Wire) -> None:
    while data := bytes(await pipe.receive_some(BLOCK)):
        await wire.send(data if kind is None else PACKET.pack(kind, len(data)) + data)


async def _tcp(stream: trio.SocketStream, wire: Wire) -> None:
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(_upstream, stream, wire, nursery.cancel_scope)
        with suppress(trio.BrokenResourceError, Hangup):
            while data := bytes(await stream.receive_some(BLOCK)):
                await wire.send(data)
        nursery.cancel_scope.cancel()


async def _upstream(stream: trio.SocketStream, wire: Wire, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, Hangup):
        while data := await wire.receive():
            await stream.send_all(data)
    scope.cancel()
