"""Monsoon high-voltage power monitor (HVPM, the black box): 5000 samples a second of its main, USB and aux channels."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import pyarrow as pa
import trio
from annotated_types import Gt, Le, MinLen

from melt_stream.clock import Clock, Reading
from melt_stream.collector import Health
from melt_stream.collectors import _hvpm, _hvpm_socket, _hvpm_usb
from melt_stream.collectors._hvpm_link import Gone, Link, Refused, Silent
from melt_stream.collectors._hvpm_pump import SIZE, Pump
from melt_stream.collectors._monsoon_written import PERIOD_NS, Watch
from melt_stream.errors import DeviceError, MeltError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V

VOLTS = (0.8, 13.5)
"""What the output can give."""
PATIENCE_S = 1.0
"""Silence after which the maker's client gives up, too."""
POWER_UP_NS = 1_000_000_000
"""So long after the start the output may still be on its way up."""
ENDING_S = 2.0
QUIET_S = 0.05

CLOCK = Clock("sample", tick_ns=PERIOD_NS)
_V, _A = Column(V, pa.float32()), Column(A, pa.float32())
MAIN = Stream("main", clock=CLOCK, period_ns=PERIOD_NS, volts=_V, amps=_A)
USB = Stream("usb", clock=CLOCK, period_ns=PERIOD_NS, volts=_V, amps=_A)
AUX = Stream("aux", clock=CLOCK, period_ns=PERIOD_NS, volts=_V, amps=_A)
AUX_AMPS = Stream("aux_amps", clock=CLOCK, period_ns=PERIOD_NS, amps=_A)
"""Where ``usb`` is measured, too: the box measures only one of their voltages."""
SOURCE = "1 % or 50 uA, taken as limits: quoted for the LVPM; no data sheet of the HVPM was at hand"
T = TypeVar("T")


@dataclass
class MonsoonHvpm:
    """Powers a device through the box's main output and measures what it draws, at 5 kHz."""

    voltage: float
    """What the output is set to, in V: 0.8 to 13.5. There is no default, since a wrong one destroys the device."""
    port: str = ""
    """Serial number of the box; empty: the only one on USB; ``emulator:HOST:PORT``: an emulated one."""
    _: KW_ONLY
    channels: Annotated[tuple[Literal["main", "usb", "aux"], ...], MinLen(1)] = ("main",)
    """What is recorded. The box has two voltmeters: with ``usb`` and ``aux`` both, aux has amperes only."""
    current_limit: Annotated[float, Gt(0), Le(15)] | None = None
    """Amperes at which the box switches its output off; None: as it is."""
    power_up_limit: Annotated[float, Gt(0), Le(15)] | None = None
    """The same while the output powers up."""
    usb: Literal["off", "on", "auto"] | None = None
    """USB pass-through; ``auto`` cuts it while sampling. None: as it is."""
    at_end: Literal["leave", "off"] = "leave"
    """Whether the output stays on when the run ends."""
    boundary: Literal["battery", "dc_in", "board"] = "battery"
    """Where in the device's supply the output is wired."""
    optional: bool = False
    """True where its failure does not end the run."""

    def __post_init__(self) -> None:
        if not VOLTS[0] <= self.voltage <= VOLTS[1]:
            raise ValueError(
                f"voltage: expected {VOLTS[0]} to {VOLTS[1]} V, which the box can give, got {self.voltage:g} V"
            )

    @staticmethod
    def example() -> dict[str, Any]:
        """Run it on the emulator."""
        return {"kind": "emulator", "emulator": "monsoon_hvpm", "config": {"voltage": 4.0, "port": "{port}"}}

    @staticmethod
    def here() -> Health:
        """What doctor says without settings: whether a box is on USB."""
        return _on_usb("")

    def check(self) -> Health:
        """Whether the box is there; nothing is sent to it."""
        if self.port.startswith(_hvpm_socket.SCHEME):
            return Health(True, f"emulated box at {self.port}")
        return _on_usb(self.port)

    def prepare(self) -> None:
        """Compile the decoder."""
        _hvpm.warm_up()

    async def collect(self, out: Outlet) -> None:
        """Measure until cancelled."""
        link = await trio.to_thread.run_sync(self._open)
        async with self._ended(link):
            about = await _with(link, self._set_up)
            self._tell(out, about)
            before = out.now()
            await _with(link, _hvpm.start)
            out.clock_reading(Reading(CLOCK, 0, not_before=before, kind="cause"))
            await self._sample(link, out, about)

    def _open(self) -> Link:
        emulated = self.port.startswith(_hvpm_socket.SCHEME)
        return _hvpm_socket.open_socket(self.port) if emulated else _hvpm_usb.open_usb(self.port)

    def _set_up(self, link: Link) -> _hvpm.About:
        """Stop what still runs, set everything, and see that it was taken; blocks."""
        _hvpm.stop(link)
        _drain(link)
        if fault := _hvpm.dac_fault(_hvpm.about(link)):
            raise DeviceError(f"{link.name}: {fault}; calibrate its voltage with the maker's software")
        if self.power_up_limit is not None:
            _hvpm.set_limit(link, _hvpm.UP_LIMIT, self.power_up_limit)
        if self.current_limit is not None:
            _hvpm.set_limit(link, _hvpm.RUN_LIMIT, self.current_limit)
        if self.usb is not None:
            _hvpm.put(link, _hvpm.PASSTHROUGH, _hvpm.MODES[self.usb])
        _hvpm.put(link, _hvpm.VOLT_CHANNEL, int("aux" in self.channels and "usb" not in self.channels))
        _hvpm.set_volts(link, self.voltage)
        about = _hvpm.about(link)
        self._see(link, about)
        return about

    def _see(self, link: Link, about: _hvpm.About) -> None:
        """Compare what was ordered with what the box says; the voltage shows when it samples."""
        limits = {"run_limit": self.current_limit, "power_up_limit": self.power_up_limit}
        missed = [
            f"a {name} of {amps:g} A"
            for name, amps in limits.items()
            if amps is not None and abs(getattr(about, name) - amps) > 0.01
        ]
        if self.usb not in (None, about.passthrough):
            missed.append(f"USB pass-through {self.usb}")
        if missed:
            raise DeviceError(f"{link.name}: expected the box to take {', '.join(missed)}, got {about}")

    def _streams(self) -> dict[Stream, dict[str, int]]:
        """Return the streams, and which of the decoder's values their columns are."""
        streams = {}
        if "main" in self.channels:
            streams[MAIN] = {"volts": 3, "amps": 0}
        if "usb" in self.channels:
            streams[USB] = {"volts": 4, "amps": 1}
        if "aux" in self.channels:
            has_volts = "usb" not in self.channels
            streams[AUX if has_volts else AUX_AMPS] = {"volts": 4, "amps": 2} if has_volts else {"amps": 2}
        return streams

    def _tell(self, out: Outlet, about: _hvpm.About) -> None:
        for name, value in about._asdict().items():
            out.fact(name, value)
        out.fact("volts", self.voltage)
        rails = {
            MAIN: _rail("main", self.boundary, self.voltage),
            USB: _rail("usb", "dc_in", 5.0),
            AUX: _rail("aux", "rail", 5.0),
        }
        for stream in self._streams():
            if stream in rails:
                out.rail(stream, rails[stream])

    async def _sample(self, link: Link, out: Outlet, about: _hvpm.About) -> None:
        from melt_stream.collectors._hvpm_rows import Rows

        rows = Rows(out, CLOCK, self._streams(), _hvpm.Decoder(about.scales, about.offsets, self.channels))
        watch, pump, began = Watch(self.voltage), Pump(link, out.now, PATIENCE_S), out.now()
        try:
            async with pump.running():
                while True:
                    block = await pump.next()
                    decoded = rows.take(block)
                    if not len(decoded.tick) or block.arrival - began < POWER_UP_NS:
                        continue
                    if watch.fell(volts := float(decoded.values[-1, 3]), block.arrival):
                        raise self._tripped(link, volts, about)
        except (Silent, Gone, Refused) as exc:
            raise _as_ours(link, exc) from exc
        finally:
            rows.close()

    def _tripped(self, link: Link, volts: float, about: _hvpm.About) -> DeviceError:
        return DeviceError(
            f"{link.name}: expected {self.voltage:g} V at the output, got {volts:.2f} V: the box switched it off, by "
            f"over-current (limit {about.run_limit:.2f} A, {about.power_up_limit:.2f} A while it powers up)? "
            "Look for a short circuit, or raise current_limit"
        )

    @asynccontextmanager
    async def _ended(self, link: Link) -> AsyncIterator[None]:
        """Stop the box however the body ends, if it is still there, and let go of it."""
        try:
            yield
        finally:
            with trio.move_on_after(ENDING_S, shield=True):
                await trio.to_thread.run_sync(partial(self._leave, link), abandon_on_cancel=True)

    def _leave(self, link: Link) -> None:
        try:
            _hvpm.stop(link)
            if self.at_end == "off":
                _hvpm.set_volts(link, 0)
        except (Silent, Gone, Refused):
            pass  # unplugged: told by what was raised
        finally:
            link.close()


