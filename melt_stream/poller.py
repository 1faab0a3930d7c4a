"""Collectors that ask at a rate: one thread that reads, and a task that hands over what it read."""

from __future__ import annotations

import math
import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import trio
from annotated_types import Gt, Le

from melt_stream.clock import HOST, Clock, Now, Reading, monotonic
from melt_stream.errors import Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.rail import Rail
from melt_stream.stream import Stream


@dataclass(frozen=True)
class Shown:
    """A clock of the instrument's own, as a read showed it; who reads knows when that was."""

    clock: Clock
    tick: int
    resolution: int = 1
    epoch: int = 0
    age_ns: int = 0
    """How long ago, before the read began, it may have shown that at most."""
    fresh: bool = False
    """True where the read before this one showed less: then it is no older than that one's beginning."""

    def reading(self, before: int, after: int, last: int | None = None) -> Reading:
        """Return the reading by a read from ``before`` to ``after``; ``last`` is when the one before it began. All are host ns."""
        earliest = before - self.age_ns
        if self.fresh and last is not None:
            earliest = max(earliest, last)
        return Reading(
            self.clock, self.tick, self.resolution, not_before=earliest, not_after=after, epoch=self.epoch
        )


Item = Row | tuple[Stream, Row] | Shown
Rows = Row | Iterable[Item]
"""One row of the poller's stream, or several; a row of another stream comes with that stream. A row of a stream on a clock of
its own has ``tick`` (and ``epoch``), and that clock is told as :class:`Shown`."""
PATIENCE_S = 10.0
"""How long nothing may be readable before the collector gives up and the engine starts it again."""
HAND_OVER_S = 0.5
"""Rows are handed over so often where nobody flushes."""
SLACK = 3
"""Steps of up to so many periods are no gap (DESIGN section 5)."""


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
        hand = _Hand(self, out)
        # On a fake clock nothing may wait in real time: the reads then happen in the Trio thread.
        await (self._in_thread if out.now is monotonic else self._inline)(out, hand)

    async def _in_thread(self, out: Outlet, hand: _Hand) -> None:
        loop = _Loop(self, out.now)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.over, loop)
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
                    hand.drain(loop)
                finally:
                    hand.close()

    async def _inline(self, out: Outlet, hand: _Hand) -> None:
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


class Sample(NamedTuple):
    """What one read gave, between two looks at the clock."""

    before: int
    after: int
    seen: Any
    """What ``look`` returned, or the ``Transient`` that it raised."""
    missed: int
    """Slots that passed unread before it."""


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


