"""Collectors that ask at a rate: one thread that reads, and a task that hands over what it read."""

from __future__ import annotations

import math
import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar

import trio
from annotated_types import Gt, Le

from melt_stream.clock import Now, monotonic
from melt_stream.errors import Transient
from melt_stream.hand import SLACK, Hand, Rows, Sample
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Stream

HAND_OVER_S = 0.5
"""Rows are handed over so often where nobody flushes."""


@dataclass
class Poller(ABC):
    """A collector that calls :meth:`read` at a fixed rate in a thread of its own, where blocking is fine.

    Reads lie on a fixed grid, at most one a slot: a late one costs slots, it never shifts them. Each row is stamped
    in the middle of its read and ``t_u`` is half of the time that it took. ``Transient`` from :meth:`read` is a gap,
    and polling goes on. A read that hangs is abandoned at the end of the run.
    """

    stream: ClassVar[Stream]
    rail: ClassVar[Rail | None] = None
    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 10.0
    """Reads a second."""
    jitter: bool | None = None
    """Read at a random moment of each slot, so that the grid cannot beat against the load; by default for gauges."""
    optional: bool = False
    """True where its failure does not end the run."""

    @abstractmethod
    def read(self) -> Rows:
        """Take one measurement, in the poller's thread.

        Raise ``Transient`` where there is none this time.
        """

    def look(self) -> Any:
        """What is done at each slot: by default all of :meth:`read`.

        Where making rows takes time, return what was seen and make them in :meth:`tell`. Code that runs once in a slot is
        always cold, and costs several times what it does when many samples are told of at once.
        """
        return self.read()

    def tell(self, seen: Any) -> Rows:
        """Return the rows of what :meth:`look` returned, in the Trio thread; called once for each, in order.

        Raise ``Transient`` where there are none.
        """
        rows: Rows = seen
        return rows

    def end(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what reads keep open; called where they are made, after the last one (which may be followed yet)."""

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        """Return the rails and their streams; asked after the first good read, and when a row names another rail."""
        return [(self.stream, self.rail)] if self.rail else []

    def facts(self) -> Mapping[str, Any]:
        """Return what was found out about the instrument, as for JSON; asked once, after the first good read."""
        return {}

    async def collect(self, out: Outlet) -> None:
        """Poll until cancelled."""
        hand = Hand(self, out)
        # On a fake clock nothing may wait in real time: the reads then happen in the Trio thread.
        await (self._in_thread if out.now is monotonic else self._inline)(out, hand)

    async def _in_thread(self, out: Outlet, hand: Hand) -> None:
        loop = _Loop(self, out.now)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.hand_over, hand)
            try:
                await trio.to_thread.run_sync(
                    loop.run,
                    thread_name=f"poll {out.instance}",
                    abandon_on_cancel=True,
                    limiter=trio.CapacityLimiter(1),
                )
            finally:
                loop.end()
                try:
                    loop.drain(hand)
                finally:
                    hand.close()

    async def _inline(self, out: Outlet, hand: Hand) -> None:
        grid, missed = Grid(out.now(), self.hz), 0
        try:
            while True:
                hand.take(_sample(self, out.now, missed, out.now()))
                due, missed = grid.after(out.now(), jitter=False)
                await trio.sleep(max(0, due - out.now()) / 1e9)
        finally:
            self.end()
            hand.close()


@dataclass
class Grid:
    """Slots of equal length from ``start`` on; slot 0 is the first read's."""

    start: int
    hz: float
    slot: int = 0

    def after(self, now: int, *, jitter: bool) -> tuple[int, int]:
        """Go to the next slot: return when to read (which may have passed), and how many slots were missed."""
        last, self.slot = self.slot, max(self.slot + 1, math.floor((now - self.start) * self.hz / 1e9))
        within = random.random() if jitter else 0.0  # noqa: S311 - no secret
        return self.start + round((self.slot + within) * 1e9 / self.hz), self.slot - last - 1


def _sample(poller: Poller, now: Now, missed: int, before: int) -> Sample:
    try:
        seen = poller.look()
    except Transient as exc:
        seen = exc
    return Sample(before, now(), seen, missed)


@dataclass
class _Loop:
    """What the thread does; the two ends share a deque and two words, each written by one of them."""

    poller: Poller
    now: Now
    done: deque[Sample] = field(default_factory=deque)
    reading_since: int | None = None
    jitter: bool = False
    ended: bool = False
    _going: threading.Lock = field(default_factory=threading.Lock)
    """Held while the loop goes on: waiting for it is a sleep that can be ended, at half the cost of an Event's."""

    def __post_init__(self) -> None:
        self._going.acquire()

    def end(self) -> None:
        """Let the loop end; from the Trio thread, once."""
        self.ended = True
        self._going.release()

    def run(self) -> None:
        try:
            self._poll()
        finally:
            self.poller.end()

    def _poll(self) -> None:
        poller, now, ended = self.poller, self.now, self._going.acquire
        grid, missed, wait = Grid(now(), poller.hz), 0, 0.0
        while not ended(timeout=wait):
            self.reading_since = before = now()
            sample = _sample(poller, now, missed, before)
            self.reading_since = None
            self.done.append(sample)
            due, missed = grid.after(sample[1], jitter=self.jitter)
            wait = max(0.0, (due - now()) / 1e9)

    async def hand_over(self, hand: Hand) -> None:
        """Hand over what was read: soon after the first read, then at each flush."""
        pause = 0.001
        while hand.good is None:
            await trio.sleep(pause)
            self.drain(hand)
            pause = min(2 * pause, HAND_OVER_S)
        while True:
            with trio.move_on_after(HAND_OVER_S):
                await hand.out.flushing()
            self.drain(hand)

    def drain(self, hand: Hand) -> None:
        """Hand over what was read so far; a read that hangs is a gap."""
        try:
            while self.done:
                hand.take(self.done.popleft())
        except BaseException:
            self.done.clear()  # what was seen after that would fail in the same way, once more at the end
            raise
        self.jitter = hand.jitter
        since, now = self.reading_since, self.now()
        if self.ended and since is not None and (now - since) * self.poller.hz > SLACK * 1e9:
            hand.gap(now, f"a read did not return within {(now - since) / 1e9:.1f} s", None)
