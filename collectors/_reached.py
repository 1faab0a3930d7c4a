"""A server on a device as a port of ours: reached again, or started again, where the link was gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import trio

from melt_stream.devices import Device, Gone
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.events import EVENTS
from melt_stream.failures import failures
from melt_stream.outlet import Outlet

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
Opened = Callable[[], AbstractAsyncContextManager[int]]
"""Makes the server one of our ports for the time of the body; raises ``Transient`` where the link ends."""


@dataclass
class Reached:
    """Keeps the port while the body of ``kept`` runs; what is asked meanwhile fails when the link does."""

    name: str
    """The device's."""
    opened: Opened
    patience_s: float
    """How long it is tried to reach the server again."""
    out: Outlet
    port: int = 0
    _there: trio.Event = field(default_factory=trio.Event)
    _body: trio.CancelScope = field(default_factory=trio.CancelScope)
    _under_way: list[Callable[[str], None]] = field(default_factory=list)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Reach the server, and keep at it until the body ends.

        Raises ``DeviceError`` (in a group, the body cancelled) where that is in vain for ``patience_s``, or what only mending cures.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await self._there.wait()
            yield
            nursery.cancel_scope.cancel()

    @property
    def is_there(self) -> bool:
        """Whether the link is believed to be good."""
        return self._there.is_set()

    async def there(self) -> None:
        """Wait until it can be asked."""
        await self._there.wait()

    def doubt(self) -> None:
        """Reach it anew: it did not answer."""
        if self._there.is_set():
            self._there = trio.Event()
            self._body.cancel()

    @contextmanager
    def asked(self, stop: Callable[[str], None]) -> Iterator[None]:
        """While the body runs, the end of the link calls ``stop`` with the reason."""
        self._under_way.append(stop)
        try:
            yield
        finally:
            self._under_way.remove(stop)

    async def _keep(self) -> None:
        since = trio.current_time()
        pause = FIRST_PAUSE_S
        while True:
            lost: list[BaseException] = []
            reached = False
            with failures(lost.append):
                async with self.opened() as self.port:
                    reached = True
                    await self._stay()
            why = lost[0] if lost else Gone(f"{self.name}: expected an answer, got none")
            if not isinstance(why, Transient):
                raise why
            if reached:
                self._lost(str(why))
                since, pause = trio.current_time(), FIRST_PAUSE_S
            elif trio.current_time() - since > self.patience_s:
                raise DeviceError(
                    f"expected to reach the server again within {self.patience_s:g} s, got: {why}"
                ) from why
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _stay(self) -> None:
        with trio.CancelScope() as self._body:
            self._there.set()
            await trio.sleep_forever()

    def _lost(self, why: str) -> None:
        if self._there.is_set():  # else somebody waits for this one
            self._there = trio.Event()
        self.out.row(EVENTS, kind="mark", name=f"link lost: {why}"[:300])
        for stop in list(self._under_way):
            stop(f"the link ended in the middle: {why}")


class Through(httpx.AsyncBaseTransport):
    """Sends requests to whatever port of ours the server has now."""

    def __init__(self, reached: Reached, limits: httpx.Limits) -> None:
        self._reached, self._inner = reached, httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host="127.0.0.1", port=self._reached.port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def forwarded(device: Device, url: str) -> Opened:
    """Return what makes the server that listens at ``url`` on the device's loopback a port of ours. Raises ``ConfigError``."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "localhost"}:
        raise ConfigError(
            f"url: expected http://127.0.0.1:PORT, a port on the loopback of the device {device.name!r}, got {url!r}; "
            "try: without device, for a server in the network"
        )
    port = parts.port or 80
    return lambda: device.forward(port)
