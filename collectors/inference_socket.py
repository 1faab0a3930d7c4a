"""Events that an instrumented app pushes over TCP, by its own clock: for apps on iOS, Android, or anything that has sockets."""

from __future__ import annotations

import copy
import sys
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Annotated, Any

import trio
from annotated_types import Ge, Le
from pydantic import PositiveFloat

from melt_stream.collectors._line_sources import host_and_port
from melt_stream.collectors._socket_session import Gone, Heard, Session, stream_of
from melt_stream.devices import Local, Place, run
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

AGAIN_S = 0.2
"""An app that does not listen yet is tried again after so long."""
PORT = "{port}"
_EXAMPLE = """
import json, socket, sys, time
wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
lines = wire.makefile("rw")
def say(**told):
    lines.write(json.dumps(told) + "\\n"); lines.flush()
say(hello="example")
for k in range(3): say(event="token", t=time.monotonic_ns(), request=1, index=k, count=1)
for line in lines:
    asked = json.loads(line)
    if "clock" in asked: say(clock=asked["clock"], t=time.monotonic_ns())
"""


@dataclass
class InferenceSocket:
    """Take events from one app until it is done; docs/workloads.md has the protocol.

    Say ``listen`` or ``connect``. As a collector it listens beside what else is measured, as a workload the run ends with it. A
    connection that ends before the app is done is a gap; the app may come back, as another epoch of its clock.
    """

    _: KW_ONLY
    listen: str = ""
    """Listen at ``host:port``, such as ``127.0.0.1:7717``. Without a password: whoever reaches it may speak."""
    connect: Annotated[int, Ge(0), Le(65535)] = 0
    """The app listens on this port of its device's loopback, which is forwarded."""
    command: list[str] = field(default_factory=list)
    """Started on the device when we listen (``am start ...``); ``{port}`` in it is the port."""
    patience_s: PositiveFloat = 10.0
    """The connection is taken for dead when nothing came for so long; it is asked for its time every second."""
    wait_s: PositiveFloat | None = None
    """How long to wait for the app's first hello; None: as long as the run lasts."""

    def __post_init__(self) -> None:
        if bool(self.listen) == bool(self.connect):
            raise ConfigError(f"expected listen or connect, got {self.listen!r} and {self.connect}")
        if self.listen and self.listen != "127.0.0.1:0":
            host_and_port(self.listen)
        self.place = Place(Local("local"))
        self.streams: dict[str, Stream] = {"app": stream_of()}

    @staticmethod
    def example() -> dict[str, Any]:
        command = [sys.executable, "-c", _EXAMPLE, PORT]
        return {"kind": "plain", "config": {"listen": "127.0.0.1:0", "command": command}}

    def on(self, place: Place) -> InferenceSocket:
        """Return one whose app is there."""
        there = copy.copy(self)
        there.place = place
        return there

    async def collect(self, out: Outlet) -> None:
        """Take events until the app is done. Raises ``DeviceError`` where it does not come in time, or the command fails."""
        heard, done, begun = Heard(out), trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            if self.listen:
                port = await nursery.start(self._listen, heard, begun, done)
            else:
                port = self.connect
                nursery.start_soon(self._connect, heard, begun, done)
            if self.command:
                nursery.start_soon(self._start, out, port)
            out.ready()
            await self._begin(begun)
            await done.wait()
            nursery.cancel_scope.cancel()

    async def _begin(self, begun: trio.Event) -> None:
        with trio.move_on_after(self.wait_s or float("inf")):
            await begun.wait()
        if not begun.is_set():
            raise DeviceError(f"expected the app's hello within {self.wait_s:g} s, got none; does it run?")

    async def _listen(
        self, heard: Heard, begun: trio.Event, done: trio.Event, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:  # fmt: skip
        host, _, port = self.listen.rpartition(":")
        try:
            listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
        except OSError as exc:
            raise DeviceError(f"listen: expected to listen at {self.listen}, got {exc}") from exc
        busy = trio.CapacityLimiter(1)
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(partial(self._serve, heard, begun, done, busy), listeners)

    async def _serve(
        self, heard: Heard, begun: trio.Event, done: trio.Event, busy: trio.CapacityLimiter, wire: trio.SocketStream
    ) -> None:  # fmt: skip
        async with wire:
            try:
                busy.acquire_nowait()
            except trio.WouldBlock:
                heard.refused("expected one app at a time, got a second one")
                return
            try:
                await self._hear(heard, begun, done, wire)
            finally:
                busy.release()

    async def _connect(self, heard: Heard, begun: trio.Event, done: trio.Event) -> None:
        await run(self.place.device, ["true"])  # a phone in a Wi-Fi is connected to, or says why not
        async with self.place.device.forward(self.connect) as port:
            while not done.is_set():
                try:
                    wire = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(AGAIN_S)
                    continue
                async with wire:
                    await self._hear(heard, begun, done, wire)
                await trio.sleep(AGAIN_S)

    async def _hear(self, heard: Heard, begun: trio.Event, done: trio.Event, wire: trio.SocketStream) -> None:
        session = Session(heard, wire, self.patience_s, begun.set)
        try:
            await session.run()
        except Gone:
            return
        finally:
            if heard.stream is not None:
                self.streams["app"] = heard.stream
        done.set()

    async def _start(self, out: Outlet, port: int) -> None:
        """Run the command to its end; what it prints is kept as marks."""
        command = [word.replace(PORT, str(port)) for word in self.command]
        out.fact("command", command)
        async with aclosing(self.place.lines(out, command)) as lines:
            async for line in lines:
                out.row(EVENTS, kind="mark", name="command", text=line.text)
