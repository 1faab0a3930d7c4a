"""From an Otii recording that grows to rows, gaps and readings of its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import trio

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._otii_link import Link
from melt_stream.collectors._otii_recording import Array, Channel, Hole, Pairing, Run
from melt_stream.errors import DeviceError, Transient
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, ColumnType, Stream
from melt_stream.units import CELSIUS, A, J, V, W

POLL_S = 0.05
SILENCE_S = 1.0
"""So long without a new sample, and it is asked whether the recording still runs."""
CLOCK = Clock("recording")
"""Time on a recording's own axis, ns; a recording is an epoch."""
ANALOG: Mapping[str, tuple[str, ColumnType]] = {
    "mv": ("volts", V), "mp": ("watts", W), "ac": ("amps", A), "ap": ("watts", W), "av": ("volts", V), "sc": ("amps", A),
    "sv": ("volts", V), "sp": ("volts", V), "sn": ("volts", V), "vb": ("volts", V), "vj": ("volts", V),
    "tp": ("celsius", CELSIUS), "me": ("energy", J), "ae": ("energy", J),
}  # fmt: skip
"""Channels beside mc, as Qoitech's documents name them (sc and sv are ours to ask for; those documents lack them)."""
_MAIN = {"volts": Column(V, pa.float32()), "amps": Column(A, pa.float32())}
DIGITAL = {
    "i1": Stream("gpi1", clock=CLOCK, role="logic", level=bool),
    "i2": Stream("gpi2", clock=CLOCK, role="logic", level=bool),
}
UART = events("uart", CLOCK)
"""Each line that came in at RX, as an event of kind ``mark``."""


@dataclass
class Streams:
    """The streams of the analog channels, each made when its interval is known; they outlive a connection."""

    made: dict[str, Stream] = field(default_factory=dict)

    def of(self, channel: str, period: float) -> Stream:
        """Return a channel's stream; mc's is ``main``, with the voltage beside it. Raises ``DeviceError`` for another period."""
        if (stream := self.made.get(channel)) is None:
            columns: dict[str, Any] = _MAIN if channel == "mc" else dict([ANALOG[channel]])
            name = "main" if channel == "mc" else channel
            stream = Stream(name, clock=CLOCK, period_ns=period, **columns)
            self.made[channel] = stream
        assert stream.period_ns is not None
        if abs(period / stream.period_ns - 1) > 1e-3:
            raise DeviceError(
                f"Otii, {channel}: expected samples each {stream.period_ns:g} ns as before, got {period:g}"
            )
        return stream


@dataclass
class Rows:
    """Follows the channels of one recording."""

    out: Outlet
    link: Link
    device: str
    """Its id."""
    streams: Streams
    rail: Rail
    before: int
    """Host time before the command that started it."""
    _main: Stream | None = None
    _pairing: Pairing = field(default_factory=Pairing)
    _heard: int = 0

    async def follow(self, recording: int, names: list[str]) -> None:
        """Write what comes, until cancelled. Raises ``Transient`` where it comes no more."""
        channels = {name: Channel(self.link, self.device, recording, name) for name in names}
        self._heard = self.out.now()
        try:
            while True:
                more = [await self._read(name, channel) for name, channel in channels.items()]
                self._write(*self._pairing.take())
                await self._look(recording)
                if not any(more):
                    await trio.sleep(POLL_S)
        finally:
            self._write(*self._pairing.take(last=True))

    async def _read(self, name: str, channel: Channel) -> bool:
        """Take what is new of a channel; return whether there is more at once."""
        if name in DIGITAL:
            for tick, level in await channel.entries(bool):
                self.out.row(DIGITAL[name], tick=tick, level=level)
            return False
        if name == "rx":
            for tick, text in await channel.entries(str):
                self.out.row(UART, tick=tick, kind="mark", text=text)
            return False
        count, at = await channel.counted()
        is_first = channel.last is None
        pieces = await channel.samples(count)
        for piece in pieces:
            self._put(name, channel, piece)
        if name == "mc" and pieces:
            if is_first and isinstance(pieces[0], Run):
                self._tell("cause", pieces[0].tick, self.before)
            if channel.index == count and channel.last is not None:
                self._tell("arrival", channel.last, at)
            self._heard = self.out.now()
        return channel.index < count

    def _put(self, name: str, channel: Channel, piece: Run | Hole) -> None:
        stream = self.streams.of(name, channel.interval)
        if name == "mc":
            self._main = stream
            self.out.rail(stream, self.rail)
        if isinstance(piece, Hole):
            reason = "samples are missing in the recording"
            self.out.gap(stream, piece.start, piece.stop, reason, lost=piece.lost)
            return
        ticks = piece.ticks(channel.interval)
        if name == "mc":
            self._pairing.current(ticks, piece.values)
            return
        if name == "mv":
            self._pairing.period = channel.interval
            self._pairing.voltage(ticks, piece.values)
        values: dict[str, Any] = {ANALOG[name][0]: piece.values}
        self.out.rows(stream, tick=ticks, **values)

    def _tell(self, kind: str, tick: int, at: int) -> None:
        """Write down what this says of the clock."""
        if kind == "cause":
            self.out.clock_reading(Reading(CLOCK, tick, not_before=at, kind="cause"))
        else:
            self.out.clock_reading(Reading(CLOCK, tick, not_after=at, kind="arrival"))

    def _write(self, ticks: Array, amps: Array, volts: Array) -> None:
        if self._main is not None:
            known: Any = pa.array(volts.astype("f4"), pa.float32(), from_pandas=True)  # nan is null
            self.out.rows(self._main, tick=ticks, amps=amps.astype("f4"), volts=known)

    async def _look(self, recording: int) -> None:
        """Raise ``Transient`` where no samples have come for long."""
        where = self.link.wire.address
        if self._pairing.behind > SILENCE_S * 1e9:
            raise Transient(f"{where}: expected voltages beside the currents, got none for {SILENCE_S:g} s")
        if self.out.now() - self._heard < SILENCE_S * 1e9:
            return
        running = await self.link.try_ask("recording_is_running", recording_id=recording)
        if running is not None and not running.data.get("running"):
            raise Transient(f"{where}: expected the recording to go on, got its end; did somebody stop it?")
        raise Transient(
            f"{where}: expected samples within {SILENCE_S:g} s, got none; is the device plugged in?"
        )
