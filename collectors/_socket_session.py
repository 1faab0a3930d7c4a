"""A conversation with an instrumented app: its events in our rows, its clock tied to ours from both sides meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from melt_stream.clock import Clock
from melt_stream.collectors._lines import Cutter
from melt_stream.collectors._socket_said import Answer, Done, Event, Hello, Unfit, parse
from melt_stream.devices.exchange import Exchange
from melt_stream.devices.loop import Shown
from melt_stream.events import EVENTS, events
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

LONGEST_LINE = 1 << 16
BLOCK = 1 << 16
MOST_UNFIT = 1000
"""So many lines that are none, and the app is cut off."""
HELLO_S = 10.0
FAREWELL_S = 2.0
BACK_S = 1.0
"""Events of several threads may come in another order, but not by so much: then the clock was set back."""
ENDS = ("request_end", "request_error", "window_end")


def stream_of(tick_ns: float = 1.0, rho_ppm: float = 15.0) -> Stream:
    """Return the stream of an app whose clock has such ticks."""
    return events("app", Clock("app", tick_ns=tick_ns, rho_ppm=rho_ppm))


class Gone(Exception):
    """The connection ended, and the app did not say that it is done."""


@dataclass
class Heard:
    """What outlives a connection."""

    out: Outlet
    stream: Stream | None = None
    """Known since the first hello."""
    epoch: int = -1
    requests: dict[str, int] = field(default_factory=dict)
    """By what the app calls them."""
    last: int = 0
    """The last tick of this epoch."""

    def refused(self, why: str) -> None:
        """Note that somebody was sent away."""
        self.out.row(EVENTS, kind="mark", name="refused", detail=json.dumps({"error": why[:500]}))

    def lost(self, why: str) -> None:
        """Say that events may be missing."""
        if self.stream is None:
            return self.refused(why)
        return self.out.gap(self.stream, self.last, self.last, why[:500], epoch=self.epoch)


@dataclass
class Session:
    """One connection."""

    heard: Heard
    wire: trio.abc.Stream
    patience_s: float
    begun: Callable[[], None]
    """Called at the hello."""
    _exchange: Exchange | None = None
    _cutter: Cutter = field(default_factory=lambda: Cutter(LONGEST_LINE))
    _said: list[Hello | Event | Done | None] = field(default_factory=list)
    """None: its answers show that the clock was set back."""
    _is_gone: bool = False
    _unfit: int = 0
    _shown: int = 0
    """What its answers showed last."""
    _one_at_a_time: trio.Lock = field(default_factory=trio.Lock)

    async def run(self) -> None:
        """Listen until the app is done. Raises ``Gone`` where it is not but the connection ends."""
        await self._greet()
        try:
            while not await self._converse():
                pass
        except Gone as exc:
            self._is_gone = True
            self.heard.lost(f"{exc}, and the app did not say that it is done")
            raise
        finally:
            if not self._is_gone:
                with trio.move_on_after(FAREWELL_S, shield=True):
                    await self._part()

    async def send(self, data: bytes) -> None:
        """Write to the app. Raises ``Gone``."""
        try:
            async with self._one_at_a_time:
                await self.wire.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Gone(f"the connection broke: {exc.__cause__ or exc}") from exc

    async def _greet(self) -> None:
        """Wait for the hello; a connection that brings none is refused."""
        try:
            with trio.fail_after(HELLO_S):
                while not self._said:
                    await self._receive(unfit_is_fatal=True)
        except (trio.TooSlowError, Unfit) as exc:
            why = str(exc) or f"expected hello within {HELLO_S:g} s, got none"
            await self._refuse(why)
            raise Gone(why) from exc
        hello = self._said.pop(0)
        if not isinstance(hello, Hello):
            await self._refuse(f"expected hello first, got {type(hello).__name__.lower()}")
            raise Gone("no hello")
        await self._know(hello)
        self.begun()

    async def _refuse(self, why: str) -> None:
        self.heard.refused(why)
        with suppress(Gone):
            await self.send(_line(error=why))

    async def _know(self, hello: Hello) -> None:
        stream = stream_of(hello.tick_ns, hello.rho_ppm)
        if self.heard.stream is not None and self.heard.stream.clock != stream.clock:
            before = self.heard.stream.clock
            why = (
                f"expected the clock of before ({before.tick_ns:g} ns a tick, rho {before.rho_ppm:g} ppm), "
                f"got {hello.tick_ns:g} ns, {hello.rho_ppm:g} ppm"
            )
            await self._refuse(why)
            raise Gone(why)
        if self.heard.stream is None:
            self.heard.stream = stream
            self.heard.out.fact("app", hello.hello)
            for name, value in hello.facts.items():
                self.heard.out.fact(name, value)
        self._new_epoch(hello.resolution)

    def _new_epoch(self, resolution: int) -> None:
        heard = self.heard
        assert heard.stream is not None
        heard.epoch, heard.last, self._shown = heard.epoch + 1, 0, 0
        self._exchange = Exchange(self, heard.stream.clock, heard.epoch, heard.out, resolution, _asking)

    async def _converse(self) -> bool:
        """Listen until the app is done (True), or its clock was set back (False): then a new epoch has begun."""
        assert self._exchange is not None
        done: bool | Gone
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_silently, self._exchange.often)
            try:
                done = await self._hear()
            except Gone as exc:
                done = exc  # out of the nursery it would come as a group
            nursery.cancel_scope.cancel()
        if isinstance(done, Gone):
            raise done
        return done

    async def _part(self) -> None:
        """Read its clock some times more, and say goodbye."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._farewell, nursery.cancel_scope)
            with suppress(Gone):
                while True:
                    await self._hear()

    async def _farewell(self, scope: trio.CancelScope) -> None:
        assert self._exchange is not None
        with suppress(Gone):
            await self._exchange.burst()
            await self.send(_line(bye=True))
        scope.cancel()

    async def _hear(self) -> bool:
        while True:
            while self._said:
                said = self._said.pop(0)
                if isinstance(said, Done):
                    return said.done
                if said is None:
                    self._set_back(self._shown, "less")
                    return False
                if isinstance(said, Hello):
                    await self._complain("expected events after hello, got another hello")
                elif not self._take(said):
                    return False
            await self._receive()

    async def _receive(self, *, unfit_is_fatal: bool = False) -> None:
        """Wait for lines. Raises ``Gone``, and ``Unfit`` where that is wanted."""
        data, arrival = await self._bytes(), self.heard.out.now()
        for line in self._cutter.feed(data):
            try:
                said = parse(line)
                if isinstance(said, Answer):
                    self._answered(said, arrival)
                else:
                    self._said.append(said)
            except Unfit as exc:
                if unfit_is_fatal:
                    raise
                await self._complain(str(exc))

    async def _bytes(self) -> bytes:
        try:
            with trio.fail_after(self.patience_s):
                data = bytes(await self.wire.receive_some(BLOCK))
        except trio.BrokenResourceError as exc:
            raise Gone(f"the connection broke: {exc.__cause__ or exc}") from exc
        except trio.TooSlowError as exc:
            raise Gone(f"nothing came for {self.patience_s:g} s, not even its time") from exc
        if not data:
            raise Gone("the connection ended")
        return data

    async def _complain(self, why: str) -> None:
        self._unfit += 1
        self.heard.lost(why)
        await self.send(_line(error=why))
        if self._unfit >= MOST_UNFIT:
            raise Gone(f"{MOST_UNFIT} lines were none of the protocol's")

    def _answered(self, answer: Answer, arrival: int) -> None:
        if self._exchange is None:
            raise Unfit("expected hello first, got an answer to a clock request")
        if not self._exchange.awaits(answer.clock):
            raise Unfit(f"expected the answer to a clock request of ours, got one to {answer.clock}")
        if answer.t >= self._shown:
            self._exchange.heard(Shown(answer.clock, answer.t), arrival)
            self._shown = answer.t
        elif None not in self._said:
            self._said.append(None)

    def _take(self, said: Event) -> bool:
        """Write an event down; return False where the clock was set back: the event is the first of the next epoch."""
        heard = self.heard
        assert heard.stream is not None
        last = max(heard.last, self._shown)
        if back := (last - said.t) * heard.stream.clock.tick_ns > BACK_S * 1e9:
            self._set_back(last, said.t)
        values = said.model_dump(exclude={"event", "t", "request", "detail"})
        detail = None if said.detail is None else json.dumps(said.detail)
        request = None if said.request is None else self._number(str(said.request), said.event)
        heard.out.row(
            heard.stream, tick=said.t, epoch=heard.epoch, kind=said.event, request=request, detail=detail,
            arrival_ns=heard.out.now() if said.event == "token" else None, **values,
        )  # fmt: skip
        heard.last = max(heard.last, said.t)
        return not back

    def _set_back(self, before: int, after: int | str) -> None:
        assert self._exchange is not None
        self.heard.lost(f"the app's clock was set back, from {before} to {after}")
        self._new_epoch(self._exchange.resolution)

    def _number(self, name: str, kind: str) -> int:
        requests = self.heard.requests
        if name not in requests:
            requests[name] = self.heard.out.next_request()
        return requests.pop(name) if kind in ENDS else requests[name]


async def _silently(often: Callable[[], object]) -> None:
    """Ask for the time until the connection ends: who listens says how."""
    with suppress(Gone):
        await often()  # type: ignore[misc]


def _asking(number: int) -> bytes:
    return _line(clock=number)


def _line(**said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"
