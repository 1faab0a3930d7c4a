"""Monsoon power monitor (LVPM, the white box with its stock firmware): 5000 samples a second of the main output."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
import trio
from annotated_types import Gt, Le

from melt_stream.clock import Clock, Reading
from melt_stream.collector import Health
from melt_stream.collectors import _serial
from melt_stream.collectors._monsoon import (
    BEFORE_START,
    START,
    STATUS_REQUEST,
    STOP,
    VOLTS,
    Decoder,
    Status,
    frame,
    set_limit,
    set_passthrough,
    set_volts,
    warm_up,
)
from melt_stream.collectors._monsoon_rows import Rows
from melt_stream.collectors._monsoon_written import PERIOD_NS, Watch
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V

USB_IDS = frozenset({(0x2AB9, 0xFFFF), (0x04D8, 0x000B)})
"""Under its maker's id, and under that of its USB chip's maker (PyMonsoon's reflash.py looks for both)."""
PRODUCT = "Mobile Device Power Monitor"
PATIENCE_S = 1.0
"""Silence after which every client gives up."""

CLOCK = Clock("sample", tick_ns=PERIOD_NS)
MAIN = Stream(
    "main", clock=CLOCK, period_ns=PERIOD_NS, volts=Column(V, pa.float32()), amps=Column(A, pa.float32())
)


@dataclass
class MonsoonLvpm:
    """Powers a device through the box's main output and measures what it draws, at 5 kHz."""

    voltage: float
    """What the output is set to, in V: 2.01 to 4.55. There is no default, since a wrong one destroys the device."""
    port: str = ""
    """``/dev/ttyACM0`` or the like; empty: the only one found on USB."""
    _: KW_ONLY
    current_limit: Annotated[float, Gt(0), Le(8)] | None = None
    """Amperes at which the box switches its output off; None: as it is."""
    power_up_limit: Annotated[float, Gt(0), Le(8)] | None = None
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
        return {"kind": "emulator", "emulator": "monsoon_lvpm", "config": {"voltage": 4.0, "port": "{port}"}}

    @staticmethod
    def here() -> Health:
        """What doctor says without settings: whether a box is on USB."""
        return _serial.health("Monsoon power monitor", USB_IDS, product=PRODUCT)

    def check(self) -> Health:
        """Whether the port is there and may be opened; no byte is sent."""
        return _serial.health("Monsoon power monitor", USB_IDS, self.port, PRODUCT)

    def prepare(self) -> None:
        """Compile the decoder."""
        warm_up()

    async def collect(self, out: Outlet) -> None:
        """Measure until cancelled."""
        path = _serial.the_port("Monsoon power monitor", USB_IDS, self.port, PRODUCT)
        async with _serial.open_port(path, now=out.now) as port, self._ended(port):
            status = await self._set_up(port)
            self._tell(out, status)
            before = out.now()
            for body in (BEFORE_START, START):
                await port.write(frame(body))
            out.clock_reading(Reading(CLOCK, 0, not_before=before, kind="cause"))
            await self._sample(port, out, status)

    async def _set_up(self, port: _serial.Port) -> Status:
        """Stop what still runs, set everything, and see that it was taken."""
        await port.write(frame(STOP))
        await port.drain()
        status = await _ask(port)
        for body in self._settings(status):
            await port.write(frame(body))
        wanted = self._wanted()
        for _ in range(5):
            status = await _ask(port)
            if all(holds(status) for holds in wanted.values()):
                return status
            await trio.sleep(0.05)
        missed = ", ".join(what for what, holds in wanted.items() if not holds(status))
        raise DeviceError(f"{port.path}: expected the box to take {missed}, got {status}; see its manual")

    def _settings(self, status: Status) -> list[bytes]:
        bodies: list[bytes] = []
        if self.power_up_limit is not None:
            bodies += set_limit(self.power_up_limit, power_up=True)
        if self.current_limit is not None:
            bodies += set_limit(self.current_limit, power_up=False)
        if self.usb is not None:
            bodies.append(set_passthrough(self.usb))
        if abs(status.volts - self.voltage) > 0.006:
            bodies.append(set_volts(self.voltage))
        return bodies

    def _wanted(self) -> dict[str, Callable[[Status], bool]]:
        wanted: dict[str, Callable[[Status], bool]] = {
            f"{self.voltage:g} V": lambda told: abs(told.volts - self.voltage) < 0.011
        }
        if self.current_limit is not None:
            limit = self.current_limit
            wanted[f"a limit of {limit:g} A"] = lambda told: abs(told.run_limit - limit) < 0.02
        if self.power_up_limit is not None:
            first = self.power_up_limit
            wanted[f"a power-up limit of {first:g} A"] = lambda told: abs(told.power_up_limit - first) < 0.02
        if self.usb is not None:
            wanted[f"USB pass-through {self.usb}"] = lambda told: told.passthrough == self.usb
        return wanted

    def _tell(self, out: Outlet, status: Status) -> None:
        for name, value in status._asdict().items():
            if not name.startswith("event"):
                out.fact(name, value)
        third = math.sqrt(3)
        out.rail(
            MAIN,
            Rail(
                "main",
                self.boundary,
                "gauge",
                gain=0.01 / third,
                offset=50e-6 * status.volts / third,
                resolution=2 * 2.88 / 20_000 * status.volts,
                full_scale=4.5 * status.volts,
                instrument="meter",
                source="Monsoon Solutions: 1 % or 50 uA, taken as limits (quoted; the data sheet was not at hand)",
            ),
        )

    async def _sample(self, port: _serial.Port, out: Outlet, status: Status) -> None:
        decoder = Decoder(status.volt_step)
        rows = Rows(out, MAIN, decoder)
        watch = Watch(self.voltage)
        try:
            while True:
                block = await port.read(PATIENCE_S)
                decoded = decoder.feed(block.data)
                rows.take(decoded, block)
                if tripped := [one for one in decoded.statuses if one.event_code]:
                    raise self._tripped(port.path, tripped[0])
                if len(decoded.volts) and watch.fell(float(decoded.volts[-1]), block.arrival):
                    await port.write(frame(STOP))
                    await port.drain()
                    raise self._tripped(port.path, await _ask(port))
        finally:
            rows.close()

    def _tripped(self, path: str, status: Status) -> DeviceError:
        return DeviceError(
            f"{path}: expected {self.voltage:g} V at the output, got {status.volts:g} V: over-current, event "
            f"{status.event_code} (data {status.event_data}), limit {status.run_limit:.2f} A; "
            "look for a short circuit, or raise current_limit"
        )

    @asynccontextmanager
    async def _ended(self, port: _serial.Port) -> AsyncIterator[None]:
        """Stop the box however the body ends, if it is still there."""
        try:
            yield
        finally:
            with trio.move_on_after(0.5, shield=True):
                try:
                    await port.write(frame(STOP))
                    if self.at_end == "off":
                        await port.write(frame(set_volts(0)))
                except Transient:
                    pass  # unplugged: told by what was raised


async def _ask(port: _serial.Port) -> Status:
    """Ask for the status, again where no answer comes; samples that still come are passed over."""
    for _ in range(3):
        await port.write(frame(STATUS_REQUEST))
        decoder = Decoder()
        with trio.move_on_after(PATIENCE_S):
            while True:
                decoded = decoder.feed((await port.read()).data)
                if decoded.statuses:
                    return decoded.statuses[-1]
    raise DeviceError(
        f"{port.path}: expected a status packet within {3 * PATIENCE_S:g} s, got none; "
        "is it a Monsoon LVPM with its stock firmware?"
    )
