"""The POWER-Z KM003C USB-C meter: up to 1000 samples a second of voltage and current, over USB."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import trio

from melt_stream.clock import Clock, Now, Reading
from melt_stream.collector import Health
from melt_stream.collectors import _km003c as wire
from melt_stream.collectors._km003c_link import Answer, Link, library
from melt_stream.collectors._km003c_timeline import Gap, Samples, Shown, Timeline
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V

SAMPLE = Clock("sample", tick_ns=1e6)
"""Its own, in ms: each sample carries 16 bits of it."""
_V, _A = Column(V, pa.float32()), Column(A, pa.float32())
USB = {
    hz: Stream(
        "usb", clock=SAMPLE, period_ns=1e9 / hz, volts=_V, amps=_A, cc1=_V, cc2=_V, d_plus=_V, d_minus=_V
    )
    for hz in wire.RATES
}
"""One a rate."""
POLL_S = (0.04, 0.5)
"""How often the queue is asked for: as the maker's program does at 1000 samples a second, and at the slowest rate."""
SILENCE_NS = 1_000_000_000
Item = Answer | dict[str, Any]
"""What the thread hands over: answers, after facts."""


@dataclass
class Km003c:
    """Samples until cancelled. Its USB is spoken to in one thread, which the loop of events cannot hold up.

    Raises ``Transient`` where it is not there, unplugged or falls silent, ``DeviceError`` where it refuses, is busy, or a
    package is missing.
    """

    _: KW_ONLY
    hz: Literal[2, 10, 50, 1000] = 1000
    """Samples a second."""
    serial_number: str = ""
    """Of its USB descriptor; needed where several are plugged in."""
    reverse: bool = False
    """The device draws its power from the side where the meter counts the current as negative."""
    boundary: Boundary = "dc_in"
    rail: str = "usb"
    usb: Any = "melt_stream.collectors._km003c_usb"
    """The module that finds and opens it, by name, or an object with its ``connect``."""
    optional: bool = False
    _poll_s: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.stream = USB[self.hz]
        self._poll_s = min(max(POLL_S[0], 1 / self.hz), POLL_S[1])

    @staticmethod
    def example() -> dict[str, Any]:
        """Run it on a made-up one."""
        return {"kind": "plain", "config": {"usb": "melt_stream.collectors._km003c_example"}}

    def prepare(self) -> None:
        """Import what speaks to it, before anything is measured."""
        library()

    def check(self) -> Health:
        """Whether one is plugged in; it is not opened."""
        found = getattr(self._module(), "found", None)
        try:
            library()
            meters = found() if found else [self.usb]
        except DeviceError as exc:
            what, _, cure = str(exc).partition("; try: ")
            return Health(False, what, cure)
        if not meters:
            return Health(False, "no KM003C on USB (5fc9:0063)", "plug it in, at its port for data")
        return Health(True, f"KM003C on USB ({len(meters)})")

    async def collect(self, out: Outlet) -> None:
        """Ask in a thread, write in the Trio thread."""
        send, receive = trio.open_memory_channel[Item](math.inf)
        token, writer = trio.lowlevel.current_trio_token(), _Writer(self, out)

        def hand(item: Item) -> None:
            token.run_sync_soon(send.send_nowait, item)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.follow, receive)
                try:
                    await trio.to_thread.run_sync(self._measure, out.now, hand)
                finally:
                    writer.rest(receive)
        finally:
            writer.close()

    def _measure(self, now: Now, hand: Callable[[Item], None]) -> None:
        """In a thread of its own, until cancelled."""
        usb = self._module().connect(self.serial_number)
        try:
            link = Link(usb, now)
            hand(link.connect())
            try:
                link.start(self.hz)
                while True:
                    trio.from_thread.check_cancelled()
                    hand(link.queue())
                    time.sleep(self._poll_s)
            finally:
                _stop(link)
        finally:
            usb.close()

    def _module(self) -> Any:
        return importlib.import_module(self.usb) if isinstance(self.usb, str) else self.usb


def _stop(link: Link) -> None:
    try:
        link.stop()
    except DeviceError:
        return  # unplugged: what ended the recording says so


class _Writer:
    """From answers to rows."""

    def __init__(self, meter: Km003c, out: Outlet) -> None:
        self.meter, self.out = meter, out
        self.timeline = Timeline(wire.TICKS_PER_S // meter.hz)
        self.heard: int | None = None
        self.failed = False

    async def follow(self, receive: trio.MemoryReceiveChannel[Item]) -> None:
        """Write what comes, until cancelled."""
        while True:
            self.write(await receive.receive())

    def rest(self, receive: trio.MemoryReceiveChannel[Item]) -> None:
        """Write what came since."""
        try:
            while not self.failed:
                self.write(receive.receive_nowait())
        except trio.WouldBlock:
            return

    def write(self, item: Item) -> None:
        """Write one answer, or the facts and the rail before the first. Raises ``Transient``; nothing is written then."""
        try:
            if isinstance(item, dict):
                self.declare(item)
            else:
                self.samples(item)
        except Transient:
            self.failed = True
            raise

    def declare(self, facts: dict[str, Any]) -> None:
        meter = self.meter
        for name, value in facts.items():
            self.out.fact(name, value)
        self.out.fact("set", {"hz": meter.hz, "reverse": meter.reverse})
        self.out.rail(meter.stream, Rail(
            meter.rail, meter.boundary, "gauge", instrument="meter",
            source="accuracy unknown: the data sheet was not at hand, and the programs that read it do not quote it",
        ))  # fmt: skip

    def samples(self, answer: Answer) -> None:
        queued = wire.samples(answer.frame)
        if len(queued) or self.heard is None:
            self.heard = answer.answered
        elif answer.answered - self.heard > max(SILENCE_NS, 4e9 / self.meter.hz):
            raise Transient(
                f"KM003C: expected samples, got empty answers for {(answer.answered - self.heard) / 1e9:.1f} s"
            )
        for piece in self.timeline.take(answer.asked, answer.answered, queued):
            self.put(piece)

    def put(self, piece: Samples | Gap | Shown) -> None:
        match piece:
            case Samples():
                values = wire.columns(piece.queued, self.meter.hz)
                if self.meter.reverse:
                    values["amps"] = -values["amps"]
                self.out.rows(self.meter.stream, tick=piece.tick, **values)
            case Gap():
                self.out.gap(self.meter.stream, piece.start, piece.stop, piece.reason, lost=piece.lost)
            case Shown():
                self.out.clock_reading(Reading(
                    SAMPLE, piece.tick, resolution=piece.resolution, not_before=piece.not_before, not_after=piece.not_after,
                    kind="arrival" if piece.not_before is None else "round_trip",
                ))  # fmt: skip

    def close(self) -> None:
        """Write what still waits."""
        for piece in self.timeline.finish():
            self.put(piece)
