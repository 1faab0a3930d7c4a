"""What Android's battery service says: charge, voltage and temperature, where /sys is closed to the shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._dumps import Asked, Asking, Stamp, on_path
from melt_stream.collectors._dumpsys import Battery, battery, charge_scale
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, PERCENT, Unit, V

RAIL = Rail(
    "battery", "battery", "counter", instrument="gauge", source="fuel gauge; nothing is published of its accuracy"
)  # fmt: skip


@dataclass
class DumpsysBattery(Asked):
    """``dumpsys battery``, at most once a second: the charge that is left, counted down, with the battery's voltage.

    While the battery is not discharging, or a charger is plugged in, its charge says nothing of the load: ``charge`` is null
    then, and ``reported`` keeps the number. There is no current in it. Raises ``DeviceError`` where the first answer is none of that
    service's, ``Transient`` where ten in a row are none.
    """

    command: tuple[str, ...] = ("dumpsys",)
    """What is run, with the service's name after it."""
    energy: bool = False
    """Count the charge as energy, a rail of its own: for runs of many minutes, since its steps are 10 J or so."""
    _scale: float | None = field(default=None, init=False, repr=False)

    def check(self) -> Health:
        """Say whether the program is here, on the phone itself."""
        return on_path(self.command[0])

    @staticmethod
    def example() -> dict[str, Any]:
        text = (
            "Current Battery Service state:\n  AC powered: false\n  USB powered: false\n  Charge counter: 3270000\n  status: 3\n"
            "  level: 83\n  scale: 100\n  voltage: 4052\n  temperature: 274\n"
        )
        return {"kind": "plain", "config": {"command": ["printf", "%s# %s", text]}}

    async def collect(self, out: Outlet) -> None:
        stream = Stream(
            "battery_service", clock=self.place.clock, rail=str, status=str, plugged=bool, charge=Unit("mA.h"), volts=V,
            capacity=PERCENT, celsius=CELSIUS, reported=int,
        ).as_polled(1e9 / self.hz)  # fmt: skip
        self.streams = (stream,)
        if self.energy:
            out.rail(stream, RAIL)

        def take(said: Battery, stamp: Stamp) -> None:
            if said.charge is not None and self._scale is None:
                self._scale = charge_scale(said.charge, said.percent)
                unit = "mA.h" if self._scale == 1 else "uA.h"
                out.fact("charge_counter", {"unit": unit, "decided": "by what a full battery would hold"})
            out.row(
                stream, rail=RAIL.name, status=said.status, plugged=said.plugged, charge=self._charge(said), volts=said.volts,
                capacity=said.percent, celsius=said.celsius, reported=said.charge, **stamp,
            )  # fmt: skip

        await Asking(self.command, "battery", 1 / self.hz).tell(self.place, out, (stream,), battery, take)

    def _charge(self, said: Battery) -> float | None:
        if said.charge is None or self._scale is None or said.status != "Discharging" or said.plugged:
            return None
        return said.charge * self._scale