def _rail(name: str, boundary: Any, volts: float) -> Rail:
    third = math.sqrt(3)
    return Rail(
        name,
        boundary,
        "gauge",
        gain=0.01 / third,
        offset=50e-6 * volts / third,
        instrument="meter",
        source=SOURCE,
    )


def _drain(link: Link) -> None:
    """Throw away what is left from before the stop; raises ``DeviceError`` where it goes on for ever."""
    try:
        for _ in range(1000):
            link.bulk_read(SIZE, QUIET_S)
    except Silent:
        return
    raise DeviceError(
        f"{link.name}: expected silence after the stop, got samples; does another program start it?"
    )


async def _with(link: Link, ask: Callable[[Link], T]) -> T:
    """Talk with the box in a thread; raises our own errors."""
    try:
        return await trio.to_thread.run_sync(ask, link)
    except (Silent, Gone, Refused) as exc:
        raise _as_ours(link, exc) from exc


def _as_ours(link: Link, exc: Exception) -> DeviceError:
    if isinstance(exc, Silent):
        return Transient(f"{link.name}: expected samples within {PATIENCE_S:g} s, got none; is it on?")
    if isinstance(exc, Gone):
        return Transient(f"{link.name}: expected samples, got the end of it ({exc}); was it unplugged?")
    return DeviceError(f"{link.name}: expected the box to do as it is told, got: {exc}")


def _on_usb(serial: str) -> Health:
    try:
        found = _hvpm_usb.serial_numbers()
    except MeltError as exc:
        what, _, cure = str(exc).partition("; try: ")
        return Health(False, what, cure)
    if serial in found or (found and not serial):
        return Health(True, f"{_hvpm_usb.WHAT} {serial or ', '.join(found)}")
    return Health(
        False, f"no {_hvpm_usb.WHAT} {serial}".rstrip() + " on USB (2ab9:0001)", "plug it in and switch it on"
    )
