"""Small recorded runs for tests of what comes after recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from melt_stream.clock import Clock, Reading
from melt_stream.events import EVENTS
from melt_stream.outlet import Hub
from melt_stream.rail import Rail
from melt_stream.run import RunFolder, create
from melt_stream.sink import Batch
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Column, Stream
from melt_stream.units import CELSIUS, Unit, V

POWER = Stream("power", period_ns=1e7, rail=str, watts=Unit("mW"), volts=V)
COUNTER = Stream("energy", clock=Clock("usb", tick_ns=1000.0), energy=Column(Unit("uJ"), pa.int64()))
HEAT = Stream("thermal", zone=str, celsius=CELSIUS)
RAILS = ("cpu", "gpu", "soc")
SECONDS = 4


def batches(start: int, seconds: int = SECONDS) -> list[list[Batch]]:
    """Flushes of a meter with three rails at 100 Hz, a counter on a clock of its own, a thermometer and two requests.

    Rail k draws k + 1 W; the counter, 5 W; its clock is 7 s behind the host's.
    """
    now = iter(range(start, start + 10**15, 1000))
    hub = Hub(now=lambda: next(now))
    meter, usb, heat, app = (hub.outlet(name, "board") for name in ("meter", "usb", "heat", "app"))
    for name in RAILS:
        meter.rail(POWER, Rail(name, "rail", "gauge", gain=0.01))
    usb.rail(COUNTER, Rail("total", "board", "counter", gain=0.002))
    meter.fact("serial", "A1")
    flushes = []
    for second in range(seconds):
        begin = start + second * 10**9
        for tick in range(begin, begin + 10**9, 10**7):
            for k, name in enumerate(RAILS):
                meter.row(
                    POWER, tick=tick, rail=name, watts=1000.0 * (k + 1), volts=None if tick == begin else 5.0
                )
        ticks = np.arange(0, 10**6, 10_000) + second * 10**6
        usb.rows(COUNTER, tick=ticks, energy=ticks * 5)
        for at in (0, 10**6 - 1):
            host = begin + at * 1000
            usb.clock_reading(
                Reading(
                    COUNTER.clock,
                    second * 10**6 + at,
                    not_before=host + 7_000_000_000 - 500,
                    not_after=host + 7_000_000_000 + 500,
                )
            )
        heat.row(HEAT, tick=begin, zone="a", celsius=40.0 + second)
        request = hub.next_request()
        app.row(EVENTS, tick=begin, kind="request_sent", request=request, name=f"r{request}")
        app.row(EVENTS, tick=begin + 10**6, kind="prefill_start", request=request)
        for index in range(5):
            at = begin + (index + 2) * 10**8
            app.row(
                EVENTS,
                tick=at,
                kind="token",
                request=request,
                index=index,
                count=1,
                visible=True,
                arrival_ns=at + 1000,
                text=f"é{index}",
            )
        app.row(EVENTS, tick=begin + 7 * 10**8, kind="request_end", request=request, detail="{}")
        flushes.append(hub.take())
    return flushes


def record(
    archive: Path, flushes: Sequence[list[Batch]] | None = None, *, end: bool = True, **kwargs: object
) -> RunFolder:
    """Write a run without an engine; without ``end`` it is as a killed process leaves it."""
    folder = create(archive, recipe={}, **kwargs)  # type: ignore[arg-type]
    journal = Journal(folder)
    for flush in batches(folder.manifest.start_ns) if flushes is None else flushes:
        journal.write(flush)
    if end:
        journal._end()
        folder.finish("done")
    for file in journal._files.values():
        file.close()
    folder.close()
    return folder
