"""From what was seen of an instrument, sample by sample, to rows, rails before the first of them, and gaps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from melt_stream.clock import HOST, Clock
from melt_stream.errors import Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.rail import Rail
from melt_stream.stream import Stream

Rows = Row | Iterable[Row | tuple[Stream, Row]]
"""One row of the poller's stream, or several; a row of another stream comes with that stream."""
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
        self.close(tick)
        if sample.missed >= SLACK:
            measured = {stream for stream, _ in self.declared} - self.losing
            self.gap(tick, "reads took too long: their slots passed", sample.missed, spared=measured)
        for item in rows:
            stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
            stored = self.stored(stream)
            epoch = {"epoch": self.epoch} if stored.clock == self.clock != HOST else {}
            self.out.row(stored, **{"tick": tick, "t_u": t_u, **epoch, **row})
        self.good = tick

    def rows(self, seen: Any) -> list[Row | tuple[Stream, Row]] | Transient:
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

    def is_new(self, item: Row | tuple[Stream, Row]) -> bool:
        """Whether a row names a rail that nobody declared."""
        stream, row = item if isinstance(item, tuple) else (self.poller.stream, item)
        return "rail" in row and (stream.name, row["rail"]) not in self.declared

    def fail(self, sample: Sample, why: Transient) -> None:
        """Remember a read that failed; give up where none was ever good, or none for too long."""
        self.failed.append((sample, why))
        if self.good is None or self._ns(sample.after - self.failed[0][0].before) > PATIENCE_S * 1e9:
            raise why

    def close(self, tick: int | None = None) -> None:
        """Write the reads that failed down as one gap, which ends at ``tick`` or with the last of them."""
        if self.failed and self.good is not None:
            stop = self.failed[-1][0].after if tick is None else tick
            self.gap(stop, f"unreadable: {self.failed[0][1]}", len(self.failed))
        self.failed = []

    def gap(self, stop: int, reason: str, lost: int | None, spared: Collection[str] = ()) -> None:
        """Say that the streams, but for those called as ``spared``, have a hole since the last good read."""
        start = stop if self.good is None else self.good
        for stream in dict.fromkeys(stored for _, stored in self.streams.values()):
            if stream.clock == self.clock and stream.name not in spared:
                # nobody knows the ticks of another clock at that time
                self.out.gap(stream, start, stop, reason, lost=lost, epoch=self.epoch)

    def stored(self, stream: Stream) -> Stream:
        """Return the stream with ``t_u``, and its period where that is the poller's."""
        if (known := self.streams.get(id(stream))) is None:
            own = self.clock if stream.clock == HOST else stream.clock
            known = self.streams[id(stream)] = stream, stream.as_polled(1e9 / self.poller.hz, own)
        return known[1]

    def _ns(self, ticks: int) -> float:
        return ticks * self.clock.tick_ns
