"""A ``llama-server`` put on a device, started there, and a port of ours for as long as it is needed."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import httpx
import trio

from melt_stream.collectors._llama_clock import ServerClock
from melt_stream.collectors._llama_log import FLAGS
from melt_stream.collectors._llama_server import Server, binary_command, wait_healthy
from melt_stream.devices import Device, Failed, Place, run
from melt_stream.devices.store import Store, opened
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

ON_DEVICE = "on_device:"
PORTS = range(20_000, 60_000)
_LISTENING = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A ", re.MULTILINE)
_FIND = 'command -v "$1" && exit; [ -x "/data/local/tmp/$1" ] && echo "/data/local/tmp/$1"'
_TOGETHER = 'exec "$@" 2>&1'
HEALTH_S = 10.0
"""In which the server must answer each time it is asked whether it is well."""


@dataclass
class Deployment:
    """What is to run on ``place``, and how."""

    place: Place
    out: Outlet
    binary: str | Mapping[str, str]
    """A file here, or one for each kind of processor; ``on_device:`` before a path, or a name, there."""
    libraries: Sequence[str]
    """Files here that belong beside it."""
    model: str
    """A file here, or ``on_device:/path``."""
    args: Sequence[str]
    folder: str
    """On the device; empty: where its kind keeps such things."""
    start_timeout: float
    sizes: Mapping[str, int]
    clock: ServerClock
    log: Server = field(default_factory=Server)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Have the server run there for the time of the body, and yield which of our ports it is.

        Raises ``Gone`` (in a group) where the link ends, which ends the server, too; ``DeviceError`` with its exit status and its last
        lines where it ends by itself, or is not well in time.
        """
        device = self.place.device
        binary, model = await self._deployed()
        port = await free_port_there(device)
        folder = binary.rpartition("/")[0]
        libraries = [f"LD_LIBRARY_PATH={folder}"] if self.libraries else []
        command = ["env", *libraries, *binary_command(binary, model, port, **self.sizes), *FLAGS, *self.args]
        self.clock.begin()
        async with self._loading(binary) as loaded, trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, command)
            async with device.forward(port) as ours:
                client = httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{ours}", timeout=HEALTH_S, trust_env=False
                )
                async with client:
                    await wait_healthy(client, self.start_timeout)
                    loaded()
                    nursery.start_soon(self.clock.keep, client)
                    yield ours
                    nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _loading(self, name: str) -> AsyncIterator[Callable[[], None]]:
        """A load ends when its end is told, or in vain with the body."""
        told = False

        def end() -> None:
            nonlocal told
            if not told:
                self.out.row(EVENTS, kind="load_end")
            told = True

        self.out.row(EVENTS, kind="load_start", name=name)
        try:
            yield end
        finally:
            end()

    async def _deployed(self) -> tuple[str, str]:
        """Have all files there; return the paths of server and model."""
        self.out.row(EVENTS, kind="phase_start", name="deploy")
        try:
            store = await opened(self.place.device, self._tell, self.folder)
            binary = _for(self.binary, store)
            if (there := _there(binary)) is not None:
                path = await self._found(there)
            else:
                path = f"{await store.put([Path(binary), *map(Path, self.libraries)])}/{Path(binary).name}"
            if (model := _there(self.model)) is None:
                model = f"{await store.put([Path(self.model)])}/{Path(self.model).name}"
            return path, model
        finally:
            self.out.row(EVENTS, kind="phase_end", name="deploy")

    def _tell(self, said: str) -> None:
        self.out.row(EVENTS, kind="mark", name=said)

    async def _found(self, name: str) -> str:
        done = await run(self.place.device, ["sh", "-c", _FIND, "sh", name])
        if not (path := done.out.decode(errors="replace").strip()):
            raise DeviceError(
                f"{self.place.device.name}: binary: expected the program {name!r} there, got none; try: its whole path, or "
                "binary = a path here, to be copied"
            )
        return path

    async def _listen(self, command: Sequence[str]) -> None:
        words = ["sh", "-c", _TOGETHER, "sh", *command]
        try:
            async with aclosing(self.place.lines(self.out, words)) as lines:
                async for line in lines:
                    self.log.log.append(line.text[:500])
                    self.clock.heard(line.text)
        except Failed as exc:
            self._ended(exc.status)
        self._ended(0)

    def _ended(self, status: int) -> NoReturn:
        raise DeviceError(
            f"{self.place.device.name}: the llama.cpp server ended by itself, {said(status)}; {self.log.last_words()}"
        )


def said(status: int) -> str:
    """Return an exit status of a device in words."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"exit status {status}"
    name = signal.Signals(number).name
    why = ": mostly for want of memory; try: a smaller model, or a smaller n_ctx" if name == "SIGKILL" else ""
    return f"killed by {name}{why}"


async def free_port_there(device: Device) -> int:
    """Return a port of the device that nobody listens at, as far as it lets us see. Raises ``Gone``."""
    done = await run(device, ["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; :"])
    taken = {int(port, 16) for port in _LISTENING.findall(done.out.decode(errors="replace"))}
    return random.choice([port for port in PORTS if port not in taken])  # noqa: S311 - no secret


def _for(binary: str | Mapping[str, str], store: Store) -> str:
    if isinstance(binary, str):
        return binary
    if (found := binary.get(store.machine)) is None:
        raise ConfigError(
            f"{store.device.name}: binary: expected a llama-server for {store.machine}, got those for {', '.join(binary)}"
        )
    return found


def _there(path: str) -> str | None:
    """The path on the device, where it is one."""
    return path.removeprefix(ON_DEVICE) if path.startswith(ON_DEVICE) else None