class _Hand:
    """Puts samples in the outlet, in the Trio thread: rows, rails before the first, and gaps."""

    def __init__(self, poller: Poller, out: Outlet) -> None:
        self.poller, self.out = poller, out
        self.streams: dict[int, tuple[Stream, Stream]] = {}
        """As declared and as stored; by identity, since the hash of all columns takes 2 us a row."""
        self.good: int | None = None
        self.failed: list[tuple[Sample, Transient]] = []
        self.began: int | None = None
        """When that read began."""
        self.ticks: dict[str, tuple[int, int]] = {}
        """Tick and epoch of the last row of each stream that is not on the host's clock."""
        self.declared: set[tuple[str, str]] = set()
        self.losing: set[str] = set()
        self.jitter = False

    async def over(self, loop: _Loop) -> None:
        """Hand over what the loop has read: soon after the first read, then at each flush."""
        pause = 0.001
        while self.good is None:
            await trio.sleep(pause)
            self.drain(loop)
            pause = min(2 * pause, HAND_OVER_S)
        while True:
            with trio.move_on_after(HAND_OVER_S):
                await self.out.flushing()
            self.drain(loop)

    def drain(self, loop: _Loop) -> None:
        """Hand over what the loop has read so far; a read that hangs is a gap."""
        try:
            while loop.done:
                self.take(loop.done.popleft())
        except BaseException:
            loop.done.clear()  # what was seen after that would fail in the same way, once more at the end
            raise
        loop.jitter = self.jitter
        since, now = loop.reading_since, self.out.now()
        if loop.ended and since is not None and (now - since) * self.poller.hz > SLACK * 1e9:
            self.gap(now, f"a read did not return within {(now - since) / 1e9:.1f} s", None)

    def take(self, sample: Sample) -> None:
        """Put one sample's rows in the outlet, or remember that there were none."""
        rows = self.rows(sample.seen)
        if isinstance(rows, Transient):
            return self.fail(sample, rows)
        tick, t_u = (sample.before + sample.after) // 2, (sample.after - sample.before + 1) // 2
        if self.good is None:
            self.begin()
        elif any(self.is_new(item) for item in rows):
            self.declare()
        self.close(tick, rows)
        if sample.missed >= SLACK:
            measured = {stream for stream, _ in self.declared} - self.losing
            self.gap(tick, "reads took too long: their slots passed", sample.missed, spared=measured)
        for item in rows:
            if isinstance(item, Shown):
                self.out.clock_reading(item.reading(sample.before, sample.after, self.began))
                continue
            stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
            if "tick" in row:
                self.ticks[stream.name] = row["tick"], row.get("epoch", 0)
                self.out.row(self.stored(stream), **row)
            else:
                self.out.row(self.stored(stream), **{"tick": tick, "t_u": t_u, **row})
        self.good, self.began = tick, sample.before

    def rows(self, seen: Any) -> list[Item] | Transient:
        """What a look means, or why there are no rows."""
        if isinstance(seen, Transient):
            return seen
        try:
            told = self.poller.tell(seen)
            return [told] if isinstance(told, dict) else list(told)
        except Transient as exc:
            return exc

    def begin(self) -> None:
        """Declare the rails and facts, which may be known only now."""
        for name, value in self.poller.facts().items():
            self.out.fact(name, value)
        rails = self.declare()
        gauges = any(rail.kind == "gauge" for rail in rails)
        self.jitter = gauges if self.poller.jitter is None else self.poller.jitter

    def declare(self) -> list[Rail]:
        """Declare the rails that were not yet (a card that slept at first); return them."""
        new = [(s, rail) for s, rail in self.poller.rails() if (s.name, rail.name) not in self.declared]
        for stream, rail in new:
            self.declared.add((stream.name, rail.name))
            if not rail.goes_on:
                self.losing.add(stream.name)
            self.out.rail(self.stored(stream), rail)
        return [rail for _, rail in new]

    def is_new(self, item: Item) -> bool:
        """Whether a row names a rail that nobody declared."""
        if isinstance(item, Shown):
            return False
        stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
        return "rail" in row and (stream.name, row["rail"]) not in self.declared

    def fail(self, sample: Sample, why: Transient) -> None:
        """Remember a read that failed; give up where none was ever good, or none for too long."""
        self.failed.append((sample, why))
        if self.good is None or sample.after - self.failed[0][0].before > PATIENCE_S * 1e9:
            raise why

    def close(self, tick: int | None = None, rows: Iterable[Item] = ()) -> None:
        """Write the reads that failed down as one gap, which ends at ``tick`` or with the last of them; ``rows`` come next."""
        if self.failed and self.good is not None:
            stop = self.failed[-1][0].after if tick is None else tick
            reason = f"unreadable: {self.failed[0][1]}"
            self.gap(stop, reason, len(self.failed))
            self.gap_elsewhere(reason, rows)
        self.failed = []

    def gap(self, stop: int, reason: str, lost: int | None, spared: Collection[str] = ()) -> None:
        """Say that the streams, but for those called as ``spared``, have a hole since the last good read."""
        start = stop if self.good is None else self.good
        for stream in dict.fromkeys(stored for _, stored in self.streams.values()):
            if (
                stream.clock == HOST and stream.name not in spared
            ):  # nobody knows the ticks of another clock at that time
                self.out.gap(stream, start, stop, reason, lost=lost)

    def gap_elsewhere(self, reason: str, rows: Iterable[Item]) -> None:
        """Say that the streams on other clocks have a hole from their last row to their first of ``rows``.

        Without such a row, or where the clock was restarted, nobody knows the tick at which it ends: it then has no length.
        """
        following: dict[str, tuple[int, int]] = {}
        for item in rows:
            if isinstance(item, Shown):
                continue
            stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
            if "tick" in row:
                following.setdefault(stream.name, (row["tick"], row.get("epoch", 0)))
        for _, stored in self.streams.values():
            if (last := self.ticks.get(stored.name)) is not None:
                tick, epoch = last
                then, its_epoch = following.get(stored.name, last)
                self.out.gap(stored, tick, then if its_epoch == epoch else tick, reason, epoch=epoch)

    def stored(self, stream: Stream) -> Stream:
        """Return the stream with ``t_u``, and its period where that is the poller's."""
        if (known := self.streams.get(id(stream))) is None:
            known = self.streams[id(stream)] = stream, stream.as_polled(1e9 / self.poller.hz)
        return known[1]
