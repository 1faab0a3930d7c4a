"""Where collectors put rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import trio

from melt_stream.clock import HOST, Now, Reading, monotonic
from melt_stream.internal import FACTS, GAPS, RAILS, READINGS
from melt_stream.rail import Rail
from melt_stream.sink import Batch, Source, clock_key
from melt_stream.stream import Stream
from melt_stream.table import Row as Row  # noqa: PLC0414 - what collectors give
from melt_stream.table import Table

RUN = "run"
"""Instance name of the engine's own streams."""
OVERRUN = "overrun: rows came faster than they were shipped"


@dataclass
class _Loss:
    start: int
    stop: int
    rows: int = 0


@dataclass
class Hub:
    """The buffer behind the outlets of one run; rows wait here for the engine's shipper."""

    now: Now = monotonic
    limit_rows: int = 4_000_000
    """Rows that may wait before further ones are dropped; what was dropped becomes a gap row."""
    waiting: int = 0
    _tables: dict[str, Table] = field(default_factory=dict)
    _cut: list[Batch] = field(default_factory=list)
    _lost: dict[tuple[Source, int], _Loss] = field(default_factory=dict)
    _requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _room: trio.Event = field(default_factory=trio.Event)
    _flush: trio.Event = field(default_factory=trio.Event)
    _hurry: trio.Event = field(default_factory=trio.Event)

    def outlet(self, instance: str, device: str = "host") -> Outlet:
        """Return the outlet of one collector instance."""
        return Outlet(self, instance, device)

    def next_request(self) -> int:
        """Return a request number that nobody else in this run has: 1, 2, ..."""
        return next(self._requests)

    def table(self, source: Source) -> Table:
        """Return the table that all rows of ``source`` go through."""
        if (table := self._tables.get(source.key)) is None:
            table = self._tables[source.key] = Table(source)
        if table.source != source:
            raise TypeError(
                f"{source.key}: expected one stream of that name, got two that differ; give one a new name"
            )
        return table

    def add_row(self, table: Table, stamps: Row, values: Row) -> None:
        """Check and buffer one row; the engine's own are kept even where there is no room."""
        row = table.check(stamps, values)
        if self.waiting >= self.limit_rows and table.source.instance != RUN:
            return self._lose(table.source, stamps, row[0], row[0], 1)
        table.add(row)
        self.waiting += 1

    def add_block(self, table: Table, stamps: Row, columns: Row, tick: np.ndarray[Any, Any]) -> None:
        """Check and buffer rows that come as one block, after those that came before."""
        data = table.block(stamps, columns, len(tick))
        if self.waiting + data.num_rows > self.limit_rows:
            return self._lose(table.source, stamps, int(tick[0]), int(tick[-1]), data.num_rows)
        self._cut.extend(table.cut())
        self._cut.append(Batch(table.source, data))
        self.waiting += data.num_rows

    def take(self) -> list[Batch]:
        """Hand over everything buffered so far, with a gap row for each source that lost some."""
        lost, self._lost = self._lost, {}
        for (source, epoch), loss in lost.items():
            add_gap(self, source, epoch, loss.start, loss.stop, OVERRUN, loss.rows)
        cut = [*self._cut, *itertools.chain.from_iterable(table.cut() for table in self._tables.values())]
        self._cut, self.waiting = [], 0
        self._hurry = trio.Event()
        self._room.set()
        self._room = trio.Event()
        return cut

    async def announce(self) -> None:
        """Let those who wait in ``flushing`` add what they have; ``take`` comes next."""
        self._flush.set()
        self._flush = trio.Event()
        for _ in range(2):  # tasks of one round run in any order: after the second, all of the first have run
            await trio.lowlevel.checkpoint()

    async def flushing(self) -> None:
        """Wait until rows are about to be taken."""
        await self._flush.wait()

    async def room(self) -> None:
        """Wait until less than half of the buffer is in use."""
        await trio.lowlevel.checkpoint()
        while self.waiting >= self.limit_rows // 2:
            self.hurry()
            await self._room.wait()

    def hurry(self) -> None:
        """Ask for a flush now: somebody waits for room, or the run has ended."""
        self._hurry.set()

    async def hurried(self) -> None:
        """Wait until a flush is wanted before its time."""
        await self._hurry.wait()

    def _lose(self, source: Source, stamps: Row, first: int, last: int, rows: int) -> None:
        epoch = int(np.max(stamps["epoch"]))
        loss = self._lost.setdefault((source, epoch), _Loss(first, last))
        loss.stop, loss.rows = last, loss.rows + rows


