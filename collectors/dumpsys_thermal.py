"""What Android's thermal service says: temperatures and throttling, where /sys is closed to the shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._dumps import Asked, Asking, Stamp, on_path
from melt_stream.collectors._dumpsys import LEVELS, Thermal, thermal
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS


@dataclass
class DumpsysThermal(Asked):
    """``dumpsys thermalservice``, at most once a second: each takes the phone 10 to 50 ms.

    Raises ``DeviceError`` where the first answer is none of that service's, ``Transient`` where ten in a row are none.
    """

    command: tuple[str, ...] = ("dumpsys",)
    """What is run, with the service's name after it."""

    def check(self) -> Health:
        """Say whether the program is here, on the phone itself."""
        return on_path(self.command[0])

    @staticmethod
    def example() -> dict[str, Any]:
        text = (
            "Thermal Status: 1\nCurrent temperatures from HAL:\n"
            "\tTemperature{mValue=41.2, mType=0, mName=BIG, mStatus=0}\n"
            "\tTemperature{mValue=36.5, mType=3, mName=VIRTUAL-SKIN, mStatus=1}\n"
        )
        return {"kind": "plain", "config": {"command": ["printf", "%s# %s", text]}}

    async def collect(self, out: Outlet) -> None:
        clock, period_ns = self.place.clock, 1e9 / self.hz
        zones = Stream("thermal", clock=clock, zone=str, celsius=CELSIUS, part=str, throttles=int)
        levels = Stream("throttling", clock=clock, level=int, name=str)
        self.streams = zones, levels = zones.as_polled(period_ns), levels.as_polled(period_ns)

        def take(said: Thermal, stamp: Stamp) -> None:
            for zone in said.temperatures:
                out.row(
                    zones, zone=zone.name, celsius=zone.celsius, part=zone.kind, throttles=zone.status, **stamp,
                )  # fmt: skip
            if said.status is not None:
                name = LEVELS[said.status] if said.status < len(LEVELS) else None
                out.row(levels, level=said.status, name=name, **stamp)

        await Asking(self.command, "thermalservice", 1 / self.hz).tell(
            self.place, out, (zones, levels), thermal, take
        )
