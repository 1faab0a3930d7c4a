"""Qoitech Otii Arc and Ace, through the TCP server of the Otii application: a supply that measures what it gives."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import trio
from annotated_types import Ge, Gt, Le
from pydantic import PositiveInt

from melt_stream.collector import Health
from melt_stream.collectors._line_sources import host_and_port
from melt_stream.collectors._otii_link import USUAL_PORT, Link, Refused, otii_server
from melt_stream.collectors._otii_recording import NUMBER
from melt_stream.collectors._otii_rows import DIGITAL, UART, Rows, Streams
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Stream

HERE = f"127.0.0.1:{USUAL_PORT}"
VOLTS = {"Arc": (0.5, 5.0), "Ace": (0.5, 25.0)}
"""What the main output can be set to (an Arc on USB power alone: less, which the server then says)."""
AMPS = 5.0
GAINS = {"Arc": 0.1e-2, "Ace": 0.05e-2}
"""Limits, relative."""
STEP_A = {"Arc": 82e-6}
"""Resolution from 20 mA to 2.7 A, as Elektor's review of the Arc has it."""
FIND_S = 5
"""So long the server may wait for a device to be plugged in."""
LICENCES = frozenset({"Admin", "All", "Automation", "Enterprise"})
"""Those that let a server be asked, as Qoitech's client has it."""
LEAVE_S = 1.5
STREAMS = [*DIGITAL.values(), UART]

OtherChannel = Literal[
    "mp", "ac", "ap", "av", "sc", "sv", "sp", "sn", "vb", "vj", "tp", "me", "ae", "i1", "i2", "rx"
]


class Device(NamedTuple):
    """An Arc or an Ace that the server knows."""

    id: str
    name: str
    type: str


