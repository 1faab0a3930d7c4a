"""A phone over a real adb server. What flows all the time does so natively, a stream a channel; files go through ``adbutils``, in threads.

Needs shell protocol 2 (Android 7): its last packet tells a command's end from that of a cable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from melt_stream.devices._adb_server import (
    CLOSE_STDIN,
    EXIT,
    STDIN,
    STDOUT,
    Absent,
    NoServer,
    Offline,
    Packets,
    Refused,
    Server,
    Unauthorized,
    framed,
    refusal,
)
from melt_stream.devices._sums import sha256_of
from melt_stream.devices.channel import Channel, Gone, quoted, run
from melt_stream.errors import DeviceError, Transient

__all__ = ["Absent", "Adb", "NoServer", "Offline", "Refused", "Unauthorized", "devices"]

BLOCK = 1 << 16
KEPT = 4096
"""Bytes of stderr that are kept."""
FILES_S, SLOWEST = 30.0, 200_000
"""How long a file may take: so many seconds, and one more for each so many bytes."""


@dataclass
class _Shell:
    """A command, over the stream of its packets."""

    name: str
    stream: trio.SocketStream
    packets: Packets
    exit_status: int | None = None
    _stderr: bytes = b""

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), BLOCK):
            await self._send(framed(STDIN, data[at : at + BLOCK]))

    async def close_stdin(self) -> None:
        await self._send(framed(CLOSE_STDIN))

    async def receive(self) -> bytes:
        while self.exit_status is None:
            if not (data := await self._some()):
                raise self._gone("the end of the stream without an exit status")
            out = b""
            for packet in self.packets.feed(data):
                if packet.kind == STDOUT:
                    out += packet.data
                elif packet.kind == EXIT:
                    self.exit_status = packet.data[0]
                else:
                    self._stderr = (self._stderr + packet.data)[-KEPT:]
            if out:
                return out
        return b""

    async def status(self) -> int:
        while await self.receive():
            pass
        assert self.exit_status is not None
        return self.exit_status

    def complaints(self) -> str:
        return self._stderr.decode(errors="replace").strip()

    async def _send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            if self.exit_status is None:  # else it does not read any more, and its status says more
                raise self._gone(str(exc)) from exc

    async def _some(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(BLOCK))
        except trio.BrokenResourceError as exc:
            raise self._gone(str(exc)) from exc

    def _gone(self, why: str) -> Gone:
        return Gone(
            f"{self.name}: expected more from the phone, got {why}; try: look at its cable, or its Wi-Fi"
        )


@dataclass
class Adb:
    """A phone. A serial HOST:PORT (Wi-Fi) is connected to when the server does not have it, or has lost it."""

    name: str
    serial: str = ""
    """As ``adb devices`` shows it; empty: the only one."""
    host: str = "127.0.0.1"
    """Of the adb server."""
    port: int | None = None
    """Of the adb server; None: ``ANDROID_ADB_SERVER_PORT``, or 5037."""

    @property
    def server(self) -> Server:
        """The server, asked in this device's name."""
        return Server(self.name, self.serial, self.host, self.port)

    @asynccontextmanager
    async def channel(self, command: str) -> AsyncIterator[Channel]:
        async with await self._service(f"shell,v2,raw:{command}") as stream:
            try:
                yield _Shell(self.name, stream, Packets())
            finally:  # the server closes the device's end, which ends the command
                await trio.aclose_forcefully(stream)

    async def push(self, local: Path, remote: str) -> None:
        """Copy a file to it, under another name until its sha256 is right there."""
        part = f"{remote}.part"
        size = (await trio.Path(local).stat()).st_size
        await self._files(lambda device: device.sync.push(str(local), part), size, f"push to {remote}")
        await self._same(local, part, size)
        moved = await run(self, ["mv", "-f", part, remote])
        if moved.status:
            raise DeviceError(f"{self.name}: expected to write {remote}, got: {moved.complaints}")

    async def pull(self, remote: str, local: Path) -> None:
        """Copy a file from it, under another name until its sha256 is right here."""
        part = local.with_name(f"{local.name}.part")
        told = await run(self, ["stat", "-c", "%s", remote])
        if told.status:
            raise DeviceError(f"{self.name}: expected the file {remote}, got: {told.complaints}")
        size = int(told.out)
        try:
            await self._files(lambda device: device.sync.pull_file(remote, part), size, f"pull of {remote}")
            await self._same(part, remote, size)
            await trio.Path(part).replace(local)
        finally:
            await trio.Path(part).unlink(missing_ok=True)

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncIterator[int]:
        prefix = f"host-serial:{self.serial}" if self.serial else "host"
        ours = int(await self.server.ask(f"{prefix}:forward:tcp:0;tcp:{port}", okays=2))
        try:
            yield ours
        finally:
            with trio.CancelScope(shield=True), suppress(DeviceError):  # gone with the device, or the server
                await trio.aclose_forcefully(await self.server.request(f"{prefix}:killforward:tcp:{ours}"))

    @property
    def over_usb(self) -> bool:
        """Whether the link is a cable: its serial is neither HOST:PORT nor a name of Wi-Fi debugging."""
        return ":" not in self.serial and "._tcp" not in self.serial

    @property
    def over_wifi(self) -> bool:
        """Whether the link goes through the phone's own network: not over USB, and not by this machine's loopback."""
        return not self.over_usb and not self.serial.startswith(("127.", "localhost:", "[::1]:"))

    def by_hand(self, command: str) -> str:
        where = ["-H", self.host] if self.host != "127.0.0.1" else []
        where += ["-P", str(self.port)] if self.port else []
        which = ["-s", self.serial] if self.serial else []
        return quoted(["adb", *where, *which, "shell", command])

    async def reboot(self) -> None:
        """Start it anew; it is ``Gone`` or ``Offline`` for a while. Raises ``Gone`` where it cannot be asked."""
        async with await self._service("reboot:") as stream:
            with trio.move_on_after(5.0), suppress(trio.BrokenResourceError):
                await stream.receive_some(1)

    async def _service(self, text: str) -> trio.SocketStream:
        try:
            return await self.server.service(text)
        except (Absent, Offline):
            if ":" not in self.serial:
                raise
            with suppress(DeviceError):  # it did not have it
                await self.server.ask(f"host:disconnect:{self.serial}")
            said = await self.server.ask(f"host:connect:{self.serial}")
            if "connected to" not in said or "failed" in said:
                raise Absent(
                    f"{self.name}: expected to connect to {self.serial}, got {said!r}; try: is it on, and in this Wi-Fi?"
                ) from None
            return await self.server.service(text)

    async def _same(self, local: Path, remote: str, size: int) -> None:
        """Compare a file here with one there."""
        done = await run(self, ["sha256sum", remote], deadline_s=_deadline(size))
        there = done.out.decode(errors="replace").split()[:1]
        here = await trio.to_thread.run_sync(sha256_of, local)
        if done.status or there != [here]:
            raise Transient(
                f"{self.name}: {remote}: expected sha256 {here}, got {there or done.complaints}; try: again, with more room there"
            )

    async def _files(self, do: Callable[[Any], object], size: int, what: str) -> None:
        """Do something with adbutils' device in a thread: the one place where that is done."""
        await trio.aclose_forcefully(
            await self._service("shell,v2,raw:true")
        )  # says who is not there, and starts no server
        deadline_s = _deadline(size)
        with trio.move_on_after(deadline_s):
            await trio.to_thread.run_sync(self._blocking, do, what, abandon_on_cancel=True)
            return
        raise Transient(
            f"{self.name}: {what}: expected {size} bytes to take up to {deadline_s:.0f} s, got no end"
        )

    def _blocking(self, do: Callable[[Any], object], what: str) -> None:
        import adbutils

        client = adbutils.AdbClient(host=self.host, port=self.server.at)
        try:
            do(client.device(self.serial or None))
        except adbutils.AdbError as exc:
            raise refusal(self.name, self.serial, f"{what}: {exc}") from exc
        except (OSError, EOFError) as exc:
            raise Gone(f"{self.name}: {what}: expected its end, got {exc!r}") from exc


async def devices(host: str = "127.0.0.1", port: int | None = None) -> AsyncGenerator[dict[str, str], None]:
    """Yield what the server has, states by serial, now and after each change. Raises ``NoServer``, ``Gone``."""
    server = Server("adb", "", host, port)
    async with await server.request("host:track-devices") as stream:
        while True:
            listed = (line.split("\t") for line in (await server.text(stream)).splitlines())
            yield {words[0]: words[1] for words in listed if len(words) > 1}


def _deadline(size: int) -> float:
    return FILES_S + size / SLOWEST
