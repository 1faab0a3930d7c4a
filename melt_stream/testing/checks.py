"""What every collector and every sink must do, whoever wrote it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import trio

from melt_stream.clock import Clock
from melt_stream.outlet import RUN, Hub
from melt_stream.shipper import Inbox
from melt_stream.sink import Batch, Sink, Source
from melt_stream.stream import Stream
from melt_stream.supervise import prepare
from melt_stream.testing.keep import Keep
from melt_stream.testing.leaks import no_leaks
from melt_stream.units import W

DEADLINE_S = 2.0


async def check_collector(
    collector: Any, *, seconds: float = 30.0, deadline: float = DEADLINE_S, declares: bool = True
) -> Keep:
    """Run a collector on the real clock until its second row, cancel it, and hold it to its contract.

    It begins to measure within ``seconds``, writes no streams but those it declares (as attributes of the class, of
    the instance, or of the module; ``declares`` is False for importers, whose streams depend on their files), time
    never decreases in a stream, it ends within ``deadline`` of being cancelled, and it leaves no task, thread or
    descriptor behind. Raises ``AssertionError`` that says what it did; returns what it wrote.
    """
    hub, keep = Hub(), Keep()
    async with no_leaks():
        await prepare(collector)
        with trio.CancelScope() as running:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_rows, hub, keep, running, seconds)
                await collector.collect(hub.outlet("it"))
                running.cancel()
        took = max(0.0, trio.current_time() - running.deadline)
        assert took < deadline, (
            f"expected {collector!r} to end within {deadline} s of being cancelled, got {took:.1f} s"
        )
        keep.add(hub.take())
    check_written(collector, keep, declares=declares)
    return keep


def check_written(collector: Any, keep: Keep, *, declares: bool = True) -> None:
    """Hold what a collector wrote to its contract: declared streams, and times that never decrease."""
    assert any(source.instance != RUN for source in keep.sources.values()), (
        f"expected rows of {collector!r}, got none"
    )
    declared = {_shape(stream) for stream in _declared(collector)}
    for key, source in keep.sources.items():
        if source.instance != RUN and declares:
            assert _shape(source.stream) in declared, (
                f"expected {key} among the streams it declares, got {source.stream}"
            )
        _check_time(key, keep.table(key))


async def check_sink(make: Callable[[], Sink], *, deadline: float = DEADLINE_S) -> Sink:
    """Feed a sink, made anew each time, and hold it to its contract.

    It takes streams that it has never seen, some of them of other clocks, text with every kind of character, nulls and
    NaN; it returns within ``deadline`` when its input ends, also where there was none, and when it is cancelled in the
    middle; it leaves no task, thread or descriptor behind. Raises ``AssertionError``; returns the sink that was fed.
    """
    async with no_leaks():
        with trio.fail_after(deadline):
            empty = make()
            await empty.consume(_fed(empty, []))
        with trio.move_on_after(0.05) as scope:
            cut = make()
            await cut.consume(_fed(cut, _flushes(), for_ever=True))
        assert scope.cancelled_caught, "expected the sink to go on until its input ends, got an early return"
        took = trio.current_time() - scope.deadline
        assert took < deadline, f"expected it to end within {deadline} s of being cancelled, got {took:.1f} s"
        sink = make()
        with trio.fail_after(deadline):
            await sink.consume(_fed(sink, _flushes()))
    return sink


async def _until_rows(hub: Hub, keep: Keep, running: trio.CancelScope, seconds: float) -> None:
    with trio.move_on_after(seconds):
        while sum(batch.data.num_rows for batch in keep.batches if batch.source.instance != RUN) < 2:
            await trio.sleep(0.02)
            await hub.announce()
            keep.add(hub.take())
    running.deadline = trio.current_time()  # cancels it, and says when


def _declared(collector: Any) -> Iterator[Stream]:
    module = sys.modules[type(collector).__module__]
    spaces = [vars(module), vars(collector), *(vars(cls) for cls in type(collector).__mro__)]
    for value in (value for space in spaces for value in space.values()):
        yield from _streams_in(value)


def _streams_in(value: object) -> Iterator[Stream]:
    if isinstance(value, Stream):
        yield value
    elif isinstance(value, dict):
        yield from _streams_in(tuple(value.values()))
    elif isinstance(value, tuple | list | set | frozenset):
        yield from (item for item in value if isinstance(item, Stream))


def _shape(stream: Stream) -> tuple[object, ...]:
    return stream.name, stream.columns, stream.clock


def _check_time(key: str, table: pa.Table) -> None:
    epochs = table["epoch"].to_numpy() if "epoch" in table.column_names else np.zeros(len(table))
    ticks = table["tick"].to_numpy()
    for epoch in np.unique(epochs):
        steps = np.diff(ticks[epochs == epoch])
        assert (steps >= 0).all(), (
            f"expected times that never decrease in {key}, got a step of {steps.min()} ticks"
        )


_METER = Stream("meter", rail=str, watts=W, count=int, fine=bool)
_DEVICE = Stream("samples", clock=Clock("device", tick_ns=1000.0, wrap=1 << 32), period_ns=1e6, watts=W)


def _flushes() -> list[list[Batch]]:
    meter, device = Source("one", _METER), Source("two", _DEVICE, "phone")
    rows = [
        {"tick": 1, "rail": "VDD \u00b5\U0001f50b\n\x00", "watts": 1.5, "count": -(1 << 63), "fine": True},
        {"tick": 1, "rail": "", "watts": float("nan"), "count": None, "fine": None},
        {"tick": 2, "rail": None, "watts": None, "count": (1 << 63) - 1, "fine": False},
    ]
    blocks = [{"tick": tick, "epoch": tick // 500, "watts": float(tick)} for tick in range(1000)]
    first = Batch(meter, pa.RecordBatch.from_pylist(rows, meter.schema))
    later = Batch(device, pa.RecordBatch.from_pylist(blocks, device.schema))
    return [
        [first],
        [first, later, later],
        [Batch(meter, first.data.slice(1, 1))],
        [Batch(meter, first.data.slice(0, 0))],
    ]


def _fed(sink: Sink, flushes: list[list[Batch]], *, for_ever: bool = False) -> Inbox:
    inbox = Inbox(sink)
    for batches in flushes:
        inbox.put(batches)
    if not for_ever:
        inbox.close()
    return inbox
