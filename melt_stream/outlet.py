"""Where collectors put rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa
import trio

from melt_stream.clock import HOST, Now, Reading, monotonic
from melt_stream.internal import FACTS, GAPS, RAILS, READINGS
from melt_stream.rail import Rail
from melt_stream.sink import Batch, Source, clock_key
from melt_stream.stream import Column, ColumnType, Stream
from melt_stream.units import Unit

Row = dict[str, Any]
RUN = "run"
"""Instance name of the engine's own streams."""


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
    _rows: dict[Source, list[Row]] = field(default_factory=dict)
    _cut: list[Batch] = field(default_factory=list)
    _lost: dict[Source, _Loss] = field(default_factory=dict)
    _requests: Iterable[int] = field(default_factory=lambda: itertools.count(1))
    _room: trio.Event = field(default_factory=trio.Event)

    def outlet(self, instance: str, device: str = "host") -> Outlet:
        """Return the outlet of one collector instance."""
        return Outlet(self, instance, device)

    def next_request(self) -> int:
        """Return a request number that nobody else in this run has: 1, 2, ..."""
        return next(iter(self._requests))

    def add_row(self, source: Source, row: Row) -> None:
        """Buffer one checked row."""
        if self.waiting >= self.limit_rows and source.instance != RUN:
            return self._lose(source, row["tick"], row["tick"], 1)
        self._rows.setdefault(source, []).append(row)
        self.waiting += 1

    def add_batch(
        self, source: Source, data: pa.RecordBatch, first: int, last: int
    ) -> None:
        """Buffer checked rows that come as one batch, after those that came before."""
        if self.waiting + data.num_rows > self.limit_rows:
            return self._lose(source, first, last, data.num_rows)
        self._cut_rows(source)
        self._cut.append(Batch(source, data))
        self.waiting += data.num_rows

    def take(self) -> list[Batch]:
        """Hand over everything buffered so far, with a gap row for each source that lost some."""
        lost, self._lost = self._lost, {}
        for source, loss in lost.items():
            self._gap(source, loss)
        for source in list(self._rows):
            self._cut_rows(source)
        cut, self._cut, self.waiting = self._cut, [], 0
        self._room.set()
        self._room = trio.Event()
        return cut

    async def room(self) -> None:
        """Wait until less than half of the buffer is in use."""
        await trio.lowlevel.checkpoint()
        while self.waiting >= self.limit_rows // 2:
            await self._room.wait()

    def _lose(self, source: Source, first: int, last: int, rows: int) -> None:
        loss = self._lost.setdefault(source, _Loss(first, last))
        loss.stop, loss.rows = last, loss.rows + rows

    def _gap(self, source: Source, loss: _Loss) -> None:
        out = self.outlet(source.instance, source.device)
        out.gap(
            source.stream,
            loss.start,
            loss.stop,
            "overrun: rows came faster than they were shipped",
            lost=loss.rows,
        )

    def _cut_rows(self, source: Source) -> None:
        if rows := self._rows.pop(source, None):
            self._cut.append(
                Batch(source, pa.RecordBatch.from_pylist(rows, source.schema))
            )