@dataclass
class Otii:
    """Supplies a device with ``volts`` and records what it draws, until cancelled.

    Raises ``Transient`` where the server, the device or the recording goes away, ``DeviceError`` where it refuses.
    """

    volts: Annotated[float, Ge(0.5), Le(25.0)]
    """At the main output; there is no default, since a wrong one destroys the device."""
    _: KW_ONLY
    address: str = HERE
    """``host`` or ``host:port`` of the Otii application or otii_server."""
    device: str = ""
    """Name or id; needed where several are connected."""
    channels: list[OtherChannel] = field(default_factory=list)
    """Recorded beside main current and voltage."""
    hz: PositiveInt | None = None
    """Samples of the main current a second, where the device lets that be set (Ace)."""
    max_current: Annotated[float, Gt(0), Le(5)] | None = None
    """Amperes at which it switches the output off; None: as it is."""
    io_volts: Annotated[float, Ge(1.2), Le(5)] | None = None
    """Level of the expansion port; needed for i1, i2 and rx, since a wrong one damages what is wired there."""
    baud: PositiveInt = 115200
    """Of rx."""
    power: bool = True
    """Switch the output on before measuring; False leaves it as it is."""
    power_off: bool = False
    """Switch the output off in the end."""
    boundary: Boundary = "battery"
    """What is supplied."""
    rail: str = "main"
    optional: bool = False
    streams: dict[str, Stream] = field(default_factory=dict, init=False, repr=False)
    """By channel; mc's is ``main``."""
    _mine: int | None = field(default=None, init=False, repr=False)
    """The recording that we began last."""

    def __post_init__(self) -> None:
        host_and_port(self.address, USUAL_PORT)
        port = sorted({*DIGITAL, "rx"}.intersection(self.channels))
        if port and self.io_volts is None:
            raise ConfigError(
                f"io_volts: expected the level of the expansion port in V, since {port} are there, got none"
            )

    @staticmethod
    def example() -> dict[str, Any]:
        """The emulator."""
        config = {"volts": 3.7, "address": "{host}:{tcp_port}"}
        return {"kind": "emulator", "emulator": "otii", "config": config}

    @staticmethod
    def here() -> Health:
        """What doctor says without settings: whether the Otii application listens."""
        return _health(HERE)

    def check(self) -> Health:
        """Whether a server listens there; it is asked nothing."""
        return _health(self.address)

    async def collect(self, out: Outlet) -> None:
        async with otii_server(self.address, out.now) as link, _licence(link):
            device = await self._find(link)
            project = await _project(link)
            await self._free(link, project)
            await self._set_up(link, device)
            out.fact("server", dict(link.greeting))
            out.fact("device", device._asdict())
            out.fact("set", {"volts": self.volts, "max_current": self.max_current, "power": self.power})
            before = out.now()
            await link.ask("project_start_recording", project_id=project)
            try:
                last = await link.ask("project_get_last_recording", project_id=project)
                self._mine = last.get("recording_id", int, "the recording that was started")
                rows = Rows(out, link, device.id, Streams(self.streams), self._rail(device), before)
                await rows.follow(self._mine, ["mc", "mv", *self.channels])
            finally:
                with trio.move_on_after(LEAVE_S, shield=True):
                    await self._leave(link, device, project)

    async def _find(self, link: Link) -> Device:
        answer = await link.ask("otii_get_devices", FIND_S + 3, timeout=FIND_S)
        listed = answer.data.get("devices") or []
        devices = [
            Device(*(str(one.get(key, "")) for key in ("device_id", "name", "type")))
            for one in listed
            if isinstance(one, dict)
        ]
        fit = [
            one
            for one in devices
            if (self.device in (one.id, one.name) if self.device else one.type in ("Arc", "Ace", "Simulator"))
        ]
        if len(fit) == 1:
            return fit[0]
        there = ", ".join(f"{one.name} ({one.type} {one.id})" for one in devices) or "none"
        wanted = f"a device {self.device!r}" if self.device else "one Arc or Ace"
        raise (DeviceError if fit else Transient)(
            f"{self.address}: expected {wanted}, got {there}; plug it in, or say which with device = '...'"
        )

    async def _free(self, link: Link, project: int) -> None:
        """See that nothing records: not we, left from a connection that broke, nor anybody else."""
        answer = await link.ask("project_get_last_recording", project_id=project)
        last = answer.data.get("recording_id", -1)
        running = await link.try_ask("recording_is_running", recording_id=last) if last != -1 else None
        if running is None or not running.data.get("running"):
            return
        if last != self._mine:
            raise DeviceError(
                f"{self.address}: expected no recording to run, got {answer.data.get('name', last)!r} of somebody else's; "
                "stop it in the Otii application"
            )
        await link.ask("project_stop_recording", project_id=project)

    async def _set_up(self, link: Link, device: Device) -> None:
        least, most = VOLTS.get(device.type, (0.0, math.inf))
        if not least <= self.volts <= most:
            raise DeviceError(
                f"{device.name}: expected {least:g} to {most:g} V, which an {device.type} can give, got {self.volts:g} V"
            )
        await link.try_ask("arc_add_to_project", device_id=device.id)
        if self.max_current is not None:
            await link.ask("arc_set_max_current", device_id=device.id, value=self.max_current)
        if self.hz is not None:
            await link.ask("arc_set_channel_samplerate", device_id=device.id, channel="mc", value=self.hz)
        await self._set_volts(link, device)
        if self.io_volts is not None:
            await link.ask("arc_set_exp_voltage", device_id=device.id, value=self.io_volts)
            await link.ask("arc_enable_exp_port", device_id=device.id, enable=True)
        if "rx" in self.channels:
            await link.ask("arc_set_uart_baudrate", device_id=device.id, value=self.baud)
            await link.ask("arc_enable_uart", device_id=device.id, enable=True)
        for channel in ("mc", "mv", *self.channels):
            await link.ask("arc_enable_channel", device_id=device.id, channel=channel, enable=True)
        if self.power:
            await link.ask("arc_set_main", device_id=device.id, enable=True)

    async def _set_volts(self, link: Link, device: Device) -> None:
        await link.ask("arc_set_main_voltage", device_id=device.id, value=self.volts)
        answer = await link.ask("arc_get_main_voltage", device_id=device.id)
        told = answer.get("value", NUMBER, "the main voltage")
        if abs(told - self.volts) > 0.01:
            raise DeviceError(
                f"{device.name}: expected its main voltage to be {self.volts:g} V, got {told:g} V; "
                "see its manual for what it can give as it is powered"
            )

    async def _leave(self, link: Link, device: Device, project: int) -> None:
        with suppress(DeviceError):  # gone, or stopped already: what ended the recording says so
            await link.ask("project_stop_recording", project_id=project)
            if self.power_off:
                await link.ask("arc_set_main", device_id=device.id, enable=False)

    def _rail(self, device: Device) -> Rail:
        gain = GAINS.get(device.type)
        known = (
            f"{device.type}: +-{gain:.2%} of the current, taken as limits (qoitech.com, 'How accurate is your low current measurement?'); "
            "its zero at high currents and the voltage's error were not at hand"
            if gain is not None
            else f"{device.type}: nothing is known of its accuracy"
        )
        step = STEP_A.get(device.type)
        return Rail(
            self.rail, self.boundary, "gauge", gain=None if gain is None else gain / math.sqrt(3),
            resolution=None if step is None else step * self.volts, full_scale=AMPS * self.volts, instrument="meter", source=known,
        )  # fmt: skip


async def _project(link: Link) -> int:
    """Return the project that is open, or a new one."""
    project: int = (await link.ask("otii_get_active_project")).get("project_id", int, "the project")
    if project == -1:
        project = (await link.ask("otii_create_project")).get("project_id", int, "a new project")
    return project


@asynccontextmanager
async def _licence(link: Link) -> AsyncIterator[None]:
    """Reserve a licence for the time of the body, where the server has one that is free: old ones and some new ones need none.

    Where none is free and one is needed, the command that needs it is refused in those words.
    """
    try:
        answer = await link.try_ask("otii_get_licenses")
    except Refused:
        answer = None
    listed = (answer.data.get("licenses") if answer is not None else None) or []
    free = [
        one.get("id")
        for one in listed
        if isinstance(one, dict)
        and one.get("type") in LICENCES
        and one.get("available")
        and not one.get("reserved_to")
    ]
    if free:
        await link.ask("otii_reserve_license", license_id=free[0])
    try:
        yield
    finally:
        if free:
            with trio.move_on_after(1.0, shield=True):
                with suppress(DeviceError):  # the connection is gone; the server knows what becomes of it
                    await link.ask("otii_return_license", license_id=free[0])


def _health(address: str) -> Health:
    try:
        socket.create_connection(host_and_port(address, USUAL_PORT), timeout=0.5).close()
    except OSError as exc:
        return Health(
            False,
            f"no Otii server at {address}: {exc}",
            "start the Otii application, with its server enabled, or otii_server",
        )
    return Health(True, f"a server listens at {address}; not asked")
