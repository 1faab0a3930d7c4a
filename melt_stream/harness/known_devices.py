"""The devices that there are: those of a recipe, and the phones that its adb servers know; and who comes and goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import trio

from melt_stream.devices import Device, run
from melt_stream.devices.adb import Adb, NoServer, devices
from melt_stream.devices.channel import Gone
from melt_stream.errors import DeviceError, MeltError
from melt_stream.harness.looked_at import THERE
from melt_stream.harness.placed import device, link
from melt_stream.recipe import Entry, Recipe

QUIET_S = 0.1
"""An adb server says offline, absent and device within a millisecond of each other: what lasts so long is told."""
AGAIN_S = 2.0
"""How often a server, and what no server follows, is asked again."""
SERVER_S = 5.0
ServerAt = tuple[str, int | None]


@dataclass(frozen=True)
class Known:
    """A device that may be there."""

    device: Device
    link: str
    address: str


@dataclass
class Everyone:
    """The devices of a recipe by name, and of the adb servers that it names (else of the usual one)."""

    recipe: Recipe
    servers: dict[ServerAt, Mapping[str, str] | MeltError] = field(default_factory=dict, init=False)
    """The state of each phone by serial, or why a server does not tell."""

    def __post_init__(self) -> None:
        adb = [entry for entry in self.recipe.device.values() if "adb" in entry]
        for entry in adb or [{}]:
            self.servers[_server(entry)] = {}

    async def ask_servers(self) -> None:
        """Let every server tell whom it has now."""
        for at in self.servers:
            try:
                self.servers[at] = await _first(at)
            except MeltError as exc:
                self.servers[at] = exc

    def known(self) -> dict[str, Known]:
        """Return all: those of the recipe, and then phones by their serials that no entry of it names."""
        entries = self.recipe.device
        found = {name: Known(device(name, e), **link(e)) for name, e in entries.items()}
        named = {(_server(e), e["adb"]) for e in entries.values() if "adb" in e}
        for at, phones in self.servers.items():
            if isinstance(phones, Mapping):
                for serial in phones.keys() - {serial for server, serial in named if server == at}:
                    found.setdefault(serial, Known(Adb(serial, serial, at[0], at[1]), "adb", serial))
        return found

    async def follow(self, told: Callable[[str, Known, str], None]) -> None:
        """Tell each device's state now and whenever it is another: ``there``, what its adb server says, or an error's kind."""
        states: dict[str, str] = {}

        def changed(name: str, one: Known, state: str) -> None:
            if states.get(name) != state:
                states[name] = state
                told(name, one, state)

        async with trio.open_nursery() as nursery:
            for at in self.servers:
                nursery.start_soon(self._follow_server, at, changed)
            for name, one in self.known().items():
                if one.link != "adb":
                    nursery.start_soon(_follow, name, one, changed)

    async def _follow_server(self, at: ServerAt, changed: Callable[[str, Known, str], None]) -> None:
        before: set[str] = set()
        async with aclosing(_settled(at)) as listings:
            async for phones in listings:
                self.servers[at] = phones
                here = {name: one for name, one in self.known().items() if _is_at(one, at)}
                for name, one in here.items():
                    state = phones.get(one.address, "absent") if one.address else _only(phones)
                    changed(name, one, THERE if state == "device" else state)
                for serial in before - here.keys():
                    changed(serial, Known(Adb(serial, serial, at[0], at[1]), "adb", serial), "absent")
                before |= here.keys()


def _server(entry: Entry) -> ServerAt:
    return str(entry.get("host", "127.0.0.1")), entry.get("port")


def _is_at(one: Known, at: ServerAt) -> bool:
    return isinstance(one.device, Adb) and (one.device.host, one.device.port) == at


def _only(phones: Mapping[str, str]) -> str:
    return next(iter(phones.values())) if len(phones) == 1 else "absent"


async def _first(at: ServerAt) -> Mapping[str, str]:
    with trio.move_on_after(SERVER_S):
        async with aclosing(devices(*at)) as listings:
            async for phones in listings:
                return phones
    raise Gone(f"adb: expected the server at {at[0]} to tell its devices within {SERVER_S:g} s, got none")


async def _settled(at: ServerAt) -> AsyncGenerator[Mapping[str, str], None]:
    """Yield what a server has when that has lasted a while; nobody while there is no server."""
    newest: Mapping[str, str] | None = None
    came = trio.Event()

    async def listen() -> None:
        nonlocal newest
        while True:
            try:
                async with aclosing(devices(*at)) as listings:
                    async for phones in listings:
                        newest = phones
                        came.set()
            except (NoServer, Gone):
                newest = {}
                came.set()
            await trio.sleep(AGAIN_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        while True:
            await came.wait()
            came = trio.Event()
            with trio.move_on_after(QUIET_S):
                await came.wait()
                continue
            assert newest is not None
            yield newest


async def _follow(name: str, one: Known, changed: Callable[[str, Known, str], None]) -> None:
    while True:
        try:
            await run(one.device, ["true"], deadline_s=SERVER_S)
            changed(name, one, THERE)
        except DeviceError as exc:
            changed(name, one, type(exc).__name__)
        await trio.sleep(AGAIN_S)