class Outlet:
    """Buffers the rows of one collector instance until the engine ships them.

    Adding a row never blocks and never awaits, so how fast a sink is cannot disturb when a collector samples.
    Not thread-safe: call it from the Trio thread.
    """

    def __init__(self, hub: Hub, instance: str, device: str = "host") -> None:
        self.instance, self.device, self.now = instance, device, hub.now
        self.is_ready = trio.Event()
        self._hub = hub
        self._sources: dict[Stream, Source] = {}

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
        of the wrong type, or where a stream of another clock than the host's comes without ``tick``.
        """
        source = self._source(stream)
        _check_values(stream, values)
        self._hub.add_row(source, {**_stamp(self, stream, tick, epoch, t_u), **values})
        self.ready()

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
        """Add many rows at once: an array a column, all of the length of ``tick`` (int64).

        Columns left out are null. Raises ``TypeError`` or ``ValueError`` at once for a wrong name, type or length.
        """
        if not len(tick):
            return
        source = self._source(stream)
        _check_names(stream, columns)
        columns |= {
            "tick": tick,
            "t_u": t_u,
            "epoch": np.full(len(tick), epoch, np.int32),
        }
        arrays = [
            _array(stream, f, columns.get(f.name), len(tick)) for f in source.schema
        ]
        data = pa.RecordBatch.from_arrays(arrays, schema=source.schema)
        self._hub.add_batch(source, data, int(tick[0]), int(tick[-1]))
        self.ready()

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
        source = self._source(stream)
        self._own(
            GAPS, instance_of=self.instance, stream=stream.name, clock_of=source.clock, epoch_of=epoch,
            start=start, stop=stop, lost_rows=lost, reason=reason,
        )  # fmt: skip

    def clock_reading(self, reading: Reading, /) -> None:
        """Record what a clock showed between two host times."""
        clock = reading.clock
        self._own(
            READINGS, clock_of=clock_key(self.instance, clock), epoch_of=reading.epoch, count=reading.tick,
            resolution=reading.resolution, not_before=reading.not_before, not_after=reading.not_after,
            kind=reading.kind, tick_ns=clock.tick_ns, rho_ppm=clock.rho_ppm, same_rate=clock.same_rate,
        )  # fmt: skip

    def rail(self, stream: Stream, rail: Rail, /) -> None:
        """Declare that ``stream`` measures ``rail``; say it before the rail's first row."""
        source = self._source(stream)
        self._own(
            RAILS, device_of=self.device, sensor_of=source.key, clock_of=source.clock, sample_period_ns=stream.period_ns,
            **asdict(rail),
        )  # fmt: skip

    def fact(self, name: str, value: Any) -> None:
        """Record something found out about the instance (a model's name, a revision); ``value`` as for JSON."""
        self._own(
            FACTS,
            instance_of=self.instance,
            device_of=self.device,
            name=name,
            value=json.dumps(value),
        )

    def next_request(self) -> int:
        """Return a request number that nobody else in this run has."""
        return self._hub.next_request()

    def ready(self) -> None:
        """Say that measuring has begun; the first row says it too."""
        self.is_ready.set()

    async def room(self) -> None:
        """Wait until there is room: for files and replays. Instruments never wait."""
        await self._hub.room()

    def _source(self, stream: Stream) -> Source:
        if (source := self._sources.get(stream)) is None:
            source = self._sources[stream] = Source(self.instance, stream, self.device)
        return source

    def _own(self, stream: Stream, /, **values: Any) -> None:
        self._hub.add_row(Source(RUN, stream), {"tick": self.now(), **values})


def _stamp(
    out: Outlet, stream: Stream, tick: int | None, epoch: int, t_u: int | None
) -> Row:
    if stream.clock == HOST:
        stamp = {"tick": out.now() if tick is None else tick}
    elif tick is None:
        raise TypeError(
            f"{out.instance}.{stream.name}: expected tick=..., since its clock is {stream.clock.name!r}, got none"
        )
    else:
        stamp = {"tick": tick, "epoch": epoch}
    return {**stamp, "t_u": t_u} if stream.polled else stamp


def _check_names(stream: Stream, values: Row) -> None:
    if not values.keys() <= dict(stream.columns).keys():
        known = [name for name, _ in stream.columns]
        unknown = sorted(values.keys() - set(known))
        raise TypeError(
            f"stream {stream.name!r}: expected columns {known}, got {unknown}"
        )


def _check_values(stream: Stream, values: Row) -> None:
    _check_names(stream, values)
    for name, column in stream.columns:
        value = values.get(name)
        if value is not None and not _fits(column, value):
            raise TypeError(
                f"stream {stream.name!r}, column {name!r}: expected {_wanted(column)}, got {value!r}"
            )


def _fits(column: ColumnType, value: object) -> bool:
    if column is bool or column is str:
        return isinstance(value, column)
    if column is int or (
        isinstance(column, Column) and pa.types.is_integer(column.type)
    ):
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, Real) and not isinstance(value, bool)


def _wanted(column: ColumnType) -> str:
    return (
        f"a number in {column.code}"
        if isinstance(column, Unit)
        else str(getattr(column, "__name__", column))
    )


def _array(stream: Stream, wanted: pa.Field, values: Any, length: int) -> pa.Array:
    if values is None:
        return pa.nulls(length, wanted.type)
    try:
        array = pa.array(values, wanted.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise TypeError(
            f"stream {stream.name!r}, column {wanted.name!r}: expected {wanted.type}, got {exc}"
        ) from exc
    if len(array) != length:
        raise ValueError(
            f"stream {stream.name!r}, column {wanted.name!r}: expected {length} rows, got {len(array)}"
        )
    return array
