"""From a Joulescope's deliveries, which come on its driver's thread, to rows, gaps and readings of its clock."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import trio

from melt_stream.clock import Clock, Now, Reading, read_host_clocks
from melt_stream.collectors._joulescope import HZ, Change, Gap, Input, Map, Rows, Together, block, time_map
from melt_stream.collectors._sample_clock import SampleClock
from melt_stream.errors import Transient
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

SIGNALS = {"i": "amps", "v": "volts", "p": "watts"}
CLOCK = Clock("sample", tick_ns=1e9 / HZ)
"""Counts sample ids: 2 MHz, whatever the output rate."""
INPUTS = [Stream(f"gpi{pin}", clock=CLOCK, role="logic", level=bool) for pin in range(4)]
SILENCE_S = 1.0
PASS_S = 0.02
WAITING = 10_000
"""Deliveries that may wait for us; what comes beyond is dropped, which sample ids show."""
MAP_NS = 1_000_000
"""How far the JS220's map may be off: ten times the 100 us that its maker calls typical (forum.joulescope.com, 844)."""
SLEW = 500e-6
"""How fast the host's wall clock may be slewed between a map and our look at it."""


class Heard(NamedTuple):
    """What the driver delivered, and the host's time when it did."""

    topic: str
    value: Any
    at: int


@dataclass
class Hearing:
    """From the driver's thread to Trio: here, and nowhere else."""

    now: Now

    def __post_init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._send, self._receive = trio.open_memory_channel[Heard](WAITING)

    def hear(self, topic: str, value: Any) -> None:
        """Take a delivery; the driver calls this, on its thread."""
        heard = Heard(topic, value, self.now())
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._pass, heard)

    def _pass(self, heard: Heard) -> None:
        with suppress(trio.WouldBlock):  # dropped: sample ids show it
            self._send.send_nowait(heard)

    async def next(self) -> Heard | None:
        """Wait for a delivery; None where there was none for ``SILENCE_S``."""
        with trio.move_on_after(SILENCE_S):
            return await self._receive.receive()
        await trio.sleep(
            PASS_S
        )  # it was perhaps we who slept, and what came meanwhile is still to be passed on
        with suppress(trio.WouldBlock):
            return self._receive.receive_nowait()
        return None


@dataclass
class Writer:
    """From deliveries to rows."""

    out: Outlet
    path: str
    main: Stream
    step: int
    """Sample ids from row to row."""
    gpi: list[int]
    before: int
    """Host time before streaming was asked for."""
    _clock: SampleClock = field(default_factory=lambda: SampleClock(CLOCK.tick_ns))
    _map: Map | None = None

    def __post_init__(self) -> None:
        self._together = Together(tuple(SIGNALS.values()), self.step)
        self._inputs = {f"{self.path}/s/gpi/{pin}/!data": (INPUTS[pin], Input()) for pin in self.gpi}
        self._names = {f"{self.path}/s/{name}/!data": column for name, column in SIGNALS.items()}

    async def follow(self, hearing: Hearing) -> None:
        """Write what comes, until cancelled. Raises ``Transient`` where rows come no more."""
        rows_at = self.out.now()
        while (heard := await hearing.next()) is not None:
            if self._take(heard):
                rows_at = heard.at
            elif heard.at - rows_at > SILENCE_S * 1e9:
                break
        raise Transient(
            f"{self.path}: expected samples of i, v and p within {SILENCE_S:g} s, got none; is it plugged in?"
        )

    def close(self) -> None:
        """Write what waits."""
        for stream, one in self._inputs.values():
            for piece in one.close():
                self._show(stream, piece)

    def _take(self, heard: Heard) -> bool:
        """Take one delivery; return whether it made rows."""
        topic, value, at = heard
        if topic == "@/!remove":
            if value == self.path:
                raise Transient(f"{self.path}: expected it to stay, got word that it was unplugged")
            return False
        new = block(value, topic)
        if topic in self._inputs:
            stream, one = self._inputs[topic]
            for piece in one.feed(new):
                self._show(stream, piece)
            return False
        name = self._names[topic]
        if name == "amps" and len(new.data):
            self._read(new.first, new.first + (len(new.data) - 1) * new.step, at)
            self._mapped(time_map(value))
        self._together.put(name, new)
        made = list(self._together.take())
        for each in made:
            self._put(each)
        return bool(made)

    def _put(self, piece: Rows | Gap) -> None:
        if isinstance(piece, Gap):
            self.out.gap(
                self.main, piece.start, piece.stop, "sample ids jump: samples were dropped", lost=piece.lost
            )
            return
        count = len(next(iter(piece.columns.values())))
        ticks = piece.first + self.step * np.arange(count)
        columns: dict[str, Any] = {
            name: pa.array(values, pa.float32(), from_pandas=True) for name, values in piece.columns.items()
        }
        self.out.rows(self.main, tick=ticks, **columns)

    def _show(self, stream: Stream, piece: Change | Gap) -> None:
        if isinstance(piece, Gap):
            self.out.gap(stream, piece.start, piece.stop, "sample ids jump: samples were dropped")
        else:
            self.out.row(stream, tick=piece.sample, level=piece.level)

    def _read(self, first: int, last: int, at: int) -> None:
        """Write down what a delivery says of the clock: its first sample was not taken before we asked, its last one has been."""
        if self._clock.last is None:
            self.out.clock_reading(Reading(CLOCK, first, not_before=self.before, kind="cause"))
        if (told := self._clock.add(last, at)) is not None:
            self.out.clock_reading(Reading(CLOCK, told.tick, not_after=told.at, kind="arrival"))

    def _mapped(self, told: Map | None) -> None:
        """Write down what a new map says; the first one of a JS220 may be the driver's guess, a JS110's always is."""
        before, self._map = self._map, told or self._map
        if before is None or told is None or told.counter == before.counter or "js110" in self.path:
            return
        wall = read_host_clocks()[0]
        assert wall.not_before is not None
        assert wall.not_after is not None
        wide = MAP_NS + round(abs(wall.tick - told.utc_ns) * SLEW)
        since = told.utc_ns - wall.tick
        self.out.clock_reading(
            Reading(
                CLOCK,
                told.counter,
                not_before=wall.not_before + since - wide,
                not_after=wall.not_after + since + wide,
            )
        )
