"""Power rails and battery of a phone as its own perfetto tells them: for those whose /sys is closed to the shell."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any

import trio
from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors import _dumpsys
from melt_stream.collectors._dumps import Asking, Stamp, here, on_path
from melt_stream.collectors._gauge import GaugeUnit
from melt_stream.collectors._perfetto import NEWER, config, said
from melt_stream.collectors._perfetto_rows import Rows
from melt_stream.collectors._protobuf import Records
from melt_stream.devices import Channel, Gone, Place
from melt_stream.errors import ConfigError, DataError, DeviceError
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

STATUS_S = 10.0
"""How often the battery service is asked whether the battery discharges."""
SILENCE_S = 15.0
"""The trace is taken for dead after so long without a byte: it is written out each second."""
FAREWELL_S = 5.0
"""What perfetto has to write out the rest when it is asked to stop."""


_TRACE = (
    "0a1c32180a0808061080a8d6b9070a0c080110dbeaafc1a9f5c3f51850010a374080d0acf30ec2022c0a1f08001210565359535f5057525f444953504c4159"
    "1a07446973706c6179207d1209080010a01f1880897a50010a1b4080d0acf30eb2021018c7a5e0ffffffffffff013890feea0150020a174080e497d012c202"
    "0c120a080010882718a0cb980150010a1b4080e497d012b2021018c7a5e0ffffffffffff013890feea015002"
)
"""An example: the clocks, then a rail and the battery twice."""


@dataclass
class PerfettoPower:
    """Traces ``android.power``: each rail's counter of uJ, and the fuel gauge, on the phone's CLOCK_BOOTTIME.

    One endless trace, written out each second into a pipe, so that there are no holes between traces. Raises
    ``DeviceError`` where the phone has no perfetto, or it refuses; ``Gone`` where the link ends.
    """

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(10)] = 4.0
    """Polls a second; perfetto makes at most 10."""
    rails: bool = True
    """Trace the power rails (Pixel 6 and later, and what else has such a chip)."""
    battery: bool = True
    """Trace the fuel gauge."""
    unit: GaugeUnit = "auto"
    """Whether the gauge counts uA (Android's rule) or mA."""
    ignore_plugged: bool = False
    """True where the phone says that it is plugged in though it is not, so that its status alone decides."""
    command: tuple[str, ...] = ("perfetto",)
    dumpsys: tuple[str, ...] = ("dumpsys",)
    """What tells whether the battery discharges."""
    optional: bool = False
    """True where its failure does not end the run."""
    place: Place = field(default_factory=here, init=False)
    streams: tuple[Stream, ...] = field(default=(), init=False, repr=False)
    """Those that it fills, once it runs."""

    def __post_init__(self) -> None:
        if not (self.rails or self.battery):
            raise ConfigError("expected rails or battery to be true, got neither")

    def on(self, place: Place) -> PerfettoPower:
        """The same, of the phone at ``place``."""
        made = replace(self)
        made.place = place
        return made

    def check(self) -> Health:
        """Say whether the program is here, on the phone itself."""
        return on_path(self.command[0])

    @staticmethod
    def example() -> dict[str, Any]:
        octal = "".join(f"\\0{byte:03o}" for byte in bytes.fromhex(_TRACE))
        battery = "Current Battery Service state:\n  USB powered: false\n  status: 3\n  level: 83\n  voltage: 4052\n"
        trace = ["sh", "-c", f"printf %b '{octal}'; exec sleep 60"]
        return {"kind": "plain", "config": {"command": trace, "dumpsys": ["printf", "%s# %s", battery]}}

    async def collect(self, out: Outlet) -> None:
        told = _Told()
        async with trio.open_nursery() as nursery:
            asking = Asking(self.dumpsys, "battery", STATUS_S)
            nursery.start_soon(asking.tell, self.place, out, (), _dumpsys.battery, told.take)
            await told.first.wait()
            assert told.service is not None
            rows = told.rows = Rows(
                out, self.hz, self.unit, self.ignore_plugged, self.place.clock, told.epoch, told.service
            )
            self.streams = rows.rails, rows.battery
            try:
                await self._trace(rows)
            finally:
                for name, value in rows.facts().items():
                    out.fact(name, value)

    async def _trace(self, rows: Rows) -> None:
        """Trace until cancelled; a perfetto that does not know our newest words is asked without them."""
        words = set(NEWER)
        while True:
            text = config(round(1000 / self.hz), rails=self.rails, battery=self.battery, words=words)
            command = [*self.command, "--txt", "-c", "-", "-o", "-"]
            async with self.place.output(command, text) as channel:
                packets = await self._listen(channel, rows)
                status, complaint = await channel.status(), channel.complaints()
            unknown = {word for word in words if word in complaint}
            if packets or not unknown:
                raise self._ended(packets, status, complaint)
            words -= unknown

    async def _listen(self, channel: Channel, rows: Rows) -> int:
        """Take what the trace says until it ends; cancelled, ask it to stop, and take the rest. Return its packets."""
        trace = _Trace(self.place.device.name, rows)
        try:
            while data := await self._next(channel):
                trace.take(data)
        except trio.Cancelled:
            with trio.move_on_after(FAREWELL_S, shield=True):
                await channel.close_stdin()
                while data := await channel.receive():
                    trace.take(data)
            raise
        return trace.packets

    async def _next(self, channel: Channel) -> bytes:
        with trio.move_on_after(SILENCE_S):
            return await channel.receive()
        raise Gone(f"{self.place.device.name}: expected perfetto's trace, got nothing for {SILENCE_S:g} s")

    def _ended(self, packets: int, status: int, complaint: str) -> DeviceError:
        kind = Gone if packets else DeviceError
        return kind(
            f"{self.place.device.name}: expected perfetto to trace until it is stopped, got its end after {packets} packets "
            f"(exit status {status}): {complaint[-300:] or 'it wrote nothing to stderr'}; try: Android 10 or later, "
            "adb shell setprop persist.traced.enable 1"
        )


@dataclass
class _Told:
    """What the battery service said, for those who make rows of it."""

    first: trio.Event = field(default_factory=trio.Event)
    service: _dumpsys.Battery | None = None
    epoch: int = 0
    rows: Rows | None = None

    def take(self, said: _dumpsys.Battery, stamp: Stamp) -> None:
        self.service, self.epoch = said, stamp["epoch"]
        if self.rows is not None:
            self.rows.service = said
        self.first.set()


@dataclass
class _Trace:
    """A trace's bytes, as rows."""

    device: str
    rows: Rows
    packets: int = 0
    records: Records = field(default_factory=Records)

    def take(self, data: bytes) -> None:
        try:
            for packet in self.records.feed(data):
                self.packets += 1
                for each in said(packet):
                    self.rows.take(each)
        except DataError as exc:
            raise DeviceError(
                f"{self.device}: expected a trace of perfetto, got, in packet {self.packets}: {exc}"
            ) from exc
