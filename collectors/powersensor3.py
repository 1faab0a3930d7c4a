"""Reads a PowerSensor3: volts and amperes of up to four pairs of sensors, 20,000 times a second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import trio
from annotated_types import Ge, Le

from melt_stream.collector import Health
from melt_stream.collectors import _powersensor3 as box
from melt_stream.collectors._powersensor3_framing import Framing
from melt_stream.collectors._powersensor3_link import QUIT, SILENCE_S, START, Link, Marks, stop
from melt_stream.collectors._powersensor3_rows import CLOCK, MARKS, Accuracy, Rails, Writer
from melt_stream.collectors._serial import Port, health, open_port, the_port
from melt_stream.errors import Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary

__all__ = ["CLOCK", "MARKS", "PowerSensor3"]

USB = frozenset({(0x0483, 0x5740)})
"""STMicroelectronics' ids for any serial port: the box has none of its own, so other boards look like it until asked."""
WHAT = "PowerSensor3"
AVERAGING = ("F401", "F411")
"""Microcontrollers whose firmware averages over the time between two sets."""


@dataclass
class PowerSensor3:
    """Records every pair that is in use until cancelled; what they are is read from the box.

    Raises ``Transient`` where it is unplugged or falls silent, ``DeviceError`` where it is none, busy, or has no pair in use.
    """

    port: str = ""
    """``/dev/ttyACM0`` or the like; empty: the only one found on USB."""
    _: KW_ONLY
    boundary: Boundary = "dc_in"
    """Where the device is supplied, through all pairs together; or through each, where ``total`` is False."""
    boundaries: dict[str, Boundary] = field(default_factory=dict)
    """What single pairs measure, by the names of their streams."""
    total: bool = True
    """Whether the pairs, where there are several, supply one device: their sum is its rail, and each is a part of it."""
    marks_hz: Annotated[float, Ge(0), Le(20)] = 4.0
    """How often the box is asked to mark a set, which ties its clock to the host's from both sides; 0: never."""
    gain: Annotated[float, Ge(0)] | None = None
    """Standard uncertainty of each pair's gain, relative; None: unknown."""
    offset: Annotated[float, Ge(0)] | None = None
    """The same of its zero, in W."""
    noise: Annotated[float, Ge(0)] | None = None
    """Standard deviation of one set, in W."""
    source: str = ""
    """Where these figures are from."""
    optional: bool = False
    """True where its failure does not end the run."""

    def __post_init__(self) -> None:
        accuracy = Accuracy(self.gain, self.offset, self.noise, self.source)
        self._rails = Rails(self.boundary, self.boundaries, accuracy, self.total)
        self.streams = self._rails.streams

    @staticmethod
    def example() -> dict[str, Any]:
        """Run it on the emulator."""
        return {"kind": "emulator", "emulator": "powersensor3", "config": {"port": "{port}"}}

    def check(self) -> Health:
        """Whether the port is there and may be opened; no byte is sent."""
        return health(f"{WHAT} (or another STM32)", USB, self.port)

    def prepare(self) -> None:
        """Compile the decoder."""
        told = box.sensors(box.RECORD.pack(b"", b"", 0.0, 1.0, True) * box.SENSORS)
        Framing(box.forms(told), box.pairs(told)).feed(bytes(box.ALL.size * 300))

    async def collect(self, out: Outlet) -> None:
        async with open_port(the_port(WHAT, USB, self.port), now=out.now) as port:
            await stop(port)
            link = Link(port)
            version, config = await link.version(), await link.config()
            told = box.sensors(config)
            out.fact("firmware", version)
            out.fact("sensors", [sensor._asdict() for sensor in told])
            framing, marks, before = (
                Framing(box.forms(told), box.pairs(told)),
                Marks(self.marks_hz),
                port.now(),
            )
            writer = Writer(out, framing.pairs, self._rails, version.startswith(AVERAGING), before)
            async with _stopped(port, framing, marks):
                await port.write(START)
                try:
                    await _stream(port, framing, marks, writer)
                finally:
                    writer.close()
                    out.fact("framing", {"thrown_bytes": framing.thrown, "left_out": framing.left_out})


async def _stream(port: Port, framing: Framing, marks: Marks, writer: Writer) -> None:
    """Write what comes, until cancelled."""
    while True:
        block = await port.read(SILENCE_S)
        rows = framing.feed(block.data)
        asked = marks.seen(port) if rows.marked.any() else None
        writer.take(framing.beat, rows, block.arrival, asked)
        if framing.bears_marks:
            await marks.ask(port)


@asynccontextmanager
async def _stopped(port: Port, framing: Framing, marks: Marks) -> AsyncIterator[None]:
    """Stop the box however the body ends, if it is still there; not before it gave a mark that it owes."""
    try:
        yield
    finally:
        with trio.move_on_after(0.5, shield=True):
            try:
                while marks.due:
                    if framing.feed((await port.read()).data).marked.any():
                        marks.seen(port)
                await port.write(QUIT)
            except Transient:
                pass  # unplugged: told by what was raised
