"""From what was seen of an instrument, sample by sample, to rows, rails before the first of them, and gaps."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from melt_stream.clock import HOST, Clock, Reading
from melt_stream.errors import Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.rail import Rail
from melt_stream.stream import Stream


@dataclass(frozen=True)
class ClockShown:
    """A clock of the instrument's own, as a read showed it; who reads knows when that was."""

    clock: Clock
    tick: int
    resolution: int = 1
    epoch: int = 0
    age_ns: int = 0
    """How long ago, before the read began, it may have shown that at most."""
    fresh: bool = False
    """True where the read before this one showed less: then it is no older than that one's beginning."""


Item = Row | tuple[Stream, Row] | ClockShown
Rows = Row | Iterable[Item]
"""One row of the poller's stream, or several; a row of another stream comes with that stream. A row of a stream on a clock of
its own has ``tick`` (and ``epoch``), and that clock is told as :class:`ClockShown`."""
PATIENCE_S = 10.0
"""How long nothing may be readable before the collector gives up and the engine starts it again."""
SLACK = 3
"""Steps of up to so many periods are no gap (DESIGN section 5)."""


class Teller(Protocol):
    """What knows what was seen means: a ``Poller``."""

    hz: float
    jitter: bool | None

    @property
    def stream(self) -> Stream:
        """Of rows that come without one."""

    def tell(self, seen: Any) -> Rows:
        """Return the rows of what was seen; ``Transient`` where there are none."""

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        """Return the rails known so far, and their streams."""

    def facts(self) -> Mapping[str, Any]:
        """Return what was found out about the instrument."""


class Sample(NamedTuple):
    """What one read gave, between two looks at the clock, in its ticks."""

    before: int
    after: int
    seen: Any
    """What ``Poller.look`` returned, or the ``Transient`` that it raised."""
    missed: int
    """Slots that passed unread before it."""


class Hand:
    """Puts samples in the outlet, in the Trio thread: rows, rails before the first, and gaps.

    ``clock`` is what samples are stamped with: the host's, or that of the device that read them, in its ``epoch``. It becomes that of every
    stream that is on the host's clock by its own account.
    """

    def __init__(self, poller: Teller, out: Outlet, clock: Clock = HOST, epoch: int = 0) -> None:
        self.poller, self.out, self.clock, self.epoch = poller, out, clock, epoch
        self.streams: dict[int, tuple[Stream, Stream]] = {}
        """As declared and as stored; by identity, since the hash of all columns takes 2 us a row."""
        self.good: int | None = None
        self.began: int | None = None
        """When that read began."""
        self.ticks: dict[str, tuple[int, int]] = {}
        """Tick and epoch of the last row of each stream that is on a clock of its own."""
        self.failed: list[tuple[Sample, Transient]] = []
        self.declared: set[tuple[str, str]] = set()
        self.losing: set[str] = set()
        self.jitter = False
        """Whether to read at a random moment of each slot, once that is known."""

    def take(self, sample: Sample) -> None:
        """Put one sample's rows in the outlet, or remember that there were none."""
        rows = self.rows(sample.seen)
        if isinstance(rows, Transient):
            return self.fail(sample, rows)
        tick, width = (sample.before + sample.after) // 2, sample.after - sample.before
        t_u = (width + 1) // 2 if self.clock == HOST else round((width + 1) * self.clock.tick_ns / 2)
        if self.good is None:
            self.begin()
        elif any(self.is_new(item) for item in rows):
            self.declare()
        self.close(tick, rows)
        if sample.missed >= SLACK:
            measured = {stream for stream, _ in self.declared} - self.losing
            self.gap(tick, "reads took too long: their slots passed", sample.missed, spared=measured)
        for item in rows:
            if isinstance(item, ClockShown):
                self.show(item, sample)
                continue
            stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
            stored = self.stored(stream)
            if stored.clock != self.clock:
                self.ticks[stored.name] = row["tick"], row.get("epoch", 0)
                self.out.row(stored, **row)
            else:
                epoch = {"epoch": self.epoch} if self.clock != HOST else {}
                self.out.row(stored, **{"tick": tick, "t_u": t_u, **epoch, **row})
        self.good, self.began = tick, sample.before

    def show(self, shown: ClockShown, sample: Sample) -> None:
        """Record what a clock of the instrument's own showed to a read."""
        earliest = sample.before - math.ceil(shown.age_ns / self.clock.tick_ns)
        if shown.fresh and self.began is not None:
            earliest = max(earliest, self.began)
        latest = sample.after + (self.clock != HOST)  # a device's tick is told when it has begun
        self.out.clock_reading(
            Reading(
                shown.clock, shown.tick, shown.resolution, not_before=earliest, not_after=latest, epoch=shown.epoch,
                against=self.clock, against_epoch=self.epoch,
            )
        )  # fmt: skip

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
        if isinstance(item, ClockShown):
            return False
        stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
        return "rail" in row and (stream.name, row["rail"]) not in self.declared

    def fail(self, sample: Sample, why: Transient) -> None:
        """Remember a read that failed; give up where none was ever good, or none for too long."""
        self.failed.append((sample, why))
        if self.good is None or self._ns(sample.after - self.failed[0][0].before) > PATIENCE_S * 1e9:
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
            if stream.clock == self.clock and stream.name not in spared:
                # nobody knows the ticks of another clock at that time
                self.out.gap(stream, start, stop, reason, lost=lost, epoch=self.epoch)

    def gap_elsewhere(self, reason: str, rows: Iterable[Item]) -> None:
        """Say that the streams on clocks of their own have a hole from their last row to their first of ``rows``.

        Without such a row, or where the clock was restarted, nobody knows the tick at which it ends: it then has no length.
        """
        following: dict[str, tuple[int, int]] = {}
        for item in rows:
            if isinstance(item, ClockShown):
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
            own = self.clock if stream.clock == HOST else stream.clock
            known = self.streams[id(stream)] = stream, stream.as_polled(1e9 / self.poller.hz, own)
        return known[1]

    def _ns(self, ticks: int) -> float:
        return ticks * self.clock.tick_ns
