"""Reads a Nordic Power Profiler Kit II: 100,000 samples of a current a second, and eight logic inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import trio
from annotated_types import Ge, Le

from melt_stream.clock import Clock, Reading
from melt_stream.collector import Health
from melt_stream.collectors._ppk2_framing import Framing
from melt_stream.collectors._ppk2_metadata import END, LIMIT, Metadata, parse
from melt_stream.collectors._ppk2_timeline import TICK_NS, Gap, Piece, Samples, Shown, Timeline
from melt_stream.collectors._serial import Found, Port, found, health, open_port
from melt_stream.errors import DeviceError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import ONE, A, V

USB = {(0x1915, 0xC00A)}
SAMPLE = Clock("sample", tick_ns=TICK_NS)
"""Counts samples; nothing on the wire tells the time."""
POWER = Stream(
    "power", clock=SAMPLE, period_ns=TICK_NS, amps=Column(A, pa.float32()), volts=Column(V, pa.float32()),
    range=Column(ONE, pa.uint8()),
)  # fmt: skip
LOGIC = Stream("logic", clock=SAMPLE, role="logic", pin=int, level=bool)
"""D0-D7: all levels at the first sample, then each change, at the sample that showed it first."""
GAIN = 0.15 / math.sqrt(3)
FULL_SCALE_A = 1.0
ACCURACY = (
    "Nordic's typical accuracy, 10 % (15 % above 50 mA), as PyPI ppk2lab 0.5.1 quotes it: +-15 % taken as the limits of "
    "a rectangular distribution; resolution: one ADC count of the coarsest range; zero and noise not stated"
)
START, STOP, GET_METADATA = b"\x06", b"\x07", b"\x19"
SILENCE_S = 1.0
BLOCK = 2500
"""Rows that are handed over at once: 25 ms."""


@dataclass
class Ppk2:
    """Records until cancelled.

    In source mode it supplies the device with ``volts``; in ampere mode something else does, and ``volts`` says how much.
    Raises ``Transient`` where it is unplugged or falls silent, ``DeviceError`` where it is none, or busy.
    """

    volts: Annotated[float, Ge(0.8), Le(5.0)]
    """At the device, V; there is no default, since a wrong one destroys it."""
    _: KW_ONLY
    port: str = ""
    """Its first serial port; found by its USB ids where there is one PPK2."""
    mode: Literal["source", "ampere"] = "source"
    power: bool = True
    """Switch the device on before measuring; False leaves it off."""
    power_off: bool = False
    """Switch the device off in the end."""
    boundary: Boundary = "battery"
    """What is supplied."""
    rail: str = "main"
    spike_filter: bool = False
    """Smooth the three samples after each change of range, as the official app does."""
    optional: bool = False
    _metadata: Metadata | None = field(default=None, init=False, repr=False)

    def prepare(self) -> None:
        """Compile what decodes."""
        number = np.arange(200, dtype=np.uint32)
        data = ((number & 63) << 18).astype("<u4").tobytes()
        pieces = Framing().feed(data[:300] + data[420:])
        table, amps, ranges = np.zeros(1 << 17, np.float32), np.zeros(9, np.float32), np.zeros(9, np.uint8)
        for words in pieces:
            if isinstance(words, np.ndarray):
                _Writer(self, table).columns(words[:9], amps[: len(words)], ranges[: len(words)], smooth=True)

    @staticmethod
    def here() -> Health:
        """Whether a PPK2 is plugged in and may be opened, whatever it is to be set to."""
        return health("PPK2", USB, next((one.path for one in _first_ports()), ""))

    def check(self) -> Health:
        """Whether it is plugged in and may be opened."""
        return health("PPK2", USB, self.port) if self.port else self.here()

    async def collect(self, out: Outlet) -> None:
        async with open_port(self.port or _only(_first_ports()), now=out.now) as port:
            metadata = await self._set_up(port)
            self._declare(out, metadata)
            vdd = metadata.vdd_mv if self.mode == "ampere" else None
            writer = _Writer(self, metadata.table(self.volts if vdd is None else vdd / 1000), out)
            # What is stale is among the samples before tick 0: that one was taken after the command.
            out.clock_reading(Reading(SAMPLE, 0, not_before=out.now(), kind="cause"))
            try:
                await port.write(START)
                await writer.stream(port)
            finally:
                writer.close()
                with trio.move_on_after(0.5) as scope:
                    scope.shield = True
                    await self._leave(port)

    async def _set_up(self, port: Port) -> Metadata:
        await port.write(STOP)
        await port.drain()
        await port.write(GET_METADATA)
        reply = b""
        while END not in reply:
            reply += (await port.read(SILENCE_S)).data
            if len(reply) > LIMIT:
                raise DeviceError(
                    f"{port.path}: expected a PPK2's metadata up to END, got {len(reply)} bytes without"
                )
        metadata = parse(reply)
        await port.write(bytes([0x11, 2 if self.mode == "source" else 1]))
        if self.mode == "source":
            await port.write(b"\x0d" + round(self.volts * 1000).to_bytes(2, "big"))
        await port.write(bytes([0x0C, self.power]))
        return metadata

    async def _leave(self, port: Port) -> None:
        try:
            await port.write(STOP)
            if self.power_off:
                await port.write(b"\x0c\x00")
        except DeviceError:
            return  # unplugged: what ended the recording says so

    def _declare(self, out: Outlet, metadata: Metadata) -> None:
        out.rail(POWER, Rail(
            self.rail, self.boundary, "gauge", gain=GAIN, resolution=metadata.step(4) * self.volts,
            full_scale=FULL_SCALE_A * self.volts, instrument="meter", source=ACCURACY,
        ))  # fmt: skip
        out.fact("metadata", metadata.said)
        out.fact("defaulted modifiers", metadata.defaulted)
        out.fact("spike filter", "0.18/0.06, 3 samples" if self.spike_filter else "off")
        out.fact("set", {"mode": self.mode, "volts": self.volts, "power": self.power})

    @staticmethod
    def example() -> dict[str, Any]:
        """The emulator."""
        return {"kind": "emulator", "emulator": "ppk2", "config": {"port": "{port}", "volts": 3.7}}


class _Writer:
    """From bytes to rows."""

    def __init__(self, ppk2: Ppk2, table: np.ndarray[Any, Any], out: Outlet | None = None) -> None:
        self.ppk2, self.table, self.out = ppk2, table, out
        self.framing, self.timeline = Framing(), Timeline()
        self.levels: int | None = None
        self.waiting: list[Samples] = []
        self.rows = 0
        self.fresh()

    def fresh(self) -> None:
        """Forget what the spike filter saw: it must not reach over a gap."""
        self.state = np.array([math.nan, math.nan, -1, 0, 0])

    async def stream(self, port: Port) -> None:
        """Write what comes, until cancelled."""
        while True:
            block = await port.read(SILENCE_S)
            words = self.framing.feed(block.data)
            self.put(self.timeline.take(words, self.framing.waiting, block.arrival))
            if self.rows >= BLOCK:
                self.flush()

    def close(self) -> None:
        """Write what still waits."""
        self.put(self.timeline.finish())
        self.flush()
        assert self.out is not None
        self.out.fact(
            "counters", {"unsteady": self.framing.unsteady, "ambiguous_gaps": self.timeline.ambiguous}
        )

    def put(self, pieces: Iterable[Piece]) -> None:
        """Take samples, gaps and readings in their order."""
        assert self.out is not None
        for piece in pieces:
            match piece:
                case Samples():
                    self.waiting.append(piece)
                    self.rows += len(piece.words)
                case Gap():
                    self.flush()
                    self.fresh()
                    start, stop = piece.tick - 1, piece.tick + piece.lost
                    for stream in (POWER, LOGIC):
                        self.out.gap(
                            stream, start, stop, piece.reason, lost=piece.lost if stream is POWER else None
                        )
                case Shown():
                    self.out.clock_reading(Reading(SAMPLE, piece.tick, not_after=piece.at, kind="arrival"))

    def flush(self) -> None:
        """Hand over the samples that wait; they follow one another."""
        if self.waiting:
            words = np.concatenate([samples.words for samples in self.waiting])
            self.write(self.waiting[0].tick, words)
        self.waiting, self.rows = [], 0

    def write(self, tick: int, words: np.ndarray[Any, Any]) -> None:
        """Write samples from ``tick`` on."""
        assert self.out is not None
        count = len(words)
        amps, ranges = np.empty(count, np.float32), np.empty(count, np.uint8)
        changes = self.columns(words, amps, ranges, smooth=self.ppk2.spike_filter)
        volts = np.full(count, self.ppk2.volts, np.float32)
        ticks = np.arange(tick, tick + count)
        self.out.rows(POWER, tick=ticks, amps=amps, volts=volts, range=ranges)
        if self.levels is None:
            self.levels = int(words[0]) >> 24
            for pin in range(8):
                self.out.row(LOGIC, tick=tick, pin=pin, level=bool(self.levels >> pin & 1))
        at, pins, levels = changes
        self.out.rows(LOGIC, tick=at + tick, pin=pins, level=levels)
        self.levels = int(words[-1]) >> 24

    def columns(
        self,
        words: np.ndarray[Any, Any],
        amps: np.ndarray[Any, Any],
        ranges: np.ndarray[Any, Any],
        *,
        smooth: bool,
    ) -> tuple[np.ndarray[Any, Any], ...]:
        """Fill the columns; return where the inputs change, which and to what."""
        from melt_stream.collectors import _decode_ppk2 as kernels

        kernels.convert(words, self.table, amps, ranges)
        if smooth:
            kernels.smooth(amps, ranges, self.state)
        before = int(words[0]) >> 24 if self.levels is None else self.levels
        room = 64
        while True:
            at, pin, level = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.bool_)
            count = kernels.edges(words, before, at, pin, level)
            if count <= room:
                return at[:count], pin[:count], level[:count]
            room = count


def _first_ports() -> list[Found]:
    """The measuring port of each PPK2: of its two, the one with the lower interface number."""
    first: dict[str, Found] = {}
    for one in found(USB):
        key = one.serial_number or re.sub(r"[:.][^:.]*$", "", one.location) or one.path
        first.setdefault(key, one)  # they come in order of location
    return list(first.values())


def _only(ports: list[Found]) -> str:
    if len(ports) == 1:
        return ports[0].path
    there = ", ".join(f"{one.path} ({one.serial_number or one.location})" for one in ports) or "none"
    raise DeviceError(f"expected one PPK2 on USB, got {there}; say which with port = '/dev/ttyACM...'")