class Outlet:
    """Buffers the rows of one collector instance until the engine ships them.

    Adding a row never blocks and never awaits, so how fast a sink is cannot disturb when a collector samples.
    Not thread-safe: call it from the Trio thread.
    """

    def __init__(self, hub: Hub, instance: str, device: str = "host") -> None:
        self.instance, self.device, self.now = instance, device, hub.now
        self.is_ready = trio.Event()
        self._hub = hub
        self._tables: dict[int, tuple[Stream, Table]] = {}
        self._rails: set[tuple[Stream, Rail]] = set()
        self._first_epoch = self._last_epoch = 0
        self._broken: dict[Table, tuple[int, str]] = {}

    def row(
        self,
        stream: Stream,
        /,
        *,
        tick: int | None = None,
        epoch: int = 0,
        t_u: int | None = None,
        **values: Any,
    ) -> None:
        """Add one row, stamped now unless ``tick`` says when, in ticks of the stream's clock.

        Columns left out are null. Raises ``TypeError`` at once for a column the stream does not have or a value
        of the wrong type or size, or where a stream of another clock than the host's comes without ``tick``.
        """
        table = self._table(stream)
        tick = self._host_tick(table) if tick is None else tick
        epoch = self._epoch(table, epoch)
        stamps = {"tick": tick, "epoch": epoch, "t_u": t_u}
        self._hub.add_row(table, stamps, values)
        self._came(table, tick, tick, epoch)

    def rows(
        self,
        stream: Stream,
        /,
        *,
        tick: np.ndarray[Any, Any],
        epoch: int = 0,
        t_u: np.ndarray[Any, Any] | None = None,
        **columns: Any,
    ) -> None:
        """Add many rows at once: an array a column, all of the length of ``tick`` (int64); arrays are copied.

        Columns left out are null. Raises ``TypeError`` or ``ValueError`` at once for a wrong name, type or length.
        """
        if not len(tick):
            return
        table = self._table(stream)
        epochs = np.full(len(tick), self._epoch(table, epoch), np.int32)
        self._hub.add_block(table, {"tick": tick, "epoch": epochs, "t_u": t_u}, columns, tick)
        self._came(table, int(tick[0]), int(tick[-1]), int(epochs[0]))

    def gap(
        self,
        stream: Stream,
        /,
        start: int,
        stop: int,
        reason: str,
        *,
        lost: int | None = None,
        epoch: int = 0,
    ) -> None:
        """Say that ``stream`` has a hole from ``start`` to ``stop``, in its clock's ticks; ``lost`` rows if known."""
        table = self._table(stream)
        add_gap(self._hub, table.source, self._epoch(table, epoch), start, stop, reason, lost)

    def clock_reading(self, reading: Reading, /) -> None:
        """Record what a clock showed between two host times."""
        clock = reading.clock
        self._own(
            READINGS, clock_of=clock_key(self.instance, clock), epoch_of=self._new_epoch(clock.name, reading.epoch),
            count=reading.tick, resolution=reading.resolution, not_before=reading.not_before,
            not_after=reading.not_after, kind=reading.kind, tick_ns=clock.tick_ns, rho_ppm=clock.rho_ppm,
            same_rate=clock.same_rate, **self._chained(reading),
        )  # fmt: skip

    def _chained(self, reading: Reading) -> Row:
        if reading.against == HOST:
            return {}
        epoch = self._new_epoch(reading.against.name, reading.against_epoch)
        return {"against": clock_key(self.instance, reading.against), "against_epoch": epoch}

    def rail(self, stream: Stream, rail: Rail, /) -> None:
        """Declare that ``stream`` measures ``rail``, before the rail's first row; saying it again changes nothing."""
        if (stream, rail) in self._rails:
            return
        source = self._table(stream).source
        self._own(
            RAILS, device_of=self.device, sensor_of=source.key, clock_of=source.clock, sample_period_ns=stream.period_ns,
            **asdict(rail),
        )  # fmt: skip
        self._rails.add((stream, rail))

    def fact(self, name: str, value: Any) -> None:
        """Record something found out about the instance (a model's name, a revision); ``value`` as for JSON."""
        self._own(FACTS, instance_of=self.instance, device_of=self.device, name=name, value=json.dumps(value))

    def next_request(self) -> int:
        """Return a request number that nobody else in this run has."""
        return self._hub.next_request()

    def ready(self) -> None:
        """Say that measuring has begun; the first row says it too."""
        self.is_ready.set()

    async def room(self) -> None:
        """Wait until there is room: for files and replays. Instruments never wait."""
        await self._hub.room()

    async def flushing(self) -> None:
        """Wait until rows are about to be shipped: for threads' rows, which a task hands over."""
        await self._hub.flushing()

    def broken(self, reason: str) -> None:
        """Say that the collector failed: each stream has a gap until its next row.

        Its own clocks may begin again, so that they get new epochs.
        """
        for _, table in self._tables.values():
            if table.last is not None:
                self._broken.setdefault(table, (table.last[0], reason))
        self._first_epoch = self._last_epoch + 1

    def close(self) -> None:
        """Say that no more rows will come: gaps that are still open end now."""
        for table in list(self._broken):
            self._mend(table, self.now() if table.on_host else None)

    def _came(self, table: Table, first: int, last: int, epoch: int) -> None:
        if table in self._broken:
            goes_on = table.on_host or (table.last is not None and table.last[1] == epoch)
            self._mend(table, first if goes_on else None, epoch)
        table.last = last, epoch
        self.is_ready.set()

    def _mend(self, table: Table, tick: int | None, following: int = 0) -> None:
        start, reason = self._broken.pop(table)
        epoch = table.last[1] if table.last else 0
        if following > epoch and "." in table.source.stream.clock.name:
            reason += "; the device has begun another boot"
        # Where a clock's next tick belongs to a new epoch, the hole has no length, only a place.
        add_gap(self._hub, table.source, epoch, start, start if tick is None else tick, reason)

    def _table(self, stream: Stream) -> Table:
        # By identity, which is 2 us faster a row than the hash of all columns; the entry keeps the stream alive.
        if (known := self._tables.get(id(stream))) is None:
            table = self._hub.table(Source(self.instance, stream, self.device))
            known = self._tables[id(stream)] = (stream, table)
        return known[1]

    def _host_tick(self, table: Table) -> int:
        if not table.on_host:
            clock = table.source.stream.clock.name
            raise TypeError(f"{table.source.key}: expected tick=..., since its clock is {clock!r}, got none")
        return self.now()

    def _epoch(self, table: Table, epoch: int) -> int:
        if not table.on_host:
            return self._new_epoch(table.source.stream.clock.name, epoch)
        if epoch:
            raise TypeError(
                f"{table.source.key}: expected no epoch, since its clock is the host's, got {epoch!r}"
            )
        return 0

    def _new_epoch(self, clock: str, epoch: int) -> int:
        if clock == HOST.name or "." in clock:
            return epoch  # a clock that others share counts its own restarts
        epoch += self._first_epoch
        self._last_epoch = max(epoch, self._last_epoch)
        return epoch

    def _own(self, stream: Stream, /, **values: Any) -> None:
        _add_own(self._hub, stream, values)


def add_gap(
    hub: Hub, source: Source, epoch: int, start: int, stop: int, reason: str, lost: int | None = None
) -> None:
    """Write down that ``source`` has a hole."""
    values = {
        "instance_of": source.instance, "stream": source.stream.name, "clock_of": source.clock, "epoch_of": epoch,
        "start": start, "stop": stop, "lost_rows": lost, "reason": reason,
    }  # fmt: skip
    _add_own(hub, GAPS, values)


def _add_own(hub: Hub, stream: Stream, values: Row) -> None:
    hub.add_row(hub.table(Source(RUN, stream)), {"tick": hub.now(), "epoch": 0}, values)


def warm_up() -> None:
    """Make Arrow's first conversion now: it looks for pandas, which takes up to a second."""
    pa.array(["", None], pa.utf8())
    pa.array(np.zeros(1), pa.float64())
    pa.RecordBatch.from_pylist([{"tick": 0}], pa.schema([pa.field("tick", pa.int64())]))
