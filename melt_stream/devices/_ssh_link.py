"""An ssh connection in a loop of trio-asyncio's, and its channels: the one module that knows asyncio.

The loop lives in a system task of Trio's, so that no caller's nursery owns it: several tasks share one connection, which is opened by
the first, closed after the last, and outlives any one of them that is cancelled. What a channel receives is put together as it comes,
and crosses into Trio a chunk at a time (``reference/feasibility.md`` section 4: one crossing a line falls behind at 5 kHz).
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import asyncssh
import trio

from melt_stream.devices._ssh_errors import Client, meaning
from melt_stream.devices._trio_asyncio import aio_as_trio, open_loop, run_aio_future
from melt_stream.devices.channel import Gone

T = TypeVar("T")
KEPT = 4096
"""Bytes of stderr that are kept."""
FULL = 1 << 20
"""Bytes that wait for ``receive`` before the device is held up."""
FAREWELL_S = 2.0
Connect = Callable[[Client], Awaitable[asyncssh.SSHClientConnection]]


class Link:
    """One connection, and the loop that it runs in."""

    def __init__(self, name: str, address: str, connect: Connect) -> None:
        self._name, self._address, self._connect = name, address, connect
        self.users = 0
        self.client = Client()
        self.connection: Any = None
        self.failure: Exception | None = None
        self.scope = trio.CancelScope()
        self.ready = trio.Event()
        self.ended = trio.Event()

    @property
    def over(self) -> bool:
        """No more than what is under way can be had of it."""
        return self.client.lost or self.scope.cancel_called or self.ended.is_set()

    async def live(self) -> None:
        """Be the system task: connect, stay until the scope is cancelled, close."""
        try:
            async with open_loop() as self._loop:
                self._context = contextvars.copy_context()
                with self.scope:
                    await self._connected()
                with trio.move_on_after(FAREWELL_S, shield=True):
                    await aio_as_trio(self._close)()
        finally:
            self.ready.set()
            self.ended.set()

    async def _connected(self) -> None:
        try:
            self.connection = await aio_as_trio(self._connect)(self.client)
        except Exception as exc:  # noqa: BLE001 - it would end Trio; those who wait raise it
            self.failure = exc
            return
        self.ready.set()
        await trio.sleep_forever()

    async def _close(self) -> None:
        for connection in (self.connection, self.client.tunnel):
            if connection is not None:
                connection.close()
                await connection.wait_closed()

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call and await what is asyncio's, in the loop. Raises as ``Ssh`` says."""
        if self.ended.is_set():
            raise self.gone()
        try:
            task = self.call(self._loop.create_task, _called(function, args))
            result: T = await run_aio_future(task)
        except asyncio.CancelledError as exc:  # the loop ends
            raise self.gone() from exc
        except (OSError, asyncssh.Error, asyncssh.ChannelListenError) as exc:
            raise meaning(exc, self._name, self._address) from exc
        return result

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call what belongs to the loop: it finds the loop by a variable of the context."""
        return self._context.copy().run(function, *args)

    def gone(self) -> Gone:
        """The link dropped, and nothing says how the command did."""
        return Gone(f"{self._name} ({self._address}): expected the command's end, got the end of the link")


class Session(asyncssh.SSHClientSession[bytes]):
    """A channel. asyncssh calls what is below ``end``, in this thread."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Any = None
        self._waiting, self._stderr = bytearray(), bytearray()
        self._status: int | None = None
        self._eof = self._closed = self._paused = False
        self._changed = trio.Event()
        self._writable = trio.Event()
        self._writable.set()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(OSError):  # it does not read: its exit status says more
            self._link.call(self._channel.write, data)
        await self._writable.wait()
        self._check()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._waiting and not self._eof and not self._closed:
            await self._changed.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        if self._paused:
            self._paused = False
            self._link.call(self._channel.resume_reading)
        if not data:
            self._check()
        return data

    async def close_stdin(self) -> None:
        await trio.lowlevel.checkpoint()
        with suppress(OSError):
            self._link.call(self._channel.write_eof)
        self._check()

    async def status(self) -> int:
        while not self._closed:
            while await self.receive():
                pass
            if not self._closed:
                await self._changed.wait()
        self._check()
        assert self._status is not None
        return self._status

    def complaints(self) -> str:
        return self._stderr.decode(errors="replace").strip()

    def _check(self) -> None:
        if self._closed and self._status is None:
            raise self._link.gone()

    async def end(self) -> None:
        """End what still runs, and close the channel."""
        if self._channel is None or self._closed:
            return
        with suppress(OSError):
            self._link.call(self._channel.kill)
        self._link.call(self._channel.abort)
        with trio.move_on_after(FAREWELL_S, shield=True), suppress(Gone):
            await self._link.run(self._channel.wait_closed)

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._stderr = (self._stderr + data)[-KEPT:]
            return
        self._waiting += data
        if len(self._waiting) > FULL and not self._paused:
            self._paused = True
            self._channel.pause_reading()
        self._tell()

    def eof_received(self) -> bool:
        self._eof = True
        self._tell()
        return True

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002
        known = signal.Signals.__members__.get(f"SIG{name}")
        self._status = -int(known) if known else 255

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if exc is not None:
            self._status = None
        self._writable.set()
        self._tell()

    def pause_writing(self) -> None:
        self._writable = trio.Event()

    def resume_writing(self) -> None:
        self._writable.set()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _called(function: Callable[..., Awaitable[T]], args: Sequence[Any]) -> T:
    return await function(*args)
